// What rounding does to a function's values, found by experiment. Not installed.
#pragma once

#include <cstdint>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule::check {

// The same values computed anew, where what each op gives is off by up to `by` of itself: each element by its own
// random number, which follows from `seed`. Leaves, and what ops only pass on, are what they are. (Monte Carlo
// arithmetic: D.S. Parker, 1997. What becomes of the values is first order in `by`, so a rounding error's share is seen
// with a much larger one.)
Values disturbed(const Values& values, double by, std::int64_t seed);

}  // namespace chainrule::check
