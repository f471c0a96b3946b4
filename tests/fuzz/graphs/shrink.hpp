// A failing recipe made small: outputs and updates left out, nodes replaced by inputs or by what they read, sizes
// lowered, symbols made numbers, as long as it fails in the same way.
#pragma once

#include <functional>

#include "recipe.hpp"

namespace chainrule::fuzz {

// `fails` is asked about each candidate, `most` at the most.
Recipe shrink(const Recipe& recipe, const std::function<bool(const Recipe&)>& fails, int most);

}  // namespace chainrule::fuzz
