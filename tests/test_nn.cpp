// Layers, name scopes and the choice of parameters by their names.
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;
using chainrule::test::error_of;

namespace {

using Names = std::vector<std::string>;

// f throws an Error with this message at this line of here, and leaves the graph as it was.
void require_refusal(const Graph& graph, const std::function<void()>& f, int line, const std::string& message) {
  const std::string before = graph.to_string();
  const Error error = error_of(f);
  CHECK_THAT(error.what(), ContainsSubstring(message));
  CHECK(error.location().line == line);
  CHECK(graph.to_string() == before);
}

Names names_of(const Values& values) {
  Names out;
  for (const Value v : values) out.push_back(v.name());
  return out;
}

}  // namespace

// ---- name scopes

TEST_CASE("a scope stands before the names of parameters, variables and layers") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  {
    auto encoder = graph.scope("encoder");
    CHECK(encoder.name() == "encoder");
    CHECK(graph.parameter("w", zeros({3})).name() == "encoder/w");
    {
      auto first = graph.scope("0");
      CHECK(first.name() == "encoder/0");
      CHECK(graph.variable("count", zeros({})).name() == "encoder/0/count");
      CHECK(nn::dense(x, 4).weight.name() == "encoder/0/dense/weight");
      CHECK(nn::dense(x, 4).bias.name() == "encoder/0/dense_2/bias");
      CHECK(graph.unique_name("dense", "/weight") == "dense_3");
      CHECK(graph.unique_name("other") == "other");
    }
    CHECK(nn::dense(x, 4).weight.name() == "encoder/dense/weight");
    // Not in the scope: what callers feed, and what the State counts.
    CHECK(graph.input("y", {2}).name() == "y");
    CHECK(graph.step().name() == "step");
    CHECK(graph.epoch().name() == "epoch");
  }
  CHECK(graph.parameter("w", zeros({3})).name() == "w");
  CHECK(nn::dense(x, 4).weight.name() == "dense/weight");
  CHECK(graph.find("encoder/0/count").shape() == Shape{});
  // Again, a name goes on where it was.
  const auto again = graph.scope("encoder");
  CHECK(nn::dense(x, 4).weight.name() == "encoder/dense_2/weight");
  const int line = __LINE__ + 1;
  const Error error = error_of([&] { graph.parameter("w", zeros({3})); });
  CHECK_THAT(error.what(), ContainsSubstring("parameter: requires a name that is not in use, got 'encoder/w'"));
  CHECK(error.location().line == line);
}

TEST_CASE("the scopes of two graphs, and of two threads, know nothing of each other") {
  Graph a;
  Graph b;
  const auto in_a = a.scope("a");
  CHECK(b.parameter("w", zeros({})).name() == "w");
  const auto in_b = b.scope("b");
  CHECK(a.parameter("w", zeros({})).name() == "a/w");
  CHECK(b.parameter("w", zeros({})).name() == "b/w");
  // Handles of one graph share them.
  Graph same = a;
  CHECK(same.parameter("v", zeros({})).name() == "a/v");

  std::vector<Names> names(4);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < names.size(); ++i)
    threads.emplace_back([&names, i] {
      Graph graph;
      for (int layer = 0; layer < 50; ++layer) {
        const auto scope = graph.scope(std::to_string(i));
        graph.parameter(std::to_string(layer), zeros({}));
      }
      names[i] = names_of(graph.parameters());
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < names.size(); ++i)
    for (int layer = 0; layer < 50; ++layer)
      REQUIRE(names[i][static_cast<std::size_t>(layer)] == std::to_string(i) + "/" + std::to_string(layer));
}

