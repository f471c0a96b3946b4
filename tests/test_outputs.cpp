// Nodes with several outputs, from the shape rule to memory.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/check/disturb.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;
using chainrule::test::error_of;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

// How often the kernel below ran, and how often it was given no place for an output.
int runs = 0;
int without_sine = 0;
int without_cosine = 0;

const Op& sincos_op = register_op({
    .name = "test_sincos",
    .doc = "Sine and cosine.",
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(1);
      return {call.type(0), call.type(0)};
    },
    .forward =
        [] {
          Forward forward = kernel([]<class T>(Tensor<const T> x, Tensor<T> sine, Tensor<T> cosine) {
            ++runs;
            without_sine += sine.data ? 0 : 1;
            without_cosine += cosine.data ? 0 : 1;
            for (std::int64_t i = 0; i < x.size(); ++i) {
              if (sine.data) sine[i] = std::sin(x[i]);
              if (cosine.data) cosine[i] = std::cos(x[i]);
            }
          });
          forward.skips_unread = true;
          return forward;
        }(),
    .gradient = [](const Node& node, const Values& dys) -> Values {
      Value dx;
      if (dys[0].defined()) dx = dys[0] * node.output(1);
      if (dys[1].defined()) {
        const Value of_cosine = -dys[1] * node.output(0);
        dx = dx.defined() ? dx + of_cosine : of_cosine;
      }
      return {dx};
    },
    .samples = {{.inputs = {uniform({3, 4}, -3, 3)}}, {.inputs = {uniform({0})}}},
});

struct SinCos {
  Value sine;
  Value cosine;
};
SinCos sincos(Value x, Location at = Location::here()) {
  const Values outputs = apply_all(sincos_op, {x}, {}, at);
  return {outputs[0], outputs[1]};
}

// Whole numbers and remainders; int64 comes first.
const Op& parts_op = register_op({
    .name = "test_parts",
    .doc = "floor(x) as int64, and x - floor(x).",
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(1);
      return {{int64, call.shape(0)}, call.type(0)};
    },
    .forward = kernel([]<class T>(Tensor<const T> x, Tensor<std::int64_t> whole, Tensor<T> rest) {
      for (std::int64_t i = 0; i < x.size(); ++i) {
        whole[i] = static_cast<std::int64_t>(std::floor(x[i]));
        rest[i] = x[i] - std::floor(x[i]);
      }
    }),
    .gradient = [](const Node&, const Values& dys) -> Values { return {dys[1]}; },
    .samples = {{.inputs = {uniform({7}, 0.1, 0.9)}}},
});

// A composite of two values.
const Op& twice_op = register_op({
    .name = "test_sum_and_difference",
    .doc = "x + y and x - y.",
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(2);
      return {broadcast_shape(call), broadcast_shape(call)};
    },
    .forward = expand([](const Node& node) -> Values {
      return {node.input(0) + node.input(1), node.input(0) - node.input(1)};
    }),
    .gradient = [](const Node&, const Values& dys) -> Values {
      const Value sum = dys[0];
      const Value difference = dys[1];
      if (!sum.defined()) return {difference, -difference};
      if (!difference.defined()) return {sum, sum};
      return {sum + difference, sum - difference};
    },
    .samples = {{.inputs = {uniform({3, 2}), uniform({2})}}},
});

struct Twice {
  auto operator()(auto x) const { return x + x; }
};

Array whole(const std::vector<std::int64_t>& numbers) { return Array(numbers); }

std::string listing(const std::string& text, const std::string& from, const std::string& to) {
  const auto begin = text.find(from);
  return text.substr(begin, text.find(to, begin) - begin);
}

