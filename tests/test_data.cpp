#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/framework/data/data.hpp>

#include "catch.hpp"
#include "expected.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::DType;
using chainrule::data::accuracy;
using chainrule::data::batches;
using chainrule::data::Dataset;
using chainrule::data::mini_batches;
using chainrule::numpy::RandomState;

namespace {

// An array whose elements are 0, 1, 2, ... in row-major order (in a bool array: whether that is odd).
Array counted(DType dtype, const Dims& shape) {
  Array out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i)
    out.set(i, static_cast<double>(dtype == chainrule::boolean ? i % 2 : i));
  return out;
}

// Three features and a label of m examples, in columns.
Dataset columns(std::int64_t m) { return {counted(chainrule::float64, {3, m}), counted(chainrule::float64, {1, m})}; }

// What index `at` along `axis` holds, in row-major order.
std::vector<double> example(const Array& array, std::size_t axis, std::int64_t at) {
  std::vector<double> out;
  std::int64_t inner = 1;
  for (std::size_t i = axis + 1; i < array.rank(); ++i) inner *= array.shape()[i];
  for (std::int64_t i = 0; i < array.size(); ++i)
    if (i / inner % array.shape()[axis] == at) out.push_back(array[i]);
  return out;
}

template <class D>
concept Batchable = requires(D dataset, RandomState& rng) {
  mini_batches(static_cast<D>(dataset), 1, rng);
  batches(static_cast<D>(dataset), 1);
};
// The batches refer to the data set, so it may not be a temporary.
static_assert(Batchable<const Dataset&> && Batchable<Dataset&>);
static_assert(!Batchable<Dataset&&> && !Batchable<const Dataset&&>);

}  // namespace

TEST_CASE("The course's mini-batches of 12288 x 148") {
  RandomState rng(1);
  Dataset images{rng.randn(12288, 148), Array(chainrule::boolean, {1, 148})};
  for (std::int64_t i = 0; i < 148; ++i) images.y.set(i, rng.randn() < 0.5);

  std::vector<std::int64_t> sizes;
  std::vector<double> start;
  for (const auto& batch : mini_batches(images, 64, RandomState(0))) {
    if (start.empty()) start = {batch.x[0], batch.x[1], batch.x[2]};
    sizes.push_back(batch.size());
    CHECK(batch.x.shape() == Dims{12288, batch.size()});
    CHECK(batch.y.shape() == Dims{1, batch.size()});
    CHECK(batch.y.dtype() == chainrule::boolean);
  }
  CHECK(sizes == std::vector<std::int64_t>{64, 64, 20});
  CHECK(start == std::vector{0.9008559492644118, -0.7612069008951028, 0.23441569781709215});
  if (const auto* table = chainrule::test::expected("001.minibatch_shapes"))
    CHECK(start == table->at("values").at("sanity").get<std::vector<double>>());
}

TEST_CASE("Mini-batches are slices of one permutation, the last one short") {
  const auto m = GENERATE(as<std::int64_t>{}, 1, 2, 9, 10, 11, 64);
  const auto size = GENERATE(as<std::int64_t>{}, 1, 3, 10, 1000, std::numeric_limits<std::int64_t>::max());
  const Dataset data = columns(m);
  const auto order = RandomState(5).permutation(m);
  const auto cut = mini_batches(data, size, RandomState(5));
  CHECK(cut.size() == (m - 1) / size + 1);

  std::int64_t seen = 0;
  std::int64_t count = 0;
  for (const auto& batch : cut) {
    ++count;
    REQUIRE(batch.size() == std::min(size, m - seen));
    REQUIRE(batch.x.shape() == Dims{3, batch.size()});
    REQUIRE(batch.y.shape() == Dims{1, batch.size()});
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const auto from = order[static_cast<std::size_t>(seen + i)];
      REQUIRE(example(batch.x, 1, i) == example(data.x, 1, from));
      REQUIRE(example(batch.y, 1, i) == example(data.y, 1, from));
    }
    seen += batch.size();
  }
  CHECK(seen == m);
  CHECK(count == cut.size());
}

TEST_CASE("Batches of every layout and dtype") {
  const DType dtype = GENERATE(chainrule::float32, chainrule::float64, chainrule::int64, chainrule::boolean);
  const std::int64_t m = 7;
  struct Layout {
    Dims x;
    Dims y;
    std::size_t axis;
    std::size_t y_axis;
  };
  const auto layout = GENERATE_COPY(Layout{{m, 3}, {m}, 0, 0}, Layout{{m, 2, 3, 2}, {m, 4}, 0, 0},
                                    Layout{{m}, {m}, 0, 0}, Layout{{3, m}, {m}, 1, 0}, Layout{{2, m, 3}, {1, m}, 1, 1},
                                    Layout{{2, 3, m}, {2, 1, m}, 2, 2}, Layout{{0, m}, {1, m}, 1, 1});
  const Dataset data{counted(dtype, layout.x), counted(dtype, layout.y), layout.axis};
  CHECK(data.size() == m);
  const bool shuffled = GENERATE(true, false);
  std::vector<std::int64_t> order(m);
  std::iota(order.begin(), order.end(), 0);
  if (shuffled) order = RandomState(2).permutation(m);

  std::int64_t seen = 0;
  const auto x_axis = layout.x.rank() == 1 ? 0 : layout.axis;
  for (const auto& batch : shuffled ? mini_batches(data, 3, RandomState(2)) : batches(data, 3)) {
    CHECK(batch.axis == layout.axis);
    CHECK(batch.x.dtype() == dtype);
    CHECK(batch.y.dtype() == dtype);
    Dims shape = layout.y;
    shape[layout.y_axis] = batch.size();
    CHECK(batch.y.shape() == shape);
    for (std::int64_t i = 0; i < batch.size(); ++i, ++seen) {
      const auto from = order[static_cast<std::size_t>(seen)];
      CHECK(example(batch.x, x_axis, i) == example(data.x, x_axis, from));
      CHECK(example(batch.y, layout.y_axis, i) == example(data.y, layout.y_axis, from));
    }
  }
  CHECK(seen == m);
}

