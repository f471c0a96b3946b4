// Elements and rows by their indices.
//
// Indices are int64, int32 or uint8. A negative one counts from the end; one out of range throws Error in a run, before
// anything is written to the State, which names it, its place and the range. What is added at one index is added in the
// order of the indices, so that results have the same bits for every number of threads.
#pragma once

#include <cstdint>
#include <optional>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// ---- rows

// numpy.take: x's parts at these indices of an axis, in place of which the result has the axes of the indices:
//   take(x, i, 1)(a, j, k, b) = x(a, i(j, k), b)
// x of any dtype. Its slope is added up where an index is repeated.
Value take(Value x, Value indices, std::int64_t axis, Location at = Location::here());

// The reverse: x with updates added at these indices of an axis (torch.index_add). updates: of x's floating dtype and
// the shape of take(x, indices, axis).
Value scatter_add(Value x, Value indices, Value updates, std::int64_t axis, Location at = Location::here());

struct EmbeddingOptions {
  std::optional<std::int64_t> padding_idx = {};  // the row that learns nothing
};
// Rows of a table {rows, ...}: take(table, indices, 0). The row padding_idx, from 0 or from the end, is taken as it is
// and gets no gradient (torch.nn.Embedding). Throws Error for one beyond rows that are a number.
Value embedding(Value table, Value indices, const EmbeddingOptions& options = {}, Location at = Location::here());

// The sums of x's rows, the parts along its first axis, that are of one segment: segments {rows} are indices below
// `count`, in any order; a segment without rows is 0. {count, ...}, floating.
Value segment_sum(Value x, Value segments, Dimension count, Location at = Location::here());

// 1 at the class index along a new axis, 0 elsewhere, of any dtype (in bool true and false). A run with an index out of
// range (here a negative one is) throws Error.
Value one_hot(Value indices, Dimension classes, DType dtype, std::int64_t axis = -1, Location at = Location::here());

// x, but `value` where the mask is true (torch.masked_fill). mask: bool, of a shape that broadcasts to x's. Slope 0
// there.
Value masked_fill(Value x, Value mask, Operand value, Location at = Location::here());

// ---- elements along an axis

// numpy.take_along_axis: element (..., i, ...) is x's at (..., indices(..., i, ...), ...), with i on the axis. indices
// has x's rank; but for the axis the extents of both are equal, or 1 and broadcast. Throws Error where they do not fit.
Value take_along_axis(Value x, Value indices, std::int64_t axis, Location at = Location::here());

// The reverse: x with updates at these indices of an axis, put there (numpy.put_along_axis), added, or where they are
// greater or less (torch.scatter_reduce, with x included). indices has x's rank; indices and updates broadcast to x's
// shape, but for the axis, on which they broadcast to each other.
//   put  of several at one index the last stays; it alone has a slope
//   add  floating or int64
//   max  NaN if any is NaN; x's element and the updates that are the greatest share the slope equally (and so min)
enum class Scatter : std::uint8_t { put, add, max, min };
Value scatter_along_axis(Value x, Value indices, Operand updates, std::int64_t axis, Scatter how = Scatter::put,
                         Location at = Location::here());

// Zeros with `extent` on the axis, and each element of x added at its index. x and indices of one shape.
Value scatter_add_along_axis(Value x, Value indices, Dimension extent, std::int64_t axis,
                             Location at = Location::here());

}  // namespace chainrule
