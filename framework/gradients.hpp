// Reverse-mode automatic differentiation: from a graph to more nodes of the same graph.
#pragma once

#include <chainrule/framework/graph.hpp>

namespace chainrule {

// d y / d x for each x of `xs`, as nodes appended to the graph: the gradient of a scalar y, of the shape of x. x may be
// any floating value, not only a parameter. Where y does not depend on x it is zeros. The results are values like any
// other, so they can be used in y's of further calls (derivatives of any order).
// One pass over the nodes, in time linear in their number and without recursion (Griewank and Walther, "Evaluating
// Derivatives", reverse mode). Throws Error when y is not a scalar (sum it, or give the cotangent), when y or an x is
// not floating or of another graph, or when an op on the way has no gradient rule.
Values gradients(Value y, const Values& xs, Location at = Location::here());

// The vector-Jacobian product: the gradient of sum(y * cotangent), for a y of any shape.
Values gradients(Value y, const Values& xs, Value cotangent, Location at = Location::here());

namespace detail {

// Sums `value` over what broadcasting added or stretched, so that it has this shape.
Value sum_to_shape(Value value, const Shape& shape);

}  // namespace detail

}  // namespace chainrule