TEST_CASE("a scope ends with an exception, in any order, once, and may be moved") {
  Graph graph;
  int made = 0;
  const auto name = [&] { return graph.parameter(std::to_string(made++), zeros({})).name(); };
  SECTION("exception") {
    CHECK_THROWS_AS(
        [&] {
          const auto scope = graph.scope("a");
          throw std::runtime_error("");
        }(),
        std::runtime_error);
    CHECK(name() == "0");
  }
  SECTION("order") {
    std::optional<NameScope> outer(graph.scope("a"));
    std::optional<NameScope> inner(graph.scope("b"));
    CHECK(name() == "a/b/0");
    outer.reset();
    CHECK(name() == "a/b/1");
    CHECK(inner->name() == "a/b");
    std::optional<NameScope> last(graph.scope("c"));
    CHECK(name() == "a/b/c/2");
    inner.reset();
    CHECK(name() == "a/b/c/3");
    last.reset();
    CHECK(name() == "4");
  }
  SECTION("end") {
    auto outer = graph.scope("a");
    auto inner = graph.scope("b");
    inner.end();
    CHECK(name() == "a/0");
    inner.end();
    CHECK(name() == "a/1");
    const int line = __LINE__ + 1;
    const Error error = error_of([&] { static_cast<void>(inner.name()); });
    CHECK_THAT(error.what(), ContainsSubstring("scope: requires a scope that is open, got one that has ended"));
    CHECK(error.location().line == line);
  }
  SECTION("move") {
    std::optional<NameScope> from(graph.scope("a"));
    const NameScope to = std::move(*from);
    from.reset();
    CHECK(name() == "a/0");
    CHECK(to.name() == "a");
  }
  SECTION("outliving the graph") {
    std::optional<Graph> short_lived(Graph{});
    const NameScope scope = short_lived->scope("a");
    short_lived.reset();
    CHECK(scope.name() == "a");
  }
}

TEST_CASE("names that scopes refuse") {
  Graph graph;
  const auto refuse = [&](const std::string& name, const std::string& message) {
    const int here = __LINE__ + 1;
    const Error error = error_of([&] { graph.scope(name).end(); });
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == here);
  };
  refuse("", "scope: requires a name, got an empty one");
  for (const char* name : {"/a", "a/", "a//b", "/"})
    refuse(name, "scope: requires a name with '/' only between its parts, got '" + std::string(name) + "'");
  CHECK(graph.parameter("w", zeros({})).name() == "w");
  CHECK(graph.scope("a/b").name() == "a/b");
}

TEST_CASE("what optimizers keep is named by its parameter, whatever scope is open") {
  Graph graph;
  std::optional<NameScope> scope(graph.scope("a"));
  const auto w = graph.parameter("w", ones({2}));
  CHECK(optim::Adam{}.minimize(sum(square(w))).size() == 4);
  CHECK(graph.has("a/w/adam/v"));
  CHECK(graph.has("adam/t"));
  CHECK(graph.parameter("v", zeros({})).name() == "a/v");
}

// ---- parameters by their names

TEST_CASE("parameters are chosen by patterns of their names") {
  Graph graph;
  for (const char* name :
       {"encoder/0/conv/weight", "encoder/0/conv/bias", "encoder/1/conv/weight", "head/weight", "head/bias", "weight"})
    graph.parameter(name, zeros({2}));
  graph.variable("encoder/mean", zeros({2}));
  const auto chosen = [&](const NamePatterns& patterns) { return names_of(graph.parameters(patterns)); };
  CHECK(chosen("encoder/*") == Names{"encoder/0/conv/weight", "encoder/0/conv/bias", "encoder/1/conv/weight"});
  CHECK(chosen("*/bias") == Names{"encoder/0/conv/bias", "head/bias"});
  CHECK(chosen("*weight") == Names{"encoder/0/conv/weight", "encoder/1/conv/weight", "head/weight", "weight"});
  CHECK(chosen("encoder/?/conv/weight") == Names{"encoder/0/conv/weight", "encoder/1/conv/weight"});
  CHECK(chosen("weight") == Names{"weight"});
  CHECK(chosen("*/*/*/*") == Names{"encoder/0/conv/weight", "encoder/0/conv/bias", "encoder/1/conv/weight"});
  CHECK(chosen("**h*ad**") == Names{"head/weight", "head/bias"});
  CHECK(chosen("*") == names_of(graph.parameters()));
  CHECK(chosen({"head/*", "encoder/1*"}) == Names{"encoder/1/conv/weight", "head/weight", "head/bias"});
  CHECK(chosen({"*", "!encoder/*", "!*bias"}) == Names{"head/weight", "weight"});
  CHECK(chosen({"*", "!encoder/*", "encoder/?/conv/bias"}) ==
        Names{"encoder/0/conv/bias", "head/weight", "head/bias", "weight"});

  const auto refuse = [&](const NamePatterns& patterns, Location at, const std::string& message) {
    const Error error = error_of([&] { static_cast<void>(graph.parameters(patterns, at)); });
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == at.line);
  };
  refuse("encodr/*", Location::here(),
         "parameters: requires a pattern that a parameter's name matches, got 'encodr/*'; the nearest: "
         "encoder/0/conv/weight, encoder/0/conv/bias, encoder/1/conv/weight");
  refuse("head/wieght", Location::here(), "got 'head/wieght'; the nearest: head/weight, ");
  refuse({"*", "!head/b"}, Location::here(), "got '!head/b'; the nearest: ");
  refuse("", Location::here(), "got ''");
  refuse("encoder/mean", Location::here(), "got 'encoder/mean'");
  refuse(NamePatterns(std::vector<std::string>()), Location::here(),
         "parameters: requires a pattern of names, got none");
  const Graph empty;
  CHECK_THAT(error_of([&] { static_cast<void>(empty.parameters("*")); }).what(),
             ContainsSubstring("there are no parameters"));
}