TEST_CASE("A named generator moves on, and batches can be gone through again") {
  const Dataset data = columns(20);
  RandomState rng(3);
  const auto order = [](const auto& cut) {
    std::vector<double> out;
    for (const auto& batch : cut)
      for (std::int64_t i = 0; i < batch.size(); ++i) out.push_back(batch.y[i]);
    return out;
  };
  const auto first = mini_batches(data, 6, rng);
  const auto second = mini_batches(data, 6, rng);
  CHECK(order(first) != order(second));
  CHECK(order(first) == order(first));
  CHECK(order(first) == order(mini_batches(data, 6, RandomState(3))));
  CHECK(order(batches(data, 6)) == std::vector<double>(data.y.data<double>(), data.y.data<double>() + 20));
}

TEST_CASE("Full batches share their memory") {
  const Dataset data = columns(20);
  std::vector<const void*> where;
  for (const auto& batch : mini_batches(data, 6, RandomState(3))) where.push_back(batch.x.raw());
  REQUIRE(where.size() == 4);
  CHECK(where[0] == where[1]);
  CHECK(where[1] == where[2]);
}

TEST_CASE("Errors of batches name what was given, and draw nothing") {
  RandomState rng(3);
  const Dataset data = columns(5);
  CHECK_THROWS_WITH(mini_batches(data, 0, rng),
                    ContainsSubstring("mini_batches: requires a batch size of 1 or more, got 0") &&
                        ContainsSubstring("test_data.cpp:"));
  CHECK_THROWS_WITH(batches(data, -2), ContainsSubstring("batches: requires a batch size of 1 or more, got -2"));
  const Dataset none = columns(0);
  CHECK_THROWS_WITH(mini_batches(none, 4, rng), ContainsSubstring("mini_batches: requires at least one example"));
  const Dataset unset;
  CHECK_THROWS_WITH(mini_batches(unset, 4, rng), ContainsSubstring("mini_batches: requires at least one example"));
  const Dataset uneven{Array(chainrule::float64, {3, 5}), Array(chainrule::float64, {1, 4})};
  CHECK_THROWS_WITH(mini_batches(uneven, 4, rng),
                    ContainsSubstring("requires as many examples in x as in y, got 5 and 4 along axis 1"));
  const Dataset rows{Array(chainrule::float64, {5, 3}), Array(chainrule::float64, {5})};  // its axis is not set to 0
  CHECK_THROWS_WITH(mini_batches(rows, 4, rng), ContainsSubstring("got 3 and 5 along axis 1"));
  const Dataset scalar{Array(1.0), Array(1.0)};
  CHECK_THROWS_WITH(mini_batches(scalar, 4, rng), ContainsSubstring("requires arrays with axis 1"));
  CHECK_THROWS_WITH(scalar.size(), ContainsSubstring("requires arrays with axis 1"));
  CHECK(rng.rand() == RandomState(3).rand());
}

TEST_CASE("accuracy is the share of right answers") {
  const Array p({{0.1, 0.5, 0.6, 0.9}});  // 0.5 itself says 0
  CHECK(accuracy(p, Array({{0.0, 0.0, 1.0, 1.0}})) == 1);
  CHECK(accuracy(p, Array({{0.0, 1.0, 1.0, 0.0}})) == 0.5);
  CHECK(accuracy(p, Array({{0.0, 1.0, 1.0, 0.0}}).astype(chainrule::boolean)) == 0.5);
  CHECK(accuracy(p.astype(chainrule::float32), Array({{0.0, 0.0, 0.0, 0.0}}).astype(chainrule::int64)) == 0.5);
  CHECK(accuracy(Array(0.7), Array(1.0)) == 1);
  CHECK_THROWS_WITH(accuracy(p, Array({0.0, 0.0, 1.0, 1.0})),
                    ContainsSubstring("accuracy: requires probabilities and labels of one shape, got {1, 4} and {4}") &&
                        ContainsSubstring("test_data.cpp:"));
  CHECK_THROWS_WITH(accuracy(Array(), Array()), ContainsSubstring("accuracy: requires at least one label"));
}
