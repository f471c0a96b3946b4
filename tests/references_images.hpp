// What the ops on images should compute, by plain loops over the indices in their definitions.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
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

}  // namespace chainrule::test::images
