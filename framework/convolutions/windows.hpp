// What the taps of a convolution read, and what their transposes add to. Not installed.
//
// For the kernels neighbouring outputs should have neighbouring inputs, over the ends of rows, whatever the stride. So
// a channel is copied once for each tap along the columns: copy s holds, row after row, just the inputs that tap s has
// for the outputs of a row. Rows with the same remainder by the stride follow each other. Then the inputs of a tap
// (t, r, s), for all outputs in row-major order, are one run of elements that begins at offset(t, r, s). (One of 3
// copies is less than what an unfolded image has, one of 9, and less than what the products take.)
#pragma once

#include <cstdint>
#include <vector>

#include <chainrule/framework/convolutions/geometry.hpp>

namespace chainrule::convolutions {

// The rows of a strip, by their remainder by the stride.
class RowPhases {
 public:
  explicit RowPhases(const Axis& rows);
  // The phase of a tap's rows, or of a remainder: none is -1.
  [[nodiscard]] std::int64_t of_tap(std::int64_t tap) const { return of_remainder(remainder(tap)); }
  [[nodiscard]] std::int64_t of_remainder(std::int64_t r) const { return phases_[static_cast<std::size_t>(r)]; }
  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(remainders_.size()); }
  [[nodiscard]] std::int64_t remainder_of(std::int64_t phase) const {
    return remainders_[static_cast<std::size_t>(phase)];
  }
  // By how many rows of its phase a tap's row is behind that of the output.
  [[nodiscard]] std::int64_t lag(std::int64_t tap) const { return tap * axis_.dilation / axis_.stride; }

 private:
  [[nodiscard]] std::int64_t remainder(std::int64_t tap) const { return tap * axis_.dilation % axis_.stride; }
  Axis axis_;
  std::vector<std::int64_t> phases_;      // by remainder
  std::vector<std::int64_t> remainders_;  // by phase
};

// Copies of a channel for strips of at most so many rows of outputs, each of at most so many columns.
class Windows {
 public:
  Windows(const Geometry& geometry, std::int64_t rows, std::int64_t columns);

  [[nodiscard]] std::int64_t size() const { return geometry_.planes().taps * plane_; }  // elements of a channel
  [[nodiscard]] std::int64_t offset(std::int64_t t, std::int64_t r, std::int64_t s) const;
  // The windows of the outputs of plane `plane`, these rows and columns, in one channel of one image.
  template <class T>
  void fill(const T* channel, std::int64_t plane, Range rows, Range columns, T* to) const;

 private:
  struct Phase {
    std::int64_t begin = 0;  // its first row in a copy
    std::int64_t least = 0;  // lag of its taps
    std::int64_t greatest = 0;
  };
  Geometry geometry_;
  RowPhases row_phases_;
  std::int64_t columns_;
  std::vector<Phase> phases_;
  std::int64_t copy_ = 0;   // elements of one copy
  std::int64_t plane_ = 0;  // of all
};

// The reverse for the transposed convolution: what each output adds to its taps is added in copies of a channel, for
// strips of inputs; and then the copies are added up.
class Spread {
 public:
  // Of at most so many rows of inputs, with at most so many columns of outputs.
  Spread(const Geometry& geometry, std::int64_t rows, std::int64_t columns);

  [[nodiscard]] std::int64_t size() const { return geometry_.columns().taps * copy_; }
  [[nodiscard]] std::int64_t copy() const { return copy_; }
  // The rows of outputs whose tap r lies in these rows of inputs, ...
  [[nodiscard]] Range outputs(std::int64_t r, Range inputs) const;
  // ... and where in a copy the first of them is added.
  [[nodiscard]] std::int64_t place(std::int64_t r, Range inputs) const;
  // The sum of the copies of a channel of these inputs. `columns`: of the outputs that were added.
  template <class T>
  void collect(const T* copies, Range rows, Range inputs, Range columns, T* plane) const;

 private:
  [[nodiscard]] std::int64_t first(std::int64_t phase, Range inputs) const;
  Geometry geometry_;
  RowPhases phases_;
  std::int64_t columns_;
  std::int64_t phase_rows_;
  std::int64_t copy_;
};

}  // namespace chainrule::convolutions
