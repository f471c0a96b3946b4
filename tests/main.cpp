// The main function of the test programs where Catch2 2 was built without its own (CMakeLists.txt).
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
