// What normalizations are made of: the statistics of parts of an array, and the sums of their gradients. Not installed.
//
// The axes [first, last) of x are those of the parts, and each part is taken by itself, over all other axes. Results
// have x's shape with these others as 1s.
#pragma once

#include <chainrule/ops/reduce.hpp>

namespace chainrule::detail {

// Mean and biased variance. NaN of nothing.
Moments statistics(Value x, std::size_t first, std::size_t last);

// sum(dy) and sum(dy (x - center)): how a scalar with the slopes dy moves with x's offset and scale.
struct CenteredSums {
  Value plain;
  Value centered;
};
CenteredSums centered_sums(Value x, Value dy, Value center, std::size_t first, std::size_t last);

}  // namespace chainrule::detail
