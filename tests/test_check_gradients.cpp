// The gradient checker: kinks, preconditions, large arrays, whole networks, reports. (Wrong gradients: mutation.cpp.)
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

#include <nlohmann/json.hpp>

#include "catch.hpp"

namespace cr = chainrule;

namespace {

// The built-in op with samples of the test's own.
cr::Op with_samples(const char* name, std::vector<cr::Sample> samples) {
  const cr::Op* op = cr::find_op(name);
  REQUIRE(op != nullptr);
  cr::Op out = *op;
  out.samples = std::move(samples);
  return out;
}

const cr::CheckRow& row_of(const cr::CheckReport& report, const std::string& check, std::size_t which = 0) {
  for (const auto& row : report.rows)
    if (row.check == check && which-- == 0) return row;
  FAIL("no row of check " << check << " in\n" << report.to_string());
  return report.rows.front();
}

const cr::CheckOptions gradients_only{.orders = 1, .float32 = false, .preconditions = false};

}  // namespace

TEST_CASE("a gradient between the slopes at a kink is a subgradient, and says so", "[check]") {
  struct Case {
    const char* op;
    cr::Sample sample;
    const char* note;
  };
  const std::vector<Case> cases = {
      {"relu", {.inputs = {cr::Array({0.0, 1.0, -1.0})}}, "1 kink at {0}"},
      {"abs", {.inputs = {cr::Array({2.0, 0.0})}}, "1 kink at {1}"},
      {"clip",
       {.inputs = {cr::Array({-1.0, 0.5, 0.0})}, .attributes = {{"low", -1.0}, {"high", 0.5}}},
       "2 kinks at {0}"},
      {"maximum", {.inputs = {cr::Array({1.0, 2.0}), cr::Array({1.0, 3.0})}}, "1 kink at {0}"},
      {"leaky_relu", {.inputs = {cr::Array({0.0})}, .attributes = {{"slope", 0.01}}}, "1 kink at {0}"},
      {"max",
       {.inputs = {cr::Array({{3.0, 1.0, 3.0}})}, .attributes = {{"axes", cr::Axes{1}}, {"keepdims", false}}},
       "2 kinks at {0, 0}"},
  };
  for (const auto& c : cases) {
    const auto report = cr::check_gradients(with_samples(c.op, {c.sample}), gradients_only);
    INFO(report.to_string());
    CHECK(report.passed());
    CHECK(report.verdict() == cr::Verdict::subgradient);
    CHECK(row_of(report, "gradient").note.find(c.note) != std::string::npos);
  }
}

TEST_CASE("a gradient beside a kink, however near that is, does not fail", "[check]") {
  for (double distance = 1e-15; distance < 1e-2; distance *= 3) {
    cr::Graph graph;
    const auto x = graph.parameter("x", cr::Array({1.0, 1.5}));
    const auto loss = cr::sum(cr::maximum(x, cr::Array({1 + distance, 1.5 - distance})) * cr::Array({2.0, 3.0}));
    const cr::State state(graph);
    const auto report = cr::check_gradients(loss, {x}, state, {}, gradients_only);
    INFO("at " << distance << "\n" << report.to_string());
    CHECK(report.verdict() != cr::Verdict::fail);
  }
}

TEST_CASE("a gradient beyond the slopes at a kink fails", "[check]") {
  cr::Op wrong = with_samples("relu", {{.inputs = {cr::Array({0.0, 1.0})}}});
  wrong.gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values {
    return {cr::where(node.input(0) > 0.0, dy, cr::where(node.input(0) < 0.0, 0.0, -0.5 * dy))};
  };
  const auto report = cr::check_gradients(wrong, gradients_only);
  INFO(report.to_string());
  CHECK_FALSE(report.passed());
  CHECK(row_of(report, "gradient").worst == cr::Dims{0});
}

TEST_CASE("maximum(x, x) and max of ties raise no false alarm", "[check]") {
  cr::Graph graph;
  const auto x = graph.parameter("x", cr::Array({1.0, -2.0, 0.0}));
  const auto loss = cr::sum(cr::maximum(x, x) * cr::Array({1.0, 2.0, 3.0})) + cr::max(x * 0.0);
  const cr::State state(graph);
  const auto report = cr::check_gradients(loss, {x}, state);
  INFO(report.to_string());
  CHECK(report.passed());
}

TEST_CASE("one wrong element of a large array is found, and named", "[check]") {
  cr::Op wrong = with_samples("square", {{.inputs = {cr::uniform({50, 80}, -2, 2)}}});
  wrong.gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values {
    cr::Array factor = cr::Array::full(dy.dtype(), cr::Dims{50, 80}, 1);
    factor.set(37 * 80 + 11, 1.01);
    return {2.0 * dy * node.input(0) * factor};
  };
  const auto report = cr::check_gradients(wrong, gradients_only);
  INFO(report.to_string());
  CHECK_FALSE(report.passed());
  CHECK(row_of(report, "gradient").worst == cr::Dims{37, 11});
}

