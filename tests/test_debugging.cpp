// Looking into a graph and changing it: passes of one's own, programs that run node by node, a watch for what is not
// finite.
#include <cmath>
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

Value own_gelu(Value x) { return 0.5 * x * (1.0 + erf(x / std::sqrt(2.0))); }

passes::Computation relu_to_gelu(const passes::Computation& c) {
  return passes::Rewriter(c).run([](passes::Rewriter& r, const Node& node) {
    return node.op().name == "relu" ? own_gelu(r.now(node.input(0))) : r.copy(node);
  });
}

// Everything that there is: batch norm, dropout, a composite loss, an optimizer.
struct Classifier {
  Graph graph{GraphOptions{.seed = 3}};
  Dimension batch = graph.dimension("batch");
  Value x = graph.input("x", {batch, 6});
  Value labels = graph.input("labels", {batch}, int64);
  Value hidden = nn::dense(x, 8);
  Value kept = dropout(relu(nn::batch_norm(hidden)), {.keep = 0.7});
  Value logits = nn::dense(kept, 3);
  Value loss = softmax_cross_entropy(logits, labels);
  Updates updates = optim::Adam{.learning_rate = 0.01}.minimize(loss);
  Array numbers = uniform({5, 6}, -1, 1).draw(float64, 1, 1);
  Array classes = Array(std::vector<std::int64_t>{0, 1, 2, 1, 0});
};

}  // namespace

TEST_CASE("a pass of one's own runs first, on nodes as they were built") {
  Graph graph;
  const auto x = graph.input("x", {4});
  const auto y = relu(x) + relu(x * 2.0);
  const auto expected = own_gelu(x) + own_gelu(x * 2.0);
  State state(graph);
  const Array numbers({-1.0, 0.5, 2.0, -3.0});
  Program plain(state, {.outputs = {expected}});
  Program program(state, {.outputs = {y}, .passes = {{"relu_to_gelu", relu_to_gelu}}});
  CHECK(program.run({{x, numbers}})[y].identical(plain.run({{x, numbers}})[0]));
  const std::string text = program.explain();
  CHECK(text.find("after remove_dead") < text.find("after relu_to_gelu"));
  CHECK(text.find("after relu_to_gelu") < text.find("after expand_composites"));
  CHECK_THAT(text.substr(text.find("after relu_to_gelu")), ContainsSubstring("erf("));
  // The user's graph is as it was.
  CHECK(graph.to_string().find("= relu(x)") != std::string::npos);

  std::vector<std::string> order;
  const auto note = [&](std::string name) {
    return passes::Pass{name, [&order, name](const passes::Computation& c) {
                          order.push_back(name);
                          return c;
                        }};
  };
  Program noted(state, {.outputs = {y}, .passes = {note("first"), note("second")}});
  CHECK(order == std::vector<std::string>{"first", "second"});
  CHECK(noted.run({{x, numbers}})[0][1] == 1.5);
}

TEST_CASE("a graph can be walked") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n, 3});
  const auto w = graph.parameter("w", ones({3, 2}));
  const auto y = matmul(x, w);
  const auto sorted = sort(y);
  std::vector<std::string> names;
  for (const Node& node : graph.nodes()) names.push_back(node.op().name);
  CHECK(names == std::vector<std::string>{"input", "variable", "matmul", "sort"});
  CHECK(graph.nodes()[3].outputs() == Values{sorted.values, sorted.indices});
  CHECK(graph.nodes()[2].input(1) == w);
}

TEST_CASE("a pass that does not return what it was given is an Error of its own") {
  Graph graph;
  const auto x = graph.input("x", {4});
  const auto y = relu(x);
  State state(graph);
  const auto error_with = [&](std::function<passes::Computation(const passes::Computation&)> pass) {
    return error_of([&] { Program(state, {.outputs = {y}, .passes = {{"mine", std::move(pass)}}}); });
  };
  const Error fewer = error_with([](const passes::Computation& c) {
    passes::Computation out = c;
    out.results.clear();
    return out;
  });
  CHECK_THAT(fewer.what(), ContainsSubstring("test_debugging.cpp:"));
  CHECK_THAT(fewer.what(), ContainsSubstring("pass mine: requires a pass that returns values like the 1 results"));
  CHECK_THAT(error_with([](const passes::Computation& c) {
               return passes::Rewriter(c).run([](passes::Rewriter& r, const Node& node) {
                 return node.op().name == "relu" ? sum(r.now(node.input(0))) : r.copy(node);
               });
             }).what(),
             ContainsSubstring("a pass changed the type of"));
  CHECK_THAT(error_with([&](const passes::Computation& c) {
               return passes::Rewriter(c).run(
                   [&](passes::Rewriter& r, const Node& node) { return node.op().name == "relu" ? x : r.copy(node); });
             }).what(),
             ContainsSubstring("a pass returned a value of another graph"));
  const std::string before = graph.to_string();
  CHECK_THAT(error_with([](const passes::Computation& c) {
               return passes::Rewriter(c).run([](passes::Rewriter& r, const Node& node) {
                 return node.op().name == "relu" ? r.graph().input("more", {4}) : r.copy(node);
               });
             }).what(),
             ContainsSubstring("requires a pass that adds no inputs, parameters, variables or updates, got 'more'"));
  CHECK(!graph.has("more"));
  CHECK(graph.to_string() == before);
  CHECK_THAT(error_with({}).what(), ContainsSubstring("pass mine: requires a function, got none"));
}

