// What every op should compute, written with xtensor in float64. Nothing here knows of the library's kernels.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#if __has_include(<xtensor/xarray.hpp>)
#include <xtensor/xarray.hpp>
#include <xtensor/xbuilder.hpp>
#include <xtensor/xmanipulation.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xsort.hpp>
#include <xtensor/xstrided_view.hpp>
#else  // version 0.26 and later
#include <xtensor/containers/xarray.hpp>
#include <xtensor/core/xmath.hpp>
#include <xtensor/generators/xbuilder.hpp>
#include <xtensor/misc/xmanipulation.hpp>
#include <xtensor/misc/xsort.hpp>
#include <xtensor/views/xstrided_view.hpp>
#endif

#include <chainrule/framework/core/philox.hpp>
#include <chainrule/framework/graph/attributes.hpp>

#include "references_ctc.hpp"
#include "references_images.hpp"
#include "references_norms.hpp"

namespace chainrule::test {

using X = xt::xarray<double>;
using Inputs = std::vector<X>;

struct Reference {
  using Function = std::function<X(const Inputs&, const Attributes&)>;
  Function value;
  // How far the op may be from it, in units in the last place...
  double ulps = 4;
  // ... of these magnitudes, where an op's terms may cancel (sum: of the absolute values); else of the value.
  Function magnitude = {};
  // In programs of Mode::inference, where that differs.
  Function inference = {};
  // Whether the sign of a zero is asked for. It is not where both signs are right (max of 0 and -0, sums).
  bool signed_zero = false;
  // Of the outputs beyond the first.
  std::vector<Reference> further = {};
};

// ---- axes

inline std::size_t axis_of(const Attributes& attributes, std::size_t rank) {
  const auto axis = attributes.get<std::int64_t>("axis");
  return static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis);
}

inline std::vector<std::size_t> axes_of(const Attributes& attributes, std::size_t rank) {
  std::vector<std::size_t> axes;
  for (const auto axis : attributes.get<Axes>("axes"))
    axes.push_back(static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis));
  std::sort(axes.begin(), axes.end());
  return axes;
}

inline std::vector<std::size_t> all_axes(std::size_t rank) {
  std::vector<std::size_t> axes(rank);
  std::iota(axes.begin(), axes.end(), std::size_t{0});
  return axes;
}

inline std::vector<std::size_t> sizes_of(const Attributes& attributes, std::string_view name) {
  std::vector<std::size_t> out;
  for (const Dimension d : attributes.get<Shape>(name)) out.push_back(static_cast<std::size_t>(d.extent()));
  return out;
}

template <class E>
std::vector<std::size_t> shape_of(const E& e) {
  return {e.shape().begin(), e.shape().end()};
}

// The shape with these axes as 1s.
inline std::vector<std::size_t> kept(std::vector<std::size_t> shape, const std::vector<std::size_t>& axes) {
  for (const auto a : axes) shape[a] = 1;
  return shape;
}

inline std::size_t elements(const X& x, const std::vector<std::size_t>& axes) {
  std::size_t n = 1;
  for (const auto a : axes) n *= x.shape()[a];
  return n;
}

// ---- reductions that keep the rank

inline X total(const X& x, const std::vector<std::size_t>& axes) {
  const auto shape = kept(shape_of(x), axes);
  if (axes.empty()) return x;
  if (x.size() == 0) return xt::zeros<double>(shape);
  const xt::xarray<long double> wide = xt::sum<long double>(x, axes);  // so that it is rounded once
  X out = xt::cast<double>(wide);
  return out.reshape(shape);
}

inline X mean_over(const X& x, const std::vector<std::size_t>& axes) {
  return total(x, axes) / static_cast<double>(elements(x, axes));
}

inline X larger(const X& a, const X& b) {
  return xt::where(xt::isnan(a) || xt::isnan(b), std::numeric_limits<double>::quiet_NaN(), xt::maximum(a, b));
}

// NaN where any element is one, which xt::amax does not promise.
inline X greatest(const X& x, const std::vector<std::size_t>& axes) {
  if (axes.empty() || x.size() == 0) return total(x, axes);
  X out = xt::amax(x, axes);
  const X nans = total(xt::cast<double>(xt::isnan(x)), axes);
  return xt::where(nans > 0.0, std::numeric_limits<double>::quiet_NaN(), out.reshape(kept(shape_of(x), axes)));
}

inline X least(const X& x, const std::vector<std::size_t>& axes) { return -greatest(-x, axes); }

// From the kept rank to what the attributes ask for.
inline X finished(X kept_rank, const std::vector<std::size_t>& axes, bool keepdims) {
  std::vector<std::size_t> shape;
  for (std::size_t i = 0; i < kept_rank.dimension(); ++i)
    if (keepdims || std::find(axes.begin(), axes.end(), i) == axes.end()) shape.push_back(kept_rank.shape()[i]);
  return kept_rank.reshape(shape);
}

using Reduce = X (*)(const X&, const std::vector<std::size_t>&);

inline X reduced(Reduce reduce, const X& x, const Attributes& attributes) {
  const auto axes = axes_of(attributes, x.dimension());
  return finished(reduce(x, axes), axes, attributes.get<bool>("keepdims"));
}

// Sums are compared by the sum of the absolute values: their terms may cancel.
inline Reference summation(Reduce reduce) {
  return {.value = [reduce](const Inputs& x, const Attributes& a) { return reduced(reduce, x[0], a); },
          .magnitude = [reduce](const Inputs& x, const Attributes& a) { return reduced(reduce, xt::abs(x[0]), a); }};
}

inline Reference extremum(Reduce reduce) {
  return {.value = [reduce](const Inputs& x, const Attributes& a) { return reduced(reduce, x[0], a); }, .ulps = 0};
}

// The least index whose element is the greatest.
inline X first_greatest(const X& x, std::size_t axis) {
  std::vector<std::size_t> along(x.dimension(), 1);
  along[axis] = x.shape()[axis];
  const auto n = static_cast<double>(x.shape()[axis]);
  X index = xt::arange<double>(n);
  index.reshape(along);
  return finished(least(xt::where(xt::equal(x, greatest(x, {axis})), index, n), {axis}), {axis}, false);
}

// ---- elements along an axis

// x[..., indices, ...]
inline X take(const X& x, std::size_t axis, const std::vector<std::size_t>& indices) {
  auto shape = shape_of(x);
  shape[axis] = indices.size();
  X out = xt::zeros<double>(shape);
  for (std::size_t i = 0; i < indices.size() && out.size() > 0; ++i) {
    xt::xstrided_slice_vector to(x.dimension(), xt::all());
    xt::xstrided_slice_vector from(x.dimension(), xt::all());
    to[axis] = static_cast<std::ptrdiff_t>(i);
    from[axis] = static_cast<std::ptrdiff_t>(indices[i]);
    xt::strided_view(out, to) = xt::strided_view(x, from);
  }
  return out;
}