TEST_CASE("only the chosen parameters are trained") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  std::optional<NameScope> scope(graph.scope("body"));
  const Value h = tanh(nn::dense(x, 4));
  scope.reset();
  const Value loss = mean(square(nn::dense(h, 2, {.name = "head"})));
  State state(graph);
  Program train(state,
                {.updates = optim::GradientDescent{.learning_rate = 0.1}.minimize(loss, graph.parameters("head/*"))});
  const Values parameters = graph.parameters();
  std::vector<Array> before;
  for (const Value p : parameters) before.push_back(state[p]);
  train.run({{x, Array({{1.0, 2.0, 3.0}, {-1.0, 0.5, 2.0}})}});
  CHECK(state[parameters[0]].identical(before[0]));
  CHECK(state[parameters[1]].identical(before[1]));
  CHECK_FALSE(state[parameters[2]].identical(before[2]));
  CHECK_FALSE(state[parameters[3]].identical(before[3]));
}

// ---- layers

namespace {

// An initializer that begins with 1, 2, 3, ... and tells the fans.
struct Counting {
  double fan_in = 0;
  double fan_out = 0;
  init::Initializer initializer() {
    return [this](const Shape& shape, double in, double out) -> Initial {
      fan_in = in;
      fan_out = out;
      Array values(float64, evaluate(shape, {}));
      for (std::int64_t i = 0; i < values.size(); ++i) values.set(i, static_cast<double>(i + 1));
      return values;
    };
  }
};

}  // namespace

TEST_CASE("a dense layer") {
  Graph graph;
  const auto x = graph.input("x", {1, 2});
  Counting counting;
  const auto layer = nn::dense(x, 3, {.initializer = counting.initializer()});
  CHECK(names_of({layer.weight, layer.bias}) == Names{"dense/weight", "dense/bias"});
  CHECK(counting.fan_in == 2);
  CHECK(counting.fan_out == 3);
  State state(graph);
  state.set(layer.bias, Array({100.0, 200.0, 300.0}));
  Program program(state, {.outputs = {layer}});
  // {10, 1} {{1, 2, 3}, {4, 5, 6}} + bias
  CHECK(program.run({{x, Array({{10.0, 1.0}})}})[0].identical(Array({{114.0, 225.0, 336.0}})));
  const auto bare = nn::dense(x, 3, init::he_normal(), {.name = "a/b", .bias = false});
  CHECK(bare.weight.name() == "a/b/weight");
  CHECK_FALSE(bare.bias.defined());
  CHECK_FALSE(graph.has("a/b/bias"));
  const auto sequence = graph.input("sequence", {graph.dimension("batch"), 7, 2});
  CHECK(nn::dense(sequence, 5).output.shape() == Shape{graph.dimension("batch"), 7, 5});
}

