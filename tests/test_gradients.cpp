#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;

namespace {

Array map(const Array& x, const std::function<double(double)>& f) {
  Array out(x);
  for (std::int64_t i = 0; i < x.size(); ++i) out.set(i, f(x[i]));
  return out;
}

// Refuses what f does: by message, at this line, with the graph as it was.
void require_refusal(const Graph& graph, const std::function<void()>& f, int line, const std::string& message) {
  INFO(message);
  const std::string before = graph.to_string();
  const std::size_t nodes = graph.size();
  try {
    f();
    FAIL_CHECK("nothing was thrown");
  } catch (const Error& error) {
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK_THAT(error.location().file, ContainsSubstring("test_gradients.cpp"));
    CHECK(error.location().line == line);
  }
  CHECK(graph.size() == nodes);
  CHECK(graph.to_string() == before);
}

// No derivative is known of it.
const Op& opaque = register_op({.name = "opaque",
                                .doc = "x, without a gradient rule.",
                                .shape = same_shape,
                                .forward = elementwise([](auto x) { return x; }),
                                .samples = {{.inputs = {ones({2})}, .differentiate = false}}});

Value strange;  // of another graph than the test's

// Its rule is wrong in the way that its attribute names.
const Op& faulty =
    register_op({.name = "faulty",
                 .doc = "x, with a broken gradient rule.",
                 .attributes = {{"fault", AttributeType::text}},
                 .shape = same_shape,
                 .forward = elementwise([](auto x) { return x; }),
                 .gradient = [](const Node& node, Value dy) -> Values {
                   const auto& fault = node.attribute<std::string>("fault");
                   if (fault == "count") return {dy, dy};
                   if (fault == "dtype") return {cast(dy, float32)};
                   if (fault == "shape") return {concat({dy, dy}, 0)};
                   if (fault == "input") return {dy * node.input(1)};
                   if (fault == "graph") return {strange};
                   return {Value{}};
                 },
                 .samples = {{.inputs = {ones({2})}, .attributes = {{"fault", "none"}}, .differentiate = false}}});

}  // namespace

// ---- numbers

TEST_CASE("derivatives of functions against their closed forms") {
  struct Case {
    const char* name;
    std::function<Value(Value)> f;
    std::function<double(double)> first, second, third;
  };
  const auto sech2 = [](double x) { return 1 / (std::cosh(x) * std::cosh(x)); };
  const auto s = [](double x) { return 1 / (1 + std::exp(-x)); };
  const std::vector<Case> cases = {
      {"x^4", [](Value x) { return pow(x, 4.0); }, [](double x) { return 4 * x * x * x; },
       [](double x) { return 12 * x * x; }, [](double x) { return 24 * x; }},
      {"x * x * x", [](Value x) { return x * x * x; }, [](double x) { return 3 * x * x; },
       [](double x) { return 6 * x; }, [](double) { return 6.0; }},
      {"exp(2x)", [](Value x) { return exp(2.0 * x); }, [](double x) { return 2 * std::exp(2 * x); },
       [](double x) { return 4 * std::exp(2 * x); }, [](double x) { return 8 * std::exp(2 * x); }},
      {"log", [](Value x) { return log(x); }, [](double x) { return 1 / x; }, [](double x) { return -1 / (x * x); },
       [](double x) { return 2 / (x * x * x); }},
      {"1 / x", [](Value x) { return 1.0 / x; }, [](double x) { return -1 / (x * x); },
       [](double x) { return 2 / (x * x * x); }, [](double x) { return -6 / (x * x * x * x); }},
      {"sin", [](Value x) { return sin(x); }, [](double x) { return std::cos(x); },
       [](double x) { return -std::sin(x); }, [](double x) { return -std::cos(x); }},
      {"tan", [](Value x) { return tan(x); }, [](double x) { return 1 / (std::cos(x) * std::cos(x)); },
       [](double x) { return 2 * std::tan(x) / (std::cos(x) * std::cos(x)); },
       [](double x) { return (2 + 6 * std::tan(x) * std::tan(x)) / (std::cos(x) * std::cos(x)); }},
      {"tanh", [](Value x) { return tanh(x); }, sech2, [&](double x) { return -2 * std::tanh(x) * sech2(x); },
       [&](double x) { return sech2(x) * (4 * std::tanh(x) * std::tanh(x) - 2 * sech2(x)); }},
      {"sigmoid", [](Value x) { return sigmoid(x); }, [&](double x) { return s(x) * (1 - s(x)); },
       [&](double x) { return s(x) * (1 - s(x)) * (1 - 2 * s(x)); },
       [&](double x) { return s(x) * (1 - s(x)) * (1 - 6 * s(x) + 6 * s(x) * s(x)); }},
      {"sqrt", [](Value x) { return sqrt(x); }, [](double x) { return 0.5 / std::sqrt(x); },
       [](double x) { return -0.25 * std::pow(x, -1.5); }, [](double x) { return 0.375 * std::pow(x, -2.5); }},
  };
  const Array at({0.3, 0.9, 1.7, 2.4});
  for (const Case& c : cases) {
    INFO(c.name);
    Graph graph;
    const auto x = graph.input("x", {4});
    const auto d1 = gradients(sum(c.f(x)), {x})[0];
    const auto d2 = gradients(sum(d1), {x})[0];
    const auto d3 = gradients(sum(d2), {x})[0];
    const auto got = compute(graph, {d1, d2, d3}, {{x, at}});
    CHECK(allclose(got[0], map(at, c.first), 1e-13, 1e-13));
    CHECK(allclose(got[1], map(at, c.second), 1e-12, 1e-12));
    CHECK(allclose(got[2], map(at, c.third), 1e-11, 1e-11));
  }
}

