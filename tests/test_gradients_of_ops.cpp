// The gradient of every registered op, and whether a wrong one would be found.
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"

using namespace chainrule;
using Catch::Matchers::ContainsSubstring;

namespace {

// Ops that this file registers; the loops pass over them.
constexpr std::string_view prefix = "test/";

std::vector<const Op*> library_ops() {
  std::vector<const Op*> out;
  for (const Op* op : registry())
    if (!op->name.starts_with(prefix)) out.push_back(op);
  return out;
}

// Ops with a gradient rule whose samples have nothing to differentiate, each with a reason.
const std::set<std::string, std::less<>> nothing_to_differentiate = {
    "stop_gradient",  // its rule says that the derivative is 0, which it is not
    "ctc",            // its slope, an output, has no derivative; test_sequence_losses.cpp has the first order checked
};

bool differentiates(const Op& op) {
  for (const Sample& sample : op.samples)
    for (const Initial& input : sample.inputs)
      if (sample.differentiate && is_floating(input.dtype(float64))) return true;
  return false;
}

}  // namespace

TEST_CASE("every op's gradient agrees with differences of its forward") {
  for (const Op* op : library_ops()) {
    if (!op->gradient) continue;
    INFO("op " << op->name);
    const bool listed = nothing_to_differentiate.contains(op->name);
    CHECK(listed != differentiates(*op));
    if (listed) {
      CHECK_THROWS_WITH(check_gradients(*op), ContainsSubstring("nothing to differentiate") ||
                                                  ContainsSubstring("something to differentiate"));
      continue;
    }
    const CheckReport report = check_gradients(*op);
    INFO(report.to_string());
    CHECK(report.passed());
  }
}

TEST_CASE("gradients of ops that depend on the mode agree in inference too") {
  for (const char* name : {"by_mode", "batch_norm"}) {
    const CheckReport report = check_gradients(*find_op(name), {.mode = Mode::inference});
    INFO(report.to_string());
    CHECK(report.passed());
  }
}

TEST_CASE("a differentiable op has a gradient rule") {
  // Ops from floating inputs to floating outputs that have none, with good reason: there are none so far.
  const std::set<std::string, std::less<>> without = {};
  for (const Op* op : library_ops()) {
    if (op->gradient || without.contains(op->name)) continue;
    INFO("op " << op->name << " has no gradient rule");
    for (const Sample& sample : op->samples) {
      std::vector<Type> types;
      bool floating = false;
      for (const Initial& input : sample.inputs) {
        types.push_back({input.dtype(float64), to_shape(input.shape())});
        floating = floating || is_floating(types.back().dtype);
      }
      const Type out = output_type(*op, types, sample.attributes);
      CHECK_FALSE((floating && is_floating(out.dtype)));
    }
  }
}

// ---- derivatives where there is none

namespace {

// d sum(f(x)) / dx
template <class F>
std::vector<double> slopes(F f, const std::vector<double>& at) {
  Graph graph;
  const Value x = graph.input("x", {at.size()});
  const Values d = gradients(sum(f(x)), {x});
  State state(graph);
  Program program(state, {.outputs = d});
  const Array out = program.run({{x, Array(at)}})[0];
  return {out.data<double>(), out.data<double>() + out.size()};
}

// The derivatives of sum(f(a, b)) in both.
template <class F>
std::pair<std::vector<double>, std::vector<double>> slopes(F f, const std::vector<double>& a,
                                                           const std::vector<double>& b) {
  Graph graph;
  const Value x = graph.input("a", {a.size()});
  const Value y = graph.input("b", {b.size()});
  State state(graph);
  Program program(state, {.outputs = gradients(sum(f(x, y)), {x, y})});
  const Results d = program.run({{x, Array(a)}, {y, Array(b)}});
  return {{d[0].data<double>(), d[0].data<double>() + d[0].size()},
          {d[1].data<double>(), d[1].data<double>() + d[1].size()}};
}

using Doubles = std::vector<double>;

}  // namespace

