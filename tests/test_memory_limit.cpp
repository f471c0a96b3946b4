#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/graph/graph_data.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;

namespace {

struct Model {
  Graph graph;
  std::vector<std::pair<Value, Array>> feeds;
  Value loss;
  Values more_outputs = {};
};

using Optimize = std::function<Updates(Value loss)>;

std::vector<Feed> feeds_of(const Model& model) {
  std::vector<Feed> out;
  for (const auto& [input, array] : model.feeds) out.emplace_back(input, array);
  return out;
}

Array random(const Dims& shape, DType dtype, std::uint64_t seed) {
  return uniform(to_shape(shape), -1, 1).draw(dtype, seed, 0);
}

Array labels_of(std::int64_t n, std::int64_t classes) {
  Array out(int64, {n});
  for (std::int64_t i = 0; i < n; ++i) out.set(i, static_cast<double>(i % classes));
  return out;
}

std::vector<std::string> variables_of(const Graph& graph) {
  std::vector<std::string> out;
  for (const auto& variable : graph.data()->leaves->variables) out.push_back(variable.name);
  return out;
}

// Layers of `units`, with what makes a classifier; the batch's size is known only in a run.
struct Classifier {
  std::size_t layers = 6;
  std::size_t units = 40;
  bool batch_norm = false;
  double keep = 1;
  bool residual = false;
  DType dtype = float64;
  std::int64_t batch = 50;
};

Model build(const Classifier& c) {
  Graph graph({.dtype = c.dtype, .seed = 3});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 20});
  const auto labels = graph.input("labels", {batch}, int64);
  Value h = nn::dense(x, c.units);
  for (std::size_t layer = 0; layer < c.layers; ++layer) {
    const Value before = h;
    h = nn::dense(h, c.units);
    if (c.batch_norm) h = nn::batch_norm(h);
    h = layer % 2 == 0 ? relu(h) : tanh(h);
    if (c.keep < 1) h = dropout(h, {.keep = c.keep});
    if (c.residual) h = h + before;
  }
  const Value logits = nn::dense(h, 10);
  return {graph,
          {{x, random({c.batch, 20}, c.dtype, 1)}, {labels, labels_of(c.batch, 10)}},
          softmax_cross_entropy(logits, labels),
          {logits, h}};
}

struct Runs {
  std::vector<Array> outputs;  // of all runs
  std::vector<Array> variables;
  Program::Memory memory;
  std::string explained;
};

Runs run(const Model& model, const State& from, const Updates& updates, std::size_t limit, bool more_outputs = false) {
  State state = from;
  Values outputs = {model.loss};
  if (more_outputs) outputs.insert(outputs.end(), model.more_outputs.begin(), model.more_outputs.end());
  Program train(state, {.outputs = outputs, .updates = updates, .memory_limit = limit});
  Runs out;
  const std::vector<Feed> feeds = feeds_of(model);
  for (int i = 0; i < 3; ++i) {
    const Results results = train.run(feeds);
    for (std::size_t k = 0; k < results.size(); ++k) out.outputs.push_back(results[k]);
  }
  for (const std::string& name : variables_of(model.graph)) out.variables.push_back(state.get(name));
  out.memory = train.memory();
  out.explained = train.explain();
  return out;
}

void require_same(const Runs& a, const Runs& b) {
  REQUIRE(a.outputs.size() == b.outputs.size());
  REQUIRE(a.variables.size() == b.variables.size());
  for (std::size_t i = 0; i < a.outputs.size(); ++i) REQUIRE(a.outputs[i].identical(b.outputs[i]));
  for (std::size_t i = 0; i < a.variables.size(); ++i) REQUIRE(a.variables[i].identical(b.variables[i]));
}

