// Slices of several axes, updates, padding and what else arranges elements: NumPy's results, written out or computed
// element by element, and gradients that add where elements meet.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

// 0, 1, 2, ... in this shape.
Array counting(const Dims& shape, DType dtype = float64) {
  Array out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, static_cast<double>(i));
  return out;
}

// f of an input that is fed these numbers, of a shape of numbers or of names.
template <class F>
Array of(F f, const Array& numbers, bool named = false) {
  Graph graph({.dtype = is_floating(numbers.dtype()) ? numbers.dtype() : float64});
  Shape shape;
  for (std::size_t i = 0; i < numbers.rank(); ++i)
    shape.push_back(named ? graph.dimension("n" + std::to_string(i)) : Dimension(numbers.shape()[i]));
  const Value x = graph.input("x", shape, numbers.dtype());
  return test::compute(graph, {f(x)}, {{x, numbers}})[0];
}

template <class F>
void check_derivatives(F f, const Shape& shape) {
  Graph graph({.seed = 7});
  const Value x = graph.parameter("x", uniform(shape, -2, 2));
  State state(graph);
  const CheckReport report = check_gradients(sum(square(f(x))), {x}, state, {});
  INFO(report.to_string());
  CHECK(report.passed());
}

using Function = std::function<Value(Value)>;

}  // namespace

TEST_CASE("several axes are sliced at once, as NumPy does") {
  const Array x = counting({3, 4, 2});
  CHECK(of([](Value v) { return slice(v, {0, range(1, 3)}); }, x).identical(Array{{2.0, 3.0}, {4.0, 5.0}}));
  CHECK(of([](Value v) { return slice(v, {-1, -2, 1}); }, x).identical(Array(21.0)));
  CHECK(of([](Value v) { return slice(v, {range(), 0, 0}); }, x).identical(Array({0.0, 8.0, 16.0})));
  CHECK(of([](Value v) { return slice(v, {range(2, {}), range({}, {}, -3), 1}); }, x).identical(Array{{23.0, 17.0}}));
  CHECK(of([](Value v) { return slice(v, {2}); }, x).shape() == Dims{4, 2});
  CHECK(of([](Value v) { return slice(v, std::vector<Index>{}); }, x).identical(x));
  CHECK(of([](Value v) { return slice(v, {range(5, 9)}); }, x).shape() == Dims{0, 4, 2});
  for (const DType dtype : {float32, int64, int32, uint8, boolean})
    CHECK(of([](Value v) { return slice(v, {1, range({}, 1)}); }, counting({2, 2}, dtype)).dtype() == dtype);
  // Of named sizes, also from the end.
  CHECK(of([](Value v) { return slice(v, {-1, range(1, -1), 0}); }, x, true).identical(Array({18.0, 20.0})));
  check_derivatives([](Value v) { return slice(v, {1, range(0, 3, 2)}); }, {2, 4, 3});
}

TEST_CASE("a slice of several axes says what is wrong with it, at the user's line") {
  Graph graph;
  const Value x = graph.input("x", {3, 4});
  const std::size_t before = graph.size();
  const Error beyond = error_of([&] { slice(x, {0, 4}); });
  CHECK(beyond.location().line == __LINE__ - 1);
  CHECK_THAT(beyond.what(), ContainsSubstring("slice: requires a position within 4 on axis 1, got 4"));
  CHECK_THAT(error_of([&] { slice(x, {-4}); }).what(),
             ContainsSubstring("requires a position within 3 on axis 0, got -4"));
  CHECK_THAT(error_of([&] {
               slice(x, {0, 0, 0});
             }).what(),
             ContainsSubstring("slice: requires at most 2 indices for {3, 4}, got 3"));
  CHECK_THAT(error_of([&] { slice(x, {range(0, 1, 0)}); }).what(), ContainsSubstring("requires a step that is not 0"));
  CHECK_THAT(error_of([&] {
               slice(x, {range(0, 2), std::numeric_limits<std::int64_t>::min()});
             }).what(),
             ContainsSubstring("requires a position"));
  CHECK(graph.size() == before);
  CHECK_THROWS_AS(of([](Value v) { return slice(v, {3}); }, counting({3, 2}), true), Error);  // in the run
}

