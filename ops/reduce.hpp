// Reductions over axes: sum, mean, max, min, argmax.
#pragma once

#include <concepts>
#include <initializer_list>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// Which axes: `1`, `-1`, `{0, 2}`, or nothing for all of them. Negative ones count from the end, as in NumPy.
class AxisList {
 public:
  AxisList() = default;
  template <std::integral I>
  AxisList(I axis) : axes_{static_cast<std::int64_t>(axis)} {}
  AxisList(std::initializer_list<std::int64_t> axes) : axes_(axes) {}
  explicit AxisList(Axes axes) : axes_(std::move(axes)) {}
  void push_back(std::int64_t axis) { axes_.push_back(axis); }
  [[nodiscard]] bool empty() const { return axes_.empty(); }
  [[nodiscard]] const Axes& list() const { return axes_; }

 private:
  Axes axes_;
};

// Over the given axes, or all; with keepdims these stay with extent 1. An axis out of range or twice throws Error.
Value sum(Value x, const AxisList& axes = {}, bool keepdims = false, Location at = Location::here());  // 0 of nothing
Value mean(Value x, const AxisList& axes = {}, bool keepdims = false,
           Location at = Location::here());  // NaN of nothing
// Mean and (biased) variance, the mean of (x - mean)^2: numpy.var(ddof=0). NaN of nothing.
struct Moments {
  Value mean;
  Value variance;
};
Moments moments(Value x, const AxisList& axes = {}, bool keepdims = false, Location at = Location::here());
// The greatest / least element, NaN if any is NaN; of nothing: Error. Ties share the gradient equally.
Value max(Value x, const AxisList& axes = {}, bool keepdims = false, Location at = Location::here());
Value min(Value x, const AxisList& axes = {}, bool keepdims = false, Location at = Location::here());
// The int64 index of the first greatest element (of the first NaN, if there is one); of nothing: Error. Over several
// axes it counts the elements along them in row-major order. Not differentiable.
Value argmax(Value x, const AxisList& axes = {}, bool keepdims = false, Location at = Location::here());

}  // namespace chainrule
