// Windows of images: pooling, upsampling, and windows as columns.
#pragma once

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/ops/convolution.hpp>

namespace chainrule {

// All of these are for x {N, C, spatial...} of a floating dtype with one, two or three spatial axes, and treat each
// channel of each example alone. The number of examples, channels and spatial extents may be named dimensions; windows
// and strides are numbers. As in conv() there are (in + before + behind - dilation (window - 1) - 1) / stride + 1
// outputs along an axis, rounded down, and what does not fit is an Error. Padding is less than the window reaches.

struct MaxPoolOptions {
  PerAxis stride = {};  // the window's size where empty
  Padding padding = 0;
  PerAxis dilation = 1;
};

// The greatest element of each window, as torch.nn.functional.max_pool1d, 2d and 3d. Padding is minus infinity. The
// gradient goes to the first of equal elements in row-major order (unlike that of max(), which ties share); windows
// that overlap add theirs up. A NaN in a window makes NaN of it.
Value max_pool(Value x, const PerAxis& window, const MaxPoolOptions& options = {}, Location at = Location::here());

struct AvgPoolOptions {
  PerAxis stride = {};  // the window's size where empty
  Padding padding = 0;
  bool count_include_pad = true;  // whether a window's sum is divided by its size, or by how many elements of x it has
};

// The mean of each window, as torch.nn.functional.avg_pool1d, 2d and 3d. Padding is zeros.
Value avg_pool(Value x, const PerAxis& window, const AvgPoolOptions& options = {}, Location at = Location::here());

// So many windows along each axis, window i from i in / out, rounded down, to (i + 1) in / out, rounded up: as
// torch.nn.functional.adaptive_avg_pool2d and adaptive_max_pool2d.
Value adaptive_avg_pool(Value x, const PerAxis& outputs, Location at = Location::here());
Value adaptive_max_pool(Value x, const PerAxis& outputs, Location at = Location::here());
// One window, {N, C, 1, ...}.
Value global_avg_pool(Value x, Location at = Location::here());
Value global_max_pool(Value x, Location at = Location::here());

// How an element between two others is made: the nearest below, or of both in proportion, along each axis.
enum class Interpolation : std::uint8_t { nearest, linear };

struct InterpolationOptions {
  Interpolation mode = Interpolation::nearest;
  // linear: whether the first and last elements keep their places. Else pixels are squares, and output i lies at
  // (i + 1/2) in / out - 1/2, or at 0 where that is negative.
  bool align_corners = false;
};

// x with other spatial extents, as torch.nn.functional.interpolate(size=...): nearest takes element i in / out, rounded
// down; linear is what torch calls linear, bilinear or trilinear. Throws Error for extents of 0.
Value interpolate(Value x, const PerAxis& size, const InterpolationOptions& options = {},
                  Location at = Location::here());
// The same with `scale` times as many elements along each axis.
Value upsample(Value x, const PerAxis& scale, const InterpolationOptions& options = {}, Location at = Location::here());

// {N, C r r, H, W} -> {N, C, H r, W r}: output (n, c, h r + i, w r + j) is x(n, (c r + i) r + j, h, w), as
// torch.nn.functional.pixel_shuffle; and back. Of any dtype.
Value pixel_shuffle(Value x, std::int64_t factor, Location at = Location::here());
Value pixel_unshuffle(Value x, std::int64_t factor, Location at = Location::here());

struct UnfoldOptions {
  PerAxis stride = 1;
  Padding padding = 0;
  PerAxis dilation = 1;
};

// {N, C taps, outputs}: the elements of each window as a column, channel by channel, zeros for padding, as
// torch.nn.Unfold (im2col).
Value unfold(Value x, const PerAxis& window, const UnfoldOptions& options = {}, Location at = Location::here());
// Its adjoint, from {N, C taps, outputs} to {N, C, extents...}: elements that meet are added, as torch.nn.Fold
// (col2im).
Value fold(Value columns, const Shape& extents, const PerAxis& window, const UnfoldOptions& options = {},
           Location at = Location::here());

}  // namespace chainrule