TEST_CASE("derivatives at kinks are the field's") {
  CHECK(slopes([](Value x) { return relu(x); }, {-1, -0.0, 0, 1}) == Doubles{0, 0, 0, 1});
  CHECK(slopes([](Value x) { return leaky_relu(x, 0.1); }, {-1, 0, 1}) == Doubles{0.1, 0.1, 1});
  CHECK(slopes([](Value x) { return prelu(x, 0.1); }, {-1, 0, 1}) == Doubles{0.1, 0.1, 1});
  CHECK(slopes([](Value x) { return elu(x, 0.5); }, {-900, 0, 900}) == Doubles{0, 0.5, 1});
  CHECK(slopes([](Value x) { return selu(x); }, {-900, 900}) == Doubles{0, 1.0507009873554804934193349852946});
  CHECK(slopes([](Value x) { return abs(x); }, {-2, 0, 2}) == Doubles{-1, 0, 1});
  CHECK(slopes([](Value x) { return clip(x, -1, 1); }, {-2, -1, 0, 1, 2}) == Doubles{0, 1, 1, 1, 0});
  CHECK(slopes([](Value x) { return sign(x) + floor(x) + ceil(x); }, {-1, 0, 1.5}) == Doubles{0, 0, 0});
}

TEST_CASE("ties share the gradient") {
  const auto greater = slopes([](Value a, Value b) { return maximum(a, b); }, {1, 2, 3}, {3, 2, 1});
  CHECK(greater.first == Doubles{0, 0.5, 1});
  CHECK(greater.second == Doubles{1, 0.5, 0});
  const auto lesser = slopes([](Value a, Value b) { return minimum(a, b); }, {1, 2, 3}, {3, 2, 1});
  CHECK(lesser.first == Doubles{1, 0.5, 0});
  CHECK(lesser.second == Doubles{0, 0.5, 1});
  CHECK(slopes([](Value x) { return maximum(x, x); }, {1, -1}) == Doubles{1, 1});
  CHECK(slopes([](Value x) { return max(x); }, {5, 1, 5, 5, 5}) == Doubles{0.25, 0, 0.25, 0.25, 0.25});
  CHECK(slopes([](Value x) { return min(x); }, {5, 1, 1}) == Doubles{0, 0.5, 0.5});
}

namespace {

// The derivatives of y by x, to this order and from the function itself, where x is a parameter of the graph.
Doubles derivatives_of(Value y, Value x, int order) {
  Values all{y};
  for (int k = 0; k < order; ++k) all.push_back(gradients(all.back(), {x})[0]);
  State state(x.graph());
  Program program(state, {.outputs = all});
  const Results results = program.run();
  Doubles out;
  for (std::size_t k = 0; k < results.size(); ++k) out.push_back(results.scalar(k));
  return out;
}

}  // namespace

TEST_CASE("powers have all their derivatives, at 0 and of negative numbers too") {
  constexpr int order = 6;
  for (const double n : {0.0, 1.0, 2.0, 3.0, 5.0, 0.5, 1.5, -0.5, -1.0, -2.0})
    for (const double x : {0.0, 0.3, 2.0, -1.5})
      for (const bool constant : {true, false}) {
        Graph graph;
        const Value base = graph.parameter("x", Array(x));
        const Value exponent = constant ? graph.constant(n, float64) : graph.parameter("n", Array(n));
        const Doubles got = derivatives_of(pow(base, exponent), base, order);
        double factor = 1;  // n (n - 1) ...
        for (int k = 0; k <= order; ++k) {
          const double right = factor == 0 ? 0 : factor * std::pow(x, n - k);
          INFO("derivative " << k << " of " << x << " to the power of " << n << (constant ? ", a constant" : ""));
          if (std::isnan(right)) {
            CHECK(std::isnan(got[static_cast<std::size_t>(k)]));
          } else {
            CHECK((got[static_cast<std::size_t>(k)] == right ||
                   got[static_cast<std::size_t>(k)] == Approx(right).epsilon(1e-13)));
          }
          factor *= n - k;
        }
      }
}

