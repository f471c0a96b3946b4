// What normalizations are made of: the statistics of parts of an array, and the sums of their gradients. Not installed.
//
// The axes [first, last) of x are those of the parts, and each part is taken by itself, over all other axes. Results
// have x's shape with these others as 1s.
#pragma once

#include <chainrule/ops/reduce.hpp>

namespace chainrule::detail {

// Mean and biased variance. NaN of nothing.
Moments statistics(Value x, std::size_t first, std::size_t last);

// sum(w dy) and sum(w dy (x - center)): how a scalar with the slopes w dy moves with x's offset and scale. Without w
// (an empty Value) it is 1; with it first must be 0, and w has the shape of the axes from `last` on.
struct CenteredSums {
  Value plain;
  Value centered;
};
CenteredSums centered_sums(Value x, Value dy, Value center, Value w, std::size_t first, std::size_t last);

}  // namespace chainrule::detail