TEST_CASE("a difference quotient that cannot decide is inconclusive", "[check]") {
  // sqrt at 0: the slope to the right grows without bound, and to the left there is none.
  const auto report = cr::check_gradients(with_samples("sqrt", {{.inputs = {cr::Array({0.0, 1.0})}}}), gradients_only);
  INFO(report.to_string());
  CHECK_FALSE(report.passed());
  CHECK(report.verdict() == cr::Verdict::inconclusive);
}

TEST_CASE("preconditions: kernels that cannot be trusted", "[check]") {
  const auto op_with = [](auto kernel) {
    cr::Op op;
    op.name = "test";
    op.doc = "A kernel with a fault.";
    op.shape = cr::same_shape;
    op.forward = cr::kernel(kernel);
    op.gradient = [](const cr::Node&, cr::Value dy) -> cr::Values { return {dy}; };
    op.samples = {{.inputs = {cr::uniform({4}, 1, 2)}}};
    return op;
  };
  SECTION("an output that is not wholly written") {
    const auto op =
        op_with([]<class T>(const std::vector<cr::Tensor<const T>>& x, cr::Tensor<T> y, const cr::Attributes&) {
          for (std::int64_t i = 0; i + 1 < y.size(); ++i) y[i] = x[0][i];
        });
    const auto report = cr::check_gradients(op);
    INFO(report.to_string());
    CHECK_FALSE(report.passed());
    CHECK(row_of(report, "repeatable").note.find("not wholly written") != std::string::npos);
  }
  SECTION("an input that is written") {
    const auto op =
        op_with([]<class T>(const std::vector<cr::Tensor<const T>>& x, cr::Tensor<T> y, const cr::Attributes&) {
          for (std::int64_t i = 0; i < y.size(); ++i) y[i] = x[0][i];
          const_cast<T*>(x[0].data)[0] = 7;
        });
    const auto report = cr::check_gradients(op);
    CHECK_FALSE(report.passed());
    CHECK(row_of(report, "repeatable").note.find("input 0 is written") != std::string::npos);
  }
  SECTION("a kernel with a memory of its own") {
    int calls = 0;
    const auto op =
        op_with([&calls]<class T>(const std::vector<cr::Tensor<const T>>& x, cr::Tensor<T> y, const cr::Attributes&) {
          ++calls;
          for (std::int64_t i = 0; i < y.size(); ++i) y[i] = x[0][i] + static_cast<T>(calls) * static_cast<T>(1e-3);
        });
    const auto report = cr::check_gradients(op);
    CHECK_FALSE(report.passed());
    CHECK(row_of(report, "repeatable").note.find("two runs differ") != std::string::npos);
  }
  SECTION("elements that depend on what ran before") {
    cr::Op op;
    op.name = "test_order";
    op.doc = "A generator with a memory of its own.";
    op.shape = [](const cr::OpCall&) -> cr::Type { return {cr::float64, {300'000}}; };
    op.forward.generator = [](const cr::KernelCall&) -> cr::RangeRun {
      return [last = std::make_shared<std::int64_t>(-1)](const void* const*, void* out, std::int64_t begin,
                                                         std::int64_t end) {
        std::fill_n(static_cast<double*>(out), end - begin, begin < *last ? 1.0 : 0.0);
        *last = begin == 0 ? 0 : std::max(*last, end);
      };
    };
    cr::Op sum_of = op_with([](const auto&, auto, const auto&) {});
    sum_of.name = "test_sum_of_order";
    sum_of.forward = cr::expand([&op](const cr::Node& node) -> cr::Value {
      return node.input(0) + cr::sum(cr::exp(cr::apply(node.input(0).graph(), op, {})));
    });
    const cr::CheckOptions serial{.orders = 1, .float32 = false};
    const auto report = cr::check_gradients(sum_of, serial);
    INFO(report.to_string());
    CHECK(row_of(report, "threads").verdict == cr::Verdict::fail);
  }
  SECTION("a sound one, whose rows say what was tried") {
    const auto op =
        op_with([]<class T>(const std::vector<cr::Tensor<const T>>& x, cr::Tensor<T> y, const cr::Attributes&) {
          for (std::int64_t i = 0; i < y.size(); ++i) y[i] = x[0][i];
        });
    const auto report = cr::check_gradients(op);
    INFO(report.to_string());
    CHECK(report.passed());
    for (const char* check : {"repeatable", "reuse", "threads"})
      CHECK(row_of(report, check).verdict == cr::Verdict::pass);
  }
}

namespace {

// A small network of every kind of layer, in columns as the course has it.
struct Network {
  cr::Graph graph;
  cr::Value x, y, mask, loss;
  cr::Values weights;

  explicit Network(cr::DType dtype, bool regularised, bool dropped) : graph({.dtype = dtype, .seed = 4}) {
    const auto examples = graph.dimension("examples");
    x = graph.input("x", {3, examples});
    y = graph.input("y", {1, examples});
    cr::numpy::RandomState rng(1);
    const auto layer = [&](const std::string& number, cr::Value in, int units) {
      const auto w = graph.parameter("W" + number, rng.randn(units, in.shape()[0].extent()));
      weights.push_back(w);
      return cr::matmul(w, in) + graph.parameter("b" + number, rng.randn(units, 1));
    };
    auto a = cr::relu(layer("1", x, 5));
    if (dropped) a = cr::dropout(a, {.keep = 0.8});
    a = cr::tanh(layer("2", a, 4));
    loss = cr::sigmoid_cross_entropy(layer("3", a, 1), y);
    if (regularised) loss = loss + cr::l2_penalty(weights, 0.7, examples);
  }
  [[nodiscard]] cr::Values parameters() const { return graph.parameters(); }
};

const cr::Array inputs = cr::numpy::RandomState(2).randn(3, 6);
const cr::Array labels({{1.0, 0.0, 1.0, 1.0, 0.0, 0.0}});

}  // namespace

TEST_CASE("the notes' check of a three-layer network, regularised, and with dropout on", "[check]") {
  for (const bool regularised : {false, true}) {
    for (const bool dropped : {false, true}) {
      Network net(cr::float64, regularised, dropped);
      cr::State state(net.graph);
      CHECK(cr::gradient_check_n(net.loss, net.parameters(), state, {{net.x, inputs}, {net.y, labels}}) < 1e-7);
      const auto report = cr::check_gradients(net.loss, net.parameters(), state, {{net.x, inputs}, {net.y, labels}});
      INFO(report.to_string());
      CHECK(report.passed());
    }
  }
}

TEST_CASE("a check leaves graph, State and feeds as they were", "[check]") {
  Network net(cr::float32, true, true);
  cr::State state(net.graph);
  const std::size_t nodes = net.graph.size();
  std::vector<cr::Array> before;
  for (const auto p : net.parameters()) before.push_back(state[p]);
  const cr::Array x32 = inputs.astype(cr::float32);
  const cr::Array y32 = labels.astype(cr::float32);
  cr::Values all = net.parameters();
  all.push_back(net.x);
  const auto report = cr::check_gradients(net.loss, all, state, {{net.x, x32}, {net.y, y32}});
  INFO(report.to_string());
  CHECK(report.passed());
  CHECK(report.distance() < 1e-8);  // in float64, though the graph is in float32
  CHECK(net.graph.size() == nodes);
  for (std::size_t i = 0; i < before.size(); ++i) CHECK(state[net.parameters()[i]].identical(before[i]));
  CHECK(state.step() == 0);
}

// ---- jumps

namespace {

struct Fraction {
  auto operator()(auto x) const { return x - cr::simd::floor(x); }
};

// x - floor(x), whose derivative is 1 wherever it has one.
cr::Op fraction(double slope, const cr::Initial& at) {
  cr::Op op;
  op.name = "fraction";
  op.doc = "x - floor(x).";
  op.shape = cr::same_shape;
  op.forward = cr::elementwise<Fraction>();
  op.gradient = [slope](const cr::Node&, cr::Value dy) -> cr::Values { return {slope * dy}; };
  op.samples = {{.inputs = {at}}};
  return op;
}

}  // namespace

TEST_CASE("a right gradient near a jump is right", "[check]") {
  // Steps of a Taylor row reach the next whole number, which those of the differences do not.
  cr::Graph graph;
  const auto x = graph.parameter("x", cr::Array({0.9, 1.99, -0.05, 3.5}));
  const auto right = cr::sum(x + 0.25 * cr::ceil(x));
  const cr::State state(graph);
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const auto report = cr::check_gradients(right, {x}, state, {}, {.seed = seed});
    INFO(report.to_string());
    CHECK(report.verdict() != cr::Verdict::fail);
  }
  CHECK(cr::check_gradients(right + 0.25 * cr::sum(cr::stop_gradient(x)), {x}, state).verdict() == cr::Verdict::fail);
}

TEST_CASE("a jump is no kink: no gradient is one between slopes that grow without bound", "[check]") {
  const cr::Array jumps({1.0, 2.0, 3.0});
  const auto wrong = cr::check_gradients(fraction(-1000, jumps));
  INFO(wrong.to_string());
  CHECK(wrong.verdict() == cr::Verdict::fail);
  const auto& row = row_of(wrong, "gradient");
  CHECK(row.note.find("jump at element {") != std::string::npos);
  CHECK(row.note.find("no derivative exists") != std::string::npos);
  CHECK(row_of(wrong, "Taylor").verdict >= cr::Verdict::inconclusive);

  const auto right = cr::check_gradients(fraction(1, jumps));
  INFO(right.to_string());
  CHECK(right.verdict() == cr::Verdict::inconclusive);

  const auto between = cr::check_gradients(fraction(1, cr::Array({1.25, 2.5, -3.7})));
  INFO(between.to_string());
  CHECK(between.verdict() == cr::Verdict::pass);
  CHECK(cr::check_gradients(fraction(-1000, cr::Array({1.25, 2.5, -3.7}))).verdict() == cr::Verdict::fail);
  // One jump among smooth elements.
  CHECK_FALSE(cr::check_gradients(fraction(1, cr::Array({1.25, 2.0, -3.7}))).passed());
}

TEST_CASE("a Taylor remainder that does not shrink like h^2 does not pass", "[check]") {
  cr::Op wrong = with_samples("tanh", {{.inputs = {cr::uniform({2, 3}, -1, 1)}}});
  wrong.gradient = [rule = wrong.gradient](const cr::Node& node, cr::Value dy) -> cr::Values {
    return {1.001 * rule(node, dy)[0]};
  };
  const auto report = cr::check_gradients(wrong, gradients_only);
  INFO(report.to_string());
  const auto& row = row_of(report, "Taylor");
  CHECK(row.verdict == cr::Verdict::fail);
  CHECK(row.numeric == Approx(1).margin(0.1));
}

TEST_CASE("a loss that is NaN does not pass", "[check]") {
  cr::Graph graph;
  const auto w = graph.parameter("w", cr::Array({-1.0, 0.5}));
  const cr::State state(graph);
  for (const cr::Value loss : {cr::sum(cr::log(w)), cr::sum(cr::stop_gradient(cr::log(w))) + cr::sum(0.0 * w)}) {
    const auto report = cr::check_gradients(loss, {w}, state);
    INFO(report.to_string());
    CHECK_FALSE(report.passed());
    CHECK(row_of(report, "Taylor").verdict >= cr::Verdict::inconclusive);
  }
}

// ---- kernels

namespace {

template <class T>
using In = std::vector<cr::Tensor<const T>>;

// 2 x by this kernel.
template <class F>
cr::Op twice(F kernel, double slope = 2) {
  cr::Op op;
  op.name = "twice";
  op.doc = "2 x.";
  op.shape = cr::same_shape;
  op.forward = cr::kernel(kernel);
  op.gradient = [slope](const cr::Node&, cr::Value dy) -> cr::Values { return {slope * dy}; };
  op.samples = {{.inputs = {cr::uniform({4}, 1, 2)}}};
  return op;
}

template <class T>
void double_it(const In<T>& x, cr::Tensor<T> y) {
  for (std::int64_t i = 0; i < y.size(); ++i) y[i] = 2 * x[0][i];
}

}  // namespace

TEST_CASE("a kernel that keeps something from run to run fails, whatever its gradient", "[check]") {
  for (const double size : {1e-3, 1e-9}) {
    for (const double slope : {2.0, 200.0}) {
      const auto op = twice(
          [n = 0, size]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) mutable {
            double_it(x, y);
            y[0] += static_cast<T>(++n * size);
          },
          slope);
      const auto report = cr::check_gradients(op);
      INFO(report.to_string());
      CHECK(report.verdict() == cr::Verdict::fail);
      CHECK(row_of(report, "repeatable").note.find("kept from run to run") != std::string::npos);
    }
  }
}

TEST_CASE("a network with a kernel that changes from run to run fails, and says why", "[check]") {
  static const cr::Op op = twice([n = 0]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) mutable {
    double_it(x, y);
    y[0] += static_cast<T>(1e-3) * static_cast<T>(++n);
  });
  cr::Graph graph;
  const auto w = graph.parameter("w", cr::Array({1.0, 2.0}));
  const auto loss = cr::sum(cr::apply(op, {w}));
  const cr::State state(graph);
  const auto report = cr::check_gradients(loss, {w}, state);
  INFO(report.to_string());
  CHECK(report.verdict() == cr::Verdict::fail);
  CHECK(row_of(report, "repeatable").note.find("from run to run") != std::string::npos);
}