TEST_CASE("slices are updated as NumPy assigns to them, and pass no slope to what they replace") {
  const auto update = [](const std::vector<Index>& indices, const Array& numbers) {
    return [=](Value v) { return slice_update(v, indices, v.graph().constant(numbers)); };
  };
  const Array x = counting({2, 3});
  CHECK(of(update({1}, Array({7.0, 8.0, 9.0})), x).identical(Array{{0.0, 1.0, 2.0}, {7.0, 8.0, 9.0}}));
  CHECK(of(update({range(), 2}, Array({7.0, 8.0})), x).identical(Array{{0.0, 1.0, 7.0}, {3.0, 4.0, 8.0}}));
  CHECK(of(update({0, range({}, {}, -2)}, Array({7.0, 8.0})), x).identical(Array{{8.0, 1.0, 7.0}, {3.0, 4.0, 5.0}}));
  CHECK(of(update({range(), range(0, 2)}, Array(9.0)), x).identical(Array{{9.0, 9.0, 2.0}, {9.0, 9.0, 5.0}}));
  CHECK(of(update({1, 1}, Array(9.0)), x, true).identical(Array{{0.0, 1.0, 2.0}, {3.0, 9.0, 5.0}}));
  CHECK(of(update({range(3, {})}, Array(9.0)), x).identical(x));
  CHECK(of(update({}, Array(9.0)), x).identical(Array::full(float64, Dims{2, 3}, 9)));
  CHECK(of(update({0}, Array(std::int64_t{5})), counting({2, 2}, int64))
            .identical(Array(std::vector<std::int64_t>{5, 5, 2, 3}).reshape({2, 2})));
  // What is replaced may be infinite: nothing is added to it.
  CHECK(of(update({0}, Array(1.0)), Array({inf, 2.0})).identical(Array({1.0, 2.0})));

  Graph graph;
  const Value a = graph.input("a", {2, 3});
  const Value b = graph.input("b", {2});
  const Values d = gradients(sum(square(slice_update(a, {range(), 1}, b))), {a, b});
  const auto got = test::compute(graph, d, {{a, x}, {b, Array({10.0, 20.0})}});
  CHECK(got[0].identical(Array{{0.0, 0.0, 4.0}, {6.0, 0.0, 10.0}}));
  CHECK(got[1].identical(Array({20.0, 40.0})));
  CHECK_THAT(error_of([&] { slice_update(a, {0}, b); }).what(),
             ContainsSubstring("slice_update: requires an update that broadcasts to {3}, got {2}"));
  CHECK_THAT(error_of([&] { slice_update(a, {0}, graph.input("i", {3}, int64)); }).what(),
             ContainsSubstring("slice_update: requires an update of float64, got int64"));
}