// Zeros but for out[..., indices, ...] = x.
inline X put(const X& x, std::size_t axis, const std::vector<std::size_t>& indices, std::size_t whole) {
  auto shape = shape_of(x);
  shape[axis] = whole;
  X out = xt::zeros<double>(shape);
  for (std::size_t i = 0; i < indices.size() && x.size() > 0; ++i) {
    xt::xstrided_slice_vector to(x.dimension(), xt::all());
    xt::xstrided_slice_vector from(x.dimension(), xt::all());
    to[axis] = static_cast<std::ptrdiff_t>(indices[i]);
    from[axis] = static_cast<std::ptrdiff_t>(i);
    xt::strided_view(out, to) = xt::strided_view(x, from);
  }
  return out;
}

// start, start + step, ...: size of them.
inline std::vector<std::size_t> places(const Attributes& attributes) {
  const auto start = static_cast<std::int64_t>(sizes_of(attributes, "start")[0]);
  const auto step = attributes.get<std::int64_t>("step");
  std::vector<std::size_t> out(sizes_of(attributes, "size")[0]);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::size_t>(start + static_cast<std::int64_t>(i) * step);
  return out;
}

inline X concatenated(const Inputs& parts, std::size_t axis) {
  std::size_t whole = 0;
  for (const X& part : parts) whole += part.shape()[axis];
  auto shape = shape_of(parts[0]);
  shape[axis] = whole;
  X out = xt::zeros<double>(shape);
  std::size_t begin = 0;
  for (const X& part : parts) {
    std::vector<std::size_t> indices(part.shape()[axis]);
    std::iota(indices.begin(), indices.end(), begin);
    begin += indices.size();
    out += put(part, axis, indices, whole);
  }
  return out;
}

// Lines along an axis, each of which f makes another of: with f(line) and all lines of one length.
template <class F>
X by_lines(const X& x, std::size_t axis, std::size_t length, F f) {
  auto shape = shape_of(x);
  const std::size_t n = shape[axis];
  std::size_t inner = 1;
  for (std::size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  shape[axis] = length;
  X out = xt::zeros<double>(shape);
  const std::size_t lines = n == 0 ? 0 : x.size() / n;
  for (std::size_t l = 0; l < lines; ++l) {
    std::vector<double> line(n);
    for (std::size_t i = 0; i < n; ++i) line[i] = x.flat((l / inner * n + i) * inner + l % inner);
    const std::vector<double> made = f(line, l);
    for (std::size_t i = 0; i < length; ++i) out.flat((l / inner * length + i) * inner + l % inner) = made[i];
  }
  return out;
}

// The order of a line's elements, NaN last.
inline std::vector<std::size_t> order_of(const std::vector<double>& line, bool descending) {
  std::vector<std::size_t> order(line.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto key = [&](std::size_t i) { return descending ? -line[i] : line[i]; };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return line[a] == line[a] && (line[b] != line[b] || key(a) < key(b));
  });
  return order;
}

// The first elements of each line in order, or their indices. `k`: all of them where it is empty.
inline Reference ordered(const std::string& descending, bool has_k) {
  const auto values = [=](bool indices) {
    return [=](const Inputs& x, const Attributes& a) -> X {
      const std::size_t axis = axis_of(a, x[0].dimension());
      const std::size_t k = has_k ? static_cast<std::size_t>(a.get<std::int64_t>("k")) : x[0].shape()[axis];
      return by_lines(x[0], axis, k, [&](const std::vector<double>& line, std::size_t) {
        std::vector<double> out;
        for (const std::size_t i : order_of(line, a.get<bool>(descending)))
          out.push_back(indices ? static_cast<double>(i) : line[i]);
        return out;
      });
    };
  };
  return {.value = values(false), .ulps = 0, .further = {{.value = values(true), .ulps = 0}}};
}

inline std::size_t place_of(double index, std::size_t extent) {
  return static_cast<std::size_t>(index < 0 ? index + static_cast<double>(extent) : index);
}

inline X taken_along(const Inputs& x, const Attributes& a) {
  const std::size_t axis = axis_of(a, x[0].dimension());
  const std::size_t extent = x[0].shape()[axis];
  std::vector<std::vector<double>> lines;
  by_lines(x[0], axis, extent, [&](const std::vector<double>& line, std::size_t) {
    lines.push_back(line);
    return line;
  });
  return by_lines(x[1], axis, x[1].shape()[axis], [&](const std::vector<double>& indices, std::size_t l) {
    std::vector<double> out;
    for (const double i : indices) out.push_back(lines[l][place_of(i, extent)]);
    return out;
  });
}

// Onto x the updates at their indices, one by one.
inline X scattered_along(const Inputs& x, const Attributes& a) {
  const std::size_t axis = axis_of(a, x[0].dimension());
  const std::size_t extent = x[0].shape()[axis];
  const auto how = a.get<std::string>("how");
  const auto lines_of = [&](const X& of) {
    std::vector<std::vector<double>> lines;
    by_lines(of, axis, of.shape()[axis], [&](const std::vector<double>& line, std::size_t) {
      lines.push_back(line);
      return line;
    });
    return lines;
  };
  const auto indices = lines_of(x[1]);
  const auto updates = lines_of(x[2]);
  return by_lines(x[0], axis, extent, [&](std::vector<double> line, std::size_t l) {
    for (std::size_t i = 0; l < updates.size() && i < updates[l].size(); ++i) {  // lines of 0 are none
      double& to = line[place_of(indices[l][i], extent)];
      const double update = updates[l][i];
      if (how == "put") to = update;
      if (how == "add") to += update;
      if (how == "max") to = std::max(to, update);
      if (how == "min") to = std::min(to, update);
    }
    return line;
  });
}

// x at these places of an axis, whose axes are the indices' afterwards.
inline X taken(const Inputs& x, const Attributes& a) {
  const std::size_t axis = axis_of(a, x[0].dimension());
  std::vector<std::size_t> indices;
  for (const double i : x[1]) indices.push_back(place_of(i, x[0].shape()[axis]));
  auto shape = shape_of(x[0]);
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
  const auto axes = x[1].shape();
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(axis), axes.begin(), axes.end());
  X out = take(x[0], axis, indices);
  return out.reshape(shape);
}