// A chain of linear layers and tanh, trained by gradient descent.
Model chain(std::size_t layers, std::int64_t batch, std::int64_t units, DType dtype = float32) {
  Graph graph({.dtype = dtype, .seed = 5});
  const auto x = graph.input("x", {batch, units});
  const auto y = graph.input("y", {batch, units});
  auto h = x;
  for (std::size_t i = 0; i < layers; ++i) {
    const auto w =
        graph.parameter(graph.unique_name("w"), normal({units, units}, 0, 1 / std::sqrt(static_cast<double>(units))));
    const auto b = graph.parameter(graph.unique_name("b"), zeros({units}));
    h = tanh(matmul(h, w) + b);
  }
  return {
      graph, {{x, random({batch, units}, dtype, 1)}, {y, random({batch, units}, dtype, 2)}}, mean_squared_error(h, y)};
}

// The least limit that can be kept, as the error says it.
std::size_t least_limit(State& state, const Model& model, const Updates& updates) {
  try {
    Program(state, {.outputs = {model.loss}, .updates = updates, .memory_limit = 1}).run(feeds_of(model));
  } catch (const Error& error) {
    const std::string what = error.what();
    const auto at = what.find(" is ", what.find("the least found"));
    REQUIRE(at != std::string::npos);
    return std::stoull(what.substr(at + 4));
  }
  FAIL("one byte was enough");
  return 0;
}

}  // namespace

TEST_CASE("with a memory limit results have the same bits") {
  const auto network =
      GENERATE(Classifier{}, Classifier{.keep = 0.8}, Classifier{.batch_norm = true},
               Classifier{.batch_norm = true, .keep = 0.5, .dtype = float32},
               Classifier{.layers = 9, .units = 150, .batch_norm = true, .keep = 0.9, .dtype = float32, .batch = 133},
               Classifier{.layers = 12, .units = 24, .residual = true, .batch = 200},
               Classifier{.layers = 12, .batch_norm = true, .keep = 0.7, .residual = true, .batch = 129});
  const Model model = build(network);
  const auto optimizer = GENERATE(0, 1, 2);
  const Updates updates = optimizer == 0   ? optim::GradientDescent{}.minimize(model.loss)
                          : optimizer == 1 ? optim::Momentum{}.minimize(model.loss)
                                           : optim::Adam{}.minimize(model.loss);
  State from(model.graph);  // with the optimizer's slots
  const bool more_outputs = optimizer == 1;
  const Runs free = run(model, from, updates, 0, more_outputs);
  CHECK(free.explained.find("after recompute") == std::string::npos);

  // Unlimited where there is enough.
  const Runs enough = run(model, from, updates, free.memory.arena_bytes, more_outputs);
  CHECK(enough.explained == free.explained);

  for (const double share : {0.95, 0.8}) {
    const auto limit = static_cast<std::size_t>(share * static_cast<double>(free.memory.arena_bytes));
    INFO("limit " << limit << " of " << free.memory.arena_bytes);
    const Runs limited = run(model, from, updates, limit, more_outputs);
    CHECK(limited.memory.arena_bytes <= limit);
    CHECK(limited.memory.arena_bytes >= limited.memory.lower_bound);
    CHECK_THAT(limited.explained, ContainsSubstring("after recompute for batch="));
    require_same(limited, free);
  }
  const std::size_t least = least_limit(from, model, updates);
  CHECK(least < free.memory.arena_bytes);
  const Runs limited = run(model, from, updates, least);
  CHECK(limited.memory.arena_bytes <= least);
  if (!more_outputs) require_same(limited, free);
}

TEST_CASE("dropout and batch norm are computed again before products are") {
  const Model model = build({.layers = 5, .units = 64, .batch_norm = true, .keep = 0.8, .batch = 256});
  const Updates updates = optim::GradientDescent{}.minimize(model.loss);
  State state(model.graph);
  const auto products = [](const Runs& runs) {
    const auto plan = runs.explained.substr(runs.explained.rfind("plan for "));
    std::size_t count = 0;
    for (auto at = plan.find(": matmul"); at != std::string::npos; at = plan.find(": matmul", at + 1)) ++count;
    return count;
  };
  const Runs free = run(model, state, updates, 0);
  const Runs some = run(model, state, updates, free.memory.arena_bytes * 17 / 20);
  CHECK(some.memory.steps > free.memory.steps);
  CHECK(products(some) == products(free));
  const Runs least = run(model, state, updates, least_limit(state, model, updates));
  CHECK(products(least) > products(free));
}

