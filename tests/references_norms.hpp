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
  X magnitude;  // of the terms: the mean is rounded once
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
      const long double rounded = std::abs(mean) / std::sqrt(variance + static_cast<long double>(epsilon));
      out.magnitude.flat(i) =
          std::abs(gamma) * (1 + std::abs(static_cast<double>(n)) + static_cast<double>(rounded)) + std::abs(beta);
    }
  }
  return out;
}

// ---- statistics of the parts along axes [first, last)

// The axes that are reduced.
inline Axes other_axes(const X& x, const Attributes& a) {
  Axes out;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(x.dimension()); ++i)
    if (i < a.get<std::int64_t>("first") || i >= a.get<std::int64_t>("last")) out.push_back(i);
  return out;
}

// The row-major index of an element in what is left without these axes.
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

// An array for the results of parts, with the other axes as 1s.
inline X of_parts(const X& x, const Axes& others, double value) {
  auto shape = x.shape();
  for (const auto a : others) shape[static_cast<std::size_t>(a)] = 1;
  X out(shape);
  out.fill(value);
  return out;
}

// For each part the sum of f(i), element i of x being its.
template <class F>
X sum_of_parts(const X& x, const Axes& others, F f) {
  X out = of_parts(x, others, 0);
  std::vector<long double> sums(out.size(), 0);
  for (std::size_t i = 0; i < x.size(); ++i) sums[index_without(x, i, others)] += f(i);
  for (std::size_t k = 0; k < out.size(); ++k) out.flat(k) = static_cast<double>(sums[k]);
  return out;
}

inline X means_of_parts(const X& x, const Attributes& a) {
  const Axes others = other_axes(x, a);
  const X count = sum_of_parts(x, others, [](std::size_t) { return 1.0L; });
  return sum_of_parts(x, others, [&](std::size_t i) { return static_cast<long double>(x.flat(i)); }) / count;
}

inline X variances_of_parts(const X& x, const Attributes& a) {
  const Axes others = other_axes(x, a);
  const X count = sum_of_parts(x, others, [](std::size_t) { return 1.0L; });
  const X mean = means_of_parts(x, a);
  return sum_of_parts(x, others,
                      [&](std::size_t i) {
                        const long double d =
                            static_cast<long double>(x.flat(i)) - mean.flat(index_without(x, i, others));
                        return d * d;
                      }) /
         count;
}

// sum(w dy (x - center)^power), or of the absolute values.
inline X centered_sums(const Inputs& in, const Attributes& a, bool centered, bool absolute) {
  const Axes others = other_axes(in[0], a);
  Axes parts;
  for (std::int64_t i = a.get<std::int64_t>("first"); i < a.get<std::int64_t>("last"); ++i) parts.push_back(i);
  return sum_of_parts(in[0], others, [&](std::size_t i) {
    long double term = in[1].flat(i);
    if (in.size() > 3) term *= in[3].flat(index_without(in[0], i, parts));
    const double center = in[2].flat(index_without(in[0], i, others));
    if (!absolute) return centered ? term * (static_cast<long double>(in[0].flat(i)) - center) : term;
    return std::abs(term) * (centered ? static_cast<long double>(std::abs(in[0].flat(i)) + std::abs(center)) : 1.0L);
  });
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