// x plus, for each index, zeros but for its part of the updates.
inline X scatter_added(const Inputs& x, const Attributes& a) {
  const std::size_t axis = axis_of(a, x[0].dimension());
  auto shape = shape_of(x[0]);
  const std::size_t extent = shape[axis];
  shape[axis] = x[1].size();
  X updates = x[2];
  updates.reshape(shape);
  X out = x[0];
  for (std::size_t i = 0; i < x[1].size(); ++i)
    out = out + put(take(updates, axis, {i}), axis, {place_of(x[1].flat(i), extent)}, extent);
  return out;
}

// The first part of a split, or a later one.
inline Reference part(std::size_t number) {
  return {.value = [number](const Inputs& x, const Attributes& a) -> X {
            const auto& extents = a.get<Axes>("extents");
            const auto begin = std::accumulate(extents.begin(), extents.begin() + static_cast<long>(number), 0L);
            std::vector<std::size_t> indices(static_cast<std::size_t>(extents[number]));
            std::iota(indices.begin(), indices.end(), static_cast<std::size_t>(begin));
            return take(x[0], axis_of(a, x[0].dimension()), indices);
          },
          .ulps = 0};
}

// ---- matrix products

inline X swapped(const X& x, bool swap) {
  auto axes = all_axes(x.dimension());
  if (swap) std::swap(axes[axes.size() - 1], axes[axes.size() - 2]);
  return xt::transpose(x, axes);
}

// The sum over k of a[..., m, k, 1] * b[..., 1, k, n].
inline X product(const X& a, const X& b, const Attributes& attributes) {
  const X left = xt::expand_dims(swapped(a, attributes.get<bool>("transpose_a", false)), a.dimension());
  const X right = xt::expand_dims(swapped(b, attributes.get<bool>("transpose_b", false)), b.dimension() - 2);
  const X terms = left * right;
  const std::size_t k = terms.dimension() - 2;
  return finished(total(terms, {k}), {k}, false);
}

// ---- softmax and losses

// log(1 + exp(x))
inline X softplus(const X& x) { return xt::maximum(x, 0.0) + xt::log1p(xt::exp(-xt::abs(x))); }

inline X finite_or_zero(const X& x) { return xt::where(xt::isfinite(x), x, 0.0); }

inline X softmax(const X& x, std::size_t axis) {
  const X e = xt::exp(x - greatest(x, {axis}));
  return e / total(e, {axis});
}

inline X log_softmax(const X& x, std::size_t axis) {
  const X shifted = x - greatest(x, {axis});
  return shifted - xt::log(total(xt::exp(shifted), {axis}));
}

// Of causal attention's scores: -infinity behind the i-th element of row i.
inline X seen(const X& x, const Attributes& attributes) {
  if (!attributes.has("causal") || !attributes.get<bool>("causal")) return x;
  X out = x;
  const std::size_t columns = x.shape().back();
  const std::size_t rows = x.shape()[x.dimension() - 2];
  for (std::size_t i = 0; i < out.size(); ++i)
    if (i % columns > i / columns % rows) out.flat(i) = -std::numeric_limits<double>::infinity();
  return out;
}

// |x - max|, by which the rounding of the difference grows, and some for the sum.
inline X softmax_terms(const X& x, std::size_t axis) { return 1 + xt::abs(x) + xt::abs(greatest(x, {axis})); }

// log(sum(exp(x))), from x minus the greatest, where that is finite.
inline X log_sum_exp(const X& x, const Attributes& attributes) {
  const auto axes = axes_of(attributes, x.dimension());
  const X greatest_of = greatest(x, axes);
  const X shift = xt::where(xt::isinf(greatest_of), 0.0, greatest_of);
  const X kept_rank = shift + xt::log(total(xt::exp(x - shift), axes));
  return finished(kept_rank, axes, attributes.get<bool>("keepdims"));
}

inline X mean_of_all(const X& x) {
  const auto axes = all_axes(x.dimension());
  return finished(mean_over(x, axes), axes, false);
}

inline X mean_over_examples(const X& x, std::size_t axis) {
  return mean_of_all(finished(total(x, {axis}), {axis}, false));
}

inline X one_hot(const X& indices, const Attributes& attributes) {
  const std::size_t axis = axis_of(attributes, indices.dimension() + 1);
  std::vector<std::size_t> along(indices.dimension() + 1, 1);
  along[axis] = sizes_of(attributes, "classes")[0];
  X classes = xt::arange<double>(static_cast<double>(along[axis]));
  const X spread = xt::expand_dims(indices, axis);
  return xt::cast<double>(xt::equal(spread, classes.reshape(along)));
}

inline X hot_rows(const X& classes, std::size_t axis, std::size_t count) {
  return one_hot(classes, {{"classes", Shape{count}}, {"axis", axis}});
}

// Of each example the element of its class.
inline X of_classes(const X& x, const X& classes, std::size_t axis) {
  const X hot = hot_rows(classes, axis, x.shape()[axis]);
  const X chosen = xt::where(hot > 0.0, x, 0.0);  // not 0 times what may be infinite
  return finished(total(chosen, {axis}), {axis}, false);
}

inline Reference class_cost() {
  return {.value = [](const Inputs& x, const Attributes& a) -> X {
            const std::size_t axis = axis_of(a, x[0].dimension());
            return -of_classes(log_softmax(x[0], axis), x[1], axis);
          },
          .magnitude = [](const Inputs& x, const Attributes& a) -> X {
            const std::size_t axis = axis_of(a, x[0].dimension());
            return of_classes(softmax_terms(x[0], axis), x[1], axis);
          }};
}

// ---- batch norm

struct BatchNorm {
  std::size_t axis;
  std::vector<std::size_t> others;
  double epsilon;
  X x, gamma, beta, running_mean, running_variance;

  BatchNorm(const Inputs& in, const Attributes& attributes)
      : axis(axis_of(attributes, in[0].dimension())),
        others(all_axes(in[0].dimension())),
        epsilon(attributes.number("epsilon")),
        x(in[0]),
        gamma(along(in[1])),
        beta(along(in[2])),
        running_mean(along(in[3])),
        running_variance(along(in[4])) {
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(axis));
  }
  [[nodiscard]] X along(X feature) const {
    std::vector<std::size_t> shape(x.dimension(), 1);
    shape[axis] = x.shape()[axis];
    return feature.reshape(shape);
  }
  [[nodiscard]] X mean() const { return mean_over(x, others); }
  [[nodiscard]] X variance() const { return mean_over(xt::square(x - mean()), others); }

  [[nodiscard]] X training() const { return gamma * (x - mean()) / xt::sqrt(variance() + epsilon) + beta; }
  [[nodiscard]] X inference() const { return gamma * (x - running_mean) / xt::sqrt(running_variance + epsilon) + beta; }
  // Of the terms of either.
  [[nodiscard]] X magnitude() const {
    const X spread = xt::sqrt(xt::minimum(variance(), running_variance) + epsilon);
    return xt::abs(gamma) * (xt::abs(x) + mean_over(xt::abs(x), others) + xt::abs(running_mean)) / spread +
           xt::abs(beta);
  }
};