TEST_CASE("memory of a chain grows with the square root of its length") {
  const auto least = [](std::size_t layers) {
    const Model model = chain(layers, 32, 16);
    State state(model.graph);
    const Updates updates = optim::GradientDescent{}.minimize(model.loss);
    const std::size_t layer = 32 * 16 * 4;
    const Runs free = run(model, state, updates, 0);
    CHECK(free.memory.arena_bytes >= layers * layer);
    // Two times the root of the layers, and what a single one needs.
    const auto limit = static_cast<std::size_t>((2.2 * std::sqrt(static_cast<double>(layers)) + 8) * layer);
    const Runs limited = run(model, state, updates, limit);
    CHECK(limited.memory.arena_bytes <= limit);
    require_same(limited, free);
    return limited.memory.arena_bytes;
  };
  const auto few = static_cast<double>(least(250));
  const auto many = static_cast<double>(least(1000));
  CHECK(many / few > 1.5);
  CHECK(many / few < 2.4);
}

TEST_CASE("a memory limit that cannot be kept") {
  SECTION("sizes fixed: when the program is compiled") {
    const Model model = chain(20, 32, 16);
    State state(model.graph);
    const Updates updates = optim::GradientDescent{}.minimize(model.loss);
    CHECK_THROWS_WITH(Program(state, {.outputs = {model.loss}, .updates = updates, .memory_limit = 1000}),
                      ContainsSubstring("test_memory_limit.cpp:") &&
                          ContainsSubstring("program: requires a memory_limit that can be kept, got 1000 bytes: the "
                                            "least found is ") &&
                          ContainsSubstring(" bytes, in step "));
    const std::size_t least = least_limit(state, model, updates);
    Program train(state, {.outputs = {model.loss}, .updates = updates, .memory_limit = least});
    CHECK(train.memory().arena_bytes == least);
  }
  SECTION("sizes from the feeds: in the run, which changes nothing; smaller batches run") {
    const Model model = build({.layers = 3});
    State state(model.graph);
    const Updates updates = optim::Adam{}.minimize(model.loss);
    const std::size_t limit = 100'000;
    Program train(state, {.outputs = {model.loss}, .updates = updates, .memory_limit = limit});
    const auto feed = [&](std::int64_t n) {
      return train.run({{model.feeds[0].first, random({n, 20}, float64, 1)}, {model.feeds[1].first, labels_of(n, 10)}});
    };
    feed(16);
    CHECK(train.memory().arena_bytes <= limit);
    std::vector<Array> before;
    for (const std::string& name : variables_of(model.graph)) before.push_back(state.get(name));
    CHECK_THROWS_WITH(feed(100'000), ContainsSubstring("got 100000 bytes: the least found for batch=100000 is "));
    std::size_t i = 0;
    for (const std::string& name : variables_of(model.graph)) CHECK(state.get(name).identical(before[i++]));
    CHECK(state.step() == 1);
    feed(17);
    CHECK(state.step() == 2);
  }
}

TEST_CASE("a program without a backward pass keeps its memory, or says that it cannot do with less") {
  Graph graph;
  const auto x = graph.input("x", {100, 100});
  const auto y = matmul(x, x);
  State state(graph);
  Program once(state, {.outputs = {sum(matmul(y, transpose(y)))}, .memory_limit = 1'000'000});
  CHECK(once.memory().arena_bytes <= 1'000'000);
  CHECK_THROWS_AS(Program(state, {.outputs = {sum(matmul(y, transpose(y)))}, .memory_limit = 1000}), Error);
}

TEST_CASE("a program whose only symbol is an extent") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n, 2});
  const auto w = graph.parameter("w", Array::full(float64, {4, 4}, 3));
  State state(graph);
  for (const std::size_t limit : {std::size_t{0}, std::size_t{100'000}}) {
    Program program(state, {.outputs = {sum(square(w)) / n}, .memory_limit = limit});
    CHECK_THAT(program.explain(), !ContainsSubstring("plan for"));
    CHECK(program.run({{x, Array(zeros({8, 2}))}}).scalar() == 18);
    CHECK(program.run({{x, Array(zeros({9, 2}))}}).scalar() == 16);
    CHECK_THAT(program.explain(), ContainsSubstring("plan for n=8"));
  }
}

TEST_CASE("results that are reshaped leaves, within a memory limit") {
  Model model = chain(12, 32, 32, float64);
  const auto apart = model.graph.variable("apart", Array({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}}));
  const auto fixed = model.graph.constant(Array({7.0, 8.0}));
  const auto w = model.graph.find("w");
  model.more_outputs = {reshape(apart, {6}),
                        reshape(w, {1024}),
                        reshape(model.graph.find("x"), {16, 64}),
                        reshape(fixed, {2, 1}),
                        apart,
                        reshape(reshape(apart, {3, 2}), {1, 6}),
                        w,
                        model.graph.find("y"),
                        fixed};
  for (std::int64_t i = 1; i <= 1024; i *= 2) model.more_outputs.push_back(reshape(w, {1, i, 1024 / i, 1}));
  State from(model.graph);
  const Updates updates = optim::GradientDescent{}.minimize(model.loss);
  const Runs free = run(model, from, updates, 0, true);
  const std::size_t limit = free.memory.arena_bytes * 7 / 10;
  const Runs limited = run(model, from, updates, limit, true);
  CHECK(limited.memory.arena_bytes <= limit);
  CHECK_THAT(limited.explained, ContainsSubstring("after recompute"));
  require_same(limited, free);
  CHECK(limited.outputs[1].identical(Array({1.0, 2.0, 3.0, 4.0, 5.0, 6.0})));
}