TEST_CASE("convolutions over one, two and three axes") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  Counting counting;
  const nn::LayerOptions options{.initializer = counting.initializer()};
  const auto line = graph.input("line", {batch, 2, 5});
  const auto image = graph.input("image", {batch, 4, 6, 7});
  const auto volume = graph.input("volume", {batch, 2, 4, 5, 6});

  const auto one = nn::conv(line, 3, 2, {}, options);
  CHECK(one.weight.shape() == Shape{3, 2, 2});
  CHECK(one.output.shape() == Shape{batch, 3, 4});
  CHECK(counting.fan_in == 2 * 2);
  CHECK(counting.fan_out == 3 * 2);

  const auto two = nn::conv(image, 6, {3, 5}, {.stride = {1, 2}, .padding = {1, 2}, .groups = 2}, options);
  CHECK(two.weight.shape() == Shape{6, 2, 3, 5});
  CHECK(two.bias.shape() == Shape{6});
  CHECK(two.output.shape() == Shape{batch, 6, 6, 4});  // (6 + 2 - 3) + 1 and (7 + 4 - 5) / 2 + 1
  CHECK(counting.fan_in == 2 * 15);
  CHECK(counting.fan_out == 3 * 15);
  CHECK(nn::conv(image, 4, 3, {.padding = "same", .dilation = 2, .groups = 4}).output.shape() == Shape{batch, 4, 6, 7});

  const auto three = nn::conv(volume, 1, 2, {}, options);
  CHECK(three.weight.shape() == Shape{1, 2, 2, 2, 2});
  CHECK(three.output.shape() == Shape{batch, 1, 3, 4, 5});

  CHECK(names_of({one.weight, two.bias, three.weight}) == Names{"conv/weight", "conv_2/bias", "conv_4/weight"});

  const auto up = nn::conv_transpose(image, 6, 2, {.stride = 2, .groups = 2}, options);
  CHECK(up.weight.shape() == Shape{4, 3, 2, 2});
  CHECK(up.bias.shape() == Shape{6});
  CHECK(up.output.shape() == Shape{batch, 6, 12, 14});
  CHECK(counting.fan_in == 2 * 4);
  CHECK(counting.fan_out == 3 * 4);
  CHECK(up.weight.name() == "conv_transpose/weight");

  // {1, 0, 2, 0, 0} and {0, 1, 0, 0, 0} in two channels, weights {{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}, ...: the first
  // feature is 1 1 + 2 0 + 3 0 + 4 1 = 5, 2 2 + 3 1 = 7, 1 2 = 2, 0, each and its bias.
  State state(graph);
  state.set(one.bias, Array({0.5, 0.0, 0.0}));
  Program program(state, {.outputs = {one}});
  const Array y =
      program.run({{line, Array({{1.0, 0.0, 2.0, 0.0, 0.0}, {0.0, 1.0, 0.0, 0.0, 0.0}}).reshape({1, 2, 5})}})[0];
  CHECK(std::vector<double>{y[0], y[1], y[2], y[3]} == std::vector<double>{5.5, 7.5, 2.5, 0.5});
  // The second, of {5, 6} and {7, 8}: 5 + 8, 6 2 + 7, 5 2, 0.
  CHECK(std::vector<double>{y[4], y[5], y[6], y[7]} == std::vector<double>{13, 19, 10, 0});
}

TEST_CASE("norms and tables have parameters of their shapes") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto image = graph.input("image", {batch, 4, 3, 2});
  const auto words = graph.input("words", {batch, 5}, int64);
  const auto b = nn::batch_norm(image);
  CHECK(names_of({b.gamma, b.beta, b.mean, b.variance}) ==
        Names{"batch_norm/gamma", "batch_norm/beta", "batch_norm/mean", "batch_norm/variance"});
  CHECK(b.gamma.shape() == Shape{4});
  const auto l = nn::layer_norm(image, {.axis = 2});
  CHECK(names_of({l.gamma, l.beta}) == Names{"layer_norm/gamma", "layer_norm/beta"});
  CHECK(l.gamma.shape() == Shape{3, 2});
  const auto r = nn::rms_norm(image);
  CHECK(r.gamma.shape() == Shape{2});
  CHECK_FALSE(r.beta.defined());
  const auto g = nn::group_norm(image, 2, {}, {.name = "norm"});
  CHECK(names_of({g.gamma, g.beta}) == Names{"norm/gamma", "norm/beta"});
  CHECK(g.beta.shape() == Shape{4});
  CHECK(nn::instance_norm(image).gamma.shape() == Shape{4});
  for (const Value y : {Value(b), Value(l), Value(r), Value(g)}) CHECK(y.shape() == image.shape());

  Counting counting;
  const auto e = nn::embedding(words, 7, 2, {.initializer = counting.initializer()});
  CHECK(e.table.name() == "embedding/table");
  CHECK(e.table.shape() == Shape{7, 2});
  CHECK(e.output.shape() == Shape{batch, 5, 2});
  CHECK(compute(graph, {e}, {{words, Array({0, 6, 1, 0, 3}).reshape({1, 5})}})[0].identical(
      Array({{1.0, 2.0}, {13.0, 14.0}, {3.0, 4.0}, {1.0, 2.0}, {7.0, 8.0}}).reshape({1, 5, 2})));
}