TEST_CASE("padding is NumPy's in every mode") {
  const Array x({1.0, 2.0, 3.0, 4.0});
  const auto by = [](PadMode mode, std::int64_t before, std::int64_t after, double value = 0) {
    return [=](Value v) { return pad(v, {{before, after}}, mode, value); };
  };
  for (const bool named : {false, true}) {
    CHECK(of(by(PadMode::constant, 2, 1, 9), x, named).identical(Array({9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0})));
    CHECK(of(by(PadMode::reflect, 2, 3), x, named).identical(Array({3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0})));
    CHECK(of(by(PadMode::replicate, 1, 2), x, named).identical(Array({1.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0})));
    CHECK(of(by(PadMode::circular, 1, 4), x, named).identical(Array({4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0})));
    CHECK(of(by(PadMode::reflect, 0, 0), x, named).identical(x));
  }
  // Corners of two axes.
  CHECK(of(
            [](Value v) {
              return pad(v, {{1, 0}, {0, 1}}, PadMode::replicate);
            },
            Array{{1.0, 2.0}, {3.0, 4.0}})
            .identical(Array{{1.0, 2.0, 2.0}, {1.0, 2.0, 2.0}, {3.0, 4.0, 4.0}}));
  CHECK(of(
            [](Value v) {
              return pad(v, {{1, 1}}, PadMode::constant, -1);
            },
            counting({1}, int64))
            .identical(Array(std::vector<std::int64_t>{-1, 0, -1})));
  CHECK(of(by(PadMode::constant, 1, 1), counting({0})).identical(Array({0.0, 0.0})));
  for (const PadMode mode : {PadMode::constant, PadMode::reflect, PadMode::replicate, PadMode::circular})
    check_derivatives([mode](Value v) { return pad(v, {{0, 0}, {2, 1}, {1, 2}}, mode, 0.5); }, {2, 3, 3});

  // The slopes of all copies of an element add up.
  const auto slope = [&](PadMode mode, std::int64_t before, std::int64_t after) {
    return of([=](Value v) { return gradients(sum(pad(v, {{before, after}}, mode)), {v})[0]; }, x);
  };
  CHECK(slope(PadMode::reflect, 2, 3).identical(Array({2.0, 3.0, 3.0, 1.0})));
  CHECK(slope(PadMode::replicate, 3, 2).identical(Array({4.0, 1.0, 1.0, 3.0})));
  CHECK(slope(PadMode::circular, 1, 4).identical(Array({2.0, 2.0, 2.0, 3.0})));

  Graph graph;
  const Value v = graph.input("v", {2, 3});
  const auto refuse = [&](const std::function<void()>& f, const std::string& text) {
    CHECK_THAT(error_of(f).what(), ContainsSubstring(text));
  };
  refuse([&] { pad(v, {{1, 1}}); }, "pad: requires a pair of widths for each axis of {2, 3}, got 1");
  refuse([&] { pad(v, {{-1, 1}, {0, 0}}); }, "pad: requires widths of 0 or more, got -1");
  refuse(
      [&] {
        pad(v, {{2, 0}, {0, 0}}, PadMode::reflect);
      },
      "pad: requires an extent of at least 3 on axis 0, got {2, 3}");
  refuse(
      [&] {
        pad(v, {{0, 0}, {4, 0}}, PadMode::circular);
      },
      "pad: requires an extent of at least 4 on axis 1, got {2, 3}");
  CHECK_THROWS_AS(of(by(PadMode::reflect, 4, 0), x, true), Error);
}

TEST_CASE("arrays are stacked, unstacked and cut into chunks") {
  Graph graph;
  const Value a = graph.input("a", {2});
  const Value b = graph.input("b", {2});
  const Values columns = unstack(stack({a, b}, -1), 1);
  REQUIRE(columns.size() == 2);
  const Value c = graph.input("c", {5});
  const Values chunks = chunk(c, 3);
  const auto got = test::compute(graph, {stack({a, b}), stack({a, b}, 1), columns[1], chunks[0], chunks[2]},
                                 {{a, Array({1.0, 2.0})}, {b, Array({3.0, 4.0})}, {c, counting({5})}});
  CHECK(got[0].identical(Array{{1.0, 2.0}, {3.0, 4.0}}));
  CHECK(got[1].identical(Array{{1.0, 3.0}, {2.0, 4.0}}));
  CHECK(got[2].identical(Array({3.0, 4.0})));
  CHECK(got[3].identical(Array({0.0, 1.0})));
  CHECK(got[4].identical(Array({4.0})));
  CHECK(chunk(c, 4).size() == 3);  // of 2, 2 and 1, as PyTorch has it
  CHECK(chunk(graph.input("none", {0}), 3).size() == 1);
  CHECK(stack({graph.input("n", {graph.dimension("n"), 3})}, 1).shape() == Shape{graph.dimension("n"), 1, 3});
  CHECK_THAT(error_of([&] {
               stack({a, c});
             }).what(),
             ContainsSubstring("stack: requires values of one shape, got {2} and {5}"));
  CHECK_THAT(error_of([&] { stack({}); }).what(), ContainsSubstring("stack: requires at least one value"));
  CHECK_THAT(error_of([&] { unstack(graph.find("n")); }).what(),
             ContainsSubstring("unstack: requires an extent that is a number above 0, got n"));
  CHECK_THAT(error_of([&] { chunk(c, 0); }).what(), ContainsSubstring("chunk: requires at least one part, got 0"));
  check_derivatives([](Value v) { return stack({v, v * v}, 1); }, {2, 3});
}

