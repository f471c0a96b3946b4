// What random_uniform, random_normal and random_integers draw: distributions, and which runs draw anew.
#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "catch.hpp"
#include "support.hpp"

using namespace chainrule;
using chainrule::test::error_of;

namespace {

constexpr std::int64_t many = 200'000;

double mean_of(const Array& x, int power) {
  double sum = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) sum += std::pow(x[i], power);
  return sum / static_cast<double>(x.size());
}

// The greatest distance of the share of numbers up to x from what a distribution says (Kolmogorov and Smirnov), times
// the root of their number: beyond 1.95 once in a thousand samples.
template <class F>
double distance_from(const Array& x, const F& distribution) {
  std::vector<double> sorted;
  for (std::int64_t i = 0; i < x.size(); ++i) sorted.push_back(x[i]);
  std::sort(sorted.begin(), sorted.end());
  const auto n = static_cast<double>(sorted.size());
  double out = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const double expected = distribution(sorted[i]);
    const auto below = static_cast<double>(i);
    out = std::max({out, std::abs(expected - below / n), std::abs(expected - (below + 1) / n)});
  }
  return out * std::sqrt(n);
}

double normal_distribution(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

Array drawn(Graph graph, Value x) { return test::compute(graph, {x})[0]; }

}  // namespace

TEMPLATE_TEST_CASE("random_normal is normally distributed", "", float, double) {
  Graph graph({.dtype = dtype_of<TestType>(), .seed = 5});
  const Array z = drawn(graph, random_normal(graph, {many}));
  CHECK(z.dtype() == dtype_of<TestType>());
  CHECK(distance_from(z, normal_distribution) < 1.95);
  // Four standard errors of each: sqrt(E[z^2k] - E[z^k]^2) / sqrt(n) with E[z^2] = 1, E[z^4] = 3, E[z^6] = 15,
  // E[z^8] = 105.
  const double root = std::sqrt(static_cast<double>(many));
  CHECK(std::abs(mean_of(z, 1)) < 4 / root);
  CHECK(std::abs(mean_of(z, 2) - 1) < 4 * std::sqrt(2.0) / root);
  CHECK(std::abs(mean_of(z, 3)) < 4 * std::sqrt(15.0) / root);
  CHECK(std::abs(mean_of(z, 4) - 3) < 4 * std::sqrt(96.0) / root);
  // Neighbours have nothing to do with each other.
  double product = 0;
  for (std::int64_t i = 0; i + 1 < many; ++i) product += z[i] * z[i + 1];
  CHECK(std::abs(product / many) < 4 / root);
}

TEST_CASE("random_normal is Box and Muller's formula of two uniform numbers, times the deviation, plus the mean") {
  Graph uniform_graph({.seed = 9});
  const auto uniforms =
      test::compute(uniform_graph, {random_uniform(uniform_graph, {1000}), random_uniform(uniform_graph, {1000})});
  Graph graph({.seed = 9});
  const Array z = drawn(graph, random_normal(graph, {1000}, 3, 0.5));
  for (std::int64_t i = 0; i < 1000; ++i) {
    const double expected =
        3 + 0.5 * std::sqrt(-2 * std::log1p(-uniforms[0][i])) * std::cos(2 * std::numbers::pi * uniforms[1][i]);
    CHECK(z[i] == Approx(expected).epsilon(1e-13).margin(1e-13));
  }
  CHECK(drawn(graph, random_normal(graph, {3}, 2, 0)).identical(Array({2, 2, 2})));
}

TEST_CASE("random_uniform is even between its bounds, random_integers on each number") {
  Graph graph({.seed = 2});
  const Array x = drawn(graph, random_uniform(graph, {many}, -3, 5));
  CHECK(distance_from(x, [](double at) { return (at + 3) / 8; }) < 1.95);

  const Array n = drawn(graph, random_integers(graph, {many}, -2, 4));
  CHECK(n.dtype() == int64);
  std::vector<double> counts(6);
  for (std::int64_t i = 0; i < many; ++i)
    counts.at(static_cast<std::size_t>(n.at<std::int64_t>(i) + 2)) += 1;  // out of range: throws
  double chi_square = 0;
  for (const double count : counts) chi_square += (count - many / 6.0) * (count - many / 6.0) / (many / 6.0);
  CHECK(chi_square < 20.5);  // of five degrees of freedom: once in a thousand

  // The greatest number of all is below the upper bound where float32 would round it up.
  Graph single({.dtype = float32, .seed = 2});
  const Array wide = drawn(single, random_integers(single, {many}, 0, std::int64_t{1} << 24));
  for (std::int64_t i = 0; i < many; ++i)
    if (wide[i] < 0 || wide[i] >= 0x1p24) FAIL("element " << i << " is " << wide[i]);
}

