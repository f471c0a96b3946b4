// Ops that move elements and compute nothing: reshape, transpose, broadcast_to, concat, slice.
#pragma once

#include <optional>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// The same elements in row-major order under another shape of the same count; one extent may be -1, "whatever fits".
Value reshape(Value x, const Shape& shape, Location at = Location::here());

// The axes in another order: output axis i is input axis permutation[i]. Without a permutation all are reversed.
Value transpose(Value x, const Axes& permutation = {}, Location at = Location::here());

// x read as a larger shape by NumPy's broadcasting rule.
Value broadcast_to(Value x, const Shape& shape, Location at = Location::here());

// Joined along an axis; the other extents must agree.
Value concat(const Values& parts, std::int64_t axis, Location at = Location::here());

// numpy.split: x cut along an axis into equal parts, or into parts of these extents, which add up to x's. The axis is a
// number; parts that nobody reads are not made. Throws Error for extents that do not fit.
Values split(Value x, std::int64_t parts, std::int64_t axis = 0, Location at = Location::here());
Values split(Value x, const Axes& extents, std::int64_t axis = 0, Location at = Location::here());

// Elements start, start + step, ... before stop, along one axis, as Python's x[start:stop:step]: negative positions
// count from the end, positions out of range are cut, a negative step goes backwards. A symbolic extent can be
// sliced with start >= 0, no stop or a negative one, and step 1.
struct Slice {
  std::optional<std::int64_t> start = std::nullopt;
  std::optional<std::int64_t> stop = std::nullopt;
  std::int64_t step = 1;
};
Value slice(Value x, std::int64_t axis, Slice range, Location at = Location::here());

namespace detail {

// a + b, two contributions to the gradient of one value. What comes from a slice is added to the other at its place: so
// the gradients of all slices of an array are collected in one array, and take time in proportion to what they hold.
Value add_contributions(Value a, Value b);

}  // namespace detail

}  // namespace chainrule