std::size_t occurrences(const std::string& text, const std::string& of) {
  std::size_t n = 0;
  for (auto at = text.find(of); at != std::string::npos; at = text.find(of, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("an op with several outputs gives each of them") {
  Graph graph;
  const auto x = graph.input("x", {3});
  const auto [sine, cosine] = sincos(x);
  CHECK(sine.node().output_count() == 2);
  CHECK(cosine.node().id() == sine.id());
  CHECK(cosine.node().output(1) == cosine);
  CHECK(cosine.output_index() == 1);
  CHECK(sine.node().outputs() == Values{sine, cosine});
  CHECK(graph.nodes().size() == 2);
  const auto made = compute(graph, {cosine, sine}, {{x, Array({0.0, 1.0, 2.0})}});
  for (std::int64_t i = 0; i < 3; ++i) {
    CHECK(made[0][i] == std::cos(static_cast<double>(i)));
    CHECK(made[1][i] == std::sin(static_cast<double>(i)));
  }
  CHECK_THAT(graph.to_string(), ContainsSubstring("%1, %2 = test_sincos(x)  float64 {3}, float64 {3}"));
  CHECK_THAT(cosine.describe(), ContainsSubstring("output 1 of test_sincos at "));
  const Node node = sine.node();
  CHECK_THAT(error_of([&] { static_cast<void>(node.output(2)); }).what(),
             ContainsSubstring("has 2 outputs, and output 2 was asked for"));
}

TEST_CASE("gradients go through each output, and through several") {
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto [sine, cosine] = sincos(x);
  const Array at({0.5, -2.0});
  const auto slope = [&](Value loss) { return compute(graph, gradients(loss, {x}), {{x, at}})[0]; };
  const Array of_sine = slope(sum(sine));
  const Array of_cosine = slope(sum(cosine));
  const Array of_both = slope(sum(sine * cosine));
  const Array second = compute(graph, gradients(sum(gradients(sum(cosine), {x})[0]), {x}), {{x, at}})[0];
  for (std::int64_t i = 0; i < 2; ++i) {
    CHECK(of_sine[i] == Approx(std::cos(at[i])));
    CHECK(of_cosine[i] == Approx(-std::sin(at[i])));
    CHECK(of_both[i] == Approx(std::cos(2 * at[i])));  // of sin(2 x) / 2
    CHECK(second[i] == Approx(-std::cos(at[i])));
  }
  SECTION("with respect to an output, which the other does not depend on") {
    const auto d = compute(graph, gradients(sum(square(sine) + cosine), {sine, cosine, x}), {{x, at}});
    for (std::int64_t i = 0; i < 2; ++i) {
      CHECK(d[0][i] == Approx(2 * std::sin(at[i])));
      CHECK(d[1][i] == 1);
      CHECK(d[2][i] == Approx(2 * std::sin(at[i]) * std::cos(at[i]) - std::sin(at[i])));
    }
    const auto zero = compute(graph, gradients(sum(cosine), {sine}, NoDerivative::zeros), {{x, at}});
    CHECK(zero[0][0] == 0);
  }
}

TEST_CASE("outputs have dtypes of their own, and whole numbers have no gradient") {
  for (const DType dtype : {float32, float64}) {
    Graph graph({.dtype = dtype});
    const auto x = graph.input("x", {2});
    const Values outputs = apply_all(parts_op, {x});
    CHECK(outputs[0].dtype() == int64);
    CHECK(outputs[1].dtype() == dtype);
    const auto d = gradients(sum(outputs[1] * 3.0), {x})[0];
    const auto made = compute(graph, {outputs[0], outputs[1], d}, {{x, Array({-1.25, 2.5})}});
    CHECK(made[0][0] == -2);
    CHECK(made[1][0] == 0.75);
    CHECK(made[2][1] == 3);
    CHECK_THAT(error_of([&] { gradients(sum(cast(outputs[0], dtype)), {x}); }).what(),
               ContainsSubstring("test_parts at "));
  }
}

TEST_CASE("the checker looks at every output") {
  for (const Op* op : {&sincos_op, &parts_op, &twice_op, find_op("sort"), find_op("topk"), find_op("split")}) {
    const CheckReport report = check_gradients(*op);
    INFO(report.to_string());
    CHECK(report.passed());
  }
  Op wrong = sincos_op;
  wrong.name = "test_wrong_sincos";
  SECTION("a gradient of the second one") {
    wrong.gradient = [](const Node& node, const Values& dys) -> Values {
      Value dx = broadcast_to(node.graph_data() ? node.input(0) * 0.0 : Value{}, node.input(0).shape());
      if (dys[0].defined()) dx = dx + dys[0] * node.output(1);
      if (dys[1].defined()) dx = dx + dys[1] * node.output(0);  // the sign is forgotten
      return {dx};
    };
    CHECK(check_gradients(wrong).verdict() == Verdict::fail);
  }
  SECTION("a second output that is not wholly written") {
    wrong.forward = kernel([]<class T>(Tensor<const T> x, Tensor<T> sine, Tensor<T> cosine) {
      for (std::int64_t i = 0; i < x.size(); ++i) sine[i] = std::sin(x[i]);
      for (std::int64_t i = 1; i < x.size(); ++i) cosine[i] = std::cos(x[i]);
    });
    CHECK(check_gradients(wrong).verdict() == Verdict::fail);
  }
  SECTION("an output written beyond its end") {
    wrong.forward = kernel([]<class T>(Tensor<const T> x, Tensor<T> sine, Tensor<T> cosine) {
      for (std::int64_t i = 0; i < x.size(); ++i) sine[i] = std::sin(x[i]);
      for (std::int64_t i = 0; i < x.size(); ++i) cosine[i] = std::cos(x[i]);
      cosine[x.size()] = T{1};
    });
    CHECK(check_gradients(wrong).verdict() == Verdict::fail);
  }
  SECTION("another value where the first output is not wanted") {
    wrong.forward = kernel([]<class T>(Tensor<const T> x, Tensor<T> sine, Tensor<T> cosine) {
      for (std::int64_t i = 0; sine.data && i < x.size(); ++i) sine[i] = std::sin(x[i]);
      for (std::int64_t i = 0; cosine.data && i < x.size(); ++i) cosine[i] = std::cos(x[i]) + (sine.data ? T{0} : T{1});
    });
    wrong.forward.skips_unread = true;
    CHECK(check_gradients(wrong).verdict() == Verdict::fail);
  }
}

TEST_CASE("the checker's look at rounding disturbs each output by itself, and only what rounds") {
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto [sine, cosine] = sincos(x);
  const auto [values, indices] = sort(cosine);
  const Array at({1.0, 0.5});
  const double by = 0x1p-20;
  const Values off = check::disturbed({cosine, sine, values, indices, sort(x).values}, by, 1);
  const auto made = compute(graph, off, {{x, at}});
  for (std::int64_t i = 0; i < 2; ++i) {
    CHECK(made[0][i] != std::cos(at[i]));
    CHECK(std::abs(made[0][i] / std::cos(at[i]) - 1) <= by);
    CHECK(made[1][i] != std::sin(at[i]));
    CHECK(made[0][i] / std::cos(at[i]) != made[1][i] / std::sin(at[i]));
    CHECK(made[2][i] == made[0][i]);  // cos falls
    CHECK(made[3][i] == static_cast<double>(i));
  }
  CHECK(made[4].identical(Array({0.5, 1.0})));
}

TEST_CASE("outputs that nobody reads are not made, and take no memory") {
  Graph graph({.dtype = float32});
  const auto x = graph.input("x", {1000});
  const auto [sine, cosine] = sincos(x + 1.0);
  State state(graph);
  const Array numbers = zeros({1000});
  runs = without_sine = without_cosine = 0;
  Program one(state, {.outputs = {sum(cosine * 2.0)}});
  one.run({{x, numbers}});
  CHECK(runs == 1);
  CHECK(without_sine == 1);
  CHECK(without_cosine == 0);
  Program both(state, {.outputs = {sum(cosine * sine)}});
  both.run({{x, numbers}});
  CHECK(without_sine == 1);
  CHECK(one.memory().arena_bytes + 4000 <= both.memory().arena_bytes + 63);
  CHECK_THAT(one.explain(), ContainsSubstring("writes nothing, ["));
}

TEST_CASE("passes know nodes of several outputs") {
  Graph graph;
  const auto x = graph.input("x", {4});
  SECTION("equal ones become one, and dead ones go") {
    const auto a = sincos(x);
    const auto b = sincos(x);
    sincos(x * 2.0);
    State state(graph);
    Program program(state, {.outputs = {a.sine + b.cosine}});
    runs = 0;
    const Array y = program.run({{x, zeros({4})}})[0];
    CHECK(runs == 1);
    CHECK(y[0] == 1);
  }
  SECTION("constants are computed once and for all") {
    const auto c = sincos(graph.constant(Array({0.5, 1.0})));
    State state(graph);
    Program program(state, {.outputs = {c.sine + c.cosine}});
    runs = 0;
    CHECK(program.run()[0][1] == std::sin(1.0) + std::cos(1.0));
    CHECK(runs == 0);
  }
  SECTION("composites open into several values, also within composites") {
    const auto y = graph.input("y", {4});
    const Values of_two = apply_all(twice_op, {x, y});
    const auto d = gradients(sum(of_two[0] * of_two[1]), {x, y});  // of x^2 - y^2
    const Array a({1.0, 2.0, 3.0, 4.0});
    const Array b({5.0, 6.0, 7.0, 8.0});
    const auto made = compute(graph, {of_two[0], of_two[1], d[0], d[1]}, {{x, a}, {y, b}});
    for (std::int64_t i = 0; i < 4; ++i) {
      CHECK(made[0][i] == a[i] + b[i]);
      CHECK(made[1][i] == a[i] - b[i]);
      CHECK(made[2][i] == 2 * a[i]);
      CHECK(made[3][i] == -2 * b[i]);
    }
  }
  SECTION("the listing has them in one line after every pass") {
    const auto [sine, cosine] = sincos(x + 0.0);
    State state(graph);
    Program program(state, {.outputs = {sine * cosine}});
    const std::string text = program.explain();
    CHECK(occurrences(listing(text, "after merge_common", "after join_parts"), "test_sincos") == 1);
    CHECK_THAT(text, ContainsSubstring("%1, %2 = test_sincos(x)  float64 {4}, float64 {4}"));
  }
}

TEST_CASE("an output may be a program's output, a new value of a variable, or both") {
  Graph graph;
  const auto v = graph.variable("v", ones({3}));
  const auto [sine, cosine] = sincos(v);
  State state(graph);
  Program program(state, {.outputs = {sine}, .updates = {{v, cosine}}});
  CHECK(program.run()[0][0] == std::sin(1.0));
  CHECK(state.get(v)[2] == std::cos(1.0));
  Program again(state, {.outputs = {cosine}, .updates = {{v, cosine}}});
  CHECK(again.run()[0][1] == std::cos(std::cos(1.0)));
  CHECK(state.get(v)[1] == std::cos(std::cos(1.0)));
}

TEST_CASE("under a limit of memory several outputs are kept or made again together") {
  Graph graph;
  const auto x = graph.input("x", {500, 4});
  Value h = x;
  for (int layer = 0; layer < 24; ++layer) {
    const auto [sine, cosine] = sincos(h);
    h = matmul(sine * cosine, graph.constant(uniform({4, 4}, -1, 1).draw(float64, 3, 1)));
  }
  const Value loss = sum(h);
  const Values d = gradients(loss, {x});
  const Array numbers = uniform({500, 4}, -1, 1).draw(float64, 1, 1);
  State state(graph);
  Program plain(state, {.outputs = {loss, d[0]}});
  const Results free = plain.run({{x, numbers}});
  Program limited(state, {.outputs = {loss, d[0]}, .memory_limit = plain.memory().arena_bytes / 2});
  runs = 0;
  const Results less = limited.run({{x, numbers}});
  CHECK(runs > 24);
  CHECK(limited.memory().arena_bytes <= plain.memory().arena_bytes / 2);
  CHECK(free[0].identical(less[0]));
  CHECK(free[1].identical(less[1]));
}

TEST_CASE("what does not fit several outputs is an Error") {
  const auto refusal = [](Op op) { return std::string(error_of([&] { register_op(op); }).what()); };
  Op op = sincos_op;
  op.name = "test_bad";
  SECTION("a rule for one gradient") {
    op.gradient = [](const Node&, Value dy) -> Values { return {dy}; };
    CHECK_THAT(refusal(op), ContainsSubstring("several outputs, and a gradient rule that takes one gradient"));
  }
  SECTION("an elementwise functor") {
    op.forward = elementwise<Twice>();
    CHECK_THAT(refusal(op), ContainsSubstring("several outputs, which only kernels and expansions give"));
  }
  SECTION("a kernel or an expansion of another number of outputs") {
    Graph graph;
    const auto x = graph.input("x", {2});
    const std::string before = graph.to_string();
    op.forward = kernel([]<class T>(Tensor<const T>, Tensor<T>) {});
    CHECK_THAT(error_of([&] { apply(op, {x}); }).what(), ContainsSubstring("as many outputs as its kernel, 1, got 2"));
    op.forward = expand([](const Node& node) { return Values{node.input(0)}; });
    CHECK_THAT(error_of([&] { apply(op, {x}); }).what(),
               ContainsSubstring("requires an expansion that returns 2 values, got 1"));
    op.shape = [](const OpCall&) { return Types{}; };
    CHECK_THAT(error_of([&] { apply(op, {x}); }).what(),
               ContainsSubstring("requires a shape rule that gives an output"));
    CHECK(graph.to_string() == before);
  }
}

// ---- sort, topk, take_along_axis, split

TEMPLATE_TEST_CASE("sort is stable, with NaN last, along any axis", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", {6});
  const auto up = sort(x);
  const auto down = sort(x, 0, true);
  const auto made = compute(graph, {up.values, up.indices, down.values, down.indices, argsort(x)},
                            {{x, Array({2.0, not_a_number, -1.0, 2.0, inf, not_a_number})}});
  CHECK(made[0].dtype() == dtype);
  CHECK(made[1].identical(whole({2, 0, 3, 4, 1, 5})));
  CHECK(made[0][0] == -1);
  CHECK(made[0][3] == inf);
  CHECK(std::isnan(made[0][5]));
  CHECK(made[3].identical(whole({4, 0, 3, 2, 1, 5})));
  CHECK(made[2][0] == inf);
  CHECK(std::isnan(made[2][4]));
  CHECK(made[4].identical(made[1]));

  const auto y = graph.input("y", {2, 3, 2});
  const auto middle = sort(y, 1);
  using Rows = std::vector<std::vector<std::vector<double>>>;
  const Array numbers(Rows{{{3.0, 1.0}, {2.0, 9.0}, {5.0, 4.0}}, {{0.0, -1.0}, {0.0, -3.0}, {-2.0, -2.0}}});
  const auto of_y = compute(graph, {middle.values, middle.indices}, {{y, numbers}});
  CHECK(of_y[0].astype(float64).identical(
      Array(Rows{{{2.0, 1.0}, {3.0, 4.0}, {5.0, 9.0}}, {{-2.0, -3.0}, {0.0, -2.0}, {0.0, -1.0}}})));
  CHECK(of_y[1].astype(float64).identical(Array(Rows{{{1, 0}, {0, 2}, {2, 1}}, {{2, 1}, {0, 2}, {1, 0}}})));
}

TEST_CASE("topk is the beginning of sort") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {2, n});
  const Array numbers({{3.0, not_a_number, 7.0, 7.0, -1.0}, {1.0, 2.0, 0.0, -0.0, 2.0}});
  for (const bool largest : {true, false})
    for (const std::int64_t k : {0, 1, 3, 5}) {
      CAPTURE(largest, k);
      const auto top = topk(x, k, 1, largest);
      const auto all = sort(x, 1, largest);
      const auto made = compute(graph, {top.values, top.indices, all.values, all.indices}, {{x, numbers}});
      REQUIRE(made[0].shape() == Dims{2, k});
      for (std::int64_t row = 0; row < 2; ++row)
        for (std::int64_t i = 0; i < k; ++i) {
          CHECK(made[1][row * k + i] == made[3][row * 5 + i]);
          const double value = made[0][row * k + i];
          CHECK((value == made[2][row * 5 + i] || (std::isnan(value) && std::isnan(made[2][row * 5 + i]))));
        }
    }
  const auto too_many = topk(x, 6, 1).values;
  CHECK_THAT(error_of([&] {
               compute(graph, {too_many}, {{x, numbers}});
             }).what(),
             ContainsSubstring("requires a k of at most the extent, got 6 of 5"));
  const auto y = graph.input("y", {4});
  CHECK_THAT(error_of([&] { topk(y, 5); }).what(), ContainsSubstring("got 5 of 4"));
  CHECK_THAT(error_of([&] { topk(y, -1); }).what(), ContainsSubstring("requires a k of 0 or more, got -1"));
  CHECK_THAT(error_of([&] { sort(equal(y, y)); }).what(),
             ContainsSubstring("float32, float64 or an integer, got bool"));
}

TEST_CASE("the gradient of sorted values goes back to where they came from") {
  Graph graph;
  const auto x = graph.input("x", {4});
  const Array numbers({0.5, -1.0, 3.0, 2.0});
  const auto weights = graph.constant(Array({1.0, 10.0, 100.0, 1000.0}));
  const auto d = gradients(sum(sort(x).values * weights), {x})[0];
  const auto d_top = gradients(sum(square(topk(x, 2).values)), {x})[0];
  const auto second = gradients(sum(d_top * weights), {x})[0];
  const auto made = compute(graph, {d, d_top, second}, {{x, numbers}});
  CHECK(made[0].identical(Array({10.0, 1.0, 1000.0, 100.0})));
  CHECK(made[1].identical(Array({0.0, 0.0, 6.0, 4.0})));
  CHECK(made[2].identical(Array({0.0, 0.0, 200.0, 2000.0})));
}

TEST_CASE("elements are taken and added along an axis by their indices") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto i = graph.input("i", {2, 2}, int64);
  const auto taken = take_along_axis(x, i, 1);
  const auto back = scatter_add_along_axis(taken, i, 3, 1);
  const auto row = take_along_axis(x, graph.constant(Array({{2, 0}}).astype(int64)), 1);  // broadcast over both rows
  const Array numbers({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}});
  const auto made = compute(graph, {taken, back, row}, {{x, numbers}, {i, Array({{2, 2}, {-3, 1}})}});
  CHECK(made[0].identical(Array({{3.0, 3.0}, {4.0, 5.0}})));
  CHECK(made[1].identical(Array({{0.0, 0.0, 6.0}, {4.0, 5.0, 0.0}})));
  CHECK(made[2].identical(Array({{3.0, 1.0}, {6.0, 4.0}})));
  const auto v = graph.variable("v", zeros({2, 2}));
  State state(graph);
  Program program(state, {.updates = {{v, taken}}});
  CHECK_THAT(error_of([&] {
               program.run({{x, numbers}, {i, Array({{0, 1}, {2, 3}})}});
             }).what(),
             ContainsSubstring("requires indices from -3 to 2, got 3"));
  CHECK(state.get(v)[0] == 0);
  CHECK_THAT(error_of([&] { take_along_axis(x, x, 1); }).what(), ContainsSubstring("requires indices of int64"));
  const auto j = graph.input("j", {3, 2}, int64);
  CHECK_THAT(error_of([&] { take_along_axis(x, j, 1); }).what(), ContainsSubstring("agree but for axis 1"));
}