TEST_CASE("what a value is used for several times is summed") {
  Graph graph;
  const auto x = graph.input("x", {3});
  // x^2 + 3x + x sin x, and x twice in one op.
  const auto y = sum(x * x + 3.0 * x + x * sin(x));
  const Array at({0.5, -1.0, 2.0});
  CHECK(allclose(compute(graph, gradients(y, {x}), {{x, at}})[0],
                 map(at, [](double v) { return 2 * v + 3 + std::sin(v) + v * std::cos(v); }), 1e-14));
  // A value on the way that fans out, and comes together again.
  const auto h = exp(x);
  const auto z = sum(h * h) + sum(h);
  const auto both = gradients(z, {h, x});
  const auto got = compute(graph, both, {{x, at}});
  CHECK(allclose(got[0], map(at, [](double v) { return 2 * std::exp(v) + 1; }), 1e-14));
  CHECK(allclose(got[1], map(at, [](double v) { return (2 * std::exp(v) + 1) * std::exp(v); }), 1e-14));
}

TEST_CASE("what was broadcast is summed back") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 3});
  const auto row = graph.parameter("row", Array({1.0, 2.0, 3.0}));
  const auto thin = graph.parameter("thin", Array(float64, {1, 3}));
  const auto number = graph.parameter("number", Array(2.0));
  const auto deep = graph.parameter("deep", Array(float64, {2, 1, 1}));
  const auto column = graph.input("column", {batch, 1});
  const auto y = x * row + thin * number + column + deep;
  REQUIRE(y.shape() == Shape{2, batch, 3});
  const auto d = gradients(sum(y * y), {x, row, thin, number, deep, column});
  const Values of = {x, row, thin, number, deep, column};
  for (std::size_t i = 0; i < of.size(); ++i) CHECK(d[i].shape() == of[i].shape());

  const Array fed({{1.0, -1.0, 2.0}, {0.5, 3.0, -2.0}});
  const Array shift = Array({0.25, -0.75}).reshape({2, 1});
  const auto got = compute(graph, d, {{x, fed}, {column, shift}});
  // y is the same in both halves of the first axis, since thin and deep are 0.
  Array expected[6] = {Array(float64, {2, 3}),    Array(float64, {3}),   Array(float64, {1, 3}), Array(0.0),
                       Array(float64, {2, 1, 1}), Array(float64, {2, 1})};
  const double rows[] = {1, 2, 3};
  const auto add = [](Array& to, std::int64_t i, double value) { to.set(i, to[i] + value); };
  for (std::int64_t k = 0; k < 2; ++k) {
    for (std::int64_t i = 0; i < 2; ++i) {
      for (std::int64_t j = 0; j < 3; ++j) {
        const double dy = 2 * (fed(i, j) * rows[j] + shift[i]);
        add(expected[0], i * 3 + j, dy * rows[j]);
        add(expected[1], j, dy * fed(i, j));
        add(expected[2], j, dy * 2);
        add(expected[4], k, dy);
        add(expected[5], i, dy);
      }
    }
  }
  for (std::size_t i = 0; i < 6; ++i) {
    INFO(of[i].name());
    CHECK(allclose(got[i], expected[i], 1e-14));
  }
}