// ---- random numbers

// A block of random words: the number's lower half is the step, its upper half the upper half of the block's number.
inline philox::Block random_block(const X& number, const Attributes& a, std::uint64_t block) {
  const auto seed = static_cast<std::uint64_t>(a.get<std::int64_t>("seed"));
  const auto stream = static_cast<std::uint32_t>(a.get<std::int64_t>("stream"));
  const double upper = std::floor(number() * 0x1p-32);
  return philox::bits(seed, stream, static_cast<std::uint32_t>(number() - upper * 0x1p32),
                      (static_cast<std::uint64_t>(upper) << 32) + block);
}

// Numbers of [0, 1).
inline X random_units(const X& step, const Attributes& a) {
  X out = xt::zeros<double>(sizes_of(a, "shape"));
  for (std::size_t i = 0; i < out.size(); ++i) out.flat(i) = philox::unit(random_block(step, a, i / 4)[i % 4]);
  return out;
}

// (k + 1/2) / 2^52 of the 32 bits of one word and the upper 20 of the next.
inline X random_open_units(const X& step, const Attributes& a) {
  X out = xt::zeros<double>(sizes_of(a, "shape"));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const philox::Block words = random_block(step, a, i / 2);
    out.flat(i) = (std::floor(words[i % 2 * 2] * 0x1p20) + std::floor(words[i % 2 * 2 + 1] * 0x1p-12) + 0.5) * 0x1p-52;
  }
  return out;
}

// Fisher and Yates, from the first element on: the i-th changes places with one up to itself, by the upper half of the
// product of i + 1 and 64 bits. (Where that has to be drawn again no sample gets.)
inline X random_permutation(const X& step, const Attributes& a) {
  const std::int64_t n = a.get<Shape>("n")[0].extent();
  X out = xt::arange<double>(static_cast<double>(n));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const philox::Block words = random_block(step, a, i);
    const double bits = words[0] + words[1] * 0x1p-32;  // of 2^32; the 53 upper ones of 64 say which place it is
    std::swap(out.flat(i), out.flat(static_cast<std::size_t>(bits * 0x1p-32 * static_cast<double>(i + 1))));
  }
  return out;
}

inline X dropout_mask(const X& step, const Attributes& a) {
  return xt::cast<double>(random_units(step, a) < a.number("keep"));
}

// ---- connectionist temporal classification

// Of all examples: costs, or slopes.
inline X ctc(const Inputs& x, const Attributes& a, bool slope) {
  const std::size_t examples = x[0].shape()[0];
  const std::size_t block = x[0].shape()[1] * x[0].shape()[2];
  X out = xt::zeros<double>(slope ? shape_of(x[0]) : std::vector<std::size_t>{examples});
  for (std::size_t e = 0; e < examples; ++e) {
    const auto real = static_cast<std::size_t>(x[2](e)) * x[0].shape()[2];
    std::vector<double> logits;
    for (std::size_t i = 0; i < real; ++i) logits.push_back(x[0].flat(e * block + i));
    std::vector<std::int64_t> labels;
    for (std::size_t i = 0; i < static_cast<std::size_t>(x[3](e)); ++i)
      labels.push_back(static_cast<std::int64_t>(x[1](e, i)));
    const CtcExample made =
        ctc_by_enumeration(logits, static_cast<std::int64_t>(x[0].shape()[2]), labels, a.get<std::int64_t>("blank", 0));
    for (std::size_t i = 0; slope && i < real; ++i) out.flat(e * block + i) = made.slope[i];
    if (!slope) out(e) = made.cost;
  }
  return out;
}

inline Reference ctc_part(bool slope) {
  Reference out{.value = [slope](const Inputs& x, const Attributes& a) { return ctc(x, a, slope); }, .ulps = 8};
  if (slope) out.magnitude = [](const Inputs& x, const Attributes&) -> X { return xt::ones_like(x[0]); };
  return out;
}

// ---- the table

inline Reference centered_sums(bool centered, std::vector<Reference> further = {}) {
  return {.value = [=](const Inputs& x, const Attributes& a) { return norms::centered_sums(x, a, centered, false); },
          .magnitude = [=](const Inputs& x, const Attributes& a) { return norms::centered_sums(x, a, centered, true); },
          .further = std::move(further)};
}

inline Reference gradient_of_rows(X norms::Gradients::*of) {
  return {.value = [=](const Inputs& x, const Attributes& a) { return norms::row_norm_gradient(x, a, false).*of; },
          .magnitude = [=](const Inputs& x, const Attributes& a) { return norms::row_norm_gradient(x, a, true).*of; }};
}

// Each part of x by itself.
inline Reference normalization(norms::Layout (*layout)(const X&, const Attributes&), bool centered = true) {
  const auto result = [=](const Inputs& x, const Attributes& a) {
    return norms::normalized(x, layout(x[0], a), a.number("epsilon"), centered);
  };
  return {.value = [=](const Inputs& x, const Attributes& a) { return result(x, a).value; },
          .magnitude = [=](const Inputs& x, const Attributes& a) { return result(x, a).magnitude; }};
}

// Elementwise, from a function of one or two arrays.
template <class F>
Reference one(F f, double ulps = 4) {
  return {.value = [f](const Inputs& x, const Attributes&) -> X { return f(x[0]); }, .ulps = ulps, .signed_zero = true};
}
template <class F>
Reference two(F f, double ulps = 4) {
  return {.value = [f](const Inputs& x, const Attributes&) -> X { return f(x[0], x[1]); },
          .ulps = ulps,
          .signed_zero = true};
}
// From a function of one number, in more digits.
inline Reference number(long double (*f)(long double), double ulps = 4) {
  return one(
      [f](const X& x) -> X {
        X out = x;
        for (double& element : out) element = static_cast<double>(f(static_cast<long double>(element)));
        return out;
      },
      ulps);
}
// Comparisons and logic.
template <class F>
Reference truth(F f) {
  return two([f](const X& a, const X& b) -> X { return xt::cast<double>(f(a, b)); }, 0);
}
// Elements moved, by a function of an array and the attributes.
template <class F>
Reference moved(F f) {
  return {.value = [f](const Inputs& x, const Attributes& a) -> X { return f(x[0], a); }, .ulps = 0};
}

