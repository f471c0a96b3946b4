#include <chainrule/framework/data.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>

#include <fmt/core.h>

namespace chainrule::data {

namespace {

std::size_t example_axis(const Array& array, std::size_t axis, std::string_view op, Location at) {
  if (array.rank() == 1) return 0;
  if (axis >= array.rank())
    throw Error(at, op,
                fmt::format("requires arrays with axis {}, which counts the examples, got shape {}", axis,
                            to_string(array.shape())));
  return axis;
}

void check(const Dataset& dataset, std::int64_t batch_size, std::string_view op, Location at) {
  const auto& [x, y, axis] = dataset;
  const std::int64_t examples = x.shape()[example_axis(x, axis, op, at)];
  const std::int64_t labels = y.shape()[example_axis(y, axis, op, at)];
  if (examples != labels)
    throw Error(at, op,
                fmt::format("requires as many examples in x as in y, got {} and {} along axis {} of shapes {} and {}",
                            examples, labels, axis, to_string(x.shape()), to_string(y.shape())));
  if (examples == 0) throw Error(at, op, fmt::format("requires at least one example, got {}", to_string(x.shape())));
  if (batch_size < 1) throw Error(at, op, fmt::format("requires a batch size of 1 or more, got {}", batch_size));
}

// Makes `to` the examples first, ..., first + examples - 1 of `from`, counted in the given order. `to` is empty at
// first and is given batches of one array only, so its number of examples tells whether it fits.
void gather_into(Array& to, const Array& from, std::size_t axis, std::span<const std::int64_t> order,
                 std::int64_t first, std::int64_t examples) {
  const Dims& shape = from.shape();
  const std::int64_t all = shape[axis];
  if (to.rank() != from.rank() || to.shape()[axis] != examples) {
    Dims wanted = shape;
    wanted[axis] = examples;
    to = Array(from.dtype(), wanted);
  }
  std::int64_t outer = 1;
  std::int64_t inner = 1;
  for (std::size_t i = 0; i < axis; ++i) outer *= shape[i];
  for (std::size_t i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  visit_dtype(from.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* source = from.data<T>();
    T* out = to.data<T>();
    for (std::int64_t o = 0; o < outer; ++o, source += all * inner) {
      if (order.empty()) {
        out = std::copy_n(source + first * inner, examples * inner, out);
        continue;
      }
      const auto picked = order.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(examples));
      if (inner == 1) {  // the column layout: a loop of its own, several times as fast as copies of one element
        for (const auto i : picked) *out++ = source[i];
      } else {
        for (const auto i : picked) out = std::copy_n(source + i * inner, inner, out);
      }
    }
  });
}

// numpy.linspace(0, pi, points)[i]: the end is exact. (The cosines and sines are libm's, as NumPy's are but on
// processors with AVX-512: there it has its own, which differ in the last bit.)
double angle(std::int64_t i, std::int64_t points) {
  if (i == 0) return 0;
  if (i == points - 1) return std::numbers::pi;
  return static_cast<double>(i) * (std::numbers::pi / static_cast<double>(points - 1));
}

}  // namespace

std::int64_t Dataset::size() const { return x.shape()[example_axis(x, axis, "dataset", Location{})]; }

Batches::Batches(const Dataset& dataset, std::int64_t batch_size, std::vector<std::int64_t> order)
    : dataset_(&dataset),
      examples_(dataset.size()),
      batch_size_(std::min(batch_size, examples_)),
      order_(std::move(order)) {}

void Batches::Iterator::gather() {
  const Dataset& all = *batches_->dataset_;
  const std::int64_t first = index_ * batches_->batch_size_;
  const std::int64_t examples = std::min(batches_->batch_size_, batches_->examples_ - first);
  if (examples <= 0) return;  // at the end
  const auto gather_one = [&](Array& to, const Array& from) {
    gather_into(to, from, example_axis(from, all.axis, "batches", Location{}), batches_->order_, first, examples);
  };
  gather_one(batch_.x, all.x);
  gather_one(batch_.y, all.y);
  batch_.axis = all.axis;
}

Batches batches(const Dataset& dataset, std::int64_t batch_size, Location at) {
  check(dataset, batch_size, "batches", at);
  return {dataset, batch_size, {}};
}

Batches mini_batches(const Dataset& dataset, std::int64_t batch_size, numpy::RandomState& rng, Location at) {
  check(dataset, batch_size, "mini_batches", at);
  return {dataset, batch_size, rng.permutation(dataset.size())};
}

Dataset make_moons(const MoonsOptions& options, numpy::RandomState& rng, Location at) {
  const std::int64_t samples = options.samples;
  if (samples < 0) throw Error(at, "make_moons", fmt::format("requires 0 samples or more, got {}", samples));
  if (options.noise && !(*options.noise >= 0))
    throw Error(at, "make_moons", fmt::format("requires a noise of 0 or more, got {}", *options.noise));

  const std::int64_t outer = samples / 2;
  const std::int64_t inner = samples - outer;
  std::vector<std::int64_t> order;
  if (options.shuffle) {
    order = rng.permutation(samples);
  } else {
    order.resize(static_cast<std::size_t>(samples));
    std::iota(order.begin(), order.end(), 0);
  }

  Dataset moons{Array(float64, {2, samples}), Array(float64, {1, samples})};
  double* x0 = moons.x.data<double>();
  double* x1 = x0 + samples;
  double* y = moons.y.data<double>();
  for (const auto i : order) {
    if (i < outer) {
      const double t = angle(i, outer);
      *x0 = std::cos(t);
      *x1 = std::sin(t);
      *y = 0;
    } else {
      const double t = angle(i - outer, inner);
      *x0 = 1 - std::cos(t);
      *x1 = 1 - std::sin(t) - 0.5;  // rounded after each step, as the original
      *y = 1;
    }
    if (options.noise) {
      *x0 += rng.normal(0, *options.noise);
      *x1 += rng.normal(0, *options.noise);
    }
    ++x0, ++x1, ++y;
  }
  return moons;
}

double accuracy(const Array& probabilities, const Array& labels, Location at) {
  if (!(probabilities.shape() == labels.shape()))
    throw Error(at, "accuracy",
                fmt::format("requires probabilities and labels of one shape, got {} and {}",
                            to_string(probabilities.shape()), to_string(labels.shape())));
  if (labels.size() == 0)
    throw Error(at, "accuracy", fmt::format("requires at least one label, got {}", to_string(labels.shape())));
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < labels.size(); ++i)
    if ((probabilities[i] > 0.5 ? 1.0 : 0.0) == labels[i]) ++right;
  return static_cast<double>(right) / static_cast<double>(labels.size());
}

}  // namespace chainrule::data
