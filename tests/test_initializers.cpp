// How weights begin: distributions against their moments, exact matrices, and the same numbers on every machine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;
using chainrule::test::error_of;

namespace {

double phi(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

std::vector<double> numbers(const Array& array) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < array.size(); ++i) out.push_back(array[i]);
  return out;
}

// The n numbers have this deviation and the mean 0, as well as n of a distribution with such a kurtosis tell: within
// five standard errors, sigma / sqrt(n) of the mean and sigma^2 sqrt((kurtosis - 1) / n) of the variance.
void check_moments(const std::vector<double>& x, double deviation, double kurtosis) {
  const auto n = static_cast<double>(x.size());
  double sum = 0;
  double squares = 0;
  for (const double v : x) {
    sum += v;
    squares += v * v;
  }
  const double variance = deviation * deviation;
  CHECK(std::abs(sum / n) < 5 * deviation / std::sqrt(n));
  CHECK(std::abs(squares / n - variance) < 5 * variance * std::sqrt((kurtosis - 1) / n));
}

// The greatest distance between the numbers' distribution and F is at most 1.95 / sqrt(n): 0.999 of samples of F pass
// (Kolmogorov).
void check_distribution(std::vector<double> x, const std::function<double(double)>& f) {
  std::sort(x.begin(), x.end());
  const auto n = static_cast<double>(x.size());
  double most = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    most = std::max(
        {most, std::abs(f(x[i]) - static_cast<double>(i) / n), std::abs(f(x[i]) - static_cast<double>(i + 1) / n)});
  CHECK(most < 1.95 / std::sqrt(n));
}

Array drawn(const init::Initializer& initializer, const Shape& shape, double fan_in, double fan_out,
            DType dtype = float64) {
  return initializer(shape, fan_in, fan_out).draw(dtype, 5, 2);
}

}  // namespace

TEST_CASE("the deviations of initializers follow from the fans") {
  const Shape shape{200, 200};
  const auto check = [&](const init::Initializer& initializer, double deviation, bool uniform) {
    const std::vector<double> x = numbers(drawn(initializer, shape, 50, 30));
    check_moments(x, deviation, uniform ? 1.8 : 3);
    const double bound = std::sqrt(3.0) * deviation;  // a uniform distribution's
    if (uniform) {
      CHECK(std::all_of(x.begin(), x.end(), [&](double v) { return std::abs(v) <= bound; }));
      check_distribution(x, [&](double v) { return (v + bound) / (2 * bound); });
    } else {
      check_distribution(x, [&](double v) { return phi(v / deviation); });
    }
  };
  check(init::he_normal(), std::sqrt(2.0 / 50), false);
  check(init::he_uniform(), std::sqrt(2.0 / 50), true);
  check(init::xavier_normal(), std::sqrt(1.0 / 50), false);
  check(init::lecun_normal(), std::sqrt(1.0 / 50), false);
  check(init::lecun_uniform(), std::sqrt(1.0 / 50), true);
  check(init::glorot_normal(), std::sqrt(2.0 / 80), false);
  check(init::glorot_uniform(), std::sqrt(2.0 / 80), true);
  check(init::normal(0.3), 0.3, false);
  CHECK(drawn(init::lecun_normal(), shape, 50, 30).identical(drawn(init::xavier_normal(), shape, 50, 30)));
}

TEST_CASE("a truncated normal distribution ends at two deviations") {
  // Phi(2) - Phi(-2), the density at 2, and what is left of the variance: 1 - 2 2 density / mass.
  const double mass = 0.9544997361036416;
  const double density = 0.05399096651318806;
  const double variance = 1 - 4 * density / mass;
  // The fourth moment by parts: 3 variance - 2 2^3 density / mass.
  const double kurtosis = (3 * variance - 16 * density / mass) / (variance * variance);
  for (const double deviation : {1.0, 0.02}) {
    const std::vector<double> x = numbers(drawn(init::truncated_normal(deviation), {300, 100}, 1, 1));
    check_moments(x, deviation * std::sqrt(variance), kurtosis);
    const auto [least, most] = std::minmax_element(x.begin(), x.end());
    CHECK(*least > -2 * deviation);
    CHECK(*most < 2 * deviation);
    // It reaches there: among 30000 none beyond 1.99 has a probability of (1 - 0.00057)^30000, 4e-8.
    CHECK(*most > 1.99 * deviation);
    check_distribution(x, [&](double v) { return (phi(v / deviation) - phi(-2)) / mass; });
  }
  const std::vector<double> moved = numbers(truncated_normal({20000}, 3, 0.5).draw(float32, 1, 1));
  CHECK(std::all_of(moved.begin(), moved.end(), [](double v) { return v >= 2 && v <= 4; }));
  CHECK(truncated_normal({3}, 1.5, 0).draw(float64, 0, 0).identical(Array({1.5, 1.5, 1.5})));
  const Error error = error_of([] { truncated_normal({3}, 0, -1); });
  CHECK_THAT(error.what(), ContainsSubstring("truncated_normal: requires a deviation of 0 or more, got -1"));
}