TEST_CASE("powers have their mixed derivatives") {
  for (const double x : {0.5, 2.0})
    for (const double n : {0.0, 1.0, 2.0, -1.0, 0.5}) {
      Graph graph;
      const Value base = graph.parameter("x", Array(x));
      const Value exponent = graph.parameter("n", Array(n));
      const Values first = gradients(pow(base, exponent), {base, exponent});
      State state(graph);
      Program program(state, {.outputs = {first[1], gradients(first[0], {exponent})[0], gradients(first[1], {base})[0],
                                          gradients(first[1], {exponent})[0]}});
      const Results got = program.run();
      const double log_x = std::log(x);
      const double mixed = std::pow(x, n - 1) * (1 + n * log_x);  // 1 / x for n = 0
      CHECK(got.scalar(0) == Approx(std::pow(x, n) * log_x).epsilon(1e-14));
      CHECK(got.scalar(1) == Approx(mixed).epsilon(1e-14));
      CHECK(got.scalar(2) == Approx(mixed).epsilon(1e-14));
      CHECK(got.scalar(3) == Approx(std::pow(x, n) * log_x * log_x).epsilon(1e-14));
    }
}

TEST_CASE("a polynomial's powers by an array of exponents have their derivatives at 0") {
  // The terms of 1 + x + x^2 + x^3: derivatives 0, 1, 0, 0, then 0, 0, 2, 0, then 0, 0, 0, 6, then none.
  Graph graph;
  const Value x = graph.parameter("x", Array(0.0));
  const Doubles got = derivatives_of(sum(pow(x, Array({0.0, 1.0, 2.0, 3.0}))), x, 4);
  CHECK(got == Doubles{1, 1, 2, 6, 0});
}

TEST_CASE("the slope of a quotient of 0 and a denormal number") {
  const auto d = slopes([](Value a, Value b) { return a / b; }, {0, 0, 3, 1}, {5e-324, 4, 2, -0.5});
  constexpr double inf = std::numeric_limits<double>::infinity();
  CHECK(d.first == Doubles{inf, 0.25, 0.5, -2});
  CHECK(d.second == Doubles{0, 0, -0.75, -4});
}

TEST_CASE("powers have their derivatives at 0") {
  const auto d = slopes([](Value a, Value b) { return pow(a, b); }, {0, 0, 0, 3}, {0, 1, 2, 0});
  CHECK(d.first == Doubles{0, 1, 0, 0});
  CHECK(d.second[0] == 0);
  CHECK(d.second[1] == 0);
  CHECK(d.second[2] == 0);
  CHECK(d.second[3] == Approx(std::log(3.0)));
}

TEST_CASE("gradients of saturated losses are finite and exact") {
  Graph graph;
  const Value z = graph.input("z", {2, 2});
  const Value y = graph.input("y", {2, 2});
  const Value softmax_loss = softmax_cross_entropy(z, y);
  const Value sigmoid_loss = sigmoid_cross_entropy(z, y);
  const Value of_softmax = gradients(softmax_loss, {z})[0];
  const Value of_sigmoid = gradients(sigmoid_loss, {z})[0];
  State state(graph);
  Program program(state, {.outputs = {of_softmax, of_sigmoid}});
  const Results d = program.run({{z, Array({{1e4, -1e4}, {1e4, -1e4}})}, {y, Array({{1.0, 0.0}, {0.0, 1.0}})}});
  CHECK(d[of_softmax].identical(Array({{0.0, 0.0}, {0.5, -0.5}})));
  CHECK(allclose(d[of_sigmoid], Array({{0.0, 0.0}, {0.25, -0.25}}), 0, 0));
}

