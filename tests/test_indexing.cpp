// Elements and rows by their indices: what the registry's samples do not say.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <fmt/core.h>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;
using chainrule::test::error_of;

namespace {

Array whole(const std::vector<std::int64_t>& numbers) { return Array(numbers); }

std::vector<std::int64_t> random_indices(std::int64_t n, std::int64_t extent, unsigned seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<std::int64_t> draw(0, extent - 1);
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  for (std::int64_t& i : out) i = draw(random);
  return out;
}

struct Threads {
  int before = num_threads();
  ~Threads() { set_num_threads(before); }
};

}  // namespace

// ---- take and scatter_add

TEMPLATE_TEST_CASE("take has the axes of the indices in place of one", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", {2, 3});
  const auto i = graph.input("i", {2, 2}, int64);
  const auto k = graph.input("k", {}, int64);
  // numpy.take([[1, 2, 3], [4, 5, 6]], [[2, -3], [0, 1]], 1) and so on
  const auto made =
      compute(graph, {take(x, i, 1), take(x, k, 0), take(x, i, -1)},
              {{x, Array({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}})}, {i, Array({{2, -3}, {0, 1}})}, {k, Array(-1)}});
  using Rows = std::vector<std::vector<std::vector<double>>>;
  CHECK(made[0].dtype() == dtype);
  CHECK(made[0].astype(float64).identical(Array(Rows{{{3.0, 1.0}, {1.0, 2.0}}, {{6.0, 4.0}, {4.0, 5.0}}})));
  CHECK(made[1].astype(float64).identical(Array({4.0, 5.0, 6.0})));
  CHECK(made[2].identical(made[0]));
}

TEST_CASE("repeated indices add, and derivatives of any order follow") {
  Graph graph;
  const auto x = graph.input("x", {4});
  const auto i = graph.constant(whole({1, 3, 1, -3}));  // 1 three times, 3 once
  const auto y = sum(take(x, i, 0) * take(x, i, 0) * take(x, i, 0));
  const auto d = gradients(y, {x})[0];         // 3 n x^2
  const auto d2 = gradients(sum(d), {x})[0];   // 6 n x
  const auto d3 = gradients(sum(d2), {x})[0];  // 6 n
  const auto made = compute(graph, {d, d2, d3}, {{x, Array({1.0, 2.0, 3.0, 4.0})}});
  CHECK(made[0].identical(Array({0.0, 36.0, 0.0, 48.0})));
  CHECK(made[1].identical(Array({0.0, 36.0, 0.0, 24.0})));
  CHECK(made[2].identical(Array({0.0, 18.0, 0.0, 6.0})));
}

TEST_CASE("an index out of range is named, with its place and the range, and nothing is written") {
  Graph graph;
  const auto w = graph.parameter("w", zeros({3, 2}));
  const auto i = graph.input("i", {2, 2}, int64);
  const auto taken = take(w, i, 0);
  State state(graph);
  Program step(state, {.outputs = {sum(taken)}, .updates = {{w, w + 1.0}}});
  const auto error = error_of([&] { step.run({{i, Array({{0, -3}, {3, 1}})}}); });
  CHECK_THAT(error.what(), ContainsSubstring("take: requires indices from -3 to 2, got 3 at element {1, 0}"));
  CHECK_THAT(error.what(), ContainsSubstring("test_indexing.cpp"));
  CHECK(state[w].identical(zeros({3, 2}).draw(float64, 0, 0)));
  CHECK(state.step() == 0);
  CHECK(step.run({{i, Array({{0, -3}, {2, 1}})}})[0].item() == 0);
  const auto below = error_of([&] { step.run({{i, Array({{0, -4}, {2, 1}})}}); });
  CHECK_THAT(below.what(), ContainsSubstring("got -4 at element {0, 1}"));
  const auto added = scatter_add(w, i, graph.constant(Array::full(float64, {2, 2, 2}, 1)), 0);
  CHECK_THAT(error_of([&] {
               compute(graph, {added}, {{i, Array({{0, 5}, {2, 1}})}});
             }).what(),
             ContainsSubstring("scatter_add: requires indices from -3 to 2, got 5 at element {0, 1}"));
  const auto none = graph.input("none", {0, 2});
  CHECK_THAT(error_of([&] {
               compute(graph, {take(none, i, 0)}, {{none, zeros({0, 2})}, {i, Array({{0, 5}, {2, 1}})}});
             }).what(),
             ContainsSubstring("requires no indices into an extent of 0, got 0 at element {0, 0}"));
}