TEST_CASE("values on the way, y itself, and values that y does not depend on") {
  Graph graph({.dtype = float32});
  const auto x = graph.input("x", {2, 2}, float64);
  const auto w = graph.parameter("w", Array({1.0, 2.0}));  // float32
  const auto h = tanh(x);
  const auto y = sum(h * h);
  const auto later = exp(x);
  const auto aside = graph.input("aside", {graph.dimension("n"), 3}, float64);
  const auto d = gradients(y, {y, h, x, w, later, aside});
  const Array at({{0.1, 0.2}, {-0.3, 0.4}});
  const auto got = compute(graph, d, {{x, at}, {aside, Array(float64, {5, 3})}});
  CHECK(got[0].item() == 1);
  CHECK(allclose(got[1], map(at, [](double v) { return 2 * std::tanh(v); }), 1e-14));
  CHECK(allclose(got[2], map(at, [](double v) { return 2 * std::tanh(v) * (1 - std::pow(std::tanh(v), 2)); }), 1e-14));
  CHECK(got[3].identical(Array(float32, {2})));
  CHECK(got[4].identical(Array(float64, {2, 2})));
  CHECK(got[5].identical(Array(float64, {5, 3})));
  // The derivative of a gradient with respect to that gradient.
  CHECK(compute(graph, gradients(sum(d[2]), {d[2]}), {{x, at}})[0].identical(Array::full(float64, {2, 2}, 1)));
  CHECK(gradients(y, {}).empty());
}

TEST_CASE("gradients stop at integers, comparisons and stop_gradient") {
  Graph graph;
  const auto x = graph.input("x", {4});
  const auto y = sum(cast(argmax(x, 0), float64) * x) + sum(cast(x > 0.0, float64)) + sum(stop_gradient(x) * x) +
                 sum(floor(x)) + sum(cast(cast(x, int64), float64));
  const Array at({0.5, -1.0, 3.0, 2.0});
  CHECK(compute(graph, gradients(y, {x}), {{x, at}})[0].identical(at + 2.0));  // argmax is 2
}

TEST_CASE("the vector-Jacobian product of a y of any shape") {
  Graph graph;
  const auto a = graph.input("a", {3, 2});
  const auto b = graph.input("b", {2, 4});
  const auto c = graph.input("c", {3, 4});
  const auto y = matmul(a, b);
  const auto d = gradients(y, {a, b}, c);
  const Array an = uniform({3, 2}).draw(float64, 1, 0);
  const Array bn = uniform({2, 4}).draw(float64, 2, 0);
  const Array cn = uniform({3, 4}).draw(float64, 3, 0);
  Array da(float64, {3, 2});
  Array db(float64, {2, 4});
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t k = 0; k < 2; ++k)
      for (std::int64_t j = 0; j < 4; ++j) {
        da.set(i * 2 + k, da(i, k) + cn(i, j) * bn(k, j));
        db.set(k * 4 + j, db(k, j) + cn(i, j) * an(i, k));
      }
  const auto got = compute(graph, d, {{a, an}, {b, bn}, {c, cn}});
  CHECK(allclose(got[0], da, 1e-14));
  CHECK(allclose(got[1], db, 1e-14));
}