TEST_CASE("without optimization a program gives the same numbers, and every value on the way") {
  for (const Mode mode : {Mode::training, Mode::inference}) {
    Classifier c;
    State fast(c.graph);
    State slow(c.graph);
    const Request request{.outputs = {c.loss, c.logits}, .updates = c.updates, .mode = mode};
    Request as_built = request;
    as_built.optimize = false;
    Program optimized(fast, request);
    Program plain(slow, as_built);
    for (int step = 0; step < 3; ++step) {
      const Results a = optimized.run({{c.x, c.numbers}, {c.labels, c.classes}});
      const Results b = plain.run({{c.x, c.numbers}, {c.labels, c.classes}});
      CHECK(b.size() == 2);
      CHECK(plain.outputs() == Values{c.loss, c.logits});
      CHECK(allclose(a[0], b[0], 1e-12, 0));
      CHECK(allclose(a[1], b[1], 1e-12, 1e-14));
      CHECK(b[c.x].identical(c.numbers));
      CHECK(b.at(c.hidden).shape() == Dims{5, 8});
      CHECK(b.at(c.kept).shape() == Dims{5, 8});
      const Array kept = b.at(c.kept);
      bool any_dropped = false;
      for (std::int64_t i = 0; i < kept.size(); ++i) any_dropped = any_dropped || kept[i] == 0;
      CHECK(any_dropped);
      CHECK_THROWS_WITH(a.at(c.hidden), ContainsSubstring("requires an output of the program"));
    }
    for (const Value w : c.graph.parameters()) CHECK(allclose(fast.get(w), slow.get(w), 1e-9, 1e-12));
    const std::string text = plain.explain();
    CHECK(text.find("fold_transposes") == std::string::npos);
    CHECK(text.find("fused add mul") == std::string::npos);
  }
}

TEST_CASE("check_finite names the first node that is not finite, and changes nothing") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto w = graph.parameter("w", ones({3}));
  const auto shifted = x + w;
  const int line = __LINE__ + 1;
  const auto logs = log(shifted);
  const auto loss = sum(logs * logs);
  State state(graph);
  Program program(state, {.outputs = {loss},
                          .updates = optim::GradientDescent{.learning_rate = 0.1}.minimize(loss),
                          .check_finite = true});
  const Array good({{0.0, 1.0, 2.0}, {3.0, 4.0, 5.0}});
  const double expected = [&] {
    State other(graph);
    return Program(other, {.outputs = {loss}}).run({{x, good}}).scalar();
  }();
  CHECK(program.run({{x, good}}).scalar(loss) == Approx(expected));
  CHECK(state.step() == 1);
  const Array weights = state.get(w);
  const Array bad({{0.0, 1.0, 2.0}, {3.0, -9.0, 5.0}});
  const Error error = error_of([&] { program.run({{x, bad}}); });
  CHECK(error.location().line == __LINE__ - 1);
  CHECK_THAT(error.what(),
             ContainsSubstring("check_finite: requires finite numbers, got nan as element {1, 1} of log at"));
  CHECK_THAT(error.what(), ContainsSubstring("test_debugging.cpp:" + std::to_string(line)));
  CHECK(state.step() == 1);
  CHECK(state.get(w).identical(weights));
  const Array infinite({{0.0, 1.0, 2.0}, {3.0, std::numeric_limits<double>::infinity(), 5.0}});
  CHECK_THAT(error_of([&] {
               program.run({{x, infinite}});
             }).what(),
             ContainsSubstring("got inf as element {1, 1} of x"));
  CHECK(program.run({{x, good}}).size() == 1);

  // Of a gradient, too: the values are finite, and the slope of the root is not.
  const auto y = sum(sqrt(square(w - w)));
  const Array now = state.get(w);
  Program slopes(state, {.outputs = {y}, .updates = {{w, w - gradients(y, {w})[0]}}, .check_finite = true});
  CHECK_THAT(error_of([&] { slopes.run(); }).what(), ContainsSubstring("check_finite: requires finite numbers, got"));
  CHECK(state.get(w).identical(now));
  CHECK(state.step() == 2);
}

