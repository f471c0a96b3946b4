// Options and shapes of ops over windows: convolutions and pooling. Not installed.
#pragma once

#include <algorithm>
#include <string_view>

#include <fmt/core.h>

#include <chainrule/framework/graph/op.hpp>
#include <chainrule/ops/convolution.hpp>

namespace chainrule::detail {

// ---- shape rules, for attributes stride, padding (those before each axis, then those behind) and dilation

inline void require_list(const OpCall& call, std::string_view name, std::size_t size, std::int64_t least) {
  const auto& list = call.attribute<Axes>(name);
  if (list.size() != size || std::any_of(list.begin(), list.end(), [&](std::int64_t n) { return n < least; }))
    call.fail(fmt::format("{} of {} numbers of {} or more", name, size, least), Attribute(list).to_string());
}

inline void require_window_attributes(const OpCall& call, std::size_t spatial) {
  require_list(call, "stride", spatial, 1);
  require_list(call, "padding", 2 * spatial, 0);
  require_list(call, "dilation", spatial, 1);
}

// How many outputs there are along a spatial axis of this extent.
inline Dimension outputs_of(const OpCall& call, Dimension in, std::int64_t taps, std::size_t axis) {
  const auto& padding = call.attribute<Axes>("padding");
  const std::int64_t before = padding[axis];
  const std::int64_t behind = padding[padding.size() / 2 + axis];
  const std::int64_t reach = call.attribute<Axes>("dilation")[axis] * (taps - 1) + 1;
  if (taps < 1) call.fail("windows of 1 or more", fmt::format("{}", taps));
  if (in.is_number() && in.extent() + before + behind < reach)
    call.fail(fmt::format("an extent of {} or more, padding included, as the window reaches", reach),
              fmt::format("{} + {} + {} along axis {}", in.to_string(), before, behind, axis + 2));
  const std::int64_t more = before + behind - reach;
  const Dimension steps = more >= 0 ? in + Dimension(more) : in - Dimension(-more);
  return floor_divide(steps, Dimension(call.attribute<Axes>("stride")[axis])) + Dimension(1);
}

// ---- what users say

// A number for each axis.
inline Axes for_each_axis(const PerAxis& given, std::size_t axes, std::string_view name, std::int64_t least,
                          std::string_view op, Location at) {
  Axes out = given.numbers();
  if (out.size() == 1) out.assign(axes, out[0]);
  if (out.size() != axes || std::any_of(out.begin(), out.end(), [&](std::int64_t n) { return n < least; }))
    throw Error(at, op,
                fmt::format("requires {} of {} or more, one number or {}, got {}", name, least, axes,
                            Attribute(given.numbers()).to_string()));
  return out;
}

class WindowOptions {
 public:
  // Of x {N, C, spatial...} and windows of so many taps.
  WindowOptions(const Shape& x, const Axes& taps, const PerAxis& stride, const Padding& padding,
                const PerAxis& dilation, std::string_view op, Location at)
      : stride_(for_each_axis(stride, taps.size(), "stride", 1, op, at)),
        dilation_(for_each_axis(dilation, taps.size(), "dilation", 1, op, at)) {
    if (!padding.name().empty()) {
      by_name(x, taps, padding.name(), op, at);
    } else if (!padding.pairs().empty()) {
      by_pairs(padding.pairs(), taps.size(), op, at);
    } else {
      before_ = for_each_axis(padding.numbers(), taps.size(), "padding", 0, op, at);
      behind_ = before_;
    }
  }
  [[nodiscard]] const Axes& stride() const { return stride_; }
  [[nodiscard]] const Axes& dilation() const { return dilation_; }
  [[nodiscard]] const Axes& before() const { return before_; }
  [[nodiscard]] const Axes& behind() const { return behind_; }
  [[nodiscard]] Attributes attributes() const {
    Axes padding = before_;
    padding.insert(padding.end(), behind_.begin(), behind_.end());
    return {{"stride", stride_}, {"padding", padding}, {"dilation", dilation_}};
  }

 private:
  void by_pairs(const Padding::Pairs& pairs, std::size_t axes, std::string_view op, Location at) {
    for (const auto& [before, behind] : pairs) {
      before_.push_back(before);
      behind_.push_back(behind);
    }
    const auto negative = [](const auto& pair) { return pair.first < 0 || pair.second < 0; };
    if (pairs.size() != axes || std::any_of(pairs.begin(), pairs.end(), negative))
      throw Error(at, op,
                  fmt::format("requires {} pairs of padding of 0 or more, got {} before and {} behind", axes,
                              Attribute(before_).to_string(), Attribute(behind_).to_string()));
  }

  void by_name(const Shape& x, const Axes& taps, const std::string& name, std::string_view op, Location at) {
    if (name != "same" && name != "valid")
      throw Error(at, op, fmt::format("requires padding \"same\", \"valid\" or by numbers, got \"{}\"", name));
    before_.assign(taps.size(), 0);
    behind_ = before_;
    if (name == "valid") return;
    for (std::size_t i = 0; i < taps.size(); ++i) {
      const std::int64_t reach = dilation_[i] * (taps[i] - 1) + 1;
      std::int64_t all = reach - 1;
      if (stride_[i] != 1) {
        const Dimension in = x[i + 2];
        if (!in.is_number())
          throw Error(at, op,
                      fmt::format("requires extents that are numbers for padding \"same\" and a stride of {}, got {}",
                                  stride_[i], to_string(x)));
        const std::int64_t outputs = (in.extent() + stride_[i] - 1) / stride_[i];
        all = std::max<std::int64_t>(0, (outputs - 1) * stride_[i] + reach - in.extent());
      }
      before_[i] = all / 2;
      behind_[i] = all - all / 2;
    }
  }

  Axes stride_;
  Axes dilation_;
  Axes before_;
  Axes behind_;
};

}  // namespace chainrule::detail
