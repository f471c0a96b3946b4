// What moves elements and computes nothing. Sizes may be named wherever an extent need not be a number; where one must
// be, that is said. Shapes, axes and parts that do not fit throw Error.
#pragma once

#include <array>
#include <concepts>
#include <optional>
#include <vector>

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

// For several axes at once, from the first on; axes without one stay whole. A position takes its axis away.
//   x[0, 1:3]      slice(x, {0, range(1, 3)})
//   x[:, ::-1, 5:] slice(x, {range(), range({}, {}, -1), range(5, {})})
// A position counts from the end where it is negative; out of range it throws Error, of a named extent in a run.
inline Slice range(std::optional<std::int64_t> start = std::nullopt, std::optional<std::int64_t> stop = std::nullopt,
                   std::int64_t step = 1) {
  return {start, stop, step};
}
class Index {
 public:
  template <std::integral I>
  Index(I position) : range_{static_cast<std::int64_t>(position)}, position_(true) {}
  Index(Slice range) : range_(range) {}
  [[nodiscard]] bool is_position() const { return position_; }
  [[nodiscard]] std::int64_t position() const { return *range_.start; }
  [[nodiscard]] const Slice& range() const { return range_; }

 private:
  Slice range_;
  bool position_ = false;
};
Value slice(Value x, const std::vector<Index>& indices, Location at = Location::here());

// x with other elements in that place: NumPy's x[indices] = update, as a new value. The update broadcasts to the
// slice's shape and has x's dtype. x's slope is 0 there.
Value slice_update(Value x, const std::vector<Index>& indices, Value update, Location at = Location::here());

// x with more elements before and after, a pair of numbers for each axis (numpy.pad): of one number; mirrored without
// the edge; the edge again; or from the other end. Mirrored parts must be shorter than x, those from the other end not
// longer.
enum class PadMode : std::uint8_t { constant, reflect, replicate, circular };
using PadWidths = std::vector<std::array<std::int64_t, 2>>;
Value pad(Value x, const PadWidths& widths, PadMode mode = PadMode::constant, Number value = 0,
          Location at = Location::here());

// Along a new axis; all of one shape. And the parts of x along an axis, which is a number, without that axis.
Value stack(const Values& parts, std::int64_t axis = 0, Location at = Location::here());
Values unstack(Value x, std::int64_t axis = 0, Location at = Location::here());
// x cut into this many parts, of which all but the last are equal; fewer where that takes up x (torch.chunk).
Values chunk(Value x, std::int64_t parts, std::int64_t axis = 0, Location at = Location::here());

// Without axes of extent 1: all that are known to have it, or these, which must.
Value squeeze(Value x, const Axes& axes = {}, Location at = Location::here());
Value expand_dims(Value x, std::int64_t axis, Location at = Location::here());  // with one, at this place of the result
// The axes from first to last as one.
Value flatten(Value x, std::int64_t first = 0, std::int64_t last = -1, Location at = Location::here());
Value swapaxes(Value x, std::int64_t a, std::int64_t b, Location at = Location::here());

// numpy.tile: x so many times along each of its last axes, beyond its rank along new ones.
Value tile(Value x, const Axes& times, Location at = Location::here());
// numpy.repeat: each element so many times along an axis.
Value repeat(Value x, std::int64_t times, std::int64_t axis, Location at = Location::here());
// In the reverse order along these axes, or all. (A named extent must not be 0.)
Value flip(Value x, const Axes& axes = {}, Location at = Location::here());
// numpy.roll: elements moved on by `shift` places along an axis, round the end. Of a named extent, by at most that.
Value roll(Value x, std::int64_t shift, std::int64_t axis, Location at = Location::here());

// 0, 1, 2, ...: `size` numbers. And rows x columns, 1 where the column is the row plus offset, else 0.
Value iota(Graph graph, Dimension size, DType dtype = int64, Location at = Location::here());
Value eye(Graph graph, Dimension rows, Dimension columns, DType dtype, std::int64_t offset = 0,
          Location at = Location::here());
// x's last two axes as matrices: those elements whose column is at most (tril) or at least (triu) their row plus
// offset, 0 elsewhere. And the elements of that diagonal, of extents that are numbers.
Value tril(Value x, std::int64_t offset = 0, Location at = Location::here());
Value triu(Value x, std::int64_t offset = 0, Location at = Location::here());
Value diagonal(Value x, std::int64_t offset = 0, Location at = Location::here());

namespace detail {

// a + b, two contributions to the gradient of one value. What comes from a slice is added to the other at its place: so
// the gradients of all slices of an array are collected in one array, and take time in proportion to what they hold.
Value add_contributions(Value a, Value b);

// The attributes of op slice for a Slice of this axis, which is below x's rank. Throws the Errors of slice(), as op's.
Attributes slice_attributes_of(Value x, std::size_t axis, const Slice& range, std::string_view op, Location at);

}  // namespace detail

}  // namespace chainrule