TEST_CASE("Hessian-vector products and mixed derivatives") {
  // f = sum(x^2 y), so that f_xx v = 2 y v and f_xy = 2 x.
  Graph graph;
  const auto x = graph.input("x", {3});
  const auto y = graph.input("y", {3});
  const auto v = graph.input("v", {3});
  const auto f = sum(square(x) * y);
  const auto fx = gradients(f, {x})[0];
  const auto product = gradients(sum(fx * v), {x})[0];
  const auto mixed = gradients(fx, {y}, v)[0];
  const Array xn({1.0, 2.0, -3.0});
  const Array yn({0.5, -1.5, 2.0});
  const Array vn({1.0, 10.0, 100.0});
  const auto got = compute(graph, {product, mixed}, {{x, xn}, {y, yn}, {v, vn}});
  CHECK(got[0].identical(2.0 * yn * vn));
  CHECK(got[1].identical(2.0 * xn * vn));
}

TEST_CASE("y of one element in any rank; a gradient is of its x's dtype") {
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto y = sum(square(x), 0, true);
  CHECK(y.shape() == Shape{1});
  const Array at({3.0, 4.0});
  CHECK(compute(graph, gradients(y, {x}), {{x, at}})[0].identical(at * 2.0));
  const auto single = graph.input("single", {2}, float32);
  const auto mixed = sum(cast(single, float64) * x);
  const auto d = gradients(mixed, {single, x});
  CHECK(d[0].dtype() == float32);
  CHECK(d[1].dtype() == float64);
  const auto got = compute(graph, d, {{x, at}, {single, Array({1.0, 2.0}).astype(float32)}});
  CHECK(got[0].identical(at.astype(float32)));
  CHECK(got[1].identical(Array({1.0, 2.0})));
}

// ---- errors

TEST_CASE("gradients refuses what has none, and leaves the graph as it was") {
  Graph graph;
  Graph other;
  const auto x = graph.input("x", {3});
  const auto n = graph.input("n", {3}, int64);
  const auto stranger = other.input("z", {3});
  const auto y = sum(square(x));
  const auto vector = x * 2.0;
  const auto counted = sum(n);
  const auto two = graph.constant(Array({1.0, 1.0}));
  const auto single = graph.constant(Array({1.0, 1.0, 1.0}).astype(float32));
  const auto refuse = [&](const std::function<void()>& f, int line, const std::string& message) {
    require_refusal(graph, f, line, message);
  };
  refuse([&] { gradients(vector, {x}); }, __LINE__,
         "gradients: requires a scalar y, or a cotangent of y's shape, got y of shape {3}");
  refuse([&] { gradients(counted, {x}); }, __LINE__,
         "gradients: requires y of dtype float32 or float64, got sum at test_gradients.cpp:" +
             std::to_string(counted.location().line) + " of int64");
  refuse([&] { gradients(y, {n}); }, __LINE__, "gradients: requires an x of dtype float32 or float64, got n of int64");
  refuse([&] { gradients(y, {x, Value{}}); }, __LINE__, "gradients: requires an x of a graph, got an empty Value");
  refuse([&] { gradients(Value{}, {x}); }, __LINE__, "gradients: requires y of a graph, got an empty Value");
  refuse([&] { gradients(y, {stranger}); }, __LINE__, "gradients: requires values of one graph, got z of another");
  refuse([&] { gradients(vector, {x}, Value{}); }, __LINE__,
         "gradients: requires a cotangent of a graph, got an empty Value");
  refuse([&] { gradients(vector, {x}, stranger); }, __LINE__,
         "gradients: requires values of one graph, got z of another");
  refuse([&] { gradients(vector, {x}, two); }, __LINE__,
         "gradients: requires a cotangent like y, float64 {3}, got float64 {2}");
  refuse([&] { gradients(vector, {x}, single); }, __LINE__,
         "gradients: requires a cotangent like y, float64 {3}, got float32 {3}");
}

