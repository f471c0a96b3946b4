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
using chainrule::test::error_of;

namespace {

using Names = std::vector<std::string>;

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
  const auto refuse = [&](const std::string& name, int line, const std::string& message) {
    const Error error = error_of([&] { graph.scope(name, Location::here()).end(); });
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(line > 0);
  };
  refuse("", __LINE__, "scope: requires a name, got an empty one");
  for (const char* name : {"/a", "a/", "a//b", "/"})
    refuse(name, __LINE__, "scope: requires a name with '/' only between its parts, got '" + std::string(name) + "'");
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
