// A recipe as a short C++ program that anyone can compile against the library.
#pragma once

#include <string>

#include "recipe.hpp"

namespace chainrule::fuzz {

std::string to_cpp(const Recipe& recipe);

}  // namespace chainrule::fuzz