TEST_CASE("split cuts along an axis") {
  Graph graph;
  const auto x = graph.input("x", {2, 6});
  const Values thirds = split(x, 3, 1);
  const Values uneven = split(x, Axes{1, 0, 5}, -1);
  CHECK(thirds.size() == 3);
  CHECK(uneven[1].shape() == Shape{2, 0});
  const auto d = gradients(sum(thirds[1] * 2.0), {x})[0];
  const Array numbers({{0.0, 1.0, 2.0, 3.0, 4.0, 5.0}, {6.0, 7.0, 8.0, 9.0, 10.0, 11.0}});
  const auto made = compute(graph, {thirds[2], uneven[2], d}, {{x, numbers}});
  CHECK(made[0].identical(Array({{4.0, 5.0}, {10.0, 11.0}})));
  CHECK(made[1].identical(Array({{1.0, 2.0, 3.0, 4.0, 5.0}, {7.0, 8.0, 9.0, 10.0, 11.0}})));
  CHECK(made[2].identical(Array({{0.0, 0.0, 2.0, 2.0, 0.0, 0.0}, {0.0, 0.0, 2.0, 2.0, 0.0, 0.0}})));
  CHECK_THAT(error_of([&] { split(x, 4, 1); }).what(),
             ContainsSubstring("requires an extent that 4 parts divide, got 6"));
  CHECK_THAT(error_of([&] { split(x, Axes{1, 2}, 1); }).what(), ContainsSubstring("add up to that of axis 1, 6"));
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (const Axes& extents : {Axes{1, most}, Axes{most, most, 8}, Axes{7, -1}})
    CHECK_THAT(error_of([&] { split(x, extents, 1); }).what(), ContainsSubstring("add up to that of axis 1, 6"));
}