TEST_CASE("a kernel that writes or reads beside its operands fails", "[check]") {
  const auto note_of = [](const cr::Op& op) {
    const auto report = cr::check_gradients(op);
    INFO(report.to_string());
    CHECK(report.verdict() == cr::Verdict::fail);
    return row_of(report, "repeatable").note;
  };
  using Catch::Matchers::ContainsSubstring;
  CHECK_THAT(note_of(twice([]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) {
               double_it(x, y);
               y.data[y.size()] = 7;
             })),
             ContainsSubstring("past the end of the output"));
  CHECK_THAT(note_of(twice([]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) {
               double_it(x, y);
               y.data[-1] = 7;
             })),
             ContainsSubstring("before the output"));
  CHECK_THAT(note_of(twice([]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) {
               double_it(x, y);
               const_cast<T*>(x[0].data)[y.size()] = 7;
             })),
             ContainsSubstring("past the end of input 0"));
  CHECK_THAT(note_of(twice([]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) {
               double_it(x, y);
               if (x[0].data[y.size()] > 0) y[0] += 1;
             })),
             ContainsSubstring("beside an operand"));
  // In float32 alone.
  CHECK_THAT(note_of(twice([]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) {
               double_it(x, y);
               if (sizeof(T) == 4) y.data[y.size()] = 7;
             })),
             ContainsSubstring("in float32"));
}