TEST_CASE("axes of extent 1 come and go, and axes are joined and swapped") {
  Graph graph;
  const Dimension n = graph.dimension("n");
  const Value x = graph.input("x", {1, n, 1, 3});
  CHECK(squeeze(x).shape() == Shape{n, 3});
  CHECK(squeeze(x, {-2}).shape() == Shape{1, n, 3});
  CHECK(expand_dims(x, -1).shape() == Shape{1, n, 1, 3, 1});
  CHECK(expand_dims(x, 1).shape() == Shape{1, 1, n, 1, 3});
  CHECK(flatten(x).shape() == Shape{n * Dimension(3)});
  CHECK(flatten(x, 1, 2).shape() == Shape{1, n, 3});
  CHECK(flatten(graph.input("scalar", {})).shape() == Shape{1});
  CHECK(swapaxes(x, 0, -1).shape() == Shape{3, n, 1, 1});
  CHECK(of([](Value v) { return swapaxes(v, 0, 1); }, counting({2, 2})).identical(Array{{0.0, 2.0}, {1.0, 3.0}}));
  CHECK_THAT(error_of([&] { squeeze(x, {1}); }).what(),
             ContainsSubstring("squeeze: requires an extent of 1 on axis 1"));
  CHECK_THAT(error_of([&] { expand_dims(x, 6); }).what(), ContainsSubstring("expand_dims: requires"));
  CHECK_THAT(error_of([&] { flatten(x, 2, 1); }).what(), ContainsSubstring("flatten: requires axes in their order"));
}

TEST_CASE("elements are tiled, repeated, flipped and rolled") {
  const Array x{{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}};
  for (const bool named : {false, true}) {
    const auto run = [&](const Function& f) { return of(f, x, named); };
    CHECK(run([](Value v) {
            return tile(v, {2});
          }).identical(Array{{1.0, 2.0, 3.0, 1.0, 2.0, 3.0}, {4.0, 5.0, 6.0, 4.0, 5.0, 6.0}}));
    CHECK(run([](Value v) {
            return slice(tile(v, {2, 1}), {range(1, -1)});
          }).identical(Array{{4.0, 5.0, 6.0}, {1.0, 2.0, 3.0}}));
    CHECK(run([](Value v) { return tile(v, {2, 1, 1}); }).shape() == Dims{2, 2, 3});
    CHECK(run([](Value v) {
            return repeat(v, 2, 1);
          }).identical(Array{{1.0, 1.0, 2.0, 2.0, 3.0, 3.0}, {4.0, 4.0, 5.0, 5.0, 6.0, 6.0}}));
    CHECK(run([](Value v) { return repeat(v, 0, 0); }).shape() == Dims{0, 3});
    CHECK(run([](Value v) { return flip(v); }).identical(Array{{6.0, 5.0, 4.0}, {3.0, 2.0, 1.0}}));
    CHECK(run([](Value v) { return flip(v, {-1}); }).identical(Array{{3.0, 2.0, 1.0}, {6.0, 5.0, 4.0}}));
    CHECK(run([](Value v) { return roll(v, 1, 1); }).identical(Array{{3.0, 1.0, 2.0}, {6.0, 4.0, 5.0}}));
    CHECK(run([](Value v) { return roll(v, -1, 1); }).identical(Array{{2.0, 3.0, 1.0}, {5.0, 6.0, 4.0}}));
  }
  CHECK(of([](Value v) { return roll(v, 7, -1); }, x).identical(Array{{3.0, 1.0, 2.0}, {6.0, 4.0, 5.0}}));
  CHECK(of([](Value v) { return flip(roll(v, 5, 0)); }, counting({0, 2})).shape() == Dims{0, 2});
  CHECK_THROWS_AS(of([](Value v) { return roll(v, 7, 1); }, x, true), Error);
  check_derivatives([](Value v) { return tile(v, {2, 3}) * repeat(repeat(v, 2, 0), 3, 1); }, {2, 2});
  check_derivatives([](Value v) { return flip(v) * roll(v, 1, 1); }, {2, 3});
}