TEST_CASE("a multilayer perceptron") {
  Graph graph;
  const auto x = graph.input("x", {1, 2});
  const auto ones_of = [](const Shape& shape, double, double) { return ones(shape); };
  const auto net = nn::mlp(x, {3, 2}, {.initializer = ones_of});
  CHECK(names_of(graph.parameters()) == Names{"mlp/0/weight", "mlp/0/bias", "mlp/1/weight", "mlp/1/bias"});
  REQUIRE(net.layers.size() == 2);
  CHECK(net.layers[1].output == net.output);
  const auto activated =
      nn::mlp(x, {1}, {.activation = [](Value h) { return 2 * h; }, .activate_last = true, .initializer = ones_of});
  CHECK(activated.layers[0].weight.name() == "mlp_2/0/weight");
  const std::vector<Array> y = compute(graph, {net, activated}, {{x, Array({{-1.0, 3.0}})}});
  CHECK(y[0].identical(Array({{6.0, 6.0}})));  // three units of max(-1 + 3, 0)
  CHECK(y[1].identical(Array({{4.0}})));
  CHECK(compute(graph, {net}, {{x, Array({{-4.0, 3.0}})}})[0].identical(Array({{0.0, 0.0}})));
  // Dropout of everything that has a next layer: in training, with 1 of 1e9 kept, nothing comes through.
  const auto dropped = nn::mlp(x, {50, 2}, {.activation = relu, .keep = 1e-9, .initializer = ones_of});
  CHECK(compute(graph, {dropped}, {{x, Array({{1.0, 3.0}})}})[0].identical(Array({{0.0, 0.0}})));
}

TEST_CASE("a residual block adds what it makes of its input") {
  Graph graph;
  const auto x = graph.input("x", {1, 2});
  const auto identity = init::identity();
  const Value y = nn::residual(x, [&](Value h) { return nn::dense(2 * h, 2, identity); });
  const Value projected =
      nn::residual(x, [&](Value h) { return nn::dense(h, 3, identity); },
                   {.projection = [&](Value h) { return nn::dense(h, 3, identity, {.bias = false}); }});
  const Value named = nn::residual(x, [](Value h) { return nn::dense(h, 2); }, {.name = "block"});
  CHECK(named.shape() == x.shape());
  CHECK(names_of(graph.parameters()) == Names{"residual/dense/weight", "residual/dense/bias", "residual_2/dense/weight",
                                              "residual_2/dense/bias", "residual_2/projection/dense/weight",
                                              "block/dense/weight", "block/dense/bias"});
  const std::vector<Array> out = compute(graph, {y, projected}, {{x, Array({{5.0, -1.0}})}});
  CHECK(out[0].identical(Array({{15.0, -3.0}})));
  CHECK(out[1].identical(Array({{10.0, -2.0, 0.0}})));
}