TEST_CASE("each composite runs as it was built, alone and with all of its outputs") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const Array numbers({{1.0, 2.0, 6.0}, {-1.0, 0.0, 1.0}});
  const auto [center, spread] = moments(x, {1});
  const Values values = {mean(x), softmax(x), log_softmax(x), center, spread, mean_squared_error(x, x * 2.0)};
  for (const Value y : values) {
    State state(graph);
    const Array fast = Program(state, {.outputs = {y}}).run({{x, numbers}})[0];
    const Array slow = Program(state, {.outputs = {y}, .optimize = false}).run({{x, numbers}})[0];
    const Array watched = Program(state, {.outputs = {y}, .check_finite = true}).run({{x, numbers}})[0];
    CHECK(allclose(fast, slow, 1e-14, 1e-15));
    CHECK(watched.identical(fast));
  }
  State state(graph);
  Program both(state, {.outputs = {center, spread}, .optimize = false});
  const Results results = both.run({{x, numbers}});
  CHECK(results[0].identical(Array({3.0, 0.0})));
  CHECK(results[1][0] == Approx(14.0 / 3));
  CHECK(results[1][1] == Approx(2.0 / 3));
}

TEST_CASE("as it was built, a program asks for what its mode needs and looks at no more") {
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto other = graph.input("other", {2});
  const auto doubled = other * 2.0;
  const auto y = by_mode(x, log(doubled)) + 1.0;
  State state(graph);
  const Array numbers({1.0, 2.0});
  const Array negative({-1.0, 2.0});
  for (const bool optimize : {true, false}) {
    Program trained(state, {.outputs = {y}, .optimize = optimize, .check_finite = true});
    CHECK(trained.inputs() == Values{x});
    CHECK(trained.run({{x, numbers}})[0][1] == 3);
    // What it does without may be given, and be as it likes.
    CHECK(trained.run({{x, numbers}, {other, negative}})[0][0] == 2);
    Program inferred(state, {.outputs = {y}, .mode = Mode::inference, .optimize = optimize, .check_finite = true});
    CHECK(inferred.inputs() == Values{other});
    CHECK(inferred.run({{other, numbers}})[0][0] == Approx(1 + std::log(2.0)));
    CHECK_THAT(error_of([&] {
                 inferred.run({{other, negative}});
               }).what(),
               ContainsSubstring("got nan as element {0} of log at"));
  }
  Program plain(state, {.outputs = {y}, .optimize = false});
  CHECK_THROWS_WITH(plain.run({{x, numbers}}).at(doubled), ContainsSubstring("requires an output of the program"));
}

TEST_CASE("check_finite lets infinite constants be, also as an output or a new value") {
  Graph graph;
  const auto w = graph.variable("w", zeros({2}));
  const auto infinite = graph.constant(Array({1.0, std::numeric_limits<double>::infinity()}));
  State state(graph);
  Program program(state, {.outputs = {infinite}, .updates = {{w, infinite}}, .check_finite = true});
  CHECK(std::isinf(program.run()[0][1]));
  CHECK(std::isinf(state.get(w)[1]));
  Program made(state, {.outputs = {infinite * 2.0}, .check_finite = true});
  CHECK_THAT(error_of([&] { made.run(); }).what(), ContainsSubstring("got inf as element {1} of mul at"));
}

TEST_CASE("check_finite looks at what passes of one's own make of the graph") {
  Graph graph;
  const auto x = graph.input("x", {1});
  const auto y = log(x) + 1.0;
  State state(graph);
  const passes::Pass safe{"safe", [](const passes::Computation& c) {
                            return passes::Rewriter(c).run([](passes::Rewriter& r, const Node& node) {
                              return node.op().name == "log" ? r.now(node.input(0)) : r.copy(node);
                            });
                          }};
  Program program(state, {.outputs = {y}, .passes = {safe}, .check_finite = true});
  CHECK(program.run({{x, Array({-2.0})}})[0][0] == -1);
}
