// Elements by their indices.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// numpy.take_along_axis: element (..., i, ...) is x's at (..., indices(..., i, ...), ...), with i on the axis. indices
// is int64, int32 or uint8, of x's rank; but for the axis the extents of both are equal, or 1 and broadcast. A negative
// index counts from the end. Throws Error where they do not fit; and in a run, before anything is written to the State,
// for an index out of range.
Value take_along_axis(Value x, Value indices, std::int64_t axis, Location at = Location::here());

// The reverse, where elements are added: zeros with `extent` on the axis, and then each element of x added at its
// index. Those that meet are added in the order of x. x and indices of one shape; indices and errors as above.
Value scatter_add_along_axis(Value x, Value indices, Dimension extent, std::int64_t axis,
                             Location at = Location::here());

}  // namespace chainrule