TEST_CASE("errors on the way name the op and the line where it was built") {
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto refuse = [&](const std::function<void()>& f, int line, const std::string& message) {
    require_refusal(graph, f, line, message);
  };
  const int line = __LINE__ + 1;
  const auto hidden = apply(opaque, {exp(x)});
  const auto y = sum(square(hidden) * 3.0);
  refuse([&] { gradients(y, {x}); }, line,
         "opaque: requires a gradient rule, which this op has not: sum at test_gradients.cpp:" +
             std::to_string(line + 1) + " depends on it");
  // Nothing to differentiate behind it, or it is cut off: no rule is needed.
  CHECK(gradients(y, {hidden}).size() == 1);
  CHECK(gradients(sum(stop_gradient(hidden) * x), {x}).size() == 1);

  const auto fault = [&](const char* kind) { return sum(apply(faulty, {x}, {{"fault", kind}})); };
  const int at = __LINE__ - 1;
  refuse([&, v = fault("count")] { gradients(v, {x}); }, at,
         "faulty: requires a gradient rule that returns 1 values, one for each input, got 2");
  refuse([&, v = fault("dtype")] { gradients(v, {x}); }, at,
         "faulty: requires a gradient of the dtype of input 0, float64, got float32");
  refuse([&, v = fault("input")] { gradients(v, {x}); }, at, "faulty: has 1 inputs, and its rule asked for input 1");
  refuse([&, v = fault("shape")] { gradients(v, {x}); }, at,
         "faulty: requires a gradient of a shape that fits input 0, {2}, got {4}");
  Graph other;
  strange = other.input("strange", {2});
  refuse([&, v = fault("graph")] { gradients(v, {x}); }, at,
         "faulty: requires a gradient of its own graph, got strange of another");
  // A rule may say that it contributes nothing.
  CHECK(compute(graph, gradients(fault("none"), {x}), {{x, Array({1.0, 2.0})}})[0].identical(Array(float64, {2})));
}

// ---- ops without a derivative

TEST_CASE("a y that depends on x through ops without a derivative only is refused, or has the gradient zero") {
  Graph graph;
  const auto x = graph.input("x", {3});
  const auto w = graph.input("w", {3});
  const int line = __LINE__ + 2;  // of the first case's y
  const std::vector<std::pair<Value, std::string>> cases = {
      {mean(cast(w > 0.0, float64)), "greater"},
      {sum(x * cast(argmax(w, 0), float64)), "argmax"},
      {sum(one_hot(cast(w, int64), 3, float64)), "cast"},
      {sum(where(floor(w) < 1.0, x, 0.0)), "less"},
      {sum(cast(logical_and(w < 1.0, x < 1.0), float64) * x), "less"},
      {sum(cast(cast(w, boolean), float64)), "cast"},
  };
  const std::string numbers = "test_gradients.cpp:";
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto& [y, op] = cases[i];
    require_refusal(
        graph, [&, of = y] { gradients(of, {w}); }, __LINE__,
        "gradients: requires a y with a derivative for each x (NoDerivative::zeros takes 0), got one that depends on w "
        "only through " +
            op + " at " + numbers + std::to_string(line + static_cast<int>(i)) + ", which has no derivative");
    const auto d = gradients(y, {w}, NoDerivative::zeros)[0];
    CHECK(compute(graph, {d}, {{w, Array({1.0, 2.0, 0.5})}})[0].identical(Array(float64, {3})));
  }
  // With a cotangent too, and for one x among others.
  const auto steps = cast(w > 0.0, float64) * x;
  const Values both = {x, w};
  require_refusal(
      graph, [&] { gradients(steps, both, x); }, __LINE__, "got one that depends on w only through greater");
  CHECK(gradients(steps, both, x, NoDerivative::zeros).size() == 2);
  // An op without a rule is told to have the derivative zero only where that is asked for.
  const auto hidden = sum(apply(opaque, {w}) * x);
  CHECK_THROWS_AS(gradients(hidden, {w, x}), Error);
  const auto got = compute(graph, gradients(hidden, {w, x}, NoDerivative::zeros),
                           {{w, Array({1.0, 2.0, 0.5})}, {x, Array({1.0, 1.0, 1.0})}});
  CHECK(got[0].identical(Array(float64, {3})));
  CHECK(got[1].identical(Array({1.0, 2.0, 0.5})));
}