// From a program of its own that follows the papers: Philox 4x32-10, Karney's algorithm N, and Gram and Schmidt's
// method in 50 decimal digits.
TEST_CASE("the same numbers on every machine") {
  const Array x = truncated_normal({4}).draw(float64, 7, 3);
  CHECK(x[0] == 0x1.aaf5713bb0cf1p+0);
  CHECK(x[1] == -0x1.de52edab78ab8p-2);
  CHECK(x[2] == 0x1.ec7cbd94ee590p-3);
  CHECK(x[3] == -0x1.0fd113f3e539ap+0);
  const Array q = orthogonal({2, 3}).draw(float64, 7, 3);
  const std::vector<double> expected = {0.9537956544522795,    -0.26713545794432486, 0.13752271323975396,
                                        -0.008890488006782545, -0.4826056715855744,  -0.8757926266967757};
  for (std::int64_t i = 0; i < 6; ++i) CHECK(q[i] == Approx(expected[static_cast<std::size_t>(i)]).epsilon(1e-14));
}

TEMPLATE_TEST_CASE("orthogonal matrices", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  // A row's rounding to the dtype moves a product of two by no more than about eps; in float64 the sums of n terms.
  const double tolerance = dtype == float32 ? 3e-7 : 1e-14;
  const auto check = [&](const Shape& shape, double gain) {
    INFO(to_string(shape));
    const Array q = orthogonal(shape, gain).draw(dtype, 11, 4);
    REQUIRE(to_shape(q.shape()) == shape);
    const std::int64_t rows = shape[0].extent();
    const std::int64_t columns = q.size() / rows;
    const bool wide = rows <= columns;
    const std::int64_t count = wide ? rows : columns;
    const std::int64_t n = wide ? columns : rows;
    const auto at = [&](std::int64_t vector, std::int64_t i) {
      return q[wide ? vector * columns + i : i * columns + vector];
    };
    double worst = 0;
    for (std::int64_t a = 0; a < count; ++a)
      for (std::int64_t b = 0; b <= a; ++b) {
        double dot = 0;
        for (std::int64_t i = 0; i < n; ++i) dot += at(a, i) * at(b, i);
        worst = std::max(worst, std::abs(dot - (a == b ? gain * gain : 0)));
      }
    CHECK(worst < tolerance * gain * gain);
  };
  check({1, 1}, 1);
  check({1, 7}, 1);
  check({7, 1}, 1);
  check({3, 3}, 1);
  check({64, 64}, 1);
  check({100, 37}, 1);
  check({37, 100}, std::sqrt(2.0));
  check({16, 8, 3, 3}, 1);
  check({16, 1, 3, 3}, 1);
  check({5, 2, 3}, 3);
}

TEST_CASE("orthogonal matrices are evenly distributed") {
  // Of 4 x 4 ones each element has the mean 0 and the mean square 1 / 4, and its fourth moment is 3 / (n (n + 2)), so
  // its kurtosis 2; the determinant is 1 as often as -1 (here 3 x 3: of a 1000, within 5 sqrt(1000) / 2 of 500).
  std::vector<double> first;
  std::vector<double> last;
  int positive = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const Array q = orthogonal({4, 4}).draw(float64, seed, 0);
    first.push_back(q[0]);
    last.push_back(q[15]);
    const Array r = orthogonal({3, 3}).draw(float64, seed, 1);
    const double determinant =
        r[0] * (r[4] * r[8] - r[5] * r[7]) - r[1] * (r[3] * r[8] - r[5] * r[6]) + r[2] * (r[3] * r[7] - r[4] * r[6]);
    CHECK(std::abs(determinant) == Approx(1));
    positive += determinant > 0 ? 1 : 0;
  }
  check_moments(first, 0.5, 2);
  check_moments(last, 0.5, 2);
  CHECK(std::abs(positive - 500) < 80);
}

