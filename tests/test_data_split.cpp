#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

#include <chainrule/framework/data/data.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::data::Dataset;
using chainrule::data::split;
using chainrule::data::SplitOptions;
using chainrule::data::Standardizer;
using chainrule::numpy::RandomState;

namespace {

// Examples whose x is their number, with these labels, in columns.
Dataset numbered(const std::vector<double>& labels) {
  const auto m = static_cast<std::int64_t>(labels.size());
  Dataset out{Array(chainrule::float64, {2, m}), Array(chainrule::int64, {1, m})};
  for (std::int64_t i = 0; i < m; ++i) {
    out.x.set(i, static_cast<double>(i));
    out.x.set(m + i, static_cast<double>(-i));
    out.y.set(i, labels[static_cast<std::size_t>(i)]);
  }
  return out;
}

}  // namespace

TEST_CASE("split gives every example to one part, with its label") {
  std::vector<double> labels;
  for (int i = 0; i < 97; ++i) labels.push_back(i % 7 == 0 ? 2 : i % 3 == 0 ? 1 : 0);
  const Dataset all = numbered(labels);
  const bool stratified = GENERATE(true, false);
  const auto parts = split(all, {.stratified = stratified}, RandomState(4));
  std::vector<std::int64_t> seen;
  for (const Dataset* part : {&parts.train, &parts.dev, &parts.test}) {
    CHECK(part->axis == 1);
    CHECK(part->y.dtype() == chainrule::int64);
    REQUIRE(part->y.shape() == Dims{1, part->size()});
    for (std::int64_t i = 0; i < part->size(); ++i) {
      const auto number = static_cast<std::int64_t>(part->x(0, i));
      seen.push_back(number);
      CHECK(part->x(1, i) == static_cast<double>(-number));
      CHECK(part->y[i] == labels[static_cast<std::size_t>(number)]);
    }
  }
  std::sort(seen.begin(), seen.end());
  REQUIRE(seen.size() == 97);
  for (std::int64_t i = 0; i < 97; ++i) CHECK(seen[static_cast<std::size_t>(i)] == i);
  CHECK(parts.train.size() == 58);  // 58.2, 19.4, 19.4
  CHECK(parts.dev.size() + parts.test.size() == 39);
  // Another seed, another split; the same seed, the same.
  CHECK(split(all, {.stratified = stratified}, RandomState(4)).train.x.identical(parts.train.x));
  CHECK(!split(all, {.stratified = stratified}, RandomState(5)).train.x.identical(parts.train.x));
  // Shuffled: not in the order of the data set.
  std::vector<double> order;
  for (std::int64_t i = 0; i < parts.train.size(); ++i) order.push_back(parts.train.x(0, i));
  CHECK(!std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("split keeps the share of every class") {
  RandomState rng(1);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<double> labels;
    const auto classes = rng.randint(1, 8);
    for (std::int64_t i = rng.randint(20, 300); i > 0; --i)
      labels.push_back(static_cast<double>(rng.randint(0, rng.randint(1, classes + 1))));
    const Dataset all = numbered(labels);
    const SplitOptions options =
        trial % 2 == 0 ? SplitOptions{} : SplitOptions{.train = 0.7, .dev = 0.2, .test = 1 - 0.7 - 0.2};
    const auto parts = split(all, options, rng);
    std::map<double, double> sizes;
    for (const double label : labels) ++sizes[label];
    const std::array shares{options.train, options.dev, options.test};
    std::size_t p = 0;
    for (const Dataset* part : {&parts.train, &parts.dev, &parts.test}) {
      std::map<double, double> counts;
      for (std::int64_t i = 0; i < part->size(); ++i) ++counts[part->y[i]];
      for (const auto& [label, size] : sizes) {
        INFO("trial " << trial << ", part " << p << ", class " << label << " of " << size);
        CHECK(std::abs(counts[label] - shares[p] * size) < 1 + 1e-6);
      }
      CHECK(std::abs(static_cast<double>(part->size()) - shares[p] * static_cast<double>(labels.size())) < 2);
      ++p;
    }
  }
}

TEST_CASE("split takes one-hot labels, rows, and parts of no share") {
  // One example a row, three classes as one-hot rows, 10 examples each.
  Dataset all{Array(chainrule::float32, {30, 1}), Array(chainrule::float32, {30, 3}), 0};
  for (std::int64_t i = 0; i < 30; ++i) {
    all.x.set(i, static_cast<double>(i));
    all.y.set(3 * i + i % 3, 1);
  }
  const auto parts = split(all, {.train = 0.5, .dev = 0, .test = 0.5}, RandomState(0));
  CHECK(parts.dev.size() == 0);
  for (const Dataset* part : {&parts.train, &parts.test}) {
    REQUIRE(part->x.shape() == Dims{15, 1});
    REQUIRE(part->y.shape() == Dims{15, 3});
    std::array<double, 3> counts{};
    for (std::int64_t i = 0; i < 15; ++i)
      for (std::int64_t c = 0; c < 3; ++c) {
        counts[static_cast<std::size_t>(c)] += part->y(i, c);
        CHECK(part->y(i, c) == (static_cast<std::int64_t>(part->x[i]) % 3 == c ? 1 : 0));
      }
    CHECK(counts == std::array<double, 3>{5, 5, 5});
  }
}

TEST_CASE("Errors of split draw nothing") {
  RandomState rng(2);
  const Dataset all = numbered({0, 1, 0, 1, 1});
  CHECK_THROWS_WITH(split(all, {.train = 0.9}, rng),
                    ContainsSubstring("split: requires shares of 0 or more that sum to 1, got 0.9, 0.2 and 0.2") &&
                        ContainsSubstring("test_data_split.cpp:"));
  CHECK_THROWS_WITH(split(all, {.train = 1.2, .dev = -0.2, .test = 0}, rng), ContainsSubstring("0 or more"));
  CHECK_THROWS_WITH(split(numbered({1, 1}), {}, rng),
                    ContainsSubstring("requires enough examples for every part, got 2"));
  CHECK_THROWS_WITH(split(numbered({}), {}, rng), ContainsSubstring("requires at least one example"));
  CHECK(rng.rand() == RandomState(2).rand());
}

TEST_CASE("Standardizer uses the training set's mean and deviation") {
  const Dataset train{Array({{1, 2, 3, 6}, {10, 10, 10, 10}, {0.1, 0.1, 0.1, 0.1}}), Array({{0, 0, 1, 1}})};
  const Standardizer standardize(train);
  CHECK(standardize.mean().identical(Array({{3}, {10}, {0.1}})));
  const double deviation = std::sqrt((4.0 + 1 + 0 + 9) / 4);
  CHECK(chainrule::allclose(standardize.deviation(), Array({{deviation}, {0}, {0}}), 1e-15, 0));
  const Dataset done = standardize(train);
  CHECK(done.y.identical(train.y));
  CHECK(chainrule::allclose(
      done.x, Array({{-2 / deviation, -1 / deviation, 0, 3 / deviation}, {0, 0, 0, 0}, {0, 0, 0, 0}}), 1e-15, 0));
  // Other examples by the same numbers; a feature without deviation is centred only.
  const Dataset test{Array({{5.0}, {13.0}, {0.1}}), Array({{1.0}})};
  CHECK(chainrule::allclose(standardize(test).x, Array({{2 / deviation}, {3}, {0}}), 1e-15, 0));
  CHECK(standardize(test).axis == 1);
}

TEST_CASE("Standardizer in every layout and dtype") {
  RandomState rng(6);
  for (const auto dtype : {chainrule::float32, chainrule::float64, chainrule::int64}) {
    const Dataset rows{(rng.randn(500, 3, 2) * 20 + 5).astype(dtype), Array(chainrule::int64, {500}), 0};
    const Standardizer standardize(rows);
    CHECK(standardize.mean().shape() == Dims{1, 3, 2});
    const Array x = standardize(rows.x);
    CHECK(x.dtype() == (dtype == chainrule::float32 ? chainrule::float32 : chainrule::float64));
    for (std::int64_t feature = 0; feature < 6; ++feature) {
      double sum = 0;
      double squares = 0;
      for (std::int64_t e = 0; e < 500; ++e) {
        sum += x[e * 6 + feature];
        squares += x[e * 6 + feature] * x[e * 6 + feature];
      }
      CHECK(std::abs(sum / 500) < 1e-6);
      CHECK(squares / 500 == Approx(1).epsilon(1e-5));
    }
  }
  const Dataset one{Array({1.0, 3.0}), Array({0.0, 1.0})};
  CHECK(Standardizer(one)(one).x.identical(Array({-1.0, 1.0})));
}

TEST_CASE("Errors of Standardizer") {
  const Dataset train{Array({{1.0, 2.0}, {3.0, 4.0}}), Array({{0.0, 1.0}})};
  const Standardizer standardize(train);
  CHECK_THROWS_WITH(
      standardize(Array({{1.0}})),
      ContainsSubstring("standardizer: requires the features that it was fitted on, shape {2, 1}, got {1, 1}") &&
          ContainsSubstring("test_data_split.cpp:"));
  CHECK_THROWS_WITH(standardize(Dataset{Array({{1.0}, {2.0}}), Array({0.0, 1.0}), 0}),
                    ContainsSubstring("requires examples along axis 1, as it was fitted on, got 0"));
  CHECK_THROWS_WITH(Standardizer(Dataset{Array(chainrule::float64, {2, 0}), Array(chainrule::float64, {1, 0})}),
                    ContainsSubstring("standardizer: requires at least one example"));
}