TEST_CASE("zeros, and no error: no dependence, stop_gradient, flat ops, kinks in derivatives") {
  Graph graph;
  const auto x = graph.input("x", {3});
  const auto w = graph.input("w", {3});
  const Array at({1.5, -2.0, 0.5});
  const auto zero = [&](Value y) {
    return compute(graph, gradients(y, {w}), {{w, at}, {x, at}})[0].identical(Array(float64, {3}));
  };
  CHECK(zero(sum(x)));
  CHECK(zero(sum(stop_gradient(w) * x)));
  CHECK(zero(sum(cast(stop_gradient(w) > 0.0, float64))));
  CHECK(zero(sum(floor(w) + sign(w) + ceil(w))));
  // Second derivatives of functions with kinks, of the library and of comparisons that a user wrote.
  const auto slope = [&](Value y) { return sum(gradients(y, {w})[0] * x); };
  CHECK(zero(slope(sum(relu(w)))));
  CHECK(zero(slope(sum(abs(w)))));
  CHECK(zero(slope(max(w))));
  CHECK(zero(slope(sum(where(w > 0.0, 3.0 * w, w)))));
  CHECK(zero(slope(sum(w * cast(w > 0.0, float64)))));
  // One way with a derivative is enough.
  const auto y = sum(w * x) + mean(cast(w > 0.0, float64));
  CHECK(compute(graph, gradients(y, {w}), {{x, at}})[0].identical(at));
  // A comparison of a gradient that somebody wrote is one like others.
  const auto steep = mean(cast(gradients(sum(square(w)), {w})[0] > 1.0, float64));
  CHECK_THROWS_WITH(gradients(steep, {w}), ContainsSubstring("only through greater"));
}

// ---- size

TEST_CASE("chains of 10,000 and 100,000 nodes") {
  std::vector<std::size_t> added;
  for (const std::size_t length : {10'000U, 100'000U}) {
    Graph graph;
    const auto x = graph.input("x", {2});
    Value h = x;
    for (std::size_t i = 0; i < length / 2; ++i) h = sin(h) * 1.25;
    const std::size_t before = graph.size();
    const auto d = gradients(sum(h), {x})[0];
    added.push_back(graph.size() - before);
    State state(graph);
    Program program(state, {.outputs = {sum(h), d}});
    const Array at({0.5, 1.0});
    const Results results = program.run({{x, at}});
    double total = 0;
    for (std::int64_t i = 0; i < 2; ++i) {
      double value = at[i];
      double slope = 1;
      for (std::size_t k = 0; k < length / 2; ++k) {
        slope *= 1.25 * std::cos(value);
        value = 1.25 * std::sin(value);
      }
      total += value;
      CHECK(results[1][i] == Approx(slope).margin(1e-12));
    }
    CHECK(results.scalar(0) == Approx(total).epsilon(1e-9));
  }
  // As many nodes for each node of the chain, however long it is.
  CHECK(static_cast<double>(added[1]) / static_cast<double>(added[0]) == Approx(10).epsilon(0.01));
  CHECK(added[0] < 10 * 10'000);
}

TEST_CASE("a value that 100,000 nodes read, and a sum of 100,000 terms") {
  Graph graph;
  const auto x = graph.input("x", {});
  Value total = x;
  for (int i = 0; i < 50'000; ++i) total = total + x * (1.0 / (i + 1));
  const auto d = gradients(total, {x})[0];
  double harmonic = 1;
  for (int i = 0; i < 50'000; ++i) harmonic += 1.0 / (i + 1);
  CHECK(compute(graph, {d}, {{x, 2.0}})[0].item() == Approx(harmonic).epsilon(1e-12));
}

TEST_CASE("a deep network of products") {
  // Kernels and fused groups by turns, so that as many steps must be ordered and placed.
  Graph graph;
  const auto x = graph.input("x", {1, 2});
  const auto w = graph.parameter("w", Array({{0.6, -0.8}, {0.8, 0.6}}));
  Value h = x;
  for (int i = 0; i < 5'000; ++i) h = tanh(matmul(h, w)) * 1.5;
  const auto d = gradients(sum(h), {w})[0];
  State state(graph);
  Program program(state, {.outputs = {d}});
  const Array at = Array({0.3, -0.2}).reshape({1, 2});
  CHECK(std::isfinite(program.run({{x, at}})[0][0]));
  CHECK(program.memory().steps >= 10'000);
}
