// What a run allocates: nothing on sizes seen before, and no more than it may.
#include <cstdint>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "allocations.hpp"

using namespace chainrule;
using namespace chainrule::test;

namespace {

Array numbers(const Dims& shape, DType dtype, std::uint64_t seed) {
  return uniform(to_shape(shape), -1, 1).draw(dtype, seed, 0);
}

Array classes(std::int64_t n) { return integers({n}, 0, 10).draw(float64, 1, 0); }

}  // namespace

TEST_CASE("the counter counts") {
  CHECK(allocations_of([] {}) == 0);
  CHECK(allocations_of([] { const Array a(float64, {3}); }) > 0);
  CHECK(allocations_of([] { const std::vector<int> v(10); }) > 0);
}

TEMPLATE_TEST_CASE("a run on sizes seen before allocates nothing", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  Graph graph({.dtype = dtype, .seed = 2});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 20});
  const auto labels = graph.input("labels", {batch}, int64);
  auto h = x;
  Values weights;
  for (const std::size_t units : {64U, 48U, 300U}) {
    const auto layer = nn::dense(h, units);
    weights.push_back(layer.weight);
    h = dropout(relu(nn::batch_norm(layer)), {.keep = 0.8});
  }
  const auto logits = nn::dense(h, 10);
  const auto cross_entropy = softmax_cross_entropy(logits, labels);
  const auto loss = cross_entropy + l2_penalty(weights, 0.1, batch);
  const auto features = max(h, 0) + mean(h, 0) - min(h, 0);
  State state(graph);
  const auto rate = optim::exponential_decay({.initial = 1e-3});
  Program train(state, {.outputs = {loss, features, argmax(logits, 1)},
                        .updates = optim::Adam{.learning_rate = rate}.minimize(loss)});
  Program predict(state, {.outputs = {softmax(logits), argmax(logits, 1)}, .mode = Mode::inference});

  // Large enough for several tiles a row, and for threads where there are any.
  const Array large_x = numbers({600, 20}, dtype, 1);
  const Array small_x = numbers({7, 20}, dtype, 2);
  const Array large_labels = classes(600);
  const Array small_labels = classes(7);
  const auto step = [&](const Array& a, const Array& b) {
    train.run({{x, a}, {labels, b}});
    predict.run({{x, a}});
  };
  CHECK(allocations_of([&] { step(large_x, large_labels); }) > 0);
  CHECK(allocations_of([&] { step(large_x, large_labels); }) == 0);
  CHECK(allocations_of([&] { step(small_x, small_labels); }) > 0);
  CHECK(allocations_of([&] {
          for (int i = 0; i < 10; ++i) {
            step(large_x, large_labels);
            step(small_x, small_labels);
          }
        }) == 0);
  // Reading the results and telling the State where it is take none either.
  double sum = 0;
  CHECK(allocations_of([&] {
          state.set_epoch(3);
          const Results results = train.run({{x, small_x}, {labels, small_labels}});
          sum += results.scalar(loss) + results[features][5] + results.at(2)[0];
        }) == 0);
  CHECK(sum == sum);
  CHECK(state.step() == 24);
}

TEST_CASE("feeds by name, in another order, of inputs that are not needed") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto time = graph.dimension("time");
  const auto x = graph.input("an input of a long name that is no short string", {batch, time});
  const auto y = graph.input("y", {time, batch});
  const auto other = graph.input("another input of a rather long name", {time});
  State state(graph);
  Program program(state, {.outputs = {matmul(x, y), sum(x, 0)}});
  const Array a = numbers({4, 5}, float64, 1);
  const Array b = numbers({5, 4}, float64, 2);
  const Array c = numbers({5}, float64, 3);
  program.run({{x, a}, {y, b}});
  CHECK(allocations_of([&] { program.run({{x, a}, {y, b}}); }) == 0);
  CHECK(allocations_of([&] { program.run({{"an input of a long name that is no short string", a}, {"y", b}}); }) == 0);
  CHECK(allocations_of([&] { program.run({{y, b}, {x, a}}); }) == 0);
  CHECK(allocations_of([&] { program.run({{other, c}, {y, b}, {x, a}}); }) == 0);
  const std::vector<Feed> feeds = {{x, a}, {y, b}};
  CHECK(allocations_of([&] { program.run(feeds); }) == 0);
}

namespace {

// A learning rate and a count that each run is told.
struct Told {
  Graph graph;
  Value rate, count;
  State state;
  Program program;

  explicit Told(DType dtype) : Told(Graph({.dtype = dtype})) {}

 private:
  explicit Told(Graph g)
      : graph(g),
        rate(graph.input("rate", {})),
        count(graph.input("count", {}, int64)),
        state(graph),
        program(make()) {}
  Program make() {
    const auto w = graph.parameter("w", ones({5}));
    const auto loss = sum(square(w)) * cast(count, graph.dtype());
    return {state, {.outputs = {loss}, .updates = optim::Momentum{.learning_rate = rate}.minimize(loss)}};
  }
};

}  // namespace