TEST_CASE("take and scatter_add say what does not fit, at the user's line") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto i = graph.input("i", {4}, int64);
  const auto updates = graph.input("updates", {2, 4});
  const auto scalar = graph.input("scalar", {});
  CHECK_THAT(error_of([&] { take(x, x, 0); }).what(),
             ContainsSubstring("take: requires indices of int64, got float64"));
  CHECK_THAT(error_of([&] { take(x, i, 2); }).what(), ContainsSubstring("take: requires"));
  CHECK_THAT(error_of([&] { take(scalar, i, 0); }).what(), ContainsSubstring("take: requires"));
  CHECK_THAT(error_of([&] { scatter_add(x, i, updates, 0); }).what(),
             ContainsSubstring("scatter_add: requires updates of float64 and shape {4, 3}, got float64 {2, 4}"));
  CHECK_THAT(error_of([&] { scatter_add(i, i, i, 0); }).what(), ContainsSubstring("got int64"));
  const auto error = error_of([&] { take(x, x, 0); });
  CHECK_THAT(error.what(), ContainsSubstring(fmt::format("test_indexing.cpp:{}:", __LINE__ - 1)));
  CHECK_NOTHROW(scatter_add(x, i, updates, 1));
}

TEST_CASE("named sizes, and none at all, of rows and of indices") {
  Graph graph;
  const auto rows = graph.dimension("rows");
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {rows, 2});
  const auto i = graph.input("i", {n}, int64);
  const auto y = take(x, i, 0);
  CHECK(y.shape() == Shape{n, 2});
  const auto d = gradients(sum(square(y)), {x})[0];
  CHECK(d.shape() == Shape{rows, 2});
  State state(graph);
  Program program(state, {.outputs = {y, d}});
  const auto some = program.run({{x, Array({{1.0, 2.0}, {3.0, 4.0}})}, {i, whole({1, 1, 0})}});
  CHECK(some[0].identical(Array({{3.0, 4.0}, {3.0, 4.0}, {1.0, 2.0}})));
  CHECK(some[1].identical(Array({{2.0, 4.0}, {12.0, 16.0}})));
  const auto no_index = graph.input("no_index", {0}, int64);
  const auto nothing = take(x, no_index, 0);
  const auto of_nothing = gradients(sum(nothing), {x})[0];
  const auto none = compute(graph, {nothing, of_nothing, scatter_along_axis(x, reshape(no_index, {0, 1}), 1.0, 0)},
                            {{x, Array({{1.0, 2.0}, {3.0, 4.0}})}, {no_index, Array(int64, {0})}});
  CHECK(none[0].shape() == Dims{0, 2});
  CHECK(none[1].identical(Array({{0.0, 0.0}, {0.0, 0.0}})));
  CHECK(none[2].identical(Array({{1.0, 2.0}, {3.0, 4.0}})));
}

