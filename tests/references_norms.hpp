// What the ops that normalize should compute, part by part in long double.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#if __has_include(<xtensor/xarray.hpp>)
#include <xtensor/xarray.hpp>
#else  // version 0.26 and later
#include <xtensor/containers/xarray.hpp>
#endif

#include <chainrule/framework/graph/attributes.hpp>

namespace chainrule::test::norms {

using X = xt::xarray<double>;
using Inputs = std::vector<X>;

// x in row-major order is read as parts of `length` elements, one behind the other. Element i has its gamma and beta at
// i / inner % features.
struct Layout {
  std::size_t length;
  std::size_t inner;
  std::size_t features;
};

inline std::size_t behind(const X& x, std::size_t axis) {
  std::size_t n = 1;
  for (std::size_t i = axis; i < x.dimension(); ++i) n *= x.shape()[i];
  return n;
}

inline Layout from_axis(const X& x, const Attributes& a) {
  const auto axis = a.get<std::int64_t>("axis");
  const std::size_t n =
      behind(x, static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(x.dimension()) : axis));
  return {n, 1, n};
}

inline Layout in_groups(const X& x, const Attributes& a) {
  const auto groups = a.has("groups") ? static_cast<std::size_t>(a.get<std::int64_t>("groups")) : x.shape()[1];
  return {x.shape()[1] / groups * behind(x, 2), behind(x, 2), x.shape()[1]};
}

struct Result {
  X value;
  X magnitude;  // of the terms: the mean and what is rounded on the way to it are of the deviation's size
};

inline Result normalized(const Inputs& in, const Layout& l, double epsilon, bool centered) {
  const X& x = in[0];
  Result out{x, x};
  for (std::size_t begin = 0; begin < x.size(); begin += l.length) {
    long double mean = 0;
    for (std::size_t i = begin; centered && i < begin + l.length; ++i) mean += x.flat(i);
    mean /= static_cast<long double>(l.length);
    long double variance = 0;
    for (std::size_t i = begin; i < begin + l.length; ++i) variance += (x.flat(i) - mean) * (x.flat(i) - mean);
    variance /= static_cast<long double>(l.length);
    for (std::size_t i = begin; i < begin + l.length; ++i) {
      const long double n = (x.flat(i) - mean) / std::sqrt(variance + static_cast<long double>(epsilon));
      const std::size_t feature = i / l.inner % l.features;
      const double gamma = in.size() > 1 ? in[1].flat(feature) : 1;
      const double beta = in.size() > 2 ? in[2].flat(feature) : 0;
      out.value.flat(i) = static_cast<double>(gamma * n + beta);
      out.magnitude.flat(i) = std::abs(gamma) * (1 + std::abs(static_cast<double>(n))) + std::abs(beta);
    }
  }
  return out;
}

// Row-major index -> whether each axis is one of these; the index of what is left without them.
inline std::size_t index_without(const X& x, std::size_t flat, const Axes& axes) {
  std::size_t index = 0;
  std::size_t stride = 1;
  for (std::size_t axis = x.dimension(); axis-- > 0; flat /= x.shape()[axis]) {
    bool taken = false;
    for (const auto a : axes) taken = taken || static_cast<std::size_t>(a) == axis;
    if (taken) continue;
    index += flat % x.shape()[axis] * stride;
    stride *= x.shape()[axis];
  }
  return index;
}

inline X weight_norm(const Inputs& in, const Attributes& a) {
  const auto& axes = a.get<Axes>("axes");
  std::map<std::size_t, long double> squares;
  for (std::size_t i = 0; i < in[0].size(); ++i) {
    const auto v = static_cast<long double>(in[0].flat(i));
    squares[index_without(in[0], i, axes)] += v * v;
  }
  X out = in[0];
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t k = index_without(in[0], i, axes);
    out.flat(i) = squares[k] == 0 ? 0 : static_cast<double>(in[1].flat(k) * in[0].flat(i) / std::sqrt(squares[k]));
  }
  return out;
}

inline X spectral_norm(const Inputs& in, const Attributes& a) {
  const auto given = a.get<std::int64_t>("axis");
  const auto rank = static_cast<std::int64_t>(in[0].dimension());
  const std::int64_t axis = given < 0 ? given + rank : given;
  Axes others;
  for (std::int64_t i = 0; i < rank; ++i)
    if (i != axis) others.push_back(i);
  long double norm = 0;
  for (std::size_t i = 0; i < in[0].size(); ++i)
    norm += static_cast<long double>(in[0].flat(i)) * in[1].flat(index_without(in[0], i, others)) *
            in[2].flat(index_without(in[0], i, {axis}));
  X out = in[0];
  for (std::size_t i = 0; i < out.size(); ++i) out.flat(i) = norm == 0 ? 0 : static_cast<double>(in[0].flat(i) / norm);
  return out;
}

}  // namespace chainrule::test::norms
