// The gradient checker: kinks, preconditions, large arrays, whole networks, reports. (Wrong gradients: mutation.cpp.)
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <cstring>
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
