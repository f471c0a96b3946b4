// The sizes of a convolution over one to three axes. Not installed.
#pragma once

#include <array>
#include <cstdint>

#include <chainrule/framework/core/shape.hpp>
#include <chainrule/framework/graph/op.hpp>

namespace chainrule::convolutions {

// The quotient of b > 0 rounded down, and up.
constexpr std::int64_t floor_quotient(std::int64_t a, std::int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }
constexpr std::int64_t ceil_quotient(std::int64_t a, std::int64_t b) { return -floor_quotient(-a, b); }

struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] std::int64_t size() const { return end > begin ? end - begin : 0; }
};

constexpr Range intersection(Range a, Range b) {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

// Tap t of output o is input o * stride + t * dilation - before, or zero where there is none.
struct Axis {
  std::int64_t in = 1;
  std::int64_t out = 1;
  std::int64_t taps = 1;
  std::int64_t stride = 1;
  std::int64_t dilation = 1;
  std::int64_t before = 0;

  // A tap lies in the input for the outputs whose tap does: those of [range.begin, range.end), cut to [0, outputs).
  [[nodiscard]] Range outputs_inside(std::int64_t tap, Range inputs) const {
    const std::int64_t shift = before - tap * dilation;
    return intersection({0, out},
                        {ceil_quotient(inputs.begin + shift, stride), ceil_quotient(inputs.end + shift, stride)});
  }
};

// y[n, g k, o...] = sum over c and taps t... of w[g k, c, t...] x[n, g c, inputs...]
struct Geometry {
  std::int64_t images = 1;
  std::int64_t groups = 1;
  std::int64_t channels = 1;  // of x, in a group
  std::int64_t features = 1;  // of y, in a group
  std::array<Axis, 3> axes;   // planes, rows, columns; the first ones are of extent 1 where there are fewer

  [[nodiscard]] const Axis& planes() const { return axes[0]; }
  [[nodiscard]] const Axis& rows() const { return axes[1]; }
  [[nodiscard]] const Axis& columns() const { return axes[2]; }
  [[nodiscard]] std::int64_t inputs() const { return axes[0].in * axes[1].in * axes[2].in; }
  [[nodiscard]] std::int64_t outputs() const { return axes[0].out * axes[1].out * axes[2].out; }
  [[nodiscard]] std::int64_t taps() const { return axes[0].taps * axes[1].taps * axes[2].taps; }
  [[nodiscard]] double flops() const;
};

// Of a call with attributes stride, padding (those before each axis, then those behind), dilation and groups.
Geometry geometry_of(const Dims& x, const Dims& w, const Dims& y, const Attributes& attributes);

}  // namespace chainrule::convolutions