TEST_CASE("layers refuse what they cannot take, and leave nothing behind") {
  Graph graph;
  Graph other;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {2, 3});
  const auto named = graph.input("named", {2, n});
  const auto image = graph.input("image", {2, 4, 5, 5});
  const auto deep = graph.input("deep", {2, n, 5, 5});
  const auto words = graph.input("words", {3}, int64);
  const auto taken = nn::dense(x, 4, {.name = "taken"});
  const Value nothing;
  const auto refuse = [&](const std::function<void()>& f, int line, const std::string& message) {
    require_refusal(graph, f, line, message);
    CHECK(graph.unique_name("conv", "/weight") == "conv");
    CHECK(graph.parameters().size() == 2);
  };
  refuse([&] { nn::dense(nothing, 4); }, __LINE__, "dense: requires values of a graph, got an empty Value");
  refuse([&] { nn::conv(nothing, 4, 3); }, __LINE__, "conv: requires values of a graph, got an empty Value");
  refuse([&] { nn::embedding(nothing, 4, 3); }, __LINE__, "embedding: requires values of a graph, got an empty Value");
  refuse([&] { nn::layer_norm(nothing); }, __LINE__, "layer_norm: requires values of a graph, got an empty Value");
  refuse([&] { nn::mlp(nothing, {4}); }, __LINE__, "mlp: requires values of a graph, got an empty Value");
  refuse([&] { nn::residual(nothing, [](Value h) { return h; }); }, __LINE__, "residual: requires values of a graph");
  refuse([&] { nn::dense(words, 4); }, __LINE__, "dense: requires {examples, features}, got {3}");
  refuse([&] { nn::dense(named, 4); }, __LINE__, "dense: requires a number of features, got n in {2, n}");
  refuse([&] { nn::dense(x, 4, {.name = "taken"}); }, __LINE__,
         "parameter: requires a name that is not in use, got 'taken/weight'");
  refuse([&] { nn::dense(x, 4, {.name = "/a"}); }, __LINE__, "scope: requires a name with '/' only between its parts");
  refuse([&] { nn::conv(x, 4, 3); }, __LINE__, "conv: requires {N, C, ...} with one to three spatial axes, got {2, 3}");
  refuse([&] { nn::conv(deep, 4, 3); }, __LINE__, "conv: requires a number of channels, got n in {2, n, 5, 5}");
  const PerAxis three = {3, 3, 3};
  refuse([&] { nn::conv(image, 4, three); }, __LINE__,
         "conv: requires a number of taps of 1 or more for all 2 axes or one for each, got (3, 3, 3)");
  refuse([&] { nn::conv(image, 4, 0); }, __LINE__, "conv: requires a number of taps of 1 or more");
  refuse(
      [&] { nn::conv(image, 3, 3, {.groups = 2}); }, __LINE__,
      "conv: requires groups of 1 or more that divide the channels and features, got 2 for 4 channels and 3 features");
  refuse([&] { nn::conv(image, 4, 7); }, __LINE__, "conv: requires");
  refuse([&] { nn::conv_transpose(image, 4, 3, {.padding = "same"}); }, __LINE__,
         "conv_transpose: requires padding by");
  refuse([&] { nn::conv_transpose(deep, 4, 3); }, __LINE__, "conv_transpose: requires a number of channels");
  refuse([&] { nn::batch_norm(deep); }, __LINE__, "batch_norm: requires a number of features, got n");
  refuse([&] { nn::layer_norm(named); }, __LINE__, "layer_norm: requires a number of features, got n");
  refuse([&] { nn::layer_norm(image, {.axis = 4}); }, __LINE__, "layer_norm: ");
  refuse([&] { nn::group_norm(image, 3); }, __LINE__, "group_norm: ");
  refuse([&] { nn::group_norm(words, 3); }, __LINE__, "group_norm: requires {N, C, ...}, got {3}");
  refuse([&] { nn::embedding(x, 4, 3); }, __LINE__, "int64");
  refuse([&] { nn::mlp(x, {}); }, __LINE__, "mlp: requires a number of units for each layer, got no layer");
  refuse([&] { nn::mlp(x, {3, 2}, {.activation = relu, .keep = 2}); }, __LINE__, "dropout: requires");
  refuse([&] { nn::residual(x, {}); }, __LINE__, "residual: requires a block, got an empty function");
  refuse([&] { nn::residual(x, [](Value h) { return nn::dense(h, 4); }); }, __LINE__,
         "residual: requires a block that keeps x's shape, got {2, 4} and {2, 3}: give it a projection");
  refuse([&] { nn::residual(x, [&](Value) { return other.constant(1, float64); }); }, __LINE__,
         "residual: requires a block that returns a value of x's graph, got ");
  CHECK(taken.output.shape() == Shape{2, 4});
}

// ---- whole networks

namespace {

// A program that trains, and the loss after each of some steps on the same batch.
std::vector<double> losses_of(Graph& graph, Value loss, const std::vector<Feed>& feeds, int steps) {
  State state(graph);
  Program train(state, {.outputs = {loss}, .updates = optim::Adam{.learning_rate = 0.01}.minimize(loss)});
  std::vector<double> out;
  for (int i = 0; i < steps; ++i) out.push_back(train.run(feeds)[0][0]);
  return out;
}

void check_network(Graph& graph, Value loss, const std::vector<Feed>& feeds) {
  {
    State state(graph);
    const CheckReport report = check_gradients(loss, graph.parameters(), state, feeds, {.full_below = 64});
    INFO(report.to_string());
    CHECK(report.passed());
  }
  const std::vector<double> losses = losses_of(graph, loss, feeds, 40);
  INFO(losses.front() << " to " << losses.back());
  CHECK(losses.back() < 0.2 * losses.front());
}

Array some_labels(std::int64_t n, std::int64_t classes) {
  Array out(int64, Dims{n});
  for (std::int64_t i = 0; i < n; ++i) out.set(i, static_cast<double>(i * 7 % classes));
  return out;
}

}  // namespace