TEST_CASE("moments are mean and variance, and have derivatives of every order") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto m = moments(x, 1);
  const auto all = moments(x, {}, true);
  CHECK(all.variance.shape() == Shape{1, 1});
  const Array numbers({{1.0, 2.0, 6.0}, {-1.0, -1.0, -1.0}});
  const auto d = gradients(sum(square(m.variance) + m.mean), {x})[0];
  const auto made = compute(graph, {m.mean, m.variance, all.mean, all.variance, d}, {{x, numbers}});
  CHECK(made[0].identical(Array({3.0, -1.0})));
  CHECK(allclose(made[1], Array({14.0 / 3, 0.0}), 1e-15, 0));
  CHECK(made[2][0] == 1);
  CHECK(made[3][0] == Approx(44.0 / 6 - 1));
  // 2 v * 2 (x - m) / n + 1 / n
  for (std::int64_t i = 0; i < 3; ++i) CHECK(made[4][i] == Approx(2 * 14.0 / 3 * 2 * (numbers[i] - 3) / 3 + 1.0 / 3));
  CHECK(made[4][4] == Approx(1.0 / 3));
  // v^2 of two elements is (a - b)^4 / 16: its third derivative in a is 24 (a - b) / 16.
  const auto y = graph.input("y", {2});
  Value v = square(moments(y).variance);
  for (int order = 0; order < 3; ++order) v = sum(gradients(v, {y})[0] * graph.constant(Array({1.0, 0.0})));
  CHECK(compute(graph, {v}, {{y, Array({5.0, 2.0})}})[0][0] == Approx(24.0 * 3 / 16));
  const CheckReport report = check_gradients(*find_op("moments"));
  INFO(report.to_string());
  CHECK(report.passed());
}