TEST_CASE("second derivatives within a memory limit") {
  // The gradient's norm as a penalty: the backward pass has a backward pass.
  const Model model = chain(12, 40, 12, float64);
  Values weights = model.graph.parameters();
  Value penalty = model.loss;
  for (const Value d : gradients(model.loss, weights)) penalty = penalty + sum(square(d)) * 0.1;
  const Updates updates = optim::GradientDescent{}.minimize(penalty);
  State state(model.graph);
  const Runs free = run(model, state, updates, 0);
  const Runs limited = run(model, state, updates, free.memory.arena_bytes * 4 / 5);
  CHECK(limited.memory.arena_bytes <= free.memory.arena_bytes * 4 / 5);
  require_same(limited, free);
}

TEST_CASE("random programs within a memory limit") {
  int lowered = 0;
  for (std::uint32_t seed = 0; seed < 150; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random_bits(seed);
    const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_bits); };
    Graph graph({.seed = seed});
    const std::int64_t n = 24;
    const auto x = graph.input("x", {n, n});
    Values weights;
    for (int i = 0; i < 4; ++i)
      weights.push_back(graph.parameter(std::string(1, static_cast<char>('a' + i)), uniform({n, n}, -0.5, 0.5)));
    const auto ones_like = graph.constant(Array::full(float64, {n, n}, 1));
    Values pool = {x};
    const auto any = [&] { return pool[pool.size() - 1 - std::min(below(pool.size()), below(4))]; };
    const std::size_t nodes = 5 + below(30);
    for (std::size_t i = 0; i < nodes; ++i) {
      const Value p = any();
      const Value w = weights[below(weights.size())];
      switch (below(12)) {
        case 0: pool.push_back(p + any()); break;
        case 1: pool.push_back(tanh(p) * any()); break;
        case 2: pool.push_back(tanh(matmul(p, w))); break;
        case 3: pool.push_back(transpose(p)); break;
        case 4: pool.push_back(dropout(p, {.keep = 0.7})); break;
        case 5: pool.push_back(p - mean(p, 0)); break;
        case 6: pool.push_back(reshape(sin(reshape(p, {n * n})), {n, n})); break;
        case 7: pool.push_back(slice(p, 0, {.step = -1}) + w); break;
        case 8: pool.push_back(matmul(dropout(transpose(p), {.keep = 0.9}), w)); break;
        case 9:  // random numbers that a group reads in another shape and dtype
          pool.push_back(p * apply(*find_op("random_uniform"), {graph.step()},
                                   {{"shape", Shape{n}},
                                    {"dtype", float64},
                                    {"low", 0.5},
                                    {"high", 1.0},
                                    {"seed", 1},
                                    {"stream", 1000 + i}}));
          break;
        case 10: pool.push_back(p * cast(dropout(cast(ones_like, float32), {.keep = 0.8}), float64)); break;
        default: pool.push_back(sigmoid(matmul(p, w)) + sum(any(), {1}, true)); break;
      }
    }
    const Value loss = mean(square(matmul(pool.back(), weights[0]))) + mean(pool[pool.size() / 2]);
    const Model model{graph, {{x, random({n, n}, float64, seed)}}, loss, {any(), matmul(any(), x)}};
    const Updates updates = seed % 2 == 0 ? optim::GradientDescent{.learning_rate = 0.01}.minimize(loss)
                                          : optim::Momentum{.learning_rate = 0.01}.minimize(loss);
    State state(graph);
    const bool more = seed % 3 == 0;
    const Runs free = run(model, state, updates, 0, more);
    for (const double share : {0.9, 0.75, 0.6}) {
      const auto limit = static_cast<std::size_t>(share * static_cast<double>(free.memory.arena_bytes));
      try {
        const Runs limited = run(model, state, updates, limit, more);
        REQUIRE(limited.memory.arena_bytes <= limit);
        require_same(limited, free);
        ++lowered;
      } catch (const Error&) {
        // Not every graph can do with less.
      }
    }
  }
  CHECK(lowered > 75);
}

