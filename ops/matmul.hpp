// Matrix products.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// numpy.matmul: {m, k} x {k, n} -> {m, n}; leading dimensions are batches and broadcast against each other; a vector
// on the left is a row, on the right a column, and its axis is dropped from the result. One floating dtype.
// Throws Error where the inner extents differ. (A transpose of an operand costs nothing: a pass folds it in.)
Value matmul(Value a, Value b, Location at = Location::here());

}  // namespace chainrule