// ---- kernels of several dtypes, in parts

namespace {

const Op& histogram_op = register_op({
    .name = "test_histogram",
    .doc = "How often each of n classes is met, and the sum of the weights there.",
    .attributes = {{"n", AttributeType::whole}},
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(2);
      const Shape classes{call.attribute<std::int64_t>("n")};
      return {{int64, classes}, {call.dtype(1), classes}};
    },
    .forward = kernel([]<class T>(Tensor<const std::int64_t> of, Tensor<const T> weight, Tensor<std::int64_t> count,
                                  Tensor<T> total, const Attributes& attributes) {
      if (count.size() != attributes.get<std::int64_t>("n")) throw Error("test", "another number of classes");
      parallel_for(count.size(), 1000, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
          count[k] = 0;
          total[k] = 0;
          for (std::int64_t i = 0; i < of.size(); ++i) {
            if (of[i] != k) continue;
            ++count[k];
            total[k] += weight[i];
          }
        }
      });
    }),
    .gradient = [](const Node& node, const Values& dys) -> Values {
      return {{}, take_along_axis(dys[1], node.input(0), 0)};
    },
    .samples = {{.inputs = {integers({9}, 0, 4), uniform({9}, -1, 1)}, .attributes = {{"n", 4}}}},
});

}  // namespace