// A sum of products of two arrays' elements.
template <class F>
Reference bilinear(F f) {
  return {.value = [f](const Inputs& x, const Attributes& a) -> X { return f(x[0], x[1], a); },
          .magnitude = [f](const Inputs& x, const Attributes& a) -> X { return f(xt::abs(x[0]), xt::abs(x[1]), a); }};
}

// A weighted sum of an array's elements, with weights of 0 or more.
template <class F>
Reference weighted(F f) {
  return {.value = [f](const Inputs& x, const Attributes& a) -> X { return f(x[0], a); },
          .magnitude = [f](const Inputs& x, const Attributes& a) -> X { return f(xt::abs(x[0]), a); }};
}

inline Reference unsigned_zero(Reference reference) {
  reference.signed_zero = false;
  return reference;
}

// ---- activations

// x gate(x) with the limit 0 at -infinity, and for a gate that is 1 there infinity at infinity.
inline long double gated(long double x, long double gate) { return std::isinf(x) ? std::max(x, -0.0L) : x * gate; }
inline long double logistic(long double x) { return 1 / (1 + std::exp(-x)); }
inline long double silu(long double x) { return gated(x, logistic(x)); }
inline long double gelu(long double x) { return gated(x, std::erfc(-x / std::sqrt(2.0L)) / 2); }
inline long double gelu_tanh(long double x) {
  return gated(x, logistic(2 * std::sqrt(2 / std::acos(-1.0L)) * (x + 0.044715L * x * x * x)));
}
// tanh(log(1 + e)) = ((1 + e)^2 - 1) / ((1 + e)^2 + 1)
inline long double mish(long double x) {
  const long double e = std::exp(std::min(x, 100.0L));
  return gated(x, e * (e + 2) / (e * (e + 2) + 2));
}
// Their slopes: the gate, and x times its slope. At infinities 0 and 1.
inline long double sloped(long double x, long double slope) { return std::isinf(x) ? (x > 0 ? 1 : 0) : slope; }
inline long double silu_slope(long double x) { return sloped(x, logistic(x) + x * logistic(x) * logistic(-x)); }
inline long double gelu_slope(long double x) {
  return sloped(x, std::erfc(-x / std::sqrt(2.0L)) / 2 + x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0L)));
}
inline long double gelu_tanh_slope(long double x) {
  const long double scale = 2 * std::sqrt(2 / std::acos(-1.0L));
  const long double z = scale * (x + 0.044715L * x * x * x);
  if (std::abs(z) > 5000) return z > 0 ? 1 : 0;
  return sloped(x, logistic(z) + x * logistic(z) * logistic(-z) * scale * (1 + 3 * 0.044715L * x * x));
}
inline long double mish_slope(long double x) {
  if (std::abs(x) > 5000) return x > 0 ? 1 : 0;
  const long double s = x > 100 ? x : std::log1p(std::exp(x));
  const long double sech = 1 / std::cosh(s);
  return std::tanh(s) + x * sech * sech * logistic(x);
}
// Where the two terms of a slope cancel, their sizes.
inline Reference slope(long double (*f)(long double), double ulps) {
  Reference out = unsigned_zero(number(f, ulps));
  out.magnitude = [f](const Inputs& x, const Attributes&) -> X {
    X size = x[0];
    for (double& e : size)
      e = static_cast<double>(std::abs(f(static_cast<long double>(e)))) + (std::abs(e) < 3 ? 0.5 : 0);
    return size;
  };
  return out;
}

// Of a logistic gate of z = 2 sqrt(2 / pi) (x + 0.044715 x^3), of which exp(z) cannot be righter than z is.
inline Reference steep(long double (*f)(long double)) {
  Reference out = slope(f, 4);
  out.magnitude = [plain = out.magnitude](const Inputs& x, const Attributes& a) -> X {
    const X z = xt::abs(x[0]) * (2 + 0.08 * xt::square(x[0]));
    const X size = plain(x, a);
    return size * xt::where(x[0] < 0.0, 1 + xt::minimum(z, 800.0), 1.0);
  };
  return out;
}

// y x, and 0 of an infinite x and no y.
inline X weighed(const X& y, const X& x) { return xt::where(xt::equal(y, 0.0) && xt::isinf(x), 0.0, y * x); }

