#include <chainrule/framework/train/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include <fmt/core.h>

namespace chainrule::metrics {

namespace {

void require(bool holds, std::string_view function, std::string_view required, const std::string& got, Location at) {
  if (!holds) throw Error(at, function, fmt::format("requires {}, got {}", required, got));
}

void require_alike(const Array& a, const Array& b, std::string_view function, Location at) {
  require(a.shape() == b.shape(), function, "arrays of one shape",
          fmt::format("{} and {}", to_string(a.shape()), to_string(b.shape())), at);
  require(a.size() > 0, function, "at least one example", "none", at);
}

// Element i as a class.
std::int64_t class_of(const Array& x, std::int64_t i, std::int64_t classes, std::string_view function, Location at) {
  const double number = x[i];
  require(number >= 0 && number < static_cast<double>(classes) && number == std::floor(number), function,
          fmt::format("classes of 0 to {}", classes - 1), fmt::format("{} at {}", number, i), at);
  return static_cast<std::int64_t>(number);
}

double share(std::int64_t part, std::int64_t of) {
  return of == 0 ? 0 : static_cast<double>(part) / static_cast<double>(of);
}

double mean_of(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

}  // namespace

Array confusion_matrix(const Array& predicted, const Array& labels, std::int64_t classes, Location at) {
  constexpr std::string_view function = "confusion_matrix";
  require(classes > 0, function, "at least one class", fmt::format("{}", classes), at);
  require_alike(predicted, labels, function, at);
  Array out(int64, {classes, classes});
  auto* counts = out.data<std::int64_t>();
  for (std::int64_t i = 0; i < labels.size(); ++i) {
    const std::int64_t truly = class_of(labels, i, classes, function, at);
    ++counts[truly * classes + class_of(predicted, i, classes, function, at)];
  }
  return out;
}

double top_k_accuracy(const Array& scores, const Array& labels, std::int64_t k, Location at) {
  constexpr std::string_view function = "top_k_accuracy";
  require(scores.rank() == 2 && labels.shape() == Dims{scores.shape()[0]} && labels.size() > 0, function,
          "scores {examples, classes} and a label for each example",
          fmt::format("{} and {}", to_string(scores.shape()), to_string(labels.shape())), at);
  const std::int64_t classes = scores.shape()[1];
  require(k >= 1 && k <= classes, function, fmt::format("a k of 1 to {}", classes), fmt::format("{}", k), at);
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < labels.size(); ++i) {
    const std::int64_t label = class_of(labels, i, classes, function, at);
    const double own = scores[i * classes + label];
    std::int64_t before = 0;
    for (std::int64_t c = 0; c < classes; ++c) {
      const double other = scores[i * classes + c];
      require(!std::isnan(other), function, "scores that are no NaN", fmt::format("one of example {}", i), at);
      before += other > own || (other == own && c < label) ? 1 : 0;
    }
    right += before < k ? 1 : 0;
  }
  return share(right, labels.size());
}

ClassScores class_scores(const Array& confusion, Location at) {
  constexpr std::string_view function = "class_scores";
  require(confusion.rank() == 2 && confusion.shape()[0] == confusion.shape()[1] && confusion.size() > 0, function,
          "a confusion matrix {classes, classes}", to_string(confusion.shape()), at);
  const std::int64_t classes = confusion.shape()[0];
  ClassScores out;
  std::int64_t right = 0;
  std::int64_t all = 0;
  for (std::int64_t c = 0; c < classes; ++c) {
    std::int64_t taken_for = 0;
    std::int64_t is = 0;
    for (std::int64_t other = 0; other < classes; ++other) {
      taken_for += static_cast<std::int64_t>(confusion[other * classes + c]);
      is += static_cast<std::int64_t>(confusion[c * classes + other]);
    }
    const auto hits = static_cast<std::int64_t>(confusion[c * classes + c]);
    right += hits;
    all += is;
    out.precision.push_back(share(hits, taken_for));
    out.recall.push_back(share(hits, is));
    out.f1.push_back(share(2 * hits, taken_for + is));
    out.support.push_back(is);
  }
  require(all > 0, function, "at least one example", "none", at);
  out.accuracy = share(right, all);
  out.macro_precision = mean_of(out.precision);
  out.macro_recall = mean_of(out.recall);
  out.macro_f1 = mean_of(out.f1);
  return out;
}

double roc_auc(const Array& scores, const Array& labels, Location at) {
  constexpr std::string_view function = "roc_auc";
  require_alike(scores, labels, function, at);
  const auto n = static_cast<std::size_t>(scores.size());
  std::vector<std::int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::int64_t ones = 0;
  for (const std::int64_t i : order) {
    require(!std::isnan(scores[i]), function, "scores that are no NaN", fmt::format("one at {}", i), at);
    ones += class_of(labels, i, 2, function, at);
  }
  const auto zeros = static_cast<std::int64_t>(n) - ones;
  require(ones > 0 && zeros > 0, function, "examples of both labels", fmt::format("{} of 1 and {} of 0", ones, zeros),
          at);
  std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return scores[a] < scores[b]; });
  // Pairs of a 1 above a 0, twice counted; of equal scores once.
  double pairs = 0;
  std::int64_t zeros_below = 0;
  for (std::size_t begin = 0; begin < n;) {
    std::size_t end = begin;
    std::int64_t ones_here = 0;
    for (; end < n && scores[order[end]] == scores[order[begin]]; ++end) ones_here += labels[order[end]] == 1 ? 1 : 0;
    const std::int64_t zeros_here = static_cast<std::int64_t>(end - begin) - ones_here;
    pairs += static_cast<double>(ones_here) * static_cast<double>(2 * zeros_below + zeros_here);
    zeros_below += zeros_here;
    begin = end;
  }
  return pairs / (2 * static_cast<double>(ones) * static_cast<double>(zeros));
}

double r2(const Array& predicted, const Array& y, Location at) {
  constexpr std::string_view function = "r2";
  require_alike(predicted, y, function, at);
  double mean = 0;
  for (std::int64_t i = 0; i < y.size(); ++i) mean += y[i] / static_cast<double>(y.size());
  double left = 0;
  double all = 0;
  for (std::int64_t i = 0; i < y.size(); ++i) {
    left += (y[i] - predicted[i]) * (y[i] - predicted[i]);
    all += (y[i] - mean) * (y[i] - mean);
  }
  require(all != 0, function, "numbers that are not all the same", fmt::format("only {}", y[0]), at);
  return 1 - left / all;
}

double perplexity(double cross_entropy) { return std::exp(cross_entropy); }

}  // namespace chainrule::metrics
