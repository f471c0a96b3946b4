// Activations where they are easily wrong: in their tails, at infinities, where their pieces meet, and of halves.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "compare.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;
using chainrule::test::ulps;

namespace {

using Long = long double;
using Doubles = std::vector<double>;
constexpr double inf = std::numeric_limits<double>::infinity();

// f(x) and its derivatives of first and second order at these points.
template <class F>
std::vector<Array> derivatives(F f, const Array& at) {
  Graph graph({.dtype = at.dtype()});
  const Value x = graph.input("x", to_shape(at.shape()));
  const Value y = f(x);
  const Value first = gradients(sum(y), {x})[0];
  const Value second = gradients(sum(first), {x}, NoDerivative::zeros)[0];
  return test::compute(graph, {y, first, second}, {{x, at}});
}

template <class F>
Doubles slopes(F f, const Doubles& at) {
  const Array slope = derivatives(f, Array(at))[1];
  return {slope.data<double>(), slope.data<double>() + slope.size()};
}

Long logistic(Long x) { return 1 / (1 + std::exp(-x)); }
Long normal(Long x) { return std::erfc(-x / std::sqrt(2.0L)) / 2; }
Long density(Long x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0L)); }
Long mish_gate(Long x) { return std::tanh(std::log1p(std::exp(x))); }

struct Tail {
  const char* name;
  Value (*f)(Value);
  Long (*value)(Long);
  Long (*slope)(Long);
};

const Tail tails[] = {
    {"silu", [](Value x) { return silu(x); }, [](Long x) { return x * logistic(x); },
     [](Long x) { return logistic(x) * (1 + x * logistic(-x)); }},
    {"gelu", [](Value x) { return gelu(x); }, [](Long x) { return x * normal(x); },
     [](Long x) { return normal(x) + x * density(x); }},
    {"mish", [](Value x) { return mish(x); }, [](Long x) { return x * mish_gate(x); },
     [](Long x) {
       const Long sech = 1 / std::cosh(std::log1p(std::exp(x)));
       return mish_gate(x) + x * sech * sech * logistic(x);
     }},
    {"log_sigmoid", [](Value x) { return log_sigmoid(x); }, [](Long x) { return -std::log1p(std::exp(-x)); },
     [](Long x) { return logistic(-x); }},
    {"softsign", [](Value x) { return softsign(x); }, [](Long x) { return x / (1 + std::abs(x)); },
     [](Long x) { return 1 / ((1 + std::abs(x)) * (1 + std::abs(x))); }},
};

}  // namespace

TEST_CASE("tails of activations keep all values and slopes that can be represented") {
  for (const DType dtype : {float32, float64})
    for (const Tail& tail : tails) {
      Doubles points;
      const double end = dtype == float32 ? 110 : 760;
      for (int i = 0; i <= 4000; ++i) points.push_back(-2 - end * i / 4000);
      for (int i = 0; i <= 4000; ++i) points.push_back(-2 - 40.0 * i / 4000);
      for (int i = 0; i <= 400; ++i) points.push_back(end * i / 400);
      const Array x = Array(points).astype(dtype);
      const auto got = derivatives(tail.f, x);
      double worst_value = 0;
      double worst_slope = 0;
      for (std::int64_t i = 0; i < x.size(); ++i) {
        worst_value = std::max(worst_value, ulps(dtype, got[0][i], tail.value(x[i])));
        worst_slope = std::max(worst_slope, ulps(dtype, got[1][i], tail.slope(x[i])));
      }
      INFO(tail.name << ", " << name(dtype));
      CHECK(worst_value <= 8);
      CHECK(worst_slope <= 10);
    }
}

TEST_CASE("the tail of gelu is not lost beside 1") {
  // scipy.special.ndtr: of -6 9.865876450376981e-10, of -12 1.776482112077679e-33.
  const auto narrow = derivatives([](Value x) { return gelu(x); }, Array({-6.0, -12.0}).astype(float32));
  CHECK(narrow[0][0] == Approx(-6 * 9.865876450376981e-10).epsilon(1e-6));
  CHECK(narrow[0][1] == Approx(-12 * 1.776482112077679e-33).epsilon(1e-6));
  // Nor that of the approximation, whose gate is sigmoid(-2 sqrt(2 / pi) (6 + 0.044715 216)) at -6.
  const double gate = 1 / (1 + std::exp(2 * std::sqrt(2 / std::acos(-1.0)) * (6 + 0.044715 * 216)));
  const auto approximated = derivatives([](Value x) { return gelu_tanh(x); }, Array({-6.0}).astype(float32));
  CHECK(approximated[0][0] == Approx(-6 * gate).epsilon(1e-5));
}