TEST_CASE("a kernel that throws makes the check fail with what it said", "[check]") {
  const auto report = cr::check_gradients(twice(
      []<class T>(const In<T>&, cr::Tensor<T>, const cr::Attributes&) { throw std::runtime_error("out of luck"); }));
  CHECK(report.verdict() == cr::Verdict::fail);
  REQUIRE(report.errors.size() == 1);
  CHECK(report.errors[0].find("out of luck") != std::string::npos);
}

TEST_CASE("float32 values are compared with those of float64", "[check]") {
  for (const double by : {1.0, 1e-4}) {
    const auto report =
        cr::check_gradients(twice([by]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) {
          double_it(x, y);
          if (sizeof(T) == 4) y[1] += static_cast<T>(by);
        }));
    INFO(report.to_string());
    CHECK(report.verdict() == cr::Verdict::fail);
    const auto& row = row_of(report, "float32");
    CHECK(row.input == "values");
    CHECK(row.verdict == cr::Verdict::fail);
    CHECK(row.worst == cr::Dims{1});
  }
  CHECK(cr::check_gradients(twice([]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) {
          double_it(x, y);
        })).passed());
}

// ---- rounding

TEST_CASE("gradients below what differences resolve pass by scale, and do not lead the summary", "[check]") {
  cr::Op swish;
  swish.name = "swish";
  swish.doc = "x sigmoid(x).";
  swish.shape = cr::same_shape;
  swish.forward = cr::expand([](const cr::Node& node) { return node.input(0) * cr::sigmoid(node.input(0)); });
  swish.gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values {
    const cr::Value s = cr::sigmoid(node.input(0));
    return {dy * (s + node.input(0) * s * cr::sigmoid(-node.input(0)))};
  };
  swish.samples = {{.inputs = {cr::uniform({3, 4}, -1e3, 1e3)}}};
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const auto report = cr::check_gradients(swish, {.float32 = false, .preconditions = false, .seed = seed});
    INFO(report.to_string());
    CHECK(report.passed());
    CHECK(report.distance() < 1e-6);
  }
}