TEST_CASE("a kernel takes whole numbers and gives several outputs") {
  Graph graph({.dtype = float32});
  const auto of = graph.input("of", {5}, int64);
  const auto weight = graph.input("weight", {5});
  const Values outputs = apply_all(histogram_op, {of, weight}, {{"n", 3}});
  const auto made = compute(graph, outputs, {{of, Array({0, 2, 2, 0, 2})}, {weight, Array({1.0, 2.0, 3.0, 4.0, 5.0})}});
  CHECK(made[0].identical(whole({2, 0, 3})));
  CHECK(made[1].identical(Array({5.0, 0.0, 10.0}).astype(float32)));
  CHECK(check_gradients(histogram_op).passed());
  CHECK_THAT(error_of([&] {
               apply(histogram_op, {weight, weight}, {{"n", 3}});
             }).what(),
             ContainsSubstring("requires int64 as input 0, got float32"));
  CHECK_THAT(error_of([&] {
               apply(histogram_op, {of, of}, {{"n", 3}});
             }).what(),
             ContainsSubstring("requires float32 or float64 as output 1, got int64"));
  CHECK_THAT(error_of([&] { apply(histogram_op, {of, weight}); }).what(), ContainsSubstring("'n'"));
  CHECK_THAT(error_of([&] { apply(histogram_op, {of, weight}, {{"n", 2.5}}); }).what(), ContainsSubstring("'n'"));
}

