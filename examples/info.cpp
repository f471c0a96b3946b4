// Which library this is, and which instructions, products and threads it runs with.
#include <chainrule/chainrule.hpp>

#include <fmt/core.h>

namespace cr = chainrule;

int main() { fmt::print("{}\n", cr::build_info()); }