// Each slope against a formula without differences of near numbers, relative to itself: wherever it can be represented,
// it has its digits.
TEST_CASE("slopes of saturated functions keep their digits") {
  using Long = long double;
  struct Case {
    const char* name;
    Value (*f)(Value);
    Long (*slope)(Long);
  };
  const Case cases[] = {
      {"tanh", [](Value x) { return tanh(x); },
       [](Long x) {
         const Long e = std::exp(-2 * std::abs(x));
         return 4 * e / ((1 + e) * (1 + e));
       }},
      {"sigmoid", [](Value x) { return sigmoid(x); },
       [](Long x) {
         const Long e = std::exp(-std::abs(x));
         return e / ((1 + e) * (1 + e));
       }},
      {"softplus", [](Value x) { return softplus(x); }, [](Long x) { return 1 / (1 + std::exp(-x)); }},
      {"expm1", [](Value x) { return expm1(x); }, [](Long x) { return std::exp(x); }},
      {"elu", [](Value x) { return elu(x); }, [](Long x) { return x > 0 ? 1 : std::exp(x); }},
      {"1 - sigmoid", [](Value x) { return 1.0 - sigmoid(x); },
       [](Long x) {
         const Long e = std::exp(-std::abs(x));
         return -e / ((1 + e) * (1 + e));
       }},
      {"cross-entropy of class 1",
       [](Value x) { return sigmoid_cross_entropy(x, broadcast_to(x.graph().constant(1.0, x.dtype()), x.shape())); },
       [](Long x) { return -1 / (1 + std::exp(x)) / 14; }},
      {"tanh'", [](Value x) { return gradients(sum(tanh(x)), {x})[0]; },
       [](Long x) {
         const Long e = std::exp(-2 * std::abs(x));
         return -2 * std::tanh(x) * 4 * e / ((1 + e) * (1 + e));
       }},
  };
  const Doubles at = {0, 1e-4, 0.3, -1, 3, 5, -7, 9, -15, 20, 30, 40, -43, -36};
  for (const DType dtype : {float32, float64})
    for (const Case& c : cases) {
      Graph graph({.dtype = dtype});
      const Value x = graph.input("x", {at.size()});
      State state(graph);
      Program program(state, {.outputs = gradients(sum(c.f(x)), {x})});
      const Array points = Array(at).astype(dtype);
      const Results got = program.run({{x, points}});
      for (std::int64_t i = 0; i < points.size(); ++i) {
        const auto right = static_cast<double>(c.slope(points[i]));
        INFO(c.name << " at " << points[i] << ", " << name(dtype));
        CHECK(got[0][i] == Approx(right).epsilon(dtype == float32 ? 1e-6 : 2e-15).margin(1e-320));
      }
    }
}

// ---- wrong gradients

namespace {

// tanh under a wrong rule.
const Op& wrong(const std::string& name, GradientRule rule) {
  return register_op({
      .name = std::string(prefix) + name,
      .doc = "tanh, with a gradient that is wrong on purpose.",
      .shape = same_shape,
      .forward = elementwise([](auto x) { return simd::tanh(x); }),
      .gradient = std::move(rule),
      .samples = {{.inputs = {uniform({2, 3}, -1, 1)}}},
  });
}

Value slope(const Node& node) { return 1.0 - square(node.output()); }

void require_found(const Op& op) {
  const CheckReport report = check_gradients(op);
  INFO(report.to_string());
  CHECK_FALSE(report.passed());
}

}  // namespace

TEST_CASE("the right rule of the op that is broken below passes") {
  CHECK(check_gradients(wrong("right", [](const Node& node, Value dy) -> Values {
          return {dy * slope(node)};
        })).passed());
}

TEST_CASE("wrong gradients are found") {
  require_found(wrong("flipped sign", [](const Node& node, Value dy) -> Values { return {-dy * slope(node)}; }));
  require_found(wrong("factor 1.01", [](const Node& node, Value dy) -> Values { return {1.01 * dy * slope(node)}; }));
  require_found(
      wrong("factor 1.0001", [](const Node& node, Value dy) -> Values { return {1.0001 * dy * slope(node)}; }));
  require_found(wrong("missing term", [](const Node&, Value dy) -> Values { return {dy}; }));
  require_found(wrong("nothing", [](const Node&, Value) -> Values { return {Value{}}; }));
  require_found(wrong("dy forgotten", [](const Node& node, Value) -> Values { return {slope(node)}; }));
  // Right numbers, but constants to the next gradient.
  require_found(wrong("second order forgotten",
                      [](const Node& node, Value dy) -> Values { return {dy * stop_gradient(slope(node))}; }));
  require_found(wrong("second order of dy forgotten",
                      [](const Node& node, Value dy) -> Values { return {stop_gradient(dy) * slope(node)}; }));
  require_found(wrong("input for output",
                      [](const Node& node, Value dy) -> Values { return {dy * (1.0 - square(node.input(0)))}; }));
  // A rule that cannot be applied is an error of the report.
  require_found(wrong("too many", [](const Node& node, Value dy) -> Values { return {dy * slope(node), dy}; }));
}