TEMPLATE_TEST_CASE("rows that meet add in the order of the indices, for every number of threads", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const Threads restore;
  const Dims shape = GENERATE(Dims{50, 300}, Dims{7, 50, 40}, Dims{50});  // one block, several, elements
  const std::int64_t axis = shape.rank() == 3 ? 1 : 0;
  const std::int64_t count_of = shape.rank() == 1 ? 60'000 : 2000;
  Dims taken_dims = shape;
  taken_dims[static_cast<std::size_t>(axis)] = count_of;
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", Shape(shape));
  const auto i = graph.input("i", {count_of}, int64);
  const auto u = graph.input("u", Shape(taken_dims));
  const auto numbers = random_indices(count_of, 50, 3);
  const Array to = Array(test::random_numbers<TestType>(count(shape), 1)).reshape(shape);
  const Array updates = Array(test::random_numbers<TestType>(count(taken_dims), 2)).reshape(taken_dims);
  const std::int64_t inner = shape.rank() == 1 ? 1 : shape.back();
  const std::int64_t outer = shape.rank() == 3 ? shape[0] : 1;
  std::vector<TestType> sums(to.template data<TestType>(), to.template data<TestType>() + to.size());
  std::vector<TestType> rows(static_cast<std::size_t>(updates.size()));
  const auto* update = updates.template data<TestType>();
  const auto* from = to.template data<TestType>();
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t p = 0; p < count_of; ++p)
      for (std::int64_t k = 0; k < inner; ++k) {
        const auto at = static_cast<std::size_t>((o * 50 + numbers[static_cast<std::size_t>(p)]) * inner + k);
        const std::int64_t of = (o * count_of + p) * inner + k;
        sums[at] += update[of];
        rows[static_cast<std::size_t>(of)] = from[at];
      }
  State state(graph);
  Program program(state, {.outputs = {scatter_add(x, i, u, axis), take(x, i, axis)}});
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    const auto made = program.run({{x, to}, {i, whole(numbers)}, {u, updates}});
    CHECK(made[0].identical(Array(sums).reshape(shape)));
    CHECK(made[1].identical(Array(rows).reshape(taken_dims)));
  }
}

// ---- embedding, segment_sum, masked_fill, one_hot

TEST_CASE("an embedding's padding is taken as it is and learns nothing, however it is counted") {
  Graph graph;
  const auto rows = graph.dimension("rows");
  const auto named = graph.input("named", {rows, 2});
  const auto table = graph.input("table", {4, 2});
  const auto i = graph.input("i", {5}, int64);
  const Array numbers({{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}, {7.0, 8.0}});
  // Row 2 twice, once from the end.
  const std::vector<Feed> feeds = {{table, numbers}, {named, numbers}, {i, whole({2, 0, -2, 3, 0})}};
  for (const Value of : {table, named})
    for (const std::int64_t padding : {2, -2}) {
      const auto y = embedding(of, i, {.padding_idx = padding});
      const auto made = compute(graph, {y, gradients(sum(y * y), {of})[0]}, feeds);
      CHECK(made[0].identical(Array({{5.0, 6.0}, {1.0, 2.0}, {5.0, 6.0}, {7.0, 8.0}, {1.0, 2.0}})));
      CHECK(made[1].identical(Array({{4.0, 8.0}, {0.0, 0.0}, {0.0, 0.0}, {14.0, 16.0}})));
    }
  const auto y = embedding(table, i);
  const auto made = compute(graph, {gradients(sum(y * y), {table})[0]}, feeds);
  CHECK(made[0].identical(Array({{4.0, 8.0}, {0.0, 0.0}, {20.0, 24.0}, {14.0, 16.0}})));
  CHECK_THAT(error_of([&] { embedding(table, i, {.padding_idx = 4}); }).what(),
             ContainsSubstring("embedding: requires a padding_idx within 4 rows, got 4"));
  CHECK_THAT(error_of([&] { embedding(table, i, {.padding_idx = -5}); }).what(), ContainsSubstring("got -5"));
  CHECK_THAT(error_of([&] { embedding(Value{}, i); }).what(), ContainsSubstring("got an empty Value"));
  CHECK_THAT(error_of([&] { embedding(table, table); }).what(), ContainsSubstring("requires indices of int64"));
}