TEST_CASE("activations are known numbers at known places") {
  // PyTorch's documentation and closed forms: gelu(1) = P(1), silu(1) = 1 / (1 + 1/e), mish(1) = tanh(log(1 + e)).
  const auto at_one = [](auto f) { return derivatives(f, Array({1.0}))[0][0]; };
  CHECK(at_one([](Value x) { return gelu(x); }) == Approx(0.8413447460685429).epsilon(1e-14));
  CHECK(at_one([](Value x) { return gelu_tanh(x); }) == Approx(0.8411919906082768).epsilon(1e-14));
  CHECK(at_one([](Value x) { return silu(x); }) == Approx(0.7310585786300049).epsilon(1e-14));
  CHECK(at_one([](Value x) { return mish(x); }) == Approx(0.8650983882673103).epsilon(1e-14));
  CHECK(at_one([](Value x) { return softsign(x); }) == 0.5);
  CHECK(at_one([](Value x) { return hardswish(x); }) == Approx(4.0 / 6));
  CHECK(at_one([](Value x) { return hardsigmoid(x); }) == Approx(4.0 / 6));
  CHECK(at_one([](Value x) { return celu(-x, 0.5); }) == Approx(0.5 * (std::exp(-2.0) - 1)));
}

TEST_CASE("activations have their limits and slopes at infinities and at the greatest numbers") {
  struct Case {
    const char* name;
    Value (*f)(Value);
    double low, high;  // the limits
    double slope_low, slope_high;
  };
  const Case cases[] = {
      {"silu", [](Value x) { return silu(x); }, 0, inf, 0, 1},
      {"gelu", [](Value x) { return gelu(x); }, 0, inf, 0, 1},
      {"gelu_tanh", [](Value x) { return gelu_tanh(x); }, 0, inf, 0, 1},
      {"mish", [](Value x) { return mish(x); }, 0, inf, 0, 1},
      {"hardswish", [](Value x) { return hardswish(x); }, 0, inf, 0, 1},
      {"hardsigmoid", [](Value x) { return hardsigmoid(x); }, 0, 1, 0, 0},
      {"relu6", [](Value x) { return relu6(x); }, 0, 6, 0, 0},
      {"softsign", [](Value x) { return softsign(x); }, -1, 1, 0, 0},
      {"log_sigmoid", [](Value x) { return log_sigmoid(x); }, -inf, 0, 1, 0},
      {"celu", [](Value x) { return celu(x); }, -1, inf, 0, 1},
  };
  for (const DType dtype : {float32, float64})
    for (const Case& c : cases) {
      INFO(c.name << ", " << name(dtype));
      const double most = dtype == float32 ? 3e38 : 1.7e308;
      const auto got = derivatives(c.f, Array({-inf, inf, -most, most, std::nan("")}).astype(dtype));
      CHECK(got[0][0] == c.low);
      CHECK(got[0][1] == c.high);
      CHECK(got[1][0] == c.slope_low);
      CHECK(got[1][1] == c.slope_high);
      CHECK(got[1][2] == c.slope_low);
      CHECK(got[1][3] == c.slope_high);
      CHECK(std::isnan(got[0][4]));
      // No infinity times 0 in the slope's own slope.
      CHECK(got[2][2] == 0);
      CHECK(got[2][3] == 0);
    }
}

TEST_CASE("where pieces of activations meet they have PyTorch's slopes") {
  CHECK(slopes([](Value x) { return hardtanh(x); }, {-2, -1, 0, 1, 2}) == Doubles{0, 0, 1, 0, 0});
  CHECK(slopes([](Value x) { return relu6(x); }, {-1, 0, 3, 6, 7}) == Doubles{0, 0, 1, 0, 0});
  CHECK(slopes([](Value x) { return 6.0 * hardsigmoid(x); }, {-4, -3, 0, 3, 4}) == Doubles{0, 0, 1, 0, 0});
  CHECK(slopes([](Value x) { return hardswish(x); }, {-4, -3, 0, 3, 4}) == Doubles{0, 0, 0.5, 1, 1});
  // celu has one slope at 0, whatever alpha; elu has not.
  for (const double alpha : {0.25, 1.0, 3.0})
    CHECK(slopes([&](Value x) { return celu(x, alpha); }, {0, 1}) == Doubles{1, 1});
  CHECK(slopes([](Value x) { return softsign(x); }, {0}) == Doubles{1});
}

