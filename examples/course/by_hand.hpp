// A convolution and a pooling, forward and backward, by hand: the loops of the course's NumPy code with its names and
// its layout, images (m, n_H, n_W, n_C) and filters (f, f, n_C_prev, n_C).
#pragma once

#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace by_hand {

namespace cr = chainrule;

// A NumPy array of four axes.
struct Array4 {
  Array4(const cr::Array& array) : numbers(array) {}
  Array4(const cr::Dims& shape) : numbers(cr::float64, shape) {}
  [[nodiscard]] const cr::Dims& shape() const { return numbers.shape(); }
  double& operator()(std::int64_t i, std::int64_t h, std::int64_t w, std::int64_t c) {
    return numbers.data<double>()[((i * shape()[1] + h) * shape()[2] + w) * shape()[3] + c];
  }
  cr::Array numbers;
};

// f(i, h, w, c) for all indices of a shape.
template <class F>
void each(const cr::Dims& shape, const F& f) {
  for (std::int64_t i = 0; i < shape[0]; ++i)
    for (std::int64_t h = 0; h < shape[1]; ++h)
      for (std::int64_t w = 0; w < shape[2]; ++w)
        for (std::int64_t c = 0; c < shape[3]; ++c) f(i, h, w, c);
}

inline Array4 zero_pad(Array4 x, std::int64_t pad) {
  Array4 x_pad(cr::Dims{x.shape()[0], x.shape()[1] + 2 * pad, x.shape()[2] + 2 * pad, x.shape()[3]});
  each(x.shape(), [&](auto i, auto h, auto w, auto c) { x_pad(i, h + pad, w + pad, c) = x(i, h, w, c); });
  return x_pad;
}

inline Array4 conv_forward(const Array4& a_prev, Array4 weights, Array4 b, std::int64_t s, std::int64_t pad) {
  Array4 x = zero_pad(a_prev, pad);
  const auto f = weights.shape()[0];
  Array4 z(cr::Dims{x.shape()[0], (x.shape()[1] - f) / s + 1, (x.shape()[2] - f) / s + 1, weights.shape()[3]});
  each(z.shape(), [&](auto i, auto h, auto w, auto c) {
    each({1, f, f, x.shape()[3]}, [&](auto /*one*/, auto v, auto u, auto k) {
      z(i, h, w, c) += x(i, h * s + v, w * s + u, k) * weights(v, u, k, c);
    });
    z(i, h, w, c) += b(0, 0, 0, c);
  });
  return z;
}

// dA_prev, dW and db.
inline std::vector<Array4> conv_backward(Array4 dz, const Array4& a_prev, Array4 weights, std::int64_t s,
                                         std::int64_t pad) {
  Array4 x = zero_pad(a_prev, pad);
  const auto f = weights.shape()[0];
  Array4 dx(x.shape());
  Array4 da_prev(a_prev.shape());
  Array4 dw(weights.shape());
  Array4 db(cr::Dims{1, 1, 1, weights.shape()[3]});
  each(dz.shape(), [&](auto i, auto h, auto w, auto c) {
    each({1, f, f, x.shape()[3]}, [&](auto /*one*/, auto v, auto u, auto k) {
      dx(i, h * s + v, w * s + u, k) += weights(v, u, k, c) * dz(i, h, w, c);
      dw(v, u, k, c) += x(i, h * s + v, w * s + u, k) * dz(i, h, w, c);
    });
    db(0, 0, 0, c) += dz(i, h, w, c);
  });
  each(da_prev.shape(), [&](auto i, auto h, auto w, auto c) { da_prev(i, h, w, c) = dx(i, h + pad, w + pad, c); });
  return {da_prev, dw, db};
}

inline Array4 pool_forward(Array4 x, std::int64_t f, std::int64_t s, bool max) {
  Array4 a(cr::Dims{x.shape()[0], (x.shape()[1] - f) / s + 1, (x.shape()[2] - f) / s + 1, x.shape()[3]});
  each(a.shape(), [&](auto i, auto h, auto w, auto c) {
    a(i, h, w, c) = max ? -std::numeric_limits<double>::infinity() : 0;
    each({1, f, f, 1}, [&](auto /*one*/, auto v, auto u, auto /*one*/) {
      const double in = x(i, h * s + v, w * s + u, c);
      a(i, h, w, c) = max ? std::max(a(i, h, w, c), in) : a(i, h, w, c) + in / static_cast<double>(f * f);
    });
  });
  return a;
}

inline Array4 pool_backward(Array4 da, Array4 x, std::int64_t f, std::int64_t s, bool max) {
  Array4 a = pool_forward(x, f, s, max);
  Array4 dx(x.shape());
  each(da.shape(), [&](auto i, auto h, auto w, auto c) {
    each({1, f, f, 1}, [&](auto /*one*/, auto v, auto u, auto /*one*/) {
      const bool mask = x(i, h * s + v, w * s + u, c) == a(i, h, w, c);
      const double share = max ? (mask ? 1 : 0) : 1 / static_cast<double>(f * f);
      dx(i, h * s + v, w * s + u, c) += share * da(i, h, w, c);
    });
  });
  return dx;
}

}  // namespace by_hand
