#include <chainrule/framework/data/data.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <span>
#include <string_view>
#include <type_traits>
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
  const std::int64_t labels = dataset.has_y() ? y.shape()[example_axis(y, axis, op, at)] : examples;
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
  visit_bits(from.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* source = static_cast<const T*>(from.raw());
    T* out = static_cast<T*>(to.raw());
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

// The number of each example's class: examples of equal y are one class, in the order of their first appearance.
std::vector<std::size_t> classes_of(const Dataset& dataset) {
  const Array& y = dataset.y;
  const std::size_t axis = y.rank() == 1 ? 0 : dataset.axis;
  std::map<std::vector<double>, std::size_t> numbers;
  std::vector<std::size_t> out;
  std::int64_t inner = 1;
  for (std::size_t i = axis + 1; i < y.rank(); ++i) inner *= y.shape()[i];
  const std::int64_t examples = y.shape()[axis];
  for (std::int64_t e = 0; e < examples; ++e) {
    std::vector<double> label;
    for (std::int64_t start = e * inner; start < y.size(); start += examples * inner)
      for (std::int64_t i = 0; i < inner; ++i) label.push_back(y[start + i]);
    out.push_back(numbers.try_emplace(std::move(label), numbers.size()).first->second);
  }
  return out;
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
  if (all.has_y()) gather_one(batch_.y, all.y);
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

// ---- split

namespace {

constexpr std::size_t parts = 3;
using Shares = std::array<double, parts>;
using Quotas = std::array<std::int64_t, parts>;  // how many examples each part gets

Shares shares_of(const SplitOptions& options, Location at) {
  if (!(options.train >= 0 && options.dev >= 0 && options.test >= 0) ||
      !(std::abs(options.train + options.dev + options.test - 1) < 1e-9))
    throw Error(at, "split",
                fmt::format("requires shares of 0 or more that sum to 1, got {}, {} and {}", options.train, options.dev,
                            options.test));
  return {options.train, options.dev, options.test};
}

// Of classes of these sizes a part gets its share each, rounded down; the few examples left over go, one each, to the
// parts that are furthest below their shares of all classes so far.
std::vector<Quotas> quotas_of(const std::vector<std::int64_t>& sizes, const Shares& shares) {
  std::vector<Quotas> quotas(sizes.size());
  Quotas totals{};
  std::int64_t seen = 0;
  for (std::size_t c = 0; c < sizes.size(); ++c) {
    seen += sizes[c];
    std::int64_t left = sizes[c];
    for (std::size_t p = 0; p < parts; ++p) {
      quotas[c][p] = static_cast<std::int64_t>(shares[p] * static_cast<double>(sizes[c]));
      left -= quotas[c][p];
      totals[p] += quotas[c][p];
    }
    std::array<std::size_t, parts> neediest{0, 1, 2};
    const auto lacks = [&](std::size_t p) {
      if (shares[p] == 0) return -std::numeric_limits<double>::infinity();
      return shares[p] * static_cast<double>(seen) - static_cast<double>(totals[p]);
    };
    std::stable_sort(neediest.begin(), neediest.end(),
                     [&](std::size_t a, std::size_t b) { return lacks(a) > lacks(b); });
    for (std::size_t i = 0; left > 0; ++i, --left) {
      ++quotas[c][neediest[i % parts]];
      ++totals[neediest[i % parts]];
    }
  }
  return quotas;
}

void require_examples(const std::vector<Quotas>& quotas, const Shares& shares, std::int64_t examples, Location at) {
  for (std::size_t p = 0; p < parts; ++p) {
    const bool any = std::any_of(quotas.begin(), quotas.end(), [p](const Quotas& quota) { return quota[p] > 0; });
    if (shares[p] > 0 && !any)
      throw Error(at, "split",
                  fmt::format("requires enough examples for every part, got {} for shares of {}, {} and {}", examples,
                              shares[0], shares[1], shares[2]));
  }
}

Dataset pick(const Dataset& dataset, const std::vector<std::int64_t>& order, Location at) {
  Dataset out{.axis = dataset.axis};
  const auto pick_from = [&](Array& to, const Array& from) {
    to = Array(from.dtype(), {});
    gather_into(to, from, example_axis(from, dataset.axis, "split", at), order, 0,
                static_cast<std::int64_t>(order.size()));
  };
  pick_from(out.x, dataset.x);
  if (dataset.has_y()) pick_from(out.y, dataset.y);
  return out;
}

}  // namespace

Split split(const Dataset& dataset, const SplitOptions& options, numpy::RandomState& rng, Location at) {
  check(dataset, 1, "split", at);
  const Shares shares = shares_of(options, at);
  const std::int64_t examples = dataset.size();
  const std::vector<std::size_t> classes = options.stratified && dataset.has_y()
                                               ? classes_of(dataset)
                                               : std::vector<std::size_t>(static_cast<std::size_t>(examples), 0);
  std::vector<std::int64_t> sizes;
  for (const std::size_t c : classes) {
    if (c >= sizes.size()) sizes.resize(c + 1, 0);
    ++sizes[c];
  }
  std::vector<Quotas> left = quotas_of(sizes, shares);
  require_examples(left, shares, examples, at);

  std::array<std::vector<std::int64_t>, parts> chosen;
  for (const std::int64_t example : rng.permutation(examples)) {
    Quotas& quota = left[classes[static_cast<std::size_t>(example)]];
    std::size_t p = 0;
    while (quota[p] == 0) ++p;
    --quota[p];
    chosen[p].push_back(example);
  }
  return {pick(dataset, chosen[0], at), pick(dataset, chosen[1], at), pick(dataset, chosen[2], at)};
}

// ---- Standardizer

namespace {

// An array as {outer, examples, inner}: feature o * inner + i of example e is element (o, e, i).
struct Layout {
  std::int64_t outer = 1;
  std::int64_t examples = 0;
  std::int64_t inner = 1;
};

Layout layout_of(const Array& x, std::size_t axis) {
  Layout out;
  for (std::size_t i = 0; i < axis; ++i) out.outer *= x.shape()[i];
  out.examples = x.shape()[axis];
  for (std::size_t i = axis + 1; i < x.rank(); ++i) out.inner *= x.shape()[i];
  return out;
}

}  // namespace

Standardizer::Standardizer(const Dataset& train, Location at) : axis_(train.axis) {
  const std::size_t axis = example_axis(train.x, axis_, "standardizer", at);
  const auto [outer, examples, inner] = layout_of(train.x, axis);
  if (examples == 0)
    throw Error(at, "standardizer", fmt::format("requires at least one example, got {}", to_string(train.x.shape())));
  Dims shape = train.x.shape();
  shape[axis] = 1;
  mean_ = Array(float64, shape);
  deviation_ = Array(float64, shape);
  visit_dtype(train.x.dtype(), [&, outer = outer, examples = examples, inner = inner](auto t) {
    const auto* x = train.x.data<decltype(t)>();
    for (std::int64_t feature = 0; feature < outer * inner; ++feature) {
      const auto* first = x + feature / inner * examples * inner + feature % inner;
      const auto value = [&, inner = inner](std::int64_t e) { return static_cast<double>(first[e * inner]); };
      double sum = 0;
      bool constant = true;
      for (std::int64_t e = 0; e < examples; ++e) {
        sum += value(e);
        constant = constant && value(e) == value(0);
      }
      // The mean of equal numbers need not be that number: rounding is not to look like a deviation.
      const double mean = constant ? value(0) : sum / static_cast<double>(examples);
      double squares = 0;
      for (std::int64_t e = 0; e < examples; ++e) squares += (value(e) - mean) * (value(e) - mean);
      mean_.data<double>()[feature] = mean;
      deviation_.data<double>()[feature] = std::sqrt(squares / static_cast<double>(examples));
    }
  });
}

Array Standardizer::operator()(const Array& x, Location at) const {
  const std::size_t axis = example_axis(x, axis_, "standardizer", at);
  Dims shape = x.shape();
  shape[axis] = 1;
  if (!(shape == mean_.shape()))
    throw Error(at, "standardizer",
                fmt::format("requires the features that it was fitted on, shape {}, got {}", to_string(mean_.shape()),
                            to_string(shape)));
  const auto [outer, examples, inner] = layout_of(x, axis);
  Array out(x.dtype() == float32 ? float32 : float64, x.shape());
  const auto* means = mean_.data<double>();
  const auto* deviations = deviation_.data<double>();
  visit_dtype(x.dtype(), [&, outer = outer, examples = examples, inner = inner](auto t) {
    using T = decltype(t);
    using Out = std::conditional_t<std::is_same_v<T, float>, float, double>;
    const T* from = x.data<T>();
    Out* to = out.data<Out>();
    for (std::int64_t o = 0; o < outer; ++o)
      for (std::int64_t e = 0; e < examples; ++e)
        for (std::int64_t i = 0; i < inner; ++i) {
          const double deviation = deviations[o * inner + i];
          *to++ =
              static_cast<Out>((static_cast<double>(*from++) - means[o * inner + i]) / (deviation > 0 ? deviation : 1));
        }
  });
  return out;
}

Dataset Standardizer::operator()(const Dataset& dataset, Location at) const {
  if (dataset.axis != axis_ && dataset.x.rank() > 1)
    throw Error(at, "standardizer",
                fmt::format("requires examples along axis {}, as it was fitted on, got {}", axis_, dataset.axis));
  return {(*this)(dataset.x, at), dataset.y, dataset.axis};
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
