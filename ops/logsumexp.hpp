// Logarithms of sums of exponentials.
#pragma once

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule {

// log(sum(exp(x))) over axes, all without any, from x minus its maximum, so that no exponential overflows; with
// keepdims these axes stay with extent 1. Its slope is softmax(x). Where all elements are -inf it is -inf, with slope
// 0; where one is inf it is inf, and the slope of that one NaN. Floating only; of nothing: Error.
Value logsumexp(Value x, const AxisList& axes = {}, bool keepdims = false, Location at = Location::here());

// log(exp(a) + exp(b)) elementwise with broadcasting (numpy.logaddexp), without overflow. Its slopes are sigmoid(a - b)
// and sigmoid(b - a): half each where both are equal, infinities included. Floating only.
Value logaddexp(Operand a, Operand b);

}  // namespace chainrule
