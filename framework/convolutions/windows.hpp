// What the taps of a convolution read, and what their transposes add to. Not installed.
//
// For the kernels neighbouring outputs should have neighbouring inputs, whatever the stride. So channels are copied:
// rows with the same remainder by the stride follow each other, and so do columns with the same remainder, with zeros
// where there is padding. The inputs of a tap (t, r, s) begin at offset(t, r, s), and those of an output in row o and
// column q lie o * line() + q farther.
//
// Where rows of outputs are no whole segments of 32 bytes (kernels::Segments), they should follow each other over the
// ends of rows as well. Then a channel is copied once for each tap along the columns: copy s holds, row after row, just
// the inputs that tap s has for the outputs of a row, and a line is as long as that. (One of 3 copies is less than what
// an unfolded image has, one of 9, and less than what the products take.)
#pragma once

#include <cstdint>
#include <vector>

#include <chainrule/framework/convolutions/geometry.hpp>

namespace chainrule::convolutions {

// The inputs of taps along an axis, by their remainder by the stride.
class Phases {
 public:
  explicit Phases(const Axis& axis);
  // The phase of a tap's inputs, or of a remainder: none is -1.
  [[nodiscard]] std::int64_t of_tap(std::int64_t tap) const { return of_remainder(remainder(tap)); }
  [[nodiscard]] std::int64_t of_remainder(std::int64_t r) const { return phases_[static_cast<std::size_t>(r)]; }
  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(remainders_.size()); }
  [[nodiscard]] std::int64_t remainder_of(std::int64_t phase) const {
    return remainders_[static_cast<std::size_t>(phase)];
  }
  // By how many inputs of its phase a tap's input is behind that of the output, ...
  [[nodiscard]] std::int64_t lag(std::int64_t tap) const { return tap * axis_.dilation / axis_.stride; }
  // ... for the first and last tap of a phase.
  [[nodiscard]] std::int64_t least(std::int64_t phase) const { return least_[static_cast<std::size_t>(phase)]; }
  [[nodiscard]] std::int64_t greatest(std::int64_t phase) const { return greatest_[static_cast<std::size_t>(phase)]; }

 private:
  [[nodiscard]] std::int64_t remainder(std::int64_t tap) const { return tap * axis_.dilation % axis_.stride; }
  Axis axis_;
  std::vector<std::int64_t> phases_;      // by remainder
  std::vector<std::int64_t> remainders_;  // by phase
  std::vector<std::int64_t> least_;
  std::vector<std::int64_t> greatest_;
};

// Copies of channels for strips of at most so many rows of outputs, each of at most so many columns.
class Windows {
 public:
  // `segment`: elements in 32 bytes.
  Windows(const Geometry& geometry, std::int64_t rows, std::int64_t columns, std::int64_t segment);

  [[nodiscard]] std::int64_t size() const { return geometry_.planes().taps * plane_; }  // elements of a channel
  [[nodiscard]] std::int64_t offset(std::int64_t t, std::int64_t r, std::int64_t s) const;
  [[nodiscard]] std::int64_t line() const { return line_; }
  [[nodiscard]] bool in_segments() const { return in_segments_; }
  // How many copies of a channel's rows there are.
  [[nodiscard]] std::int64_t copies() const { return static_cast<std::int64_t>(copies_.size()); }
  // The windows of the outputs of plane `plane`, these rows and columns, in so many channels of one image.
  template <class T>
  void fill(const T* x, std::int64_t channels, std::int64_t plane, Range rows, Range columns, T* to) const;

 private:
  struct Copy {
    std::int64_t shift;  // column 0 is input `shift` - before of the first output
    std::int64_t more;   // columns than there are of outputs
  };
  [[nodiscard]] std::int64_t copy_of(std::int64_t s) const { return in_segments_ ? column_phases_.of_tap(s) : s; }
  Geometry geometry_;
  Phases row_phases_;
  Phases column_phases_;
  bool in_segments_;
  std::vector<Copy> copies_;
  std::vector<std::int64_t> begin_;  // of a phase of rows: its first row in a copy
  std::int64_t line_ = 0;
  std::int64_t copy_ = 0;   // elements of one copy
  std::int64_t plane_ = 0;  // of all
};

// Where the segments of so many rows of outputs begin, which are `line` elements apart.
std::vector<std::int64_t> segments_of(std::int64_t rows, std::int64_t columns, std::int64_t line, std::int64_t segment);

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
  Phases phases_;
  std::int64_t columns_;
  std::int64_t phase_rows_;
  std::int64_t copy_;
};

}  // namespace chainrule::convolutions