TEST_CASE("third derivatives of smooth activations agree with differences of the second") {
  const Tail* smooth[] = {&tails[0], &tails[1], &tails[2]};
  const Tail approximated{"gelu_tanh", [](Value x) { return gelu_tanh(x); }, nullptr, nullptr};
  for (const Tail* tail : {smooth[0], smooth[1], smooth[2], &approximated}) {
    const auto second = [&](Value x) { return gradients(sum(gradients(sum(tail->f(x)), {x})[0]), {x})[0]; };
    const Doubles points{-6.5, -2.0, -0.75, 0.0, 0.3, 1.5, 4.0};
    constexpr double h = 1e-5;
    Doubles left = points;
    Doubles right = points;
    for (double& x : left) x -= h;
    for (double& x : right) x += h;
    const Array third = derivatives(second, Array(points))[1];
    const Array before = derivatives(second, Array(left))[0];
    const Array after = derivatives(second, Array(right))[0];
    for (std::int64_t i = 0; i < third.size(); ++i) {
      INFO(tail->name << " at " << points[static_cast<std::size_t>(i)]);
      CHECK(third[i] == Approx((after[i] - before[i]) / (2 * h)).margin(1e-8));
    }
  }
}

TEST_CASE("parameters of activations that make no function are errors") {
  Graph graph;
  const Value x = graph.input("x", {3});
  CHECK_THAT(error_of([&] { hardtanh(x, 1, -1); }).what(),
             ContainsSubstring("hardtanh: requires low <= high, got 1 and -1"));
  CHECK_THAT(error_of([&] { celu(x, 0); }).what(), ContainsSubstring("celu: requires alpha > 0, got 0"));
  CHECK_THAT(error_of([&] { celu(x, std::nan("")); }).what(), ContainsSubstring("celu: requires alpha > 0"));
  CHECK_THAT(error_of([&] { gelu(graph.input("i", {3}, int64)); }).what(), ContainsSubstring("gelu: requires float"));
}

// ---- logarithms of sums

TEST_CASE("logsumexp neither overflows nor is NaN where nothing is") {
  Graph graph;
  const Value x = graph.input("x", {5, 2});
  const Value y = logsumexp(x, 1);
  const Value slope = gradients(sum(y), {x})[0];
  const auto got = test::compute(
      graph, {y, slope}, {{x, Array({{1000.0, 1000.0}, {-inf, -inf}, {-inf, 2.0}, {-1000.0, -1001.0}, {inf, 1.0}})}});
  CHECK(got[0][0] == Approx(1000 + std::log(2.0)).epsilon(1e-15));
  CHECK(got[0][1] == -inf);
  CHECK(got[0][2] == 2);
  CHECK(got[0][3] == Approx(-1000 + std::log1p(std::exp(-1.0))).epsilon(1e-15));
  CHECK(got[0][4] == inf);
  const Doubles slopes_of{0.5, 0.5, 0, 0, 0, 1, 1 / (1 + std::exp(-1.0)), 1 / (1 + std::exp(1.0))};
  for (std::size_t i = 0; i < slopes_of.size(); ++i)
    CHECK(got[1][static_cast<std::int64_t>(i)] == Approx(slopes_of[i]));
  CHECK(std::isnan(got[1][8]));
  CHECK(got[1][9] == 0);
}