TEST_CASE("random_integers of a range far from 0 are exact") {
  Graph graph({.seed = 2});
  const std::int64_t low = (std::int64_t{1} << 62) + 1;
  const Array n = drawn(graph, random_integers(graph, {1000}, low, low + 2));
  std::int64_t first = 0;
  for (std::int64_t i = 0; i < n.size(); ++i) {
    const auto number = n.at<std::int64_t>(i);
    REQUIRE((number == low || number == low + 1));
    first += number == low ? 1 : 0;
  }
  CHECK((first > 400 && first < 600));
}

TEST_CASE("random numbers are new in each updating run, in training and in inference, and by use and seed") {
  Graph graph({.seed = 1});
  const auto w = graph.parameter("w", zeros({}));
  const auto z = random_normal(graph, {50});
  const auto other = random_normal(graph, {50});
  for (const Mode mode : {Mode::training, Mode::inference}) {
    State state(graph);
    Program look(state, {.outputs = {z, other}, .mode = mode});
    Program step(state, {.outputs = {z}, .updates = {{w, w + 1}}, .mode = mode});
    const Array before = look.run()[0];
    CHECK(look.run()[0].identical(before));  // no update, no new numbers
    CHECK(step.run()[0].identical(before));  // the numbers of step 0, for whoever asks
    const Array after = step.run()[0];
    CHECK_FALSE(after.identical(before));
    CHECK_FALSE(allclose(look.run()[0], look.run()[1]));
    state.set_step(1);
    CHECK(look.run()[0].identical(after));
  }
  Graph seeded({.seed = 2});
  CHECK_FALSE(drawn(seeded, random_normal(seeded, {50})).identical(drawn(graph, z)));
}

TEST_CASE("with a counter random numbers are new in each run that is fed another") {
  Graph graph({.seed = 1});
  const auto counter = graph.input("counter", {}, int64);
  const auto z = random_normal(graph, {20}, 0, 1, {.counter = counter});
  const auto n = random_integers(graph, {20}, 0, 1000, {.counter = counter});
  const auto fixed = random_uniform(graph, {20}, 0, 1, {.counter = graph.constant(7, int64)});
  const auto w = graph.parameter("w", zeros({}));
  State state(graph);
  Program program(state, {.outputs = {z, n, fixed}});
  Program step(state, {.outputs = {fixed}, .updates = {{w, w + 1}}});
  const auto run = [&](std::int64_t count) {
    const auto results = program.run({{counter, count}});
    return std::vector<Array>{results[0], results[1], results[2]};
  };
  const auto first = run(0);
  const auto second = run(1);
  for (const std::size_t i : {0, 1}) {
    CHECK_FALSE(second[i].identical(first[i]));
    CHECK(run(0)[i].identical(first[i]));
  }
  step.run();
  CHECK(step.run()[0].identical(first[2]));
}

TEST_CASE("random numbers of a named size: a smaller batch has the first ones") {
  Graph graph({.dtype = float32, .seed = 4});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 3});
  const auto z = x + random_normal(graph, x.shape());
  State state(graph);
  Program program(state, {.outputs = {z}});
  const Array large = program.run({{x, zeros({101, 3})}})[0];
  const Array small = program.run({{x, zeros({7, 3})}})[0];
  REQUIRE(small.size() == 21);
  for (std::int64_t i = 0; i < small.size(); ++i) CHECK(small[i] == large[i]);
}

