// What the ops on images should compute, by plain loops over the indices in their definitions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#if __has_include(<xtensor/xarray.hpp>)
#include <xtensor/xarray.hpp>
#else  // version 0.26 and later
#include <xtensor/containers/xarray.hpp>
#endif

#include <chainrule/framework/graph/attributes.hpp>

namespace chainrule::test::images {

using X = xt::xarray<double>;

using Dims3 = std::vector<std::int64_t>;

// Element (n, c, place...) of an array {N, C, spatial...}; out of it there is none.
class Image {
 public:
  explicit Image(const X& x) : x_(x) {}
  [[nodiscard]] std::int64_t extent(std::size_t axis) const { return static_cast<std::int64_t>(x_.shape()[axis]); }
  [[nodiscard]] std::size_t spatial() const { return x_.dimension() - 2; }
  [[nodiscard]] bool inside(const Dims3& place) const {
    for (std::size_t i = 0; i < place.size(); ++i)
      if (place[i] < 0 || place[i] >= extent(i + 2)) return false;
    return true;
  }
  [[nodiscard]] std::size_t flat(std::int64_t n, std::int64_t c, const Dims3& place) const {
    std::int64_t out = n * extent(1) + c;
    for (std::size_t i = 0; i < place.size(); ++i) out = out * extent(i + 2) + place[i];
    return static_cast<std::size_t>(out);
  }
  [[nodiscard]] Dims3 extents() const {
    Dims3 out;
    for (std::size_t i = 0; i < spatial(); ++i) out.push_back(extent(i + 2));
    return out;
  }