TEST_CASE("a kernel that minds the order of its parts is found") {
  Op op = sincos_op;
  op.name = "test_ordered";
  op.forward = kernel([]<class T>(Tensor<const T> x, Tensor<T> sine, Tensor<T> cosine) {
    int part = 0;
    parallel_for(x.size(), 1'000'000, [&](std::int64_t begin, std::int64_t end) {
      ++part;
      for (std::int64_t i = begin; i < end; ++i) {
        sine[i] = std::sin(x[i]) + static_cast<T>(part);
        cosine[i] = std::cos(x[i]);
      }
    });
  });
  const CheckReport report = check_gradients(op);
  INFO(report.to_string());
  bool found = false;
  for (const CheckRow& row : report.rows) found = found || (row.check == "threads" && row.verdict == Verdict::fail);
  CHECK(found);
}

TEST_CASE("parallel_for covers its range once, whatever is thrown") {
  std::vector<int> seen(1001, 0);
  parallel_for(1001, 10, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) seen[static_cast<std::size_t>(i)] += end - begin <= 10 ? 1 : 100;
  });
  CHECK(seen == std::vector<int>(1001, 1));
  parallel_for(0, 1, [](std::int64_t, std::int64_t) { FAIL("a range of nothing"); });
  const auto error = error_of([] {
    parallel_for(100, 10, [](std::int64_t begin, std::int64_t) {
      if (begin >= 30) throw Error("part", std::to_string(begin));
    });
  });
  CHECK_THAT(error.what(), ContainsSubstring("30"));
  CHECK_THAT(error_of([] { parallel_for(3, 0, [](std::int64_t, std::int64_t) {}); }).what(),
             ContainsSubstring("requires a grain of 1 or more, got 0"));
}