TEST_CASE("seeds and streams") {
  for (const Initial& initial : {orthogonal({5, 4}), truncated_normal({5, 4})}) {
    const Array x = initial.draw(float64, 1, 2);
    CHECK(x.identical(initial.draw(float64, 1, 2)));
    CHECK_FALSE(x.identical(initial.draw(float64, 2, 2)));
    CHECK_FALSE(x.identical(initial.draw(float64, 1, 3)));
    // float32 is float64 rounded.
    CHECK(x.astype(float32).identical(initial.draw(float32, 1, 2)));
  }
  // And with no element at all.
  CHECK(orthogonal({0, 3}).draw(float64, 0, 0).size() == 0);
  CHECK(orthogonal({3, 0}).draw(float64, 0, 0).size() == 0);
}

TEST_CASE("identity") {
  CHECK(drawn(init::identity(), {2, 3}, 2, 3).identical(Array({{1.0, 0.0, 0.0}, {0.0, 1.0, 0.0}})));
  CHECK(drawn(init::identity(2), {3, 2}, 3, 2).identical(Array({{2.0, 0.0}, {0.0, 2.0}, {0.0, 0.0}})));
}

TEST_CASE("a dirac convolution passes on its channels") {
  // Without padding that adds anything: y is x where there are no more features than channels.
  const auto passed_on = [](const Shape& x_shape, const Shape& w_shape, std::int64_t groups) {
    Graph graph;
    const auto x = graph.input("x", x_shape);
    const auto w = graph.parameter("w", init::dirac(groups)(w_shape, 1, 1));
    const Array feed = uniform(x_shape, -1, 1);
    return std::pair(feed, compute(graph, {conv(x, w, {.padding = "same", .groups = groups})}, {{x, feed}})[0]);
  };
  for (const auto& [x, w, groups] :
       std::vector<std::tuple<Shape, Shape, std::int64_t>>{{{2, 3, 5}, {3, 3, 3}, 1},
                                                           {{2, 3, 5, 4}, {3, 3, 3, 5}, 1},
                                                           {{1, 4, 5, 4}, {4, 4, 2, 4}, 1},  // even taps
                                                           {{1, 4, 5, 4}, {4, 2, 3, 3}, 2},
                                                           {{1, 4, 5, 4}, {4, 1, 3, 3}, 4},
                                                           {{1, 2, 3, 4, 2}, {2, 2, 3, 1, 3}, 1}}) {
    INFO(to_string(w));
    const auto [feed, y] = passed_on(x, w, groups);
    CHECK(y.identical(feed));
  }
  // Features beyond the channels of a group are 0: of 6 features in 2 groups of 2 channels, the third and the sixth.
  const auto [feed, y] = passed_on({1, 4, 3}, {6, 2, 3}, 2);
  const std::vector<int> channel = {0, 1, -1, 2, 3, -1};
  for (std::size_t k = 0; k < 6; ++k)
    for (std::int64_t i = 0; i < 3; ++i)
      CHECK(y[static_cast<std::int64_t>(k) * 3 + i] == (channel[k] < 0 ? 0 : feed[channel[k] * 3 + i]));
}

TEST_CASE("initializers refuse shapes that they are not for, at the user's line") {
  Graph graph;
  const auto x = graph.input("x", {2, 3, 5, 5});
  const auto columns = graph.input("columns", {2, 3});
  const std::string before = graph.to_string();
  const auto refuse = [&](const std::function<void()>& f, int line, const std::string& message) {
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
    CHECK(graph.to_string() == before);
  };
  refuse([&] { nn::dense(columns, 4, init::dirac()); }, __LINE__,
         "dirac: requires weights {K, C, taps...} with one to three spatial axes, got {3, 4}");
  refuse([&] { nn::conv(x, 4, 3, {}, {.initializer = init::dirac(3)}); }, __LINE__,
         "dirac: requires groups that divide 4 features, got 3");
  refuse([&] { nn::conv(x, 4, 3, {}, {.initializer = init::identity()}); }, __LINE__,
         "identity: requires a matrix, got {4, 3, 3, 3}");
  refuse([&] { graph.parameter("v", orthogonal({3})); }, __LINE__,
         "orthogonal: requires a shape of two axes or more, got {3}");
  refuse([&] { nn::dense(columns, 4, init::orthogonal(INFINITY)); }, __LINE__,
         "orthogonal: requires a finite gain, got inf");
  const Shape named{graph.dimension("n"), 3};
  refuse([&] { graph.parameter("v", orthogonal(named)); }, __LINE__,
         "parameter: requires extents that are numbers for 'v', got {n, 3}");
  refuse([&] { graph.parameter("v", init::identity()(named, 1, 1)); }, __LINE__,
         "parameter: requires extents that are numbers for 'v', got {n, 3}");
}