TEST_CASE("segments are summed, empty ones are 0") {
  Graph graph;
  const auto segments_of = graph.dimension("segments");
  const auto x = graph.input("x", {4, 2});
  const auto s = graph.input("s", {4}, int64);
  const auto y = segment_sum(x, s, 3);
  const auto d = gradients(sum(y * y), {x})[0];
  const std::vector<Feed> feeds = {{x, Array({{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}, {7.0, 8.0}})},
                                   {s, whole({2, 0, 2, 0})}};
  const auto made = compute(graph, {y, d}, feeds);
  CHECK(made[0].identical(Array({{10.0, 12.0}, {0.0, 0.0}, {6.0, 8.0}})));
  CHECK(made[1].identical(Array({{12.0, 16.0}, {20.0, 24.0}, {12.0, 16.0}, {20.0, 24.0}})));
  CHECK(segment_sum(x, s, segments_of).shape() == Shape{segments_of, 2});
  CHECK_THAT(error_of([&] { segment_sum(x, graph.input("t", {3}, int64), 3); }).what(),
             ContainsSubstring("segment_sum: requires an index for each row"));
}

TEST_CASE("masked_fill puts a value where the mask is true, and its slope there is 0") {
  Graph graph;
  constexpr double inf = std::numeric_limits<double>::infinity();
  const auto x = graph.input("x", {2, 3});
  const auto mask = graph.input("mask", {3}, boolean);
  const auto y = masked_fill(x, mask, -inf);
  const auto d = gradients(sum(exp(y)), {x})[0];
  const auto made = compute(graph, {y, d}, {{x, zeros({2, 3})}, {mask, Array(std::vector<bool>{false, true, false})}});
  CHECK(made[0].identical(Array({{0.0, -inf, 0.0}, {0.0, -inf, 0.0}})));
  CHECK(made[1].identical(Array({{1.0, 0.0, 1.0}, {1.0, 0.0, 1.0}})));
  CHECK_THAT(error_of([&] { masked_fill(x, x, 0.0); }).what(),
             ContainsSubstring("masked_fill: requires a mask of bool that broadcasts to {2, 3}, got float64 {2, 3}"));
  const auto wider = graph.input("wider", {4, 2, 3}, boolean);
  CHECK_THAT(error_of([&] { masked_fill(x, wider, 0.0); }).what(), ContainsSubstring("got bool {4, 2, 3}"));
  const auto wide_value = graph.input("wide_value", {4, 2, 3});
  const auto before = graph.to_string();
  CHECK_THAT(error_of([&] { masked_fill(x, mask, wide_value); }).what(), ContainsSubstring("masked_fill: requires"));
  CHECK(graph.to_string() == before);
}

TEST_CASE("one_hot of a dimension") {
  Graph graph;
  const auto classes = graph.dimension("classes");
  const auto x = graph.input("x", {classes});
  const auto k = graph.input("k", {2}, int64);
  const auto y = one_hot(k, classes, float64);
  CHECK(y.shape() == Shape{2, classes});
  const auto made = compute(graph, {y}, {{x, zeros({3})}, {k, whole({2, 0})}});
  CHECK(made[0].identical(Array({{0.0, 0.0, 1.0}, {1.0, 0.0, 0.0}})));
  CHECK_THAT(error_of([&] { one_hot(k, -1, float64); }).what(), ContainsSubstring("one_hot: requires an extent"));
}

// ---- along an axis

TEST_CASE("put: the last of several stays and alone has a slope") {
  Graph graph;
  const auto x = graph.input("x", {4});
  const auto u = graph.input("u", {3});
  const auto i = graph.constant(whole({1, 3, -3}));  // 1, 3, 1
  const auto y = scatter_along_axis(x, i, u, 0);
  const auto d = gradients(sum(y * y), {x, u});
  const auto made = compute(graph, {y, d[0], d[1]}, {{x, Array({1.0, 2.0, 3.0, 4.0})}, {u, Array({5.0, 6.0, 7.0})}});
  CHECK(made[0].identical(Array({1.0, 7.0, 3.0, 6.0})));
  CHECK(made[1].identical(Array({2.0, 0.0, 6.0, 0.0})));
  CHECK(made[2].identical(Array({0.0, 12.0, 14.0})));
}

