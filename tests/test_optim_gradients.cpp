// Gradients on their way to an optimizer: clipped, accumulated, guarded; and averages of parameters.
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;
using chainrule::test::error_of;

namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

std::vector<double> numbers(const Array& x) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < x.size(); ++i) out.push_back(x[i]);
  return out;
}

Array array(const std::vector<double>& numbers, const Dims& shape) { return Array::from(numbers.data(), shape); }

void check_near(const Array& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == static_cast<std::int64_t>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO("element " << i << " is " << got[static_cast<std::int64_t>(i)] << ", expected " << expected[i]);
    const double x = got[static_cast<std::int64_t>(i)];
    CHECK((std::isnan(expected[i]) ? std::isnan(x) : x == Approx(expected[i]).epsilon(1e-6)));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("gradients are clipped by value, norm and global norm", "", float, double) {
  Graph graph({.dtype = dtype_of<TestType>()});
  const Value a = graph.input("a", {2});
  const Value b = graph.input("b", {1, 2});
  const auto clipped = [&](const Values& out, const Array& x, const Array& y) {
    return compute(graph, out, {{a, x.astype(graph.dtype())}, {b, y.astype(graph.dtype())}});
  };
  const Array x({3.0, -4.0});
  const Array y = array({12, 0}, {1, 2});
  SECTION("value") {
    const auto out = clipped(optim::clip_by_value({a, b}, 3.5), x, y);
    check_near(out[0], {3, -3.5});
    check_near(out[1], {3.5, 0});
    check_near(clipped(optim::clip_by_value({a, b}, 1), Array({not_a_number, infinite}), y)[0], {not_a_number, 1});
  }
  SECTION("norm") {
    // 5 and 12: the first is within 6.
    const auto out = clipped(optim::clip_by_norm({a, b}, 6), x, y);
    check_near(out[0], {3, -4});
    check_near(out[1], {6, 0});
    check_near(clipped(optim::clip_by_norm({a, b}, 6), Array({0.0, 0.0}), y)[0], {0, 0});
    // Squares that float32 does not have.
    check_near(clipped(optim::clip_by_norm({a, b}, 5), Array({3e30, -4e30}), y)[0], {3, -4});
    check_near(clipped(optim::clip_by_norm({a, b}, 5), Array({3e-30, -4e-30}), y)[0], {3e-30, -4e-30});
  }
  SECTION("global norm") {
    CHECK(clipped({optim::global_norm({a, b})}, x, y)[0].item() == Approx(13));
    const auto out = clipped(optim::clip_by_global_norm({a, b}, 6.5), x, y);
    check_near(out[0], {1.5, -2});
    check_near(out[1], {6, 0});
    const auto whole = clipped(optim::clip_by_global_norm({a, b}, 14), x, y);
    CHECK(numbers(whole[0]) == std::vector<double>{3, -4});
    check_near(clipped(optim::clip_by_global_norm({a, b}, 1), Array({not_a_number, 1.0}), y)[1],
               {not_a_number, not_a_number});
    check_near(clipped(optim::clip_by_global_norm({a, b}, 1), Array({infinite, 1.0}), y)[0], {not_a_number, 0});
  }
}

TEST_CASE("noise of gradients is normal, new in each step and of the deviation") {
  Graph graph;
  const Value w = graph.parameter("w", zeros({10000}));
  State state(graph);
  Program train(state, {.updates = {{w, optim::add_noise({0.0 * w + 1.0}, 0.5)[0]}}});
  train.run();
  const std::vector<double> first = numbers(state[w]);
  train.run();
  CHECK(first != numbers(state[w]));
  double mean = 0;
  double square = 0;
  for (const double x : first) {
    mean += x / 1e4;
    square += (x - 1) * (x - 1) / 1e4;
  }
  CHECK(mean == Approx(1).margin(4 * 0.5 / 100));
  CHECK(std::sqrt(square) == Approx(0.5).epsilon(0.03));
}

TEST_CASE("a step whose gradients are not finite changes nothing but the count of those") {
  Graph graph;
  const Value w = graph.parameter("w", Array({1.0, 2.0}));
  const Value b = graph.parameter("b", Array(3.0));
  const Value x = graph.input("x", {2});
  const Value loss = sum(w * x) + b;
  const Values parameters = {w, b};
  const Values g = gradients(loss, parameters);
  const auto guarded = optim::skip_unless_finite(optim::Adam{.learning_rate = 0.1}.apply(parameters, g), g);
  State state(graph);
  Program train(state, {.updates = guarded.updates});
  train.run({{x, Array({1.0, -1.0})}});
  CHECK(state[w][0] == Approx(0.9));
  Values kept;
  for (const Update& update : guarded.updates)
    if (update.variable.id() != guarded.skipped.id()) kept.push_back(update.variable);
  REQUIRE(kept.size() == 7);  // w, b, two moments of each and Adam's count
  std::vector<std::vector<double>> before;
  for (const Value v : kept) before.push_back(numbers(state[v]));
  for (const double wrong : {not_a_number, infinite, -infinite}) train.run({{x, Array({wrong, 1.0})}});
  CHECK(state[guarded.skipped].item() == 3);
  for (std::size_t i = 0; i < kept.size(); ++i) CHECK(numbers(state[kept[i]]) == before[i]);
  train.run({{x, Array({1.0, -1.0})}});
  CHECK(state[w][0] == Approx(0.8));
  CHECK(state[guarded.skipped].item() == 3);
}

TEST_CASE("gradients accumulated over batches make the step of one large batch") {
  const auto network = [](Graph& graph) {
    const Value x = graph.input("x", {graph.dimension("batch"), 3});
    const Value w = graph.parameter("w", array({0.5, -1, 2}, {3, 1}));
    return std::pair{x, mean(square(tanh(matmul(x, w))))};
  };
  const std::vector<double> data = {1, 2, 3, -1, 0.5, 2, 0.25, 1, -2, 4, -3, 1, 0, 1, 0, 2, 2, -1};
  const optim::Adam adam{.learning_rate = 0.1, .weight_decay = 0.01};

  Graph large;
  const auto [large_x, large_loss] = network(large);
  State large_state(large);
  Program once(large_state, {.updates = adam.minimize(large_loss)});

  Graph small;
  const auto [small_x, small_loss] = network(small);
  const Values parameters = small.parameters();
  State small_state(small);
  Program thrice(small_state,
                 {.updates = optim::accumulate(3, parameters, gradients(small_loss, parameters),
                                               [&](const Values& g) { return adam.apply(parameters, g); })});
  for (int step = 0; step < 4; ++step) {
    once.run({{large_x, array(data, {6, 3})}});
    for (int part = 0; part < 3; ++part) {
      const std::vector<double> before = numbers(small_state[parameters[0]]);
      thrice.run({{small_x, Array::from(data.data() + 6 * part, {2, 3})}});
      if (part < 2) CHECK(numbers(small_state[parameters[0]]) == before);
    }
    for (std::int64_t i = 0; i < 3; ++i)
      CHECK(small_state[parameters[0]][i] == Approx(large_state[large.parameters()[0]][i]).epsilon(1e-13));
  }
}

TEST_CASE("averages follow parameters") {
  Graph graph;
  const Value w = graph.parameter("w", Array(1.0));
  const Value g = graph.input("g", {});
  const Updates updates = optim::GradientDescent{.learning_rate = 1}.minimize(w * g);
  const auto run = [&](const optim::AverageOptions& options) {
    const auto followed = optim::averages(updates, {w}, options);
    Updates all = updates;
    all.insert(all.end(), followed.updates.begin(), followed.updates.end());
    State state(graph);
    Program train(state, {.updates = all});
    Program read(state, {.outputs = followed.values, .mode = Mode::inference});
    std::vector<double> seen = {read.run().scalar()};
    for (const double step : {1.0, 2.0, -4.0, 8.0}) {  // w is 0, -2, 2 and -6
      train.run({{g, Array(step)}});
      seen.push_back(read.run().scalar());
    }
    return seen;
  };
  CHECK(run({.decay = 0.5}) == std::vector<double>{1, 0, -1, 0.5, -2.75});
  CHECK(run({.equal = true}) == std::vector<double>{1, 0, -1, 0, -1.5});
  // The second and the fourth update count.
  CHECK(run({.equal = true, .begin = 1, .every = 2}) == std::vector<double>{1, 0, -2, -2, -4});
  CHECK(run({.decay = 1}) == std::vector<double>{1, 0, 0, 0, 0});
}

TEST_CASE("what is done to gradients refuses what is out of range, and leaves the graph alone") {
  Graph graph;
  const Value w = graph.parameter("w", zeros({2}));
  const Value g = graph.input("g", {2});
  const Value count = graph.input("count", {2}, int64);
  Graph other;
  const Value foreign = other.input("foreign", {2});
  const std::string before = graph.to_string();
  const auto refuse = [](const std::function<void()>& f, int line, const std::string& message) {
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
  };
  using namespace optim;
  const auto identity = [&](const Values& made) { return Updates{{w, made[0]}}; };
  refuse([&] { clip_by_value({}, 1); }, __LINE__, "clip_by_value: requires at least one gradient, got none");
  refuse([&] { clip_by_norm({g}, 0); }, __LINE__, "clip_by_norm: requires a finite bound above 0, got 0");
  const Values with_empty = {g, Value{}};
  refuse([&] { clip_by_global_norm(with_empty, 1); }, __LINE__,
         "clip_by_global_norm: requires values, got an empty Value");
  refuse([&] { clip_by_global_norm({g, foreign}, 1); }, __LINE__, "clip_by_global_norm: requires values of one graph");
  refuse([&] { global_norm({count}); }, __LINE__, "global_norm: requires float32 or float64, got ");
  refuse([&] { add_noise({g}, not_a_number); }, __LINE__, "add_noise: requires a finite deviation >= 0, got nan");
  refuse([&] { add_noise({g}, Value{}); }, __LINE__, "add_noise: requires values, got an empty Value");
  refuse([&] { skip_unless_finite({}, {g}); }, __LINE__, "skip_unless_finite: requires at least one update, got none");
  refuse([&] { accumulate(0, {w}, {g}, identity); }, __LINE__, "accumulate: requires at least one batch, got 0");
  refuse([&] { accumulate(2, {w}, {g}, {}); }, __LINE__, "accumulate: requires a function that makes updates");
  refuse([&] { averages({{w, g}}, {w}, {.decay = 2}); }, __LINE__, "averages: requires a decay of 0 to 1, got 2");
  refuse([&] { averages({{w, g}}, {w}, {.every = 0}); }, __LINE__, "averages: requires an every >= 1, got 0");
  refuse([&] { averages({{w, g}}, {g}); }, __LINE__, "averages: requires parameters that are updated, got ");
  CHECK(graph.to_string() == before);
}