TEST_CASE("right gradients of cancelling sums do not fail", "[check]") {
  for (const int n : {7, 5000}) {
    for (std::uint64_t seed = 1; seed <= (n == 7 ? 400 : 40); ++seed) {
      cr::Graph graph({.seed = seed});
      const auto w = graph.parameter("w", cr::zeros({n}));
      const auto x = graph.variable("x", cr::normal({n}));
      const auto loss = cr::sum(w * x);
      const cr::State state(graph);
      const auto report = cr::check_gradients(loss, {w}, state, {}, {.orders = 1, .seed = seed});
      INFO(report.to_string());
      REQUIRE(report.passed());
    }
  }
}

TEST_CASE("an element close to a pole is moved in proportion to itself", "[check]") {
  cr::Graph graph;
  const auto w = graph.parameter("w", cr::Array({0.7, 1e-9}));
  const auto loss = cr::sum(1.0 / cr::square(w));
  const cr::State state(graph);
  const auto report = cr::check_gradients(loss, {w}, state);
  INFO(report.to_string());
  CHECK(report.verdict() == cr::Verdict::pass);
}

TEST_CASE("an element far smaller than the others of its array is moved in proportion to itself where that matters",
          "[check]") {
  for (const cr::Array& point : {cr::Array({0.1, 1e30}), cr::Array({1e-24, 2.0}), cr::Array({1e-49, 3e-49})}) {
    cr::Graph graph;
    const auto w = graph.parameter("w", point);
    const cr::State state(graph);
    for (const auto& loss : {cr::sum(1.0 / w), cr::sum(cr::log(w))}) {
      const auto report = cr::check_gradients(loss, {w}, state);
      INFO(report.to_string());
      CHECK(report.verdict() == cr::Verdict::pass);
    }
  }
  cr::Op wrong = with_samples("log", {{.inputs = {cr::Array({0.1, 1e30})}}});
  wrong.gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values { return {1.1 * dy / node.input(0)}; };
  CHECK(cr::check_gradients(wrong, gradients_only).verdict() == cr::Verdict::fail);
}

TEST_CASE("the second derivative at a kink is checked beside it", "[check]") {
  cr::Graph graph;
  const auto w = graph.parameter("w", cr::Array({0.0, 1.0}));
  const auto loss = cr::sum(cr::exp(cr::abs(w)));
  const cr::State state(graph);
  const auto report = cr::check_gradients(loss, {w}, state);
  INFO(report.to_string());
  CHECK(report.verdict() == cr::Verdict::subgradient);
  CHECK(row_of(report, "second order").note.find("no slope at 1 element, right beside") != std::string::npos);
}