// Not run by default: ./build/release/tests/test_memory_limit "[.table]"
TEST_CASE("memory and time of a chain of 1000 layers", "[.table]") {
  using Clock = std::chrono::steady_clock;
  const Model model = chain(1000, 64, 64);
  State state(model.graph);
  const Updates updates = optim::GradientDescent{}.minimize(model.loss);
  const std::vector<Feed> feeds = feeds_of(model);
  Program free(state, {.outputs = {model.loss}, .updates = updates});
  free.run(feeds);
  const auto time = [&](Program& program) {
    const auto start = Clock::now();
    program.run(feeds);
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  std::printf("1000 layers 64 x 64, batch 64, float32\n%10s %10s %10s %10s %10s\n", "limit KB", "arena KB", "steps",
              "ms", "time");
  for (const double share : {1.0, 0.75, 0.5, 0.25, 0.125, 0.0667, 0.05}) {
    const auto limit = static_cast<std::size_t>(share * static_cast<double>(free.memory().arena_bytes));
    Program program(state, {.outputs = {model.loss}, .updates = updates, .memory_limit = limit});
    program.run(feeds);
    double least = std::numeric_limits<double>::max();
    double least_free = least;
    for (int round = 0; round < 15; ++round) {  // in turn, since the machine's speed changes
      least_free = std::min(least_free, time(free));
      least = std::min(least, time(program));
    }
    std::printf("%10zu %10zu %10zu %10.2f %9.2fx\n", limit / 1024, program.memory().arena_bytes / 1024,
                program.memory().steps, least, least / least_free);
  }
}
