// Convolutions over one, two or three axes, and their transposes.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// A whole number for each spatial axis, or one for all of them: 2, or {2, 1}.
class PerAxis {
 public:
  template <std::integral I>
  PerAxis(I all) : numbers_{static_cast<std::int64_t>(all)} {}
  PerAxis(std::initializer_list<std::int64_t> numbers) : numbers_(numbers) {}
  PerAxis(Axes numbers) : numbers_(std::move(numbers)) {}
  [[nodiscard]] const Axes& numbers() const { return numbers_; }

 private:
  Axes numbers_;
};

// How many zeros stand before and behind each spatial axis: one number for all, 2; one for each axis, {2, 1}; two for
// each axis, {{1, 2}, {0, 1}}; "valid", none; or "same", so that there are ceil(in / stride) outputs: what is needed,
// half of it before, rounded down.
class Padding {
 public:
  using Pairs = std::vector<std::pair<std::int64_t, std::int64_t>>;
  template <std::integral I>
  Padding(I all) : numbers_{static_cast<std::int64_t>(all)} {}
  Padding(std::initializer_list<std::int64_t> numbers) : numbers_(numbers) {}
  Padding(std::initializer_list<std::pair<std::int64_t, std::int64_t>> pairs) : pairs_(pairs) {}
  Padding(Axes numbers) : numbers_(std::move(numbers)) {}
  Padding(Pairs pairs) : pairs_(std::move(pairs)) {}
  Padding(const char* name) : name_(name) {}
  Padding(std::string name) : name_(std::move(name)) {}
  [[nodiscard]] const Axes& numbers() const { return numbers_; }
  [[nodiscard]] const Pairs& pairs() const { return pairs_; }
  [[nodiscard]] const std::string& name() const { return name_; }  // empty where numbers or pairs are given

 private:
  Axes numbers_;
  Pairs pairs_;
  std::string name_;
};

struct ConvOptions {
  PerAxis stride = 1;
  Padding padding = 0;
  PerAxis dilation = 1;
  std::int64_t groups = 1;
};

// x {N, C, spatial...} and w {K, C / groups, taps...}, with one, two or three spatial axes -> {N, K, outputs...}:
//
//   y[n, k, o...] = sum over c and t... of w[k, c, t...] x[n, g C / groups + c, o stride + t dilation - before, ...]
//
// with zeros where x has no such element, and g the group of k: features and channels are cut in `groups` of the same
// size, and each group of features sees its own channels (groups = C: a depthwise convolution). As
// torch.nn.functional's conv1d, conv2d and conv3d: a cross-correlation, the weights are not turned. There are (in +
// before + behind - dilation (taps - 1) - 1) / stride + 1 outputs, rounded down. One floating dtype. The number of
// examples may be a named dimension, and so may spatial extents ("same" with a stride of more than 1 needs numbers);
// channels, features and taps are numbers.
//
// Throws Error where x and w do not fit, for a stride, dilation or group number below 1 or that does not divide the
// channels and features, and where x, with its padding, is smaller than the taps reach.
Value conv(Value x, Value w, const ConvOptions& options = {}, Location at = Location::here());

struct ConvTransposeOptions {
  PerAxis stride = 1;
  Padding padding = 0;
  PerAxis output_padding = 0;
  PerAxis dilation = 1;
  std::int64_t groups = 1;
};

// The adjoint of conv(): x {N, K, spatial...} and w {K, C / groups, taps...}, as the convolution's -> {N, C,
// outputs...},
//
//   y[n, c, o stride + t dilation - before, ...] = sum over k, o... and t... of w[k, c, t...] x[n, k, o...]
//
// As torch.nn.functional's conv_transpose1d, 2d and 3d. There are
// (in - 1) stride - before - behind + dilation (taps - 1) + 1 + output_padding outputs: output_padding, below the
// stride or the dilation, says which of the sizes that a convolution makes `in` of is meant. Padding may not be "same".
// Throws Error as conv() does.
Value conv_transpose(Value x, Value w, const ConvTransposeOptions& options = {}, Location at = Location::here());

}  // namespace chainrule