TEST_CASE("LeNet is built of layers, right in its gradient and learns") {
  Graph graph({.seed = 3});
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 1, 16, 16});
  const auto labels = graph.input("labels", {batch}, int64);
  Value h = max_pool(relu(nn::conv(images, 4, 5)), 2);
  h = max_pool(relu(nn::conv(h, 6, 3)), 2);
  const Value logits = nn::mlp(flatten(h, 1), {12, 4});
  const Value loss = softmax_cross_entropy(logits, labels);
  CHECK(names_of(graph.parameters()) == Names{"conv/weight", "conv/bias", "conv_2/weight", "conv_2/bias",
                                              "mlp/0/weight", "mlp/0/bias", "mlp/1/weight", "mlp/1/bias"});
  check_network(graph, loss, {{images, normal({8, 1, 16, 16}).draw(float64, 1, 1)}, {labels, some_labels(8, 4)}});
}

TEST_CASE("a residual network is built of layers, right in its gradient and learns") {
  Graph graph({.seed = 4});
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 2, 6, 6});
  const auto labels = graph.input("labels", {batch}, int64);
  const auto block = [](Value x, std::size_t channels, std::int64_t stride) {
    const auto convolved = [](Value h, std::size_t features, std::int64_t taps, std::int64_t by) -> Value {
      return nn::batch_norm(nn::conv(h, features, taps, {.stride = by, .padding = taps / 2},
                                     {.initializer = init::he_normal(), .bias = false}));
    };
    nn::ResidualOptions options;
    if (stride != 1) options.projection = [=](Value h) { return convolved(h, channels, 1, stride); };
    return relu(nn::residual(
        x, [=](Value h) { return convolved(tanh(convolved(h, channels, 3, stride)), channels, 3, 1); }, options));
  };
  Value h = tanh(nn::group_norm(nn::conv(images, 4, 3, {.padding = "same"}), 2));
  h = block(h, 4, 1);
  h = block(h, 6, 2);
  const Value loss = softmax_cross_entropy(nn::dense(nn::layer_norm(flatten(global_avg_pool(h), 1)), 3), labels);
  CHECK(graph.has("residual_2/projection/conv/weight"));
  CHECK(graph.has("residual_2/conv_2/weight"));
  CHECK(graph.parameters({"*", "!*weight"}).size() == 16);
  check_network(graph, loss, {{images, normal({6, 2, 6, 6}).draw(float64, 1, 1)}, {labels, some_labels(6, 3)}});
}

// ---- summary

