// Reverse-mode automatic differentiation: from a graph to more nodes of the same graph.
#pragma once

#include <cstdint>
#include <string_view>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// What gradients() does where y depends on an x, but only through ops that have no derivative: comparisons, argmax,
// conversions to int64 or bool, ops without a gradient rule. What is made of the gradient of 0 so is zeros in any case:
// stop_gradient, and ops whose rule says that they are flat (floor, sign).
enum class NoDerivative : std::uint8_t {
  error,  // names the first of these ops
  zeros,
};

// d y / d x for each x of `xs`, as nodes appended to the graph: the gradient of a scalar y, of the shape of x. x may be
// any floating value, not only a parameter. Where y does not depend on x it is zeros. The results are values like any
// other, so they can be used in y's of further calls (derivatives of any order; comparisons that gradient rules made of
// kinks are flat there).
// One pass over the nodes, in time linear in their number and without recursion (Griewank and Walther, "Evaluating
// Derivatives", reverse mode). Throws Error when y is not a scalar (sum it, or give the cotangent), when y or an x is
// not floating or of another graph, when an op on the way has no gradient rule or one that returns what is no gradient
// of its inputs, or when y depends on an x through ops without a derivative only.
Values gradients(Value y, const Values& xs, Location at = Location::here());
Values gradients(Value y, const Values& xs, NoDerivative otherwise, Location at = Location::here());

// The vector-Jacobian product: the gradient of sum(y * cotangent), for a y of any shape.
Values gradients(Value y, const Values& xs, Value cotangent, Location at = Location::here());
Values gradients(Value y, const Values& xs, Value cotangent, NoDerivative otherwise, Location at = Location::here());

namespace detail {

// The gradients by which an optimizer of this name trains parameters: zeros for one that does not move the loss, but an
// Error where that is all of them, for want of a way to a parameter or of a derivative on it.
Values training_gradients(Value loss, const Values& parameters, std::string_view optimizer, Location at);

// Sums `value` over what broadcasting added or stretched, so that it has this shape.
Value sum_to_shape(Value value, const Shape& shape);

}  // namespace detail

}  // namespace chainrule