// By the names of the ops. Arithmetic, square roots and what only chooses or moves is exactly rounded.
inline const std::map<std::string, Reference>& references() {
  static const std::map<std::string, Reference> table = {
      // arithmetic
      {"add", two([](const X& a, const X& b) -> X { return a + b; }, 0.5)},
      {"sub", two([](const X& a, const X& b) -> X { return a - b; }, 0.5)},
      {"mul", two([](const X& a, const X& b) -> X { return a * b; }, 0.5)},
      {"div", two([](const X& a, const X& b) -> X { return a / b; }, 0.5)},
      {"pow", two([](const X& a, const X& b) -> X { return xt::pow(a, b); })},
      {"neg", one([](const X& x) -> X { return -x; }, 0)},
      {"maximum", unsigned_zero(two([](const X& a, const X& b) { return larger(a, b); }, 0))},
      {"minimum", unsigned_zero(two([](const X& a, const X& b) -> X { return -larger(-a, -b); }, 0))},

      // comparisons
      {"less", truth([](const X& a, const X& b) { return a < b; })},
      {"less_equal", truth([](const X& a, const X& b) { return a <= b; })},
      {"greater", truth([](const X& a, const X& b) { return a > b; })},
      {"greater_equal", truth([](const X& a, const X& b) { return a >= b; })},
      {"equal", truth([](const X& a, const X& b) { return xt::equal(a, b); })},
      {"not_equal", truth([](const X& a, const X& b) { return xt::not_equal(a, b); })},
      {"logical_and", truth([](const X& a, const X& b) { return a && b; })},
      {"logical_or", truth([](const X& a, const X& b) { return a || b; })},
      {"logical_not", one([](const X& a) -> X { return 1.0 - a; }, 0)},
      {"where",
       {.value = [](const Inputs& x, const Attributes&) -> X { return xt::where(x[0] > 0.0, x[1], x[2]); },
        .ulps = 0,
        .signed_zero = true}},

      // functions
      {"square", one([](const X& x) -> X { return x * x; }, 0.5)},
      {"sqrt", one([](const X& x) -> X { return xt::sqrt(x); }, 0.5)},
      {"exp", one([](const X& x) -> X { return xt::exp(x); })},
      {"expm1", one([](const X& x) -> X { return xt::expm1(x); })},
      {"log", one([](const X& x) -> X { return xt::log(x); })},
      {"log1p", one([](const X& x) -> X { return xt::log1p(x); })},
      {"sin", one([](const X& x) -> X { return xt::sin(x); })},
      {"cos", one([](const X& x) -> X { return xt::cos(x); })},
      {"tan", one([](const X& x) -> X { return xt::tan(x); })},
      {"sech2", one([](const X& x) -> X {
         const X e = xt::exp(-2.0 * xt::abs(x));
         return 4.0 * e / ((1.0 + e) * (1.0 + e));
       })},
      {"tanh", one([](const X& x) -> X { return xt::tanh(x); })},
      {"erf", one([](const X& x) -> X { return xt::erf(x); })},
      {"abs", one([](const X& x) -> X { return xt::abs(x); }, 0)},
      {"floor", one([](const X& x) -> X { return xt::floor(x); }, 0)},
      {"ceil", one([](const X& x) -> X { return xt::ceil(x); }, 0)},
      {"sign", one([](const X& x) -> X { return xt::where(x > 0.0, 1.0, xt::where(x < 0.0, -1.0, x)); }, 0)},
      {"clip", unsigned_zero({.value = [](const Inputs& x, const Attributes& a) -> X {
                                const double low = a.number("low");
                                const double high = a.number("high");
                                return xt::where(x[0] < low, low, xt::where(x[0] > high, high, x[0]));
                              },
                              .ulps = 0.5})},  // the bounds are rounded

      // activations
      {"relu", unsigned_zero(one([](const X& x) -> X { return xt::where(x < 0.0, 0.0, x); }, 0))},
      {"leaky_relu",
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          return xt::where(x[0] > 0.0, x[0], a.number("slope") * x[0]);
        },
        .ulps = 1,  // the slope is rounded too
        .signed_zero = true}},
      {"prelu",
       {.value = [](const Inputs& x, const Attributes&) -> X { return xt::where(x[0] > 0.0, x[0], x[1] * x[0]); },
        .ulps = 0.5,
        .signed_zero = true}},
      {"elu",
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          return xt::where(x[0] > 0.0, x[0], a.number("alpha") * xt::expm1(x[0]));
        },
        .signed_zero = true}},
      {"selu", one([](const X& x) -> X {
         return 1.0507009873554804934193349852946 *
                xt::where(x > 0.0, x, 1.6732632423543772848170429916717 * xt::expm1(x));
       })},
      {"sigmoid",
       one([](const X& x) -> X { return xt::where(x < 0.0, xt::exp(x), 1.0) / (1 + xt::exp(-xt::abs(x))); })},
      {"softplus", one([](const X& x) { return softplus(x); })},
      {"celu",
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          const double alpha = a.number("alpha");
          return xt::where(x[0] > 0.0, x[0], alpha * xt::expm1(x[0] / alpha));
        },
        .signed_zero = true}},
      {"log_sigmoid", one([](const X& x) -> X { return -softplus(-x); })},
      {"softsign", number([](long double x) { return std::isinf(x) ? std::copysign(1.0L, x) : x / (1 + std::abs(x)); },
                          1.5)},
      {"silu", number(silu, 6)},
      {"silu_slope", slope(silu_slope, 8)},
      {"gelu", number(gelu, 8)},
      {"gelu_slope", slope(gelu_slope, 8)},
      {"gelu_tanh", steep(gelu_tanh)},
      {"gelu_tanh_slope", steep(gelu_tanh_slope)},
      {"mish", number(mish, 6)},
      {"mish_slope", slope(mish_slope, 8)},
      {"hardtanh", unsigned_zero({.value = [](const Inputs& x, const Attributes& a) -> X {
                                    const double low = a.number("low");
                                    const double high = a.number("high");
                                    return xt::where(x[0] < low, low, xt::where(x[0] > high, high, x[0]));
                                  },
                                  .ulps = 0.5})},
      {"hardsigmoid", one([](const X& x) -> X {
         return xt::where(x > 3.0, 1.0, xt::where(x < -3.0, 0.0, (x + 3.0) / 6.0));
       }, 1)},
      {"hardswish", unsigned_zero(one([](const X& x) -> X {
         return xt::where(x > 3.0, x, xt::where(x < -3.0, 0.0, x * (x + 3.0) / 6.0));
       }, 2))},

      // reductions
      {"sum", summation(total)},
      {"mean", summation(mean_over)},
      {"max", extremum(greatest)},
      {"min", extremum(least)},
      {"moments", [] {
         Reference mean = summation(mean_over);
         Reference variance;
         variance.value = [](const Inputs& x, const Attributes& a) -> X {
           const auto axes = axes_of(a, x[0].dimension());
           const X centered = x[0] - mean_over(x[0], axes);
           return finished(mean_over(xt::square(centered), axes), axes, a.get<bool>("keepdims"));
         };
         // What the mean is rounded by is in every distance.
         variance.magnitude = [](const Inputs& x, const Attributes& a) -> X {
           const auto axes = axes_of(a, x[0].dimension());
           return finished(mean_over(xt::square(xt::abs(x[0]) + mean_over(xt::abs(x[0]), axes)), axes), axes,
                           a.get<bool>("keepdims"));
         };
         mean.further = {variance};
         return mean;
       }()},
      {"logsumexp",
       {.value = [](const Inputs& x, const Attributes& a) { return log_sum_exp(x[0], a); },
        .magnitude = [](const Inputs& x, const Attributes& a) -> X { return 1 + xt::abs(log_sum_exp(x[0], a)); }}},
      {"logaddexp",
       {.value = [](const Inputs& x, const Attributes&) -> X {
          return xt::where(xt::equal(x[0], x[1]), x[0] + std::log(2.0),
                           xt::maximum(x[0], x[1]) + xt::log1p(xt::exp(-xt::abs(x[0] - x[1]))));
        },
        .magnitude = [](const Inputs& x, const Attributes&) -> X { return 1 + xt::maximum(xt::abs(x[0]), xt::abs(x[1])); }}},
      {"argmax", moved([](const X& x, const Attributes& a) { return first_greatest(x, axis_of(a, x.dimension())); })},

      // layout
      {"reshape", moved([](X x, const Attributes& a) {
         auto shape = a.get<Shape>("shape");
         std::size_t known = 1;
         for (const Dimension d : shape) known *= d.is_inferred() ? 1 : static_cast<std::size_t>(d.extent());
         std::vector<std::size_t> to;
         for (const Dimension d : shape)
           to.push_back(d.is_inferred() ? x.size() / known : static_cast<std::size_t>(d.extent()));
         return x.reshape(to);
       })},
      {"transpose", moved([](const X& x, const Attributes& a) -> X {
         const auto& permutation = a.get<Axes>("permutation");
         return xt::transpose(x, std::vector<std::size_t>(permutation.begin(), permutation.end()));
       })},
      {"broadcast_to",
       moved([](const X& x, const Attributes& a) -> X { return xt::broadcast(x, sizes_of(a, "shape")); })},
      {"slice", moved([](const X& x, const Attributes& a) { return take(x, axis_of(a, x.dimension()), places(a)); })},
      {"slice_scatter", moved([](const X& x, const Attributes& a) {
         return put(x, axis_of(a, x.dimension()), places(a), sizes_of(a, "whole")[0]);
       })},
      {"slice_add", {.value = [](const Inputs& x, const Attributes& a) -> X {
         const std::size_t axis = axis_of(a, x[0].dimension());
         return x[0] + put(x[1], axis, places(a), x[0].shape()[axis]);
       }}},
      {"slice_update", {.value = [](const Inputs& x, const Attributes& a) -> X {
                          const std::size_t axis = axis_of(a, x[0].dimension());
                          const std::size_t whole = x[0].shape()[axis];
                          const X there = put(xt::ones_like(x[1]), axis, places(a), whole);
                          return xt::where(there > 0.0, put(x[1], axis, places(a), whole), x[0]);
                        },
                        .ulps = 0}},
      {"iota", {.value = [](const Inputs&, const Attributes& a) -> X {
                  return xt::arange<double>(static_cast<double>(sizes_of(a, "size")[0]));
                },
                .ulps = 0}},
      {"split", [] {
         Reference first = part(0);
         for (std::size_t i = 1; i < 3; ++i) first.further.push_back(part(i));
         return first;
       }()},
      {"sort", ordered("descending", false)},
      {"topk", ordered("largest", true)},
      {"take_along_axis", {.value = taken_along, .ulps = 0}},
      {"scatter_along_axis",
       {.value = scattered_along,
        .magnitude = [](const Inputs& x,
                        const Attributes& a) { return scattered_along({xt::abs(x[0]), x[1], xt::abs(x[2])}, a); }}},
      {"take", {.value = taken, .ulps = 0}},
      {"scatter_add",
       {.value = scatter_added,
        .magnitude = [](const Inputs& x,
                        const Attributes& a) { return scatter_added({xt::abs(x[0]), x[1], xt::abs(x[2])}, a); }}},
      {"concat",
       {.value = [](const Inputs& x, const Attributes& a) { return concatenated(x, axis_of(a, x[0].dimension())); },
        .ulps = 0}},

      // products
      {"matmul",
       {.value = [](const Inputs& x, const Attributes& a) { return product(x[0], x[1], a); },
        .magnitude = [](const Inputs& x, const Attributes& a) { return product(xt::abs(x[0]), xt::abs(x[1]), a); }}},

      // images
      {"conv", bilinear(images::convolved)},
      {"conv_input_gradient", bilinear(images::input_gradient)},
      {"conv_weight_gradient", bilinear(images::weight_gradient)},
      {"max_pool",
       {.value = [](const Inputs& x, const Attributes& a) { return images::max_gathered(x[0], x[0], a); }, .ulps = 0}},
      {"max_pool_gather",
       {.value = [](const Inputs& x, const Attributes& a) { return images::max_gathered(x[0], x[1], a); }, .ulps = 0}},
      {"max_pool_scatter",
       {.value = [](const Inputs& x, const Attributes& a) { return images::max_scattered(x[0], x[1], a); },
        .magnitude = [](const Inputs& x,
                        const Attributes& a) { return images::max_scattered(x[0], xt::abs(x[1]), a); }}},
      {"resample", weighted([](const X& x, const Attributes& a) { return images::resampled(x, a, false); })},
      {"resample_gradient", weighted([](const X& x, const Attributes& a) { return images::resampled(x, a, true); })},
      {"unfold", moved([](const X& x, const Attributes& a) { return images::unfolded(x, a); })},
      {"fold", weighted([](const X& x, const Attributes& a) { return images::folded(x, a); })},

      // softmax and losses
      {"softmax",
       {.value = [](const Inputs& x, const Attributes& a) { return softmax(x[0], axis_of(a, x[0].dimension())); },
        .magnitude = [](const Inputs& x, const Attributes& a) -> X {
          const std::size_t axis = axis_of(a, x[0].dimension());
          return softmax(x[0], axis) * softmax_terms(x[0], axis);
        }}},
      {"attention_weights",  // of all -inf: 0 / 1
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          const std::size_t axis = x[0].dimension() - 1;
          const X z = seen(x[0], a);
          const X e = xt::exp(z - finite_or_zero(greatest(z, {axis})));
          const X all = total(e, {axis});
          return e / xt::where(xt::equal(all, 0.0), 1.0, all);
        },
        .magnitude = [](const Inputs& x, const Attributes& a) -> X {
          const std::size_t axis = x[0].dimension() - 1;
          const X z = seen(x[0], a);
          const X e = xt::exp(z - finite_or_zero(greatest(z, {axis})));
          const X all = total(e, {axis});
          const X size = 1 + finite_or_zero(xt::abs(z)) + finite_or_zero(xt::abs(greatest(z, {axis})));
          return e / xt::where(xt::equal(all, 0.0), 1.0, all) * size;
        }}},
      {"softmax_gradient",
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          return x[0] * (x[1] - total(x[0] * x[1], {axis_of(a, x[0].dimension())}));
        },
        .magnitude = [](const Inputs& x, const Attributes& a) -> X {
          const X y = xt::abs(x[0]);
          const X dy = xt::abs(x[1]);
          return y * (dy + total(y * dy, {axis_of(a, x[0].dimension())}));
        }}},
      {"log_softmax",
       {.value = [](const Inputs& x, const Attributes& a) { return log_softmax(x[0], axis_of(a, x[0].dimension())); },
        .magnitude = [](const Inputs& x,
                        const Attributes& a) { return softmax_terms(x[0], axis_of(a, x[0].dimension())); }}},
      {"sigmoid_cross_entropy",
       {.value =
            [](const Inputs& x, const Attributes&) {
              return mean_of_all(weighed(x[1], softplus(-x[0])) + weighed(1 - x[1], softplus(x[0])));
            },
        .magnitude = [](const Inputs& x, const Attributes&) { return mean_of_all(1 + xt::abs(x[0])); }}},
      {"softmax_cross_entropy",
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          const std::size_t axis = axis_of(a, x[0].dimension());
          return -mean_over_examples(weighed(x[1], log_softmax(x[0], axis)), axis);
        },
        .magnitude =
            [](const Inputs& x, const Attributes& a) {
              const std::size_t axis = axis_of(a, x[0].dimension());
              return mean_over_examples(xt::abs(x[1]) * softmax_terms(x[0], axis), axis);
            }}},
      {"logistic_loss",
       {.value = [](const Inputs& x, const Attributes&) -> X {
          return weighed(x[1], softplus(-x[0])) + weighed(1 - x[1], softplus(x[0]));
        },
        .magnitude = [](const Inputs& x, const Attributes&) -> X { return 1 + xt::abs(x[0]) * (xt::abs(x[1]) + xt::abs(1 - x[1])); }}},
      {"binary_cross_entropy",
       {.value = [](const Inputs& x, const Attributes&) -> X {
          return -weighed(x[1], xt::log(x[0])) - weighed(1 - x[1], xt::log1p(-x[0]));
        },
        .magnitude = [](const Inputs& x, const Attributes&) -> X {
          return xt::abs(weighed(x[1], xt::log(x[0]))) + xt::abs(weighed(1 - x[1], xt::log1p(-x[0])));
        }}},
      {"class_cross_entropy", class_cost()},
      {"class_cross_entropy_slope",
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          const std::size_t axis = axis_of(a, x[0].dimension());
          const X hot = hot_rows(x[1], axis, x[0].shape()[axis]);
          return xt::expand_dims(x[2], axis) * (softmax(x[0], axis) - hot);
        },
        .magnitude = [](const Inputs& x, const Attributes& a) -> X {
          const std::size_t axis = axis_of(a, x[0].dimension());
          const X hot = hot_rows(x[1], axis, x[0].shape()[axis]);
          return xt::abs(xt::expand_dims(x[2], axis)) * (softmax(x[0], axis) * softmax_terms(x[0], axis) + hot);
        },
        .further = {class_cost()}}},
      {"ctc",
       [] {
         Reference cost = ctc_part(false);
         cost.further = {ctc_part(true)};
         return cost;
       }()},
      {"huber", unsigned_zero({.value = [](const Inputs& x, const Attributes& a) -> X {
                  const double delta = a.number("delta");
                  const X size = xt::abs(x[0]);
                  return xt::where(size > delta, delta * (size - delta / 2), size * size / 2);
                }})},
      {"xlogy", unsigned_zero(two([](const X& a, const X& b) -> X {
         const X log_b = xt::log(b);
         const X nothing = xt::where(xt::isnan(b), b, 0.0 * a * xt::ones_like(b));
         return xt::where(xt::equal(a + 0.0 * xt::ones_like(b), 0.0), nothing, a * log_b);
       }))},
      {"kl_term",
       {.value = [](const Inputs& x, const Attributes&) -> X {
          const X p = x[0] + 0.0 * xt::ones_like(x[1]);
          return xt::where(xt::equal(p, 0.0), xt::where(xt::isnan(x[1]), x[1], 0.0), p * (xt::log(p) - x[1]));
        },
        .magnitude = [](const Inputs& x, const Attributes&) -> X {
          const X p = x[0] + 0.0 * xt::ones_like(x[1]);
          return xt::where(xt::equal(p, 0.0), 1.0, xt::abs(p) * (xt::abs(xt::log(p)) + xt::abs(x[1])));
        }}},
      {"mean_squared_error",
       {.value = [](const Inputs& x, const Attributes&) { return mean_of_all(xt::square(x[0] - x[1])); }}},
      {"one_hot", moved([](const X& x, const Attributes& a) { return one_hot(x, a); })},

      // normalization
      {"batch_norm",
       {.value = [](const Inputs& x, const Attributes& a) { return BatchNorm(x, a).training(); },
        .magnitude = [](const Inputs& x, const Attributes& a) { return BatchNorm(x, a).magnitude(); },
        .inference = [](const Inputs& x, const Attributes& a) { return BatchNorm(x, a).inference(); }}},
      {"statistics",
       {.value = [](const Inputs& x, const Attributes& a) { return norms::means_of_parts(x[0], a); },
        .magnitude = [](const Inputs& x, const Attributes& a) { return norms::means_of_parts(xt::abs(x[0]), a); },
        .further = {{.value = [](const Inputs& x,
                                 const Attributes& a) { return norms::variances_of_parts(x[0], a); }}}}},
      {"centered_sums", centered_sums(false, {centered_sums(true)})},
      {"row_norm_gradient",
       [] {
         Reference x = gradient_of_rows(&norms::Gradients::x);
         x.further = {gradient_of_rows(&norms::Gradients::gamma), gradient_of_rows(&norms::Gradients::beta)};
         return x;
       }()},
      {"layer_norm", normalization(norms::from_axis)},
      {"rms_norm", normalization(norms::from_axis, false)},
      {"group_norm", normalization(norms::in_groups)},
      {"instance_norm", normalization(norms::in_groups)},
      {"weight_norm", {.value = norms::weight_norm}},
      {"spectral_norm", {.value = norms::spectral_norm}},

      // steering
      {"by_mode",
       {.value = [](const Inputs& x, const Attributes&) -> X { return xt::broadcast(x[0], shape_of(x[0] + x[1])); },
        .ulps = 0,
        .inference = [](const Inputs& x, const Attributes&) -> X { return xt::broadcast(x[1], shape_of(x[0] + x[1])); },
        .signed_zero = true}},
      {"stop_gradient", one([](const X& x) { return x; }, 0)},
      {"cast",
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          const auto to = a.get<DType>("dtype");
          if (to == boolean) return xt::cast<double>(xt::not_equal(x[0], 0.0));
          if (to == int64) return xt::trunc(x[0]);
          return x[0];
        },
        .ulps = 0.5}},
      {"extent",
       {.value = [](const Inputs&, const Attributes& a) -> X {
          double n = 1;
          for (const auto extent : sizes_of(a, "shape")) n *= static_cast<double>(extent);
          return n;
        },
        .ulps = 0}},

      // random numbers
      {"dropout_mask", moved([](const X& step, const Attributes& a) { return dropout_mask(step, a); })},
      {"random_open_unit",
       {.value = [](const Inputs& x, const Attributes& a) { return random_open_units(x[0], a); }, .ulps = 0.5}},
      {"random_permutation", moved([](const X& step, const Attributes& a) { return random_permutation(step, a); })},
      {"random_uniform",
       {.value = [](const Inputs& x, const Attributes& a) -> X {
          return a.number("low") + (a.number("high") - a.number("low")) * random_units(x[0], a);
        },
        .ulps = 0.5}},
  };
  return table;
}

}  // namespace chainrule::test