TEST_CASE("random numbers have the same bits for every number of threads") {
  struct Threads {
    ~Threads() { set_num_threads(before); }
    int before = num_threads();
  } restore;
  Graph graph({.dtype = float32, .seed = 4});
  const auto x = graph.input("x", {300, 1000});
  const Values values{x + random_normal(graph, {300, 1000}), random_integers(graph, {300, 1000}, 0, 9)};
  std::vector<Array> one;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    const auto now = test::compute(graph, values, {{x, zeros({300, 1000})}});
    if (one.empty()) one = now;
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(now[i].identical(one[i]));
  }
}

TEST_CASE("a gradient passes by random numbers: the reparametrization") {
  Graph graph({.seed = 6});
  const auto mean = graph.parameter("mean", Array(0.3));
  const auto deviation = graph.parameter("deviation", Array(0.7));
  const auto z = random_normal(graph, {40});
  const auto loss = sum(square(mean + deviation * z));
  const auto gradients = chainrule::gradients(loss, {mean, deviation});
  const auto results = test::compute(graph, {z, gradients[0], gradients[1]});
  double by_mean = 0;
  double by_deviation = 0;
  for (std::int64_t i = 0; i < 40; ++i) {
    const double y = 0.3 + 0.7 * results[0][i];
    by_mean += 2 * y;
    by_deviation += 2 * y * results[0][i];
  }
  CHECK(results[1].item() == Approx(by_mean));
  CHECK(results[2].item() == Approx(by_deviation));
  const State state(graph);
  CHECK(check_gradients(loss, {mean, deviation}, state).passed());
}

TEST_CASE("random numbers refuse bounds, deviations and counters that are none, and leave the graph alone") {
  Graph graph;
  const auto size = graph.size();
  const auto refuses = [&](const char* text, const std::function<void()>& f) {
    const Error error = error_of(f);
    INFO(error.what());
    CHECK(error.location().line != 0);
    CHECK(std::string(error.what()).find("test_random.cpp") != std::string::npos);
    CHECK(std::string(error.what()).find(text) != std::string::npos);
    CHECK(graph.size() == size);
  };
  const double inf = std::numeric_limits<double>::infinity();
  refuses("random_uniform: requires finite low <= high, got 2 and 1", [&] { (void)random_uniform(graph, {2}, 2, 1); });
  refuses("requires finite low <= high, got 0 and inf", [&] { (void)random_uniform(graph, {2}, 0, inf); });
  refuses("requires finite low <= high, got nan and 1", [&] { (void)random_uniform(graph, {2}, std::nan(""), 1); });
  refuses("random_normal: requires a finite mean, got inf", [&] { (void)random_normal(graph, {2}, inf); });
  refuses("requires a finite deviation of 0 or more, got -1", [&] { (void)random_normal(graph, {2}, 0, -1); });
  refuses("random_normal: requires float32 or float64, got int64",
          [&] { (void)random_normal(graph, {2}, 0, 1, {.dtype = int64}); });
  refuses("requires from 1 to 2^24 numbers from low to high, got 3 and 3",
          [&] { (void)random_integers(graph, {2}, 3, 3); });
  refuses("requires from 1 to 2^24 numbers", [&] { (void)random_integers(graph, {2}, 0, (1 << 24) + 1); });
  refuses("requires from 1 to 2^24 numbers", [&] {
    (void)random_integers(graph, {2}, std::numeric_limits<std::int64_t>::min(),
                          std::numeric_limits<std::int64_t>::max());
  });
  refuses("random_integers: requires no dtype, got float32",
          [&] { (void)random_integers(graph, {2}, 0, 2, {.dtype = float32}); });

  const auto wrong = graph.input("wrong", {2}, int64);
  CHECK_THAT(error_of([&] { (void)random_normal(graph, {2}, 0, 1, {.counter = wrong}); }).what(),
             Catch::Matchers::ContainsSubstring("requires a counter that is an int64 scalar, got int64 {2}"));
  Graph other;
  const auto foreign = other.input("n", {}, int64);
  const auto before = graph.size();
  CHECK(error_of([&] { (void)random_normal(graph, {2}, 0, 1, {.counter = foreign}); }).location().line != 0);
  CHECK(graph.size() == before);
}