TEST_CASE("logsumexp takes named sizes, several axes and keeps them where asked to") {
  Graph graph;
  const Dimension batch = graph.dimension("batch");
  const Value x = graph.input("x", {batch, 3, 2});
  CHECK(logsumexp(x, {-1, 1}).shape() == Shape{batch});
  CHECK(logsumexp(x, 0, true).shape() == Shape{1, 3, 2});
  CHECK(logsumexp(x).shape() == Shape{});
  const Value all = logsumexp(x);
  CHECK(test::compute(graph, {all}, {{x, Array::full(float64, Dims{4, 3, 2}, 5)}})[0].item() ==
        Approx(5 + std::log(24.0)));
  const Error none = error_of([&] { logsumexp(graph.input("none", {2, 0}), 1); });
  CHECK_THAT(none.what(), ContainsSubstring("logsumexp: requires at least one element, got {2, 0}"));
  CHECK_THAT(error_of([&] { logsumexp(x, 3); }).what(), ContainsSubstring("logsumexp: requires"));
}

TEST_CASE("logaddexp shares its slope at ties, to the second order, infinite ones too") {
  Graph graph;
  const Value a = graph.input("a", {4});
  const Value b = graph.input("b", {4});
  const Value y = logaddexp(a, b);
  const Values first = gradients(sum(y), {a, b});
  const Value second = gradients(sum(first[0]), {a})[0];
  const auto got = test::compute(graph, {y, first[0], first[1], second},
                                 {{a, Array({1.0, inf, -inf, -inf})}, {b, Array({1.0, inf, -inf, 3.0})}});
  CHECK(got[0][0] == Approx(1 + std::log(2.0)));
  CHECK(got[0][1] == inf);
  CHECK(got[0][2] == -inf);
  CHECK(got[0][3] == 3);
  for (const std::int64_t i : {0, 1, 2}) {
    CHECK(got[1][i] == 0.5);
    CHECK(got[2][i] == 0.5);
  }
  CHECK(got[1][3] == 0);
  CHECK(got[2][3] == 1);
  CHECK(got[3][0] == Approx(0.25));
}

// ---- gated linear units

TEST_CASE("gated linear units multiply the first half by a function of the second") {
  Graph graph;
  const Value x = graph.input("x", {2, 4});
  const Array numbers{{1.0, 2.0, 0.5, -1.0}, {-3.0, 4.0, 2.0, 0.0}};
  const auto got = test::compute(graph, {glu(x), swiglu(x), geglu(x), glu(x, 0)}, {{x, numbers}});
  const auto of = [&](auto gate) {
    return Array{{1.0 * gate(0.5), 2.0 * gate(-1.0)}, {-3.0 * gate(2.0), 4.0 * gate(0.0)}};
  };
  const auto sigmoid_of = [](double z) { return 1 / (1 + std::exp(-z)); };
  CHECK(allclose(got[0], of(sigmoid_of), 1e-14, 0));
  CHECK(allclose(got[1], of([&](double z) { return z * sigmoid_of(z); }), 1e-14, 0));
  CHECK(allclose(got[2], of([](double z) { return z * std::erfc(-z / std::sqrt(2.0)) / 2; }), 1e-14, 0));
  CHECK(got[3].shape() == Dims{1, 4});
  CHECK(got[3][1] == Approx(2 * sigmoid_of(4)));
}

TEST_CASE("gated linear units are differentiable and take named sizes that are even") {
  Graph graph({.seed = 4});
  const Value x = graph.parameter("x", uniform({3, 6}, -3, 3));
  for (const auto f : {glu, swiglu, geglu}) {
    const Value loss = sum(square(f(x, 1, Location::here())));
    State here(graph);
    const auto report = check_gradients(loss, {x}, here, {});
    INFO(report.to_string());
    CHECK(report.passed());
  }
  const Dimension n = graph.dimension("n");
  const Value half = graph.input("half", {2, n});
  const Value halved = glu(concat({half, half * 0.0}, 1));
  CHECK(halved.shape() == Shape{2, n});
  const Array got = test::compute(graph, {halved}, {{half, Array{{3.0}, {4.0}}}})[0];
  CHECK(got.identical(Array{{1.5}, {2.0}}));
  CHECK_THAT(error_of([&] {
               glu(graph.input("odd", {2, 3}));
             }).what(),
             ContainsSubstring("glu: requires an even extent on axis 1, got {2, 3}"));
  CHECK_THAT(error_of([&] { swiglu(graph.input("unknown", {n})); }).what(),
             ContainsSubstring("swiglu: requires an even extent on axis 0, got {n}"));
  CHECK(error_of([&] { geglu(graph.input("o", {5})); }).location().line == __LINE__);
}