TEST_CASE("counting, triangles and diagonals") {
  Graph graph;
  const Dimension n = graph.dimension("n");
  const Value x = graph.input("x", {n, 3});
  const auto got = test::compute(graph,
                                 {iota(graph, n), iota(graph, n, float32), eye(graph, n, 3, float64),
                                  eye(graph, 2, 2, boolean, 1), tril(x), triu(x, 1), tril(x, -1)},
                                 {{x, Array{{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}}}});
  CHECK(got[0].identical(Array(std::vector<std::int64_t>{0, 1})));
  CHECK(got[1].identical(Array({0.0, 1.0}).astype(float32)));
  CHECK(got[2].identical(Array{{1.0, 0.0, 0.0}, {0.0, 1.0, 0.0}}));
  CHECK(got[3].identical(Array{{0.0, 1.0}, {0.0, 0.0}}.astype(boolean)));
  CHECK(got[4].identical(Array{{1.0, 0.0, 0.0}, {4.0, 5.0, 0.0}}));
  CHECK(got[5].identical(Array{{0.0, 2.0, 3.0}, {0.0, 0.0, 6.0}}));
  CHECK(got[6].identical(Array{{0.0, 0.0, 0.0}, {4.0, 0.0, 0.0}}));
  // What is outside is 0 even where it was not finite.
  CHECK(of([](Value v) { return tril(v); }, Array{{1.0, inf}, {2.0, 3.0}}).identical(Array{{1.0, 0.0}, {2.0, 3.0}}));
  CHECK(of([](Value v) { return triu(v); }, counting({2, 2}, int64)).dtype() == int64);

  const Array m = counting({3, 4});
  CHECK(of([](Value v) { return diagonal(v); }, m).identical(Array({0.0, 5.0, 10.0})));
  CHECK(of([](Value v) { return diagonal(v, 2); }, m).identical(Array({2.0, 7.0})));
  CHECK(of([](Value v) { return diagonal(v, -1); }, m).identical(Array({4.0, 9.0})));
  CHECK(of([](Value v) { return diagonal(v, 4); }, m).shape() == Dims{0});
  CHECK(of([](Value v) { return diagonal(v, -3); }, m).shape() == Dims{0});
  CHECK(of([](Value v) { return diagonal(v); }, counting({2, 3, 1})).identical(Array{{0.0}, {3.0}}));
  check_derivatives([](Value v) { return diagonal(v, 1) * slice(tril(v), {range(), 0, range(0, 2)}); }, {2, 3, 3});
  CHECK_THAT(error_of([&] { diagonal(x); }).what(),
             ContainsSubstring("diagonal: requires matrices of known extents, got {n, 3}"));
  CHECK_THAT(error_of([&] { tril(iota(graph, 3)); }).what(),
             ContainsSubstring("tril: requires matrices in the last two axes, got {3}"));
}

TEST_CASE("numbers are told apart by what they are") {
  for (const DType dtype : {float32, float64}) {
    const Array x = Array({1.0, -inf, std::nan(""), inf, 0.0, dtype == float32 ? 3e38 : 1e308}).astype(dtype);
    CHECK(of([](Value v) { return isnan(v); }, x).identical(Array({0.0, 0.0, 1.0, 0.0, 0.0, 0.0}).astype(boolean)));
    CHECK(of([](Value v) { return isinf(v); }, x).identical(Array({0.0, 1.0, 0.0, 1.0, 0.0, 0.0}).astype(boolean)));
    CHECK(of([](Value v) { return isfinite(v); }, x).identical(Array({1.0, 0.0, 0.0, 0.0, 1.0, 1.0}).astype(boolean)));
  }
  Graph graph;
  CHECK_THAT(error_of([&] { isnan(graph.input("i", {2}, int64)); }).what(),
             ContainsSubstring("isnan: requires float32 or float64, got int64"));
}