 private:
  const X& x_;
};

// f(index) for each index below these extents, in row-major order.
template <class F>
void for_each(const Dims3& extents, F f) {
  Dims3 index(extents.size(), 0);
  for (const std::int64_t extent : extents)
    if (extent == 0) return;
  while (true) {
    f(index);
    std::size_t axis = extents.size();
    while (axis > 0 && ++index[axis - 1] == extents[axis - 1]) index[--axis] = 0;
    if (axis == 0) return;
  }
}

// Where tap t of output o lies in the input.
inline Dims3 place_of(const Dims3& o, const Dims3& t, const Attributes& a) {
  const auto& stride = a.get<Axes>("stride");
  const auto& padding = a.get<Axes>("padding");
  const auto& dilation = a.get<Axes>("dilation");
  Dims3 out;
  for (std::size_t i = 0; i < o.size(); ++i) out.push_back(o[i] * stride[i] + t[i] * dilation[i] - padding[i]);
  return out;
}

inline Dims3 outputs_of(const Dims3& in, const Dims3& taps, const Attributes& a) {
  const auto& stride = a.get<Axes>("stride");
  const auto& padding = a.get<Axes>("padding");
  const auto& dilation = a.get<Axes>("dilation");
  Dims3 out;
  for (std::size_t i = 0; i < in.size(); ++i)
    out.push_back((in[i] + padding[i] + padding[in.size() + i] - dilation[i] * (taps[i] - 1) - 1) / stride[i] + 1);
  return out;
}

// f(x's element, w's, y's) for each product that a convolution of these shapes adds up.
template <class F>
void for_each_product(const X& x, const X& w, const X& y, const Attributes& a, F f) {
  const Image in(x);
  const Image weights(w);
  const Image out(y);
  const auto groups = a.get<std::int64_t>("groups");
  const std::int64_t features = weights.extent(0) / groups;
  for (std::int64_t n = 0; n < in.extent(0); ++n)
    for (std::int64_t k = 0; k < weights.extent(0); ++k)
      for (std::int64_t c = 0; c < weights.extent(1); ++c)
        for_each(out.extents(), [&](const Dims3& o) {
          for_each(weights.extents(), [&](const Dims3& t) {
            const Dims3 place = place_of(o, t, a);
            if (in.inside(place))
              f(in.flat(n, k / features * weights.extent(1) + c, place), weights.flat(k, c, t), out.flat(n, k, o));
          });
        });
}

inline std::vector<std::size_t> shape_with(std::int64_t first, std::int64_t second, const Dims3& extents) {
  std::vector<std::size_t> out{static_cast<std::size_t>(first), static_cast<std::size_t>(second)};
  for (const std::int64_t extent : extents) out.push_back(static_cast<std::size_t>(extent));
  return out;
}

inline X convolved(const X& x, const X& w, const Attributes& a) {
  const Image in(x);
  const Image weights(w);
  X y = xt::zeros<double>(shape_with(in.extent(0), weights.extent(0), outputs_of(in.extents(), weights.extents(), a)));
  for_each_product(x, w, y, a,
                   [&](std::size_t i, std::size_t j, std::size_t o) { y.flat(o) += x.flat(i) * w.flat(j); });
  return y;
}

inline X input_gradient(const X& dy, const X& w, const Attributes& a) {
  Dims3 extents;
  for (const Dimension d : a.get<Shape>("extents")) extents.push_back(d.extent());
  const std::int64_t channels = Image(w).extent(1) * a.get<std::int64_t>("groups");
  X dx = xt::zeros<double>(shape_with(Image(dy).extent(0), channels, extents));
  for_each_product(dx, w, dy, a,
                   [&](std::size_t i, std::size_t j, std::size_t o) { dx.flat(i) += dy.flat(o) * w.flat(j); });
  return dx;
}

inline X weight_gradient(const X& x, const X& dy, const Attributes& a) {
  const auto& kernel = a.get<Axes>("kernel");
  const std::int64_t channels = Image(x).extent(1) / a.get<std::int64_t>("groups");
  X dw = xt::zeros<double>(shape_with(Image(dy).extent(1), channels, Dims3(kernel.begin(), kernel.end())));
  for_each_product(x, dw, dy, a,
                   [&](std::size_t i, std::size_t j, std::size_t o) { dw.flat(j) += x.flat(i) * dy.flat(o); });
  return dw;
}

// ---- windows

// f(index of an output, indices of its window's elements in row-major order) for each output of each channel.
template <class F>
void for_each_window(const X& x, const Attributes& a, F f) {
  const Image in(x);
  const Axes even = a.get<Axes>("outputs", Axes{});
  const Axes window = a.get<Axes>("window", Axes{});
  const Dims3 taps(window.begin(), window.end());
  const Dims3 outputs = even.empty() ? outputs_of(in.extents(), taps, a) : Dims3(even.begin(), even.end());
  std::size_t number = 0;
  for (std::int64_t n = 0; n < in.extent(0); ++n)
    for (std::int64_t c = 0; c < in.extent(1); ++c)
      for_each(outputs, [&](const Dims3& o) {
        std::vector<std::size_t> elements;
        for_each(in.extents(), [&](const Dims3& place) {
          bool within = true;
          for (std::size_t i = 0; i < o.size() && within; ++i) {
            if (!even.empty()) {  // o in / out <= place < (o + 1) in / out, its ends rounded outwards
              within = (place[i] + 1) * outputs[i] > o[i] * in.extent(i + 2) &&
                       place[i] * outputs[i] < (o[i] + 1) * in.extent(i + 2);
            } else {
              const std::int64_t from_first = place[i] - place_of(o, Dims3(o.size(), 0), a)[i];
              const std::int64_t dilation = a.get<Axes>("dilation")[i];
              within = from_first >= 0 && from_first % dilation == 0 && from_first / dilation < taps[i];
            }
          }
          if (within) elements.push_back(in.flat(n, c, place));
        });
        f(number++, elements);
      });
}

// Of each window the first greatest element's index, NaN before all others; none of an empty one.
inline std::vector<std::vector<std::size_t>> maxima(const X& x, const Attributes& a) {
  std::vector<std::vector<std::size_t>> out;
  for_each_window(x, a, [&](std::size_t, const std::vector<std::size_t>& window) {
    out.emplace_back();
    for (const std::size_t i : window) {
      const double now = x.flat(i);
      if (out.back().empty()) out.back() = {i};
      const double best = x.flat(out.back()[0]);
      if (now > best || (std::isnan(now) && !std::isnan(best))) out.back() = {i};
    }
  });
  return out;
}

inline std::vector<std::size_t> pooled_shape(const X& x, const Attributes& a) {
  const Image in(x);
  const Axes even = a.get<Axes>("outputs", Axes{});
  const Axes window = a.get<Axes>("window", Axes{});
  return shape_with(in.extent(0), in.extent(1),
                    even.empty() ? outputs_of(in.extents(), Dims3(window.begin(), window.end()), a)
                                 : Dims3(even.begin(), even.end()));
}

// v's elements where x's windows are greatest.
inline X max_gathered(const X& x, const X& v, const Attributes& a) {
  X y = xt::zeros<double>(pooled_shape(x, a));
  const auto places = maxima(x, a);
  for (std::size_t i = 0; i < places.size(); ++i)
    for (const std::size_t place : places[i]) y.flat(i) = v.flat(place);
  return y;
}

inline X max_scattered(const X& x, const X& dy, const Attributes& a) {
  X dx = xt::zeros<double>(x.shape());
  const auto places = maxima(x, a);
  for (std::size_t i = 0; i < places.size(); ++i)
    for (const std::size_t place : places[i]) dx.flat(place) += dy.flat(i);
  return dx;
}

// What input j of `in` counts for in output i of `out`, along an axis that is resampled.
inline double resampling_weight(const Attributes& a, std::int64_t i, std::int64_t out, std::int64_t j,
                                std::int64_t in) {
  const auto& kind = a.get<std::string>("kind");
  if (kind == "average") {
    const Axes numbers = a.get<Axes>("numbers");
    double inside = 0;
    for (std::int64_t t = 0; t < numbers[0]; ++t) {
      const std::int64_t place = i * numbers[1] + t - numbers[2];
      inside += place >= 0 && place < in ? 1 : 0;
    }
    const std::int64_t tap = j - (i * numbers[1] - numbers[2]);
    return tap >= 0 && tap < numbers[0] ? 1 / (numbers[4] != 0 ? static_cast<double>(numbers[0]) : inside) : 0;
  }
  if (kind == "even") {
    const auto within = [&](std::int64_t k) { return (k + 1) * out > i * in && k * out < (i + 1) * in; };
    double all = 0;
    for (std::int64_t k = 0; k < in; ++k) all += within(k) ? 1 : 0;
    return within(j) ? 1 / all : 0;
  }
  if (kind == "nearest") return j * out <= i * in && (j + 1) * out > i * in ? 1 : 0;
  // The hat function of each input, 1 there and 0 at the next ones, at place / unit, which lies within the inputs.
  std::int64_t place = out == 1 ? 0 : i * (in - 1);
  std::int64_t unit = out == 1 ? 1 : out - 1;
  if (kind == "linear") {
    place = (2 * i + 1) * in - out;
    unit = 2 * out;
  }
  place = std::min(std::max<std::int64_t>(place, 0), (in - 1) * unit);
  return static_cast<double>(std::max<std::int64_t>(0, unit - std::abs(place - j * unit))) / static_cast<double>(unit);
}

// Along the attribute's axis; or its adjoint.
inline X resampled(const X& x, const Attributes& a, bool transposed) {
  const auto axis = static_cast<std::size_t>(a.get<std::int64_t>("axis"));
  std::vector<std::size_t> shape(x.shape().begin(), x.shape().end());
  const auto from = static_cast<std::int64_t>(shape[axis]);
  const std::int64_t to = a.get<Shape>("size")[0].extent();
  shape[axis] = static_cast<std::size_t>(to);
  X y = xt::zeros<double>(shape);
  std::size_t inner = 1;
  for (std::size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  for (std::size_t i = 0; i < y.size(); ++i) {
    const auto o = static_cast<std::int64_t>(i / inner % shape[axis]);
    const std::size_t line = i / inner / shape[axis];
    for (std::int64_t j = 0; j < from; ++j)
      y.flat(i) += (transposed ? resampling_weight(a, j, from, o, to) : resampling_weight(a, o, to, j, from)) *
                   x.flat((line * static_cast<std::size_t>(from) + static_cast<std::size_t>(j)) * inner + i % inner);
  }
  return y;
}

// f(index into x, into the columns) for each element of each window.
template <class F>
void for_each_column_element(const X& x, const Attributes& a, F f) {
  const Image in(x);
  const Axes window = a.get<Axes>("window", Axes{});
  const Dims3 taps(window.begin(), window.end());
  const Dims3 outputs = outputs_of(in.extents(), taps, a);
  std::size_t number = 0;
  for (std::int64_t n = 0; n < in.extent(0); ++n)
    for (std::int64_t c = 0; c < in.extent(1); ++c)
      for_each(taps, [&](const Dims3& t) {
        for_each(outputs, [&](const Dims3& o) {
          const Dims3 place = place_of(o, t, a);
          if (in.inside(place)) f(in.flat(n, c, place), number);
          ++number;
        });
      });
}

inline X unfolded(const X& x, const Attributes& a) {
  const Image in(x);
  const Axes window = a.get<Axes>("window", Axes{});
  std::int64_t taps = 1;
  for (const std::int64_t n : window) taps *= n;
  std::int64_t outputs = 1;
  for (const std::int64_t n : outputs_of(in.extents(), Dims3(window.begin(), window.end()), a)) outputs *= n;
  X columns = xt::zeros<double>(shape_with(in.extent(0), in.extent(1) * taps, {outputs}));
  for_each_column_element(x, a, [&](std::size_t i, std::size_t j) { columns.flat(j) = x.flat(i); });
  return columns;
}

inline X folded(const X& columns, const Attributes& a) {
  std::int64_t taps = 1;
  for (const std::int64_t n : a.get<Axes>("window")) taps *= n;
  Dims3 extents;
  for (const Dimension d : a.get<Shape>("extents")) extents.push_back(d.extent());
  X x = xt::zeros<double>(shape_with(static_cast<std::int64_t>(columns.shape()[0]),
                                     static_cast<std::int64_t>(columns.shape()[1]) / taps, extents));
  for_each_column_element(x, a, [&](std::size_t i, std::size_t j) { x.flat(i) += columns.flat(j); });
  return x;
}

}  // namespace chainrule::test::images
