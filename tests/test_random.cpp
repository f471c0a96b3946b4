// What random_uniform, random_normal and random_integers draw: distributions, and which runs draw anew.
#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "files.hpp"
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

// ---- other distributions

namespace {

// The sum of (count - expected)^2 / expected.
double chi_square(const std::vector<double>& counts, const std::vector<double>& probabilities) {
  double n = 0;
  for (const double count : counts) n += count;
  double out = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = n * probabilities[i];
    out += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return out;
}

std::vector<double> counts_of(const Array& x, std::size_t classes) {
  std::vector<double> out(classes);
  for (std::int64_t i = 0; i < x.size(); ++i) out.at(static_cast<std::size_t>(x[i])) += 1;  // out of range: throws
  return out;
}

}  // namespace

TEST_CASE("random_bernoulli is 1 with its probability, a number or one for each element") {
  Graph graph({.dtype = float32, .seed = 3});
  const double root = std::sqrt(static_cast<double>(many));
  for (const double p : {0.03, 0.5, 0.8}) {
    const Array x = drawn(graph, random_bernoulli(graph, {many}, p));
    CHECK(x.dtype() == float32);
    const auto counts = counts_of(x, 2);
    CHECK(std::abs(counts[1] / many - p) < 4 * std::sqrt(p * (1 - p)) / root);
  }
  CHECK(drawn(graph, random_bernoulli(graph, {5}, 0, {.dtype = int64})).identical(Array::full(int64, {5}, 0)));
  CHECK(drawn(graph, random_bernoulli(graph, {3}, 1)).identical(Array::full(float32, {3}, 1)));
  CHECK(drawn(graph, random_bernoulli(graph, {3}, 1, {.dtype = boolean})).dtype() == boolean);

  const double nan = std::nan("");
  const auto odds = graph.constant(Array({0.0, 1.0, -3.0, 7.0, nan, 0.25}).astype(float32));
  const Array rows = drawn(graph, random_bernoulli(broadcast_to(odds, {20'000, 6})));
  CHECK(rows.dtype() == float32);
  std::vector<double> sums(6);
  for (std::int64_t i = 0; i < rows.size(); ++i) sums[static_cast<std::size_t>(i % 6)] += rows[i];
  CHECK(sums[0] == 0);
  CHECK(sums[1] == 20'000);
  CHECK(sums[2] == 0);
  CHECK(sums[3] == 20'000);
  CHECK(sums[4] == 0);
  CHECK(std::abs(sums[5] / 20'000 - 0.25) < 4 * std::sqrt(0.25 * 0.75 / 20'000));
  // No probability is lost to 24 bits: of 2^-30 there are none among these, and there is no slope.
  CHECK(counts_of(drawn(graph, random_bernoulli(graph, {many}, 0x1p-30)), 2)[1] < 2);
  const auto p = graph.parameter("p", uniform({4}, 0, 1));
  CHECK_THAT(error_of([&] { (void)gradients(sum(random_bernoulli(p)), {p}); }).what(),
             Catch::Matchers::ContainsSubstring("has no derivative"));
}

TEMPLATE_TEST_CASE("random_gumbel has the distribution exp(-exp(-x))", "", float, double) {
  Graph graph({.dtype = dtype_of<TestType>(), .seed = 5});
  const Array x = drawn(graph, random_gumbel(graph, {many}));
  CHECK(x.dtype() == dtype_of<TestType>());
  CHECK(distance_from(x, [](double at) { return std::exp(-std::exp(-at)); }) < 1.95);
  // The mean is Euler's constant, the variance pi^2 / 6, of which the fourth moment makes the standard error:
  // E[(x - m)^4] = (27 / 5) variance^2.
  const double root = std::sqrt(static_cast<double>(many));
  const double variance = std::numbers::pi * std::numbers::pi / 6;
  const double mean = mean_of(x, 1);
  CHECK(std::abs(mean - std::numbers::egamma) < 4 * std::sqrt(variance) / root);
  CHECK(std::abs(mean_of(x, 2) - mean * mean - variance) < 4 * variance * std::sqrt(4.4) / root);
}

TEMPLATE_TEST_CASE("random_categorical draws classes by softmax(logits), wherever the logits lie", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  constexpr double inf = std::numeric_limits<double>::infinity();
  constexpr std::int64_t rows = 100'000;
  const std::vector<double> logits = {0.5, -1, 2, -inf, 0.5, -6};
  std::vector<double> probabilities;
  double total = 0;
  for (const double z : logits) total += std::exp(z);
  for (const double z : logits) probabilities.push_back(std::exp(z) / total);
  for (const double shift : {0.0, 1e4, -1e4}) {
    Graph graph({.dtype = dtype, .seed = 7});
    std::vector<double> shifted;
    for (const double z : logits) shifted.push_back(std::round((z + shift) * 2) / 2);  // exact in float32
    const auto z = graph.constant(Array(shifted).astype(dtype));
    const Array drawn_classes = drawn(graph, random_categorical(broadcast_to(z, {rows, 6})));
    CHECK(drawn_classes.dtype() == int64);
    CHECK(drawn_classes.shape() == Dims{rows});
    auto counts = counts_of(drawn_classes, 6);
    CHECK(counts[3] == 0);
    auto expected = probabilities;
    counts.erase(counts.begin() + 3);
    expected.erase(expected.begin() + 3);
    CHECK(chi_square(counts, expected) < 18.5);  // of four degrees of freedom: once in a thousand
  }
  Graph graph({.dtype = dtype, .seed = 7});
  const auto z = graph.constant(Array({{-inf, -inf}, {-inf, 3.0}}).astype(dtype));
  CHECK(drawn(graph, random_categorical(z)).identical(Array(std::vector<std::int64_t>{0, 1})));
  CHECK(drawn(graph, random_categorical(graph.constant(Array({2.0})))).item<std::int64_t>() == 0);
}

TEST_CASE("random_truncated_normal is the normal distribution between its bounds, in the tails as well") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<double, double>> bounds = {{-2, 2},  {-inf, inf}, {-inf, -1}, {0.5, 0.6}, {3, inf},
                                                         {-9, -7}, {10, 11},    {-8, 9},    {30, inf}};
  for (const auto& [low, high] : bounds) {
    INFO(low << " to " << high);
    Graph graph({.seed = 11});
    const Array z = drawn(graph, random_truncated_normal(graph, {50'000}, 0, 1, low, high));
    for (std::int64_t i = 0; i < z.size(); ++i)
      if (!(z[i] >= low && z[i] <= high)) FAIL(z[i]);
    // By the upper tail on the right side, the lower on the left: without cancellation.
    const bool right = low > 0;
    const double from = right ? normal_distribution(-low) : normal_distribution(low);
    const double to = right ? normal_distribution(-high) : normal_distribution(high);
    CHECK(distance_from(z, [&](double at) { return (normal_distribution(right ? -at : at) - from) / (to - from); }) <
          1.95);
  }
  Graph graph({.dtype = float32, .seed = 11});
  const Array x = drawn(graph, random_truncated_normal(graph, {1000}, 5, 0.5, -1, 1));
  CHECK(x.dtype() == float32);
  for (std::int64_t i = 0; i < x.size(); ++i) CHECK((x[i] >= 4.5 && x[i] <= 5.5));
}

TEST_CASE("random_permutation gives every order of 4 as often, and each number of many once") {
  Graph graph({.seed = 1});
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n});
  const auto counter = graph.input("counter", {}, int64);
  const auto order = random_permutation(graph, n, {.counter = counter});
  State state(graph);
  Program program(state, {.outputs = {order, take(x, order, 0)}});
  std::vector<double> counts(256);
  constexpr int runs = 24'000;
  for (int run = 0; run < runs; ++run) {
    const Array p = program.run({{x, Array({0.0, 1.0, 2.0, 3.0})}, {counter, run}})[0];
    counts.at(static_cast<std::size_t>(p[0] + 4 * p[1] + 16 * p[2] + 64 * p[3])) += 1;
  }
  std::erase(counts, 0.0);
  REQUIRE(counts.size() == 24);
  CHECK(chi_square(counts, std::vector<double>(24, 1 / 24.0)) < 49.7);  // 23 degrees of freedom: once in a thousand
  std::vector<double> numbers;
  for (int i = 0; i < 10'000; ++i) numbers.push_back(i);
  const auto many_of = program.run({{x, numbers}, {counter, 1}});
  CHECK(many_of[0].dtype() == int64);
  std::vector<double> sorted;
  for (std::int64_t i = 0; i < 10'000; ++i) sorted.push_back(many_of[1][i]);
  std::int64_t in_place = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) in_place += sorted[i] == numbers[i] ? 1 : 0;
  CHECK(in_place < 12);  // Poisson's distribution of mean 1
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == numbers);
  CHECK(drawn(graph, random_permutation(graph, 0)).shape() == Dims{0});
  CHECK(drawn(graph, random_permutation(graph, 1)).identical(Array::full(int64, {1}, 0)));
}

// ---- which runs draw anew

namespace {

std::vector<Value> one_of_each(Graph graph) {
  const auto logits = random_uniform(graph, {50, 9});
  return {random_normal(graph, {50}),        random_bernoulli(graph, {50}, 0.5), random_gumbel(graph, {50}),
          random_categorical(logits),        random_permutation(graph, 50),      random_truncated_normal(graph, {50}),
          random_integers(graph, {50}, 0, 9)};
}

}  // namespace

TEST_CASE("with Draws::each_run random numbers are new in each run, by the State's count") {
  Graph graph({.seed = 1});
  const auto w = graph.parameter("w", zeros({}));
  const auto counter = graph.input("counter", {}, int64);
  const auto fed = random_normal(graph, {9}, 0, 1, {.counter = counter});
  Values values = one_of_each(graph);
  const auto step = graph.step();
  values.push_back(fed);
  values.push_back(step);
  State state(graph);
  Program plain(state, {.outputs = values});
  Program sample(state, {.outputs = values, .draws = Draws::each_run});
  Program other(state, {.outputs = values, .draws = Draws::each_run, .optimize = false});
  Program update(state, {.outputs = values, .updates = {{w, w + 1}}, .draws = Draws::each_run, .check_finite = true});
  const auto run = [&](Program& program) {
    const auto results = program.run({{counter, 5}});
    std::vector<Array> out;
    for (std::size_t i = 0; i < values.size(); ++i) out.push_back(results[i]);
    return out;
  };
  const auto as_before = run(plain);
  std::vector<std::vector<Array>> all{as_before};
  for (Program* program : {&sample, &sample, &other, &update, &sample}) all.push_back(run(*program));
  CHECK(state.draws() == 5);
  CHECK(state.step() == 1);
  for (std::size_t a = 0; a < all.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b)
      for (std::size_t i = 0; i < 7; ++i) CHECK_FALSE(all[a][i].identical(all[b][i]));
    CHECK(all[a][7].identical(as_before[7]));  // by the counter that it is fed
    CHECK(all[a][8].item<std::int64_t>() == (a < 5 ? 0 : 1));
  }
  // The same again from the same counts, whichever program draws; in a copy, and after a checkpoint.
  state.reset();
  CHECK(state.draws() == 0);
  for (std::size_t i = 0; i < 7; ++i) CHECK(run(plain)[i].identical(as_before[i]));
  state.set_draws(2);
  const auto third = run(sample);
  for (std::size_t i = 0; i < 7; ++i) CHECK(third[i].identical(all[3][i]));
  CHECK(state.draws() == 3);
  const test::TemporaryFolder folder;
  state.save(folder / "x.safetensors");
  State loaded(graph);
  loaded.set_draws(99);
  loaded.load(folder / "x.safetensors");
  CHECK(loaded.draws() == 3);
  State copy = state;
  Program of_loaded(loaded, {.outputs = values, .draws = Draws::each_run});
  Program of_copy(copy, {.outputs = values, .draws = Draws::each_run});
  const auto next = run(sample);
  for (std::size_t i = 0; i < 7; ++i) {
    CHECK(run(of_loaded)[i].identical(next[i]));
    CHECK(run(of_copy)[i].identical(next[i]));
    loaded.set_draws(3);
    copy.set_draws(3);
  }
  // A run that throws takes no number.
  const std::int64_t before = state.draws();
  CHECK_THAT(error_of([&] { sample.run(); }).what(), Catch::Matchers::ContainsSubstring("requires a feed"));
  CHECK(state.draws() == before);
  CHECK(sample.explain().find("draw = input  int64 {}") != std::string::npos);
}

TEST_CASE("Draws::each_run has the same bits for every number of threads, and with a memory limit") {
  struct Threads {
    ~Threads() { set_num_threads(before); }
    int before = num_threads();
  } restore;
  Graph graph({.dtype = float32, .seed = 4});
  const auto x = graph.input("x", {300, 1000});
  const auto noisy = x + random_gumbel(graph, {300, 1000}) * random_bernoulli(graph, {300, 1000}, 0.5);
  const auto w = graph.parameter("w", ones({1000}));
  const auto loss = sum(square(tanh(dropout(noisy * w, {.keep = 0.7}))));
  const auto g = gradients(loss, {w})[0];
  std::vector<Array> one;
  for (const int threads : {1, 2, 3})
    for (const std::size_t limit : {std::size_t{0}, std::size_t{3'000'000}}) {
      set_num_threads(threads);
      State state(graph);
      state.set_draws(7);
      Program program(state, {.outputs = {noisy, g}, .memory_limit = limit, .draws = Draws::each_run});
      const auto results = program.run({{x, zeros({300, 1000}).draw(float32, 0, 0)}});
      if (one.empty()) one = {results[0], results[1]};
      CHECK(results[0].identical(one[0]));
      CHECK(results[1].identical(one[1]));
    }
}

TEST_CASE("Monte Carlo dropout: noise in inference, anew in each run, beside running statistics") {
  Graph graph({.seed = 2});
  const auto x = graph.input("x", {40, 3});
  const auto normal = nn::batch_norm(x);
  const auto dropped = dropout(normal, {.keep = 0.5});
  const auto leaky = rrelu(x);
  State state(graph);
  Program steady(state, {.outputs = {dropped, leaky, normal}, .mode = Mode::inference});
  Program noisy(state, {.outputs = {dropped, leaky, normal},
                        .mode = Mode::inference,
                        .draws = Draws::each_run,
                        .noise_in_inference = true});
  const Array numbers = uniform({40, 3}, -1, 1).draw(float64, 3, 3);
  const auto expected = steady.run({{x, numbers}});
  Array last;
  for (int run = 0; run < 3; ++run) {
    const auto results = noisy.run({{x, numbers}});
    CHECK(results[2].identical(expected[2]));
    CHECK_FALSE(results[0].identical(last));
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < 120; ++i) {
      CHECK((results[0][i] == 0 || results[0][i] == 2 * expected[0][i]));
      kept += results[0][i] != 0 ? 1 : 0;
      if (numbers[i] < 0) CHECK((results[1][i] / numbers[i] >= 1.0 / 8 && results[1][i] / numbers[i] <= 1.0 / 3));
    }
    CHECK((kept > 35 && kept < 85));
    CHECK_FALSE(results[1].identical(expected[1]));
    last = results[0];
  }
  CHECK(steady.run({{x, numbers}})[0].identical(expected[2]));
  // Its gradient is that of the noise of the same run.
  const auto of = graph.parameter("of", ones({40, 3}));
  const auto y = dropout(of, {.keep = 0.5});
  Program slope(state, {.outputs = {y, gradients(sum(y), {of})[0]},
                        .mode = Mode::inference,
                        .draws = Draws::each_run,
                        .noise_in_inference = true});
  const auto both = slope.run();
  CHECK(both[0].identical(both[1]));
}

TEST_CASE("programs side by side on one State draw different numbers, as many as they run") {
  Graph graph({.seed = 2});
  const auto z = random_normal(graph, {16});
  State state(graph);
  constexpr int threads = 4;
  constexpr int runs = 200;
  std::vector<std::vector<double>> first(threads);
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      Program program(state, {.outputs = {z}, .draws = Draws::each_run});
      for (int run = 0; run < runs; ++run) first[static_cast<std::size_t>(t)].push_back(program.run()[0][0]);
    });
  for (std::thread& thread : all) thread.join();
  CHECK(state.draws() == threads * runs);
  std::set<double> different;
  for (const auto& of_thread : first) different.insert(of_thread.begin(), of_thread.end());
  CHECK(different.size() == threads * runs);
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

  refuses("random_bernoulli: requires a probability from 0 to 1, got 1.5",
          [&] { (void)random_bernoulli(graph, {2}, 1.5); });
  refuses("random_bernoulli: requires a probability from 0 to 1, got nan",
          [&] { (void)random_bernoulli(graph, {2}, std::nan("")); });
  refuses("random_gumbel: requires float32 or float64, got bool",
          [&] { (void)random_gumbel(graph, {2}, {.dtype = boolean}); });
  refuses("random_truncated_normal: requires low < high, got 2 and 2",
          [&] { (void)random_truncated_normal(graph, {2}, 0, 1, 2, 2); });
  refuses("random_truncated_normal: requires bounds with a probability between them, got 39 and 40",
          [&] { (void)random_truncated_normal(graph, {2}, 0, 1, 39, 40); });
  refuses("random_truncated_normal: requires a finite deviation of 0 or more, got -1",
          [&] { (void)random_truncated_normal(graph, {2}, 0, -1); });
  refuses("random_permutation: requires a number of 0 or more, got -1",
          [&] { (void)random_permutation(graph, Dimension(-1)); });
  refuses("random_permutation: requires no dtype, got float32",
          [&] { (void)random_permutation(graph, 3, {.dtype = float32}); });

  const auto wrong = graph.input("wrong", {2}, int64);
  CHECK_THAT(error_of([&] { (void)random_categorical(wrong); }).what(),
             Catch::Matchers::ContainsSubstring("random_categorical: requires float32 or float64, got int64"));
  CHECK_THAT(error_of([&] {
               (void)random_categorical(graph.input("none", {2, 0}));
             }).what(),
             Catch::Matchers::ContainsSubstring("requires logits with classes along their last axis, got {2, 0}"));
  CHECK_THAT(error_of([&] { (void)random_bernoulli(Value{}); }).what(),
             Catch::Matchers::ContainsSubstring("got an empty Value"));
  CHECK_THAT(error_of([&] { (void)random_normal(graph, {2}, 0, 1, {.counter = wrong}); }).what(),
             Catch::Matchers::ContainsSubstring("requires a counter that is an int64 scalar, got int64 {2}"));
  Graph other;
  const auto foreign = other.input("n", {}, int64);
  const auto before = graph.size();
  CHECK(error_of([&] { (void)random_normal(graph, {2}, 0, 1, {.counter = foreign}); }).location().line != 0);
  CHECK(graph.size() == before);
}
