// Softmax and its logarithm along one axis.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// exp(x) / sum(exp(x)) along the axis, from x minus its maximum, so that no exponential overflows. Floating only, and
// over at least one element. -inf gets 0 beside anything finite; where all are -inf, or one is inf or NaN, all are NaN
// (PyTorch's rule).
Value softmax(Value x, std::int64_t axis = -1, Location at = Location::here());
// log(softmax(x)) without taking the logarithm of a rounded 0: x - max - log(sum(exp(x - max))). -inf of -inf beside
// anything finite; NaN where softmax is.
Value log_softmax(Value x, std::int64_t axis = -1, Location at = Location::here());

}  // namespace chainrule