namespace {

// A loss of random ops on parameters of a random graph.
cr::Value random_loss(cr::Graph& graph, cr::numpy::RandomState& rng, cr::Values& parameters) {
  const auto pick = [&](int n) { return static_cast<int>(rng.rand(1)[0] * n); };
  cr::Values values;
  for (int i = 0; i <= pick(3); ++i) {
    const cr::Shape shape = pick(3) == 0 ? cr::Shape{4} : pick(5) == 0 ? cr::Shape{3, 1} : cr::Shape{3, 4};
    parameters.push_back(graph.parameter("p" + std::to_string(i), cr::uniform(shape, -2, 2)));
    values.push_back(parameters.back());
  }
  for (int i = 0; i <= pick(8); ++i) {
    const auto any = [&] {
      return values[values.size() - 1 - static_cast<std::size_t>(pick(static_cast<int>(values.size())))];
    };
    const cr::Value a = any();
    const cr::Value b = any();
    const std::vector<std::function<cr::Value()>> ops = {
        [&] { return a + b; },
        [&] { return a - b; },
        [&] { return a * b; },
        [&] { return a / (1.0 + cr::square(b)); },
        [&] { return cr::tanh(a); },
        [&] { return cr::sigmoid(a); },
        [&] { return cr::relu(a); },
        [&] { return cr::exp(cr::clip(a, -5, 5)); },
        [&] { return cr::log(1.0 + cr::square(a)); },
        [&] { return cr::sqrt(0.5 + cr::square(a)); },
        [&] { return cr::softplus(a); },
        [&] { return cr::elu(a, 1); },
        [&] { return cr::abs(a); },
        [&] { return cr::sin(a); },
        [&] { return cr::maximum(a, b * 0.7 + 0.1); },
        [&] { return cr::softmax(a); },
        [&] { return cr::log_softmax(a); },
        [&] { return cr::sum(a, -1, true); },
        [&] { return cr::mean(a, 0, true); },
        [&] { return cr::max(a, -1, true); },
        [&] { return cr::where(a > 0.3, a, b * 0.5); },
        [&] { return a - cr::mean(a); },
    };
    values.push_back(ops[static_cast<std::size_t>(pick(static_cast<int>(ops.size())))]());
  }
  return pick(2) == 0 ? cr::sum(values.back()) : cr::mean(cr::square(values.back()));
}

}  // namespace

TEST_CASE("random compositions of right ops pass: none fails, under a hundredth is undecided", "[check]") {
  constexpr int graphs = 600;
  int undecided = 0;
  for (std::uint64_t seed = 1; seed <= graphs; ++seed) {
    cr::Graph graph({.seed = seed});
    cr::numpy::RandomState rng(static_cast<std::uint32_t>(seed));
    cr::Values parameters;
    const cr::Value loss = random_loss(graph, rng, parameters);
    const cr::State state(graph);
    const auto report = cr::check_gradients(loss, parameters, state, {}, {.seed = seed});
    INFO("seed " << seed << "\n" << report.to_string());
    CHECK(report.verdict() != cr::Verdict::fail);
    if (report.verdict() == cr::Verdict::inconclusive) ++undecided;
  }
  CHECK(undecided < graphs / 100);
}

// ---- many elements

namespace {

// x, with a slope of 1.02 at one element of one of the arrays that it is used on.
const cr::Op& wrong_at(const cr::Dims& shape, std::int64_t element) {
  static std::vector<std::unique_ptr<cr::Op>> made;
  auto op = std::make_unique<cr::Op>();
  op->name = "identity";
  op->doc = "x.";
  op->shape = cr::same_shape;
  op->forward = cr::elementwise([](auto x) { return x * 1.0; });
  op->gradient = [shape, element](const cr::Node&, cr::Value dy) -> cr::Values {
    cr::Array factor = cr::Array::full(dy.dtype(), shape, 1);
    factor.set(element, 1.02);
    return {dy * factor};
  };
  made.push_back(std::move(op));
  return *made.back();
}

}  // namespace

TEST_CASE("more elements than full_below in all values together are checked along directions of all", "[check]") {
  for (const bool wrong : {false, true}) {
    cr::Graph graph({.seed = 7});
    const auto x = graph.input("x", {16, 30});
    const auto w1 = graph.parameter("W1", cr::normal({30, 12}, 0, 0.3));
    const auto b1 = graph.parameter("b1", cr::zeros({12}));
    const auto w2 = graph.parameter("W2", cr::normal({12, 14}, 0, 0.3));
    const auto used = wrong ? cr::apply(wrong_at({12, 14}, 5 * 14 + 9), {w2}) : w2;
    const auto loss = cr::mean(cr::square(cr::matmul(cr::relu(cr::matmul(x, w1) + b1), used)));
    const cr::State state(graph);
    const cr::Array numbers = cr::normal({16, 30}).draw(cr::float64, 3, 3);
    const auto report = cr::check_gradients(loss, {w1, b1, w2}, state, {{x, numbers}}, {.orders = 1});
    INFO(report.to_string());
    CHECK(report.passed() == !wrong);
    const auto& all = row_of(report, "gradient", 3);
    CHECK(all.input == "all");
    CHECK(all.shape == cr::Shape{30 * 12 + 12 + 12 * 14});
    CHECK(all.verdict == (wrong ? cr::Verdict::fail : cr::Verdict::pass));
    if (!wrong) continue;
    const auto& row = row_of(report, "gradient", 2);
    CHECK(row.input == "W2");
    CHECK(row.verdict == cr::Verdict::fail);
    CHECK(row.worst == cr::Dims{5, 9});
    CHECK(all.note.find("W2 at {5, 9}") != std::string::npos);
  }
}

