// Softmax and its logarithm along one axis.
#pragma once

#include <chainrule/framework/graph.hpp>

namespace chainrule {

// exp(x) / sum(exp(x)) along the axis, from x minus its maximum, so that no exponential overflows. Floating only.
Value softmax(Value x, std::int64_t axis = -1, Location at = Location::here());
// log(softmax(x)) without taking the logarithm of a rounded 0: x - max - log(sum(exp(x - max))).
Value log_softmax(Value x, std::int64_t axis = -1, Location at = Location::here());

}  // namespace chainrule