TEST_CASE("a wrong gradient of one of two inputs is found") {
  const auto product = [](const std::string& name, GradientRule rule) -> const Op& {
    return register_op({
        .name = std::string(prefix) + name,
        .doc = "a * b, with a gradient that is wrong on purpose.",
        .shape = broadcast_shape,
        .forward = elementwise([](auto a, auto b) { return a * b; }),
        .gradient = std::move(rule),
        .samples = {{.inputs = {uniform({2, 3}, 1, 2), uniform({3}, 1, 2)}}},
    });
  };
  require_found(product("swapped", [](const Node& node, Value dy) -> Values {
    return {dy * node.input(0), dy * node.input(1)};
  }));
  require_found(product("one missing", [](const Node& node, Value dy) -> Values {
    return {dy * node.input(1), Value{}};
  }));
  require_found(product("mean for sum", [](const Node& node, Value dy) -> Values {
    return {dy * node.input(1), mean(dy * node.input(0), 0)};
  }));
}

TEST_CASE("a wrong gradient of a kernel is found") {
  // The sum that is kept of what softmax conserves: a bare sum of its output would not see it.
  require_found(register_op({
      .name = std::string(prefix) + "softmax without its sum",
      .doc = "softmax, with a gradient that is wrong on purpose.",
      .shape = same_shape,
      .forward = expand([](const Node& node) { return softmax(node.input(0)); }),
      .gradient = [](const Node& node, Value dy) -> Values { return {node.output() * dy}; },
      .samples = {{.inputs = {uniform({2, 3}, -1, 1)}}},
  }));
}

// ---- registration

namespace {

Op complete(const std::string& name) {
  return {
      .name = name,
      .doc = "x.",
      .shape = same_shape,
      .forward = elementwise([](auto x) { return x; }),
      .gradient = [](const Node&, Value dy) -> Values { return {dy}; },
      .samples = {{.inputs = {uniform({2})}}},
  };
}

void check_refused(const Op& op, const std::string& why) {
  const std::size_t before = registry().size();
  CHECK_THROWS_WITH(register_op(op), ContainsSubstring("cannot be registered: " + why) &&
                                         ContainsSubstring("test_gradients_of_ops.cpp:") && ContainsSubstring(op.name));
  CHECK(registry().size() == before);
}

}  // namespace

TEST_CASE("what cannot be checked is not registered") {
  Op op = complete("test/incomplete");
  op.samples.clear();
  check_refused(op, "it has no samples");

  op = complete("test/incomplete");
  op.doc.clear();
  check_refused(op, "it has no doc");

  op = complete("test/incomplete");
  op.name.clear();
  check_refused(op, "it has no name");

  op = complete("test/incomplete");
  op.shape = {};
  check_refused(op, "it has no shape rule");

  op = complete("test/incomplete");
  op.forward = {};
  check_refused(op, "it has no forward rule");

  op = complete("test/incomplete");
  op.samples = {{.inputs = {uniform({2}), uniform({2})}}};
  check_refused(op, "its functor takes 1 inputs, and a sample has 2");

  check_refused(complete("add"), "an op of this name exists");
  const Op& registered = register_op(complete("test/complete"));
  check_refused(complete("test/complete"), "an op of this name exists");
  CHECK(find_op("test/complete") == &registered);
  CHECK(find_op("test/incomplete") == nullptr);
}

TEST_CASE("the registry is sorted by name") {
  const auto& ops = registry();
  CHECK(std::is_sorted(ops.begin(), ops.end(), [](const Op* a, const Op* b) { return a->name < b->name; }));
  for (const Op* op : ops) CHECK(find_op(op->name) == op);
}