// ---- where

TEST_CASE("a NaN from the side that where does not choose is named, with what to write", "[check]") {
  cr::Graph graph;
  const auto x = graph.parameter("x", cr::Array({4.0, 1000.0}));
  const cr::State state(graph);
  const auto plain = cr::where(x > 100.0, 0.0, cr::exp(x));
  const auto report = cr::check_gradients(cr::sum(plain), {x}, state);
  INFO(report.to_string());
  CHECK(report.verdict() == cr::Verdict::fail);
  const auto& note = row_of(report, "gradient").note;
  CHECK(note.find("`where` (" + plain.location().to_string() + ")") != std::string::npos);
  CHECK(note.find("where(ok, f(where(ok, x, safe)), other)") != std::string::npos);

  const auto ok = x <= 100.0;
  const auto doubled = cr::where(ok, cr::exp(cr::where(ok, x, 0.0)), 0.0);
  CHECK(cr::check_gradients(cr::sum(doubled), {x}, state).passed());
}

TEST_CASE("errors of a check name the line of the op, not the library's", "[check]") {
  cr::Op op = twice([]<class T>(const In<T>& x, cr::Tensor<T> y, const cr::Attributes&) { double_it(x, y); });
  op.gradient = [](const cr::Node&, cr::Value dy) -> cr::Values { return {cr::reshape(dy, {7})}; };
  const auto unregistered = cr::check_gradients(op);
  REQUIRE(unregistered.errors.size() == 1);
  CHECK(unregistered.errors[0].find("test_check_gradients.cpp:") != std::string::npos);
  CHECK(unregistered.errors[0].find("function.cpp") == std::string::npos);
}

TEST_CASE("reports: a table, JSON, and the line of the program", "[check]") {
  cr::Op wrong = with_samples("tanh", {{.inputs = {cr::uniform({2, 2}, -1, 1)}}});
  wrong.gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values { return {dy * (1.0 - node.output())}; };
  const auto report = cr::check_gradients(wrong, {.seed = 5});
  CHECK_FALSE(report.passed());
  const std::string table = report.to_string();
  CHECK(table.find("FAIL") != std::string::npos);
  CHECK(table.find(".seed = 5") != std::string::npos);
  CHECK(table.find('\x1b') == std::string::npos);
  CHECK(report.to_string(true).find("\x1b[1;31m") != std::string::npos);
  const auto json = nlohmann::json::parse(report.to_json());
  CHECK(json.at("passed") == false);
  CHECK(json.at("rows").size() == report.rows.size());
  CHECK(json.at("rows").at(0).contains("verdict"));

  Network net(cr::float64, false, false);
  const cr::State state(net.graph);
  const auto good = cr::check_gradients(net.loss, {net.weights[0]}, state, {{net.x, inputs}, {net.y, labels}});
  CHECK(good.rows[0].line.find("test_check_gradients.cpp:") == 0);
  CHECK(good.rows[0].input == "W1");
}

TEST_CASE("errors of a check name what was required", "[check]") {
  using Catch::Matchers::ContainsSubstring;
  Network net(cr::float64, false, false);
  const cr::State state(net.graph);
  CHECK_THROWS_WITH(cr::check_gradients(net.loss, {}, state), ContainsSubstring("at least one value"));
  CHECK_THROWS_WITH(cr::check_gradients(net.x, {net.weights[0]}, state), ContainsSubstring("scalar loss"));
  CHECK_THROWS_WITH(cr::check_gradients(net.loss, {net.loss}, state, {{net.x, inputs}, {net.y, labels}}),
                    ContainsSubstring("inputs, parameters or variables"));
  CHECK_THROWS_WITH(cr::check_gradients(net.loss, {net.x}, state), ContainsSubstring("requires a feed for input 'x'"));
  CHECK_THROWS_WITH(cr::check_gradients(*cr::find_op("equal")), ContainsSubstring("gradient rule"));
  CHECK_THROWS_WITH(cr::check_gradients(*cr::find_op("stop_gradient")),
                    ContainsSubstring("something to differentiate"));
}