TEST_CASE("a summary counts parameters and multiply-adds by layers") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 3, 8, 8});
  Value h = images;
  {
    const auto encoder = graph.scope("encoder");
    h = max_pool(relu(nn::conv(h, 4, 3, {.padding = "same"})), 2);
    h = nn::conv(h, 8, {1, 3}, {.groups = 2}, {.bias = false});
    h = relu(nn::batch_norm(h));
    h = nn::residual(h, [](Value x) { return nn::conv_transpose(x, 8, 1); });
  }
  h = nn::dense(flatten(h, 1), 1500);
  const auto w = graph.parameter("w", zeros({1500, 10}));
  const Value scores = matmul(h, w) + graph.parameter("last/b", zeros({10}));
  const Value similar = matmul(scores, transpose(scores));
  const auto loss = mean(similar);

  const auto check = [&] {
    const Summary s = summary(graph);
    const auto row = [&](std::size_t i, const std::string& layer, const Shape& output, std::int64_t parameters,
                         std::int64_t variables, Dimension products) {
      INFO(layer);
      REQUIRE(i < s.rows.size());
      CHECK(s.rows[i].layer == layer);
      CHECK(to_string(s.rows[i].output) == to_string(output));
      CHECK(s.rows[i].parameters == parameters);
      CHECK(s.rows[i].variables == variables);
      CHECK(s.rows[i].multiply_adds.to_string() == products.to_string());
    };
    row(0, "encoder/conv", {batch, 4, 8, 8}, 4 * 3 * 9 + 4, 0, batch * (4 * 64) * (3 * 9));
    row(1, "encoder/conv_2", {batch, 8, 4, 2}, 8 * 2 * 3, 0, batch * (8 * 8) * (2 * 3));
    row(2, "encoder/batch_norm", {batch, 8, 4, 2}, 16, 16, 0);
    row(3, "encoder/residual/conv_transpose", {batch, 8, 4, 2}, 8 * 8 + 8, 0, batch * (8 * 8) * 8);
    row(4, "dense", {batch, 1500}, 64 * 1500 + 1500, 0, batch * 1500 * 64);
    row(5, "w", {batch, 10}, 15000, 0, batch * 15000);
    row(6, "last", {batch, 10}, 10, 0, 0);
    row(7, "", {batch, batch}, 0, 0, batch * batch * 10);
    CHECK(s.rows.size() == 8);
    CHECK(s.parameters == 112 + 48 + 16 + 72 + 97500 + 15000 + 10);
    CHECK(s.variables == 16);
    CHECK(s.multiply_adds == batch * 118808 + batch * batch * 10);
  };
  check();
  // Gradients and what optimizers keep change nothing.
  const Updates updates = optim::Adam{}.minimize(loss);
  CHECK_FALSE(updates.empty());
  check();
  CHECK(summary(graph).to_string() ==
        "layer                            output            parameters  variables                 multiply-adds\n"
        "encoder/conv                     {batch, 4, 8, 8}         112          0                   6,912*batch\n"
        "encoder/conv_2                   {batch, 8, 4, 2}          48          0                     384*batch\n"
        "encoder/batch_norm               {batch, 8, 4, 2}          16         16                             0\n"
        "encoder/residual/conv_transpose  {batch, 8, 4, 2}          72          0                     512*batch\n"
        "dense                            {batch, 1500}         97,500          0                  96,000*batch\n"
        "w                                {batch, 10}           15,000          0                  15,000*batch\n"
        "last                             {batch, 10}               10          0                             0\n"
        "(no layer)                       {batch, batch}             0          0                10*batch*batch\n"
        "total                                                 112,758         16  118,808*batch+10*batch*batch\n");
}

TEST_CASE("a summary of an empty graph, and of one without scopes") {
  Graph graph;
  CHECK(summary(graph).rows.empty());
  CHECK(summary(graph).to_string() ==
        "layer  output  parameters  variables  multiply-adds\n"
        "total                   0          0              0\n");
  const auto x = graph.input("x", {5, 3});
  const auto w = graph.parameter("w", zeros({2, 3}));
  const auto y = matmul(x, transpose(w));
  CHECK(y.shape() == Shape{5, 2});
  const Summary s = summary(graph);
  REQUIRE(s.rows.size() == 1);
  CHECK(s.rows[0].layer == "w");
  CHECK(s.rows[0].output == Shape{5, 2});
  CHECK(s.multiply_adds.is(30));
}

TEST_CASE("the output of a last layer is that of the network, also once it is trained") {
  Graph graph;
  const auto x = graph.input("x", {graph.dimension("n"), 3});
  const auto w = graph.parameter("w", zeros({3, 4}));
  Value y = relu(matmul(x, w));
  const auto scope = graph.scope("head");
  y = nn::batch_norm(relu(y) * graph.parameter("scale", ones({4})), {}, {.name = "norm"});
  const auto outputs = [&] {
    std::string out;
    for (const SummaryRow& row : summary(graph).rows) out += row.layer + to_string(row.output) + " ";
    return out;
  };
  const std::string expected = "w{n, 4} head{n, 4} head/norm{n, 4} ";
  CHECK(outputs() == expected);
  CHECK_FALSE(optim::Momentum{.weight_decay = 0.1}.minimize(sum(square(y))).empty());
  CHECK(outputs() == expected);
}

TEST_CASE("what was taken back leaves no layer behind") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  CHECK_THROWS_AS(nn::residual(x, [](Value h) { return nn::dense(h, 4); }), Error);
  const auto y = x + 1;
  const auto z = matmul(y, transpose(y));
  CHECK(z.shape() == Shape{2, 2});
  const Summary s = summary(graph);
  REQUIRE(s.rows.size() == 1);
  CHECK(s.rows[0].layer.empty());
}