TEMPLATE_TEST_CASE("numbers that are fed", "", float, double) {
  Told told(dtype_of<TestType>());
  const std::vector<Feed> feeds = {{told.rate, 0.125}, {told.count, 3}};
  told.program.run(feeds);
  CHECK(allocations_of([&] { told.program.run(feeds); }) == 0);
  // Made anew for each run, of whatever type.
  CHECK(allocations_of([&] {
          told.program.run({{told.rate, 0.25}, {told.count, 3}});
          told.program.run({{told.rate, 1}, {told.count, 2.0F}});
        }) == 0);
}

TEMPLATE_TEST_CASE("what else a run may be made of", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  Graph graph({.dtype = dtype});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 3, 40});
  const auto w = graph.parameter("w", uniform({3, 40, 40}));
  const auto v = graph.variable("v", uniform({3, 40}));
  const auto product = matmul(reshape(x, {batch, 3, 1, 40}), w);  // batches that broadcast
  const auto moved = concat({transpose(x, {2, 0, 1}), slice(transpose(x, {2, 0, 1}), 0, {.step = -2})}, 0);
  const auto chosen = where(x > 0.0, x, v);
  const auto loss = mean(square(product)) + mean(moved * 2.0) + sum(log_softmax(chosen, 1));
  const auto gradient = gradients(loss, {x, w});
  State state(graph);
  // Two variables change places, too, by way of a copy.
  const auto u = graph.variable("u", uniform({3, 40}));
  Program program(state, {.outputs = {loss, gradient[0], gradient[1], moved}, .updates = {{v, u}, {u, v}}});
  const Array large = numbers({30, 3, 40}, dtype, 1);
  const Array small = numbers({1, 3, 40}, dtype, 2);
  program.run({{x, large}});
  program.run({{x, small}});
  CHECK(allocations_of([&] {
          program.run({{x, large}});
          program.run({{x, small}});
          program.run({{x, large}});
        }) == 0);
}

TEST_CASE("sizes in turn and results fed back, on an arena of two") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n, 6});
  const auto w = graph.parameter("w", uniform({6, 6}));
  State state(graph);
  Program program(state, {.outputs = {tanh(matmul(x, w)) * n}, .updates = {{w, w * 0.5}}, .plan_memory = 0});
  const Array large = numbers({50, 6}, float64, 1);
  const Array small = numbers({3, 6}, float64, 2);
  // The plans of the last two sizes are kept, whatever they take; copies of what a run overwrites have their place.
  const auto turn = [&] {
    program.run({{x, large}});
    const Results results = program.run({{x, small}});
    program.run({{x, results[0]}});
    program.run({{x, results[0]}});
  };
  turn();
  turn();
  CHECK(allocations_of([&] {
          for (int i = 0; i < 10; ++i) turn();
        }) == 0);
}

TEST_CASE("10,000 sets of sizes take no more than they may") {
  Graph graph({.dtype = float32});
  const auto x = graph.input("x", {graph.dimension("a"), graph.dimension("b"), 4});
  const auto w = graph.parameter("w", uniform({4, 4}));
  const auto y = mean(tanh(matmul(tanh(matmul(x, w)), w)), {0, 1});
  State state(graph);
  const std::size_t limit = std::size_t{2} << 20;
  Program program(state, {.outputs = {y}, .plan_memory = limit});
  program.run({{x, Array(float32, {100, 100, 4})}});
  program.run({{x, Array(float32, {99, 100, 4})}});
  const std::size_t largest = 3 * program.memory().arena_bytes;  // an arena, and what is fed
  const std::size_t before = live_bytes;
  peak_bytes = live_bytes;
  for (std::int64_t a = 1; a <= 100; ++a)
    for (std::int64_t b = 1; b <= 100; ++b) program.run({{x, Array(float32, {a, b, 4})}});
  CHECK(peak_bytes - before < limit + largest);
  // And not far less: small plans are not thrown away.
  CHECK(live_bytes - before > limit / 8);
  const std::size_t kept = live_bytes;
  program.clear();
  CHECK(kept - live_bytes > limit / 8 + program.memory().arena_bytes);
  CHECK(live_bytes <= before);
}

TEST_CASE("threads for which there is no memory are done without") {
  const int before = num_threads();
  Graph graph;
  const auto w = graph.parameter("w", uniform({300, 700}));
  State state(graph);
  Program program(state, {.outputs = {sum(tanh(exp(w)))}});
  const double right = program.run().scalar();
  for (std::size_t k = 1; k <= 12; ++k) {
    set_num_threads(1);
    set_num_threads(4);
    fail_in = k;
    CHECK(program.run().scalar() == right);
    fail_in = 0;
  }
  set_num_threads(before);
}