TEST_CASE("Jacobian, Hessian and their products", "[derivatives]") {
  cr::Graph graph;
  const auto x = graph.parameter("x", cr::Array({1.0, 2.0, 3.0}));
  const auto a = graph.constant(cr::Array({{1.0, 2.0, 3.0}, {0.0, -1.0, 4.0}}));
  const auto y = cr::square(cr::matmul(a, x));  // J = 2 diag(a x) a
  const auto loss = cr::sum(x * x * x);         // H = 6 diag(x)
  cr::State state(graph);
  const std::size_t nodes = graph.size();
  CHECK(cr::allclose(cr::jacobian(y, x, state), cr::Array({{28.0, 56.0, 84.0}, {0.0, -20.0, 80.0}})));
  CHECK(cr::allclose(cr::hessian(loss, x, state), cr::Array({{6.0, 0.0, 0.0}, {0.0, 12.0, 0.0}, {0.0, 0.0, 18.0}})));
  CHECK(graph.size() == nodes);

  const auto v = graph.constant(cr::Array({1.0, 0.0, -1.0}));
  const auto w = graph.constant(cr::Array({2.0, 1.0}));
  cr::Program program(state, {.outputs = {cr::jvp(y, {x}, {v}), cr::vjp(y, {x}, w)[0], cr::hvp(loss, {x}, {v})[0]}});
  const auto results = program.run();
  CHECK(cr::allclose(results[0], cr::Array({-56.0, -80.0})));
  CHECK(cr::allclose(results[1], cr::Array({56.0, 92.0, 248.0})));
  CHECK(cr::allclose(results[2], cr::Array({6.0, 0.0, -18.0})));
}

TEST_CASE("the gradient of a staircase is 0, however many of its steps a difference crosses", "[check]") {
  // ceil(exp(x)) at x near 5 has a step at each 1/150, and those of many elements lie close along every direction.
  std::vector<double> few;
  for (int i = 0; i < 9; ++i) few.push_back(4.9 + 0.0371 * i);
  std::vector<double> many;
  for (int i = 0; i < 603; ++i) many.push_back(std::fmod(0.61803398875 * (i + 1), 1.0) * 8 - 4);
  for (const auto& points : {few, many}) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      cr::Graph g;
      const auto w = g.parameter("w", cr::Array(points));
      const auto loss = cr::sum(cr::ceil(points.size() == 9 ? cr::exp(w) : w));
      const cr::State state(g);
      const auto report = cr::check_gradients(loss, {w}, state, {}, {.orders = 1, .seed = seed});
      INFO(report.to_string());
      CHECK(report.verdict() != cr::Verdict::fail);
      CHECK(row_of(report, "gradient").verdict <= cr::Verdict::subgradient);
    }
  }
}

TEST_CASE("rounding that is the same wherever the points are is no gradient", "[check]") {
  // A softmax of equal logits is 1 / 7 seven times whatever they are: what is left of 1 - their sum is rounding alone,
  // and so is the gradient in both factors, which is 0.
  for (int n : {3, 5, 6, 7, 9, 10, 11, 13}) {
    cr::Graph g;
    const auto w = g.parameter("w", cr::Array(0.7));
    const auto v = g.parameter("v", cr::Array(-0.4));
    const auto p = cr::exp(cr::log_softmax(cr::broadcast_to(w, {n}), 0));
    const auto loss = v * (1.0 - cr::sum(p)) * w;
    const cr::State state(g);
    const auto report = cr::check_gradients(loss, {w, v}, state);
    INFO(report.to_string());
    CHECK(report.verdict() != cr::Verdict::fail);
  }
}

TEST_CASE("a function of nothing but rounding errors does not fail", "[check]") {
  // The sum of what batch_norm makes is that of beta, so its gradient is 0 but for rounding, and hardly a logarithm.
  cr::Graph graph;
  const auto x = graph.parameter("x", cr::Array({{0.375, -1.125, 1.375}}));
  const auto p = graph.parameter("p", cr::Array({0.25 + 1.75 * 0.61803398875}));
  const auto y =
      cr::sum(cr::batch_norm(x, p, p, cr::stop_gradient(p), cr::stop_gradient(p), {.axis = 0, .epsilon = 1.0}));
  const auto loss = cr::sum(cr::log(cr::gradients(y, {x})[0]));
  const cr::State state(graph);
  const auto report = cr::check_gradients(loss, {p, x}, state);
  INFO(report.to_string());
  CHECK(report.verdict() != cr::Verdict::fail);
}

TEST_CASE("a number that is not finite and that nothing depends on has a gradient of 0", "[check]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double odd : {nan, infinity, -infinity}) {
    cr::Graph g;
    const auto w = g.parameter("w", cr::Array({0.5, -1.5}));
    const auto unused = g.parameter("unused", cr::Array({odd, 2.0}));
    const auto partly = g.parameter("partly", cr::Array({3.0, odd, 0.25}));
    const auto chosen = cr::where(g.constant(cr::Array({1.0, 0.0, 1.0}).astype(cr::boolean)), partly, 1.0);
    const auto loss = cr::sum(cr::square(w)) + cr::sum(cr::square(chosen));
    const cr::State state(g);
    const auto report = cr::check_gradients(loss, {w, unused, partly}, state);
    INFO(report.to_string());
    CHECK(report.passed());
    CHECK(row_of(report, "gradient", 2).distance < 1e-9);
  }
  // What the loss does depend on is undecided there.
  cr::Graph g;
  const auto w = g.parameter("w", cr::Array({0.5, infinity}));
  const cr::State state(g);
  const auto report = cr::check_gradients(cr::sum(cr::tanh(w)), {w}, state, {}, {.orders = 1});
  INFO(report.to_string());
  CHECK(report.verdict() == cr::Verdict::inconclusive);
}