TEST_CASE("the greatest and least of x and what is scattered, where equal ones share the slope") {
  Graph graph;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto x = graph.input("x", {4});
  const auto u = graph.input("u", {4});
  const auto i = graph.constant(whole({0, 0, 2, 2}));
  const auto top = scatter_along_axis(x, i, u, 0, Scatter::max);
  const auto low = scatter_along_axis(x, i, u, 0, Scatter::min);
  const auto d = gradients(sum(top * Operand(Array({10.0, 20.0, 30.0, 40.0}))), {x, u});
  const std::vector<Feed> feeds = {{x, Array({1.0, 2.0, 3.0, 4.0})}, {u, Array({1.0, 1.0, 5.0, -1.0})}};
  const auto made = compute(graph, {top, low, d[0], d[1]}, feeds);
  CHECK(made[0].identical(Array({1.0, 2.0, 5.0, 4.0})));
  CHECK(made[1].identical(Array({1.0, 2.0, -1.0, 4.0})));
  CHECK(made[2].identical(Array({10.0 / 3, 20.0, 0.0, 40.0})));
  CHECK(made[3].identical(Array({10.0 / 3, 10.0 / 3, 30.0, 0.0})));
  // A NaN of either stays.
  const auto with_nan =
      compute(graph, {top, low}, {{x, Array({nan, 2.0, 3.0, 4.0})}, {u, Array({1.0, 1.0, nan, -1.0})}});
  for (const Array& y : with_nan) {
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == 2.0);
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == 4.0);
  }
}

TEST_CASE("scatter_along_axis broadcasts, takes numbers and whole numbers, and says what does not fit") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto k = graph.input("k", {2, 3}, int64);
  const auto i = graph.input("i", {1, 2}, int64);
  const auto one = graph.input("one", {2, 1}, int64);
  const auto many = graph.input("many", {2});
  const auto made = compute(graph,
                            {scatter_along_axis(x, i, 9.0, 1), scatter_along_axis(k, i, 7, 1, Scatter::add),
                             scatter_along_axis(x, one, many, 1, Scatter::add)},
                            {{x, Array({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}})},
                             {k, Array({{1, 2, 3}, {4, 5, 6}})},
                             {i, Array({{2, -3}})},
                             {one, Array({{0}, {1}})},
                             {many, Array({10.0, 100.0})}});
  CHECK(made[0].identical(Array({{9.0, 2.0, 9.0}, {9.0, 5.0, 9.0}})));
  CHECK(made[1].identical(Array({{8, 2, 10}, {11, 5, 13}}).astype(int64)));
  CHECK(made[2].identical(Array({{111.0, 2.0, 3.0}, {4.0, 115.0, 6.0}})));
  const auto flags = graph.input("flags", {2, 3}, boolean);
  const auto before = graph.to_string();
  CHECK_THAT(error_of([&] { scatter_along_axis(flags, k, flags, 1, Scatter::add); }).what(),
             ContainsSubstring("scatter_along_axis: requires numbers, or put, got bool"));
  CHECK_THAT(error_of([&] { scatter_along_axis(x, many, x, 1); }).what(), ContainsSubstring("indices of int64"));
  CHECK_THAT(error_of([&] { scatter_along_axis(x, k, Value{}, 1); }).what(), ContainsSubstring("got an empty Value"));
  CHECK_THAT(error_of([&] { scatter_along_axis(x, k, k, 1); }).what(),
             ContainsSubstring("requires updates of float64 and shape {2, 3}, got int64 {2, 3}"));
  CHECK(graph.to_string() == before);
  const auto wrong = scatter_along_axis(x, i, 9.0, 1);
  CHECK_THAT(error_of([&] {
               compute(graph, {wrong}, {{x, zeros({2, 3})}, {i, Array({{2, 3}})}});
             }).what(),
             ContainsSubstring("scatter_along_axis: requires indices from -3 to 2, got 3 at element {0, 1}"));
}
