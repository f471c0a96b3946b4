// Losses and their options against formulas written out, at their edges, and their gradients.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;

namespace {

using Doubles = std::vector<double>;
constexpr double inf = std::numeric_limits<double>::infinity();

Array int64s(const std::vector<std::int64_t>& values) { return Array(values); }

// f of constants.
template <class F>
Array of(F f, const std::vector<Array>& inputs) {
  Graph graph;
  Values values;
  std::vector<Feed> feeds;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    values.push_back(graph.input("x" + std::to_string(i), to_shape(inputs[i].shape()), inputs[i].dtype()));
    feeds.emplace_back(values.back(), inputs[i]);
  }
  return test::compute(graph, {f(values)}, feeds)[0];
}

// The gradients of the sum of f by all floating inputs.
template <class F>
std::vector<Array> slopes(F f, const std::vector<Array>& inputs) {
  Graph graph;
  Values values;
  Values floating;
  std::vector<Feed> feeds;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    values.push_back(graph.input("x" + std::to_string(i), to_shape(inputs[i].shape()), inputs[i].dtype()));
    feeds.emplace_back(values.back(), inputs[i]);
    if (is_floating(inputs[i].dtype())) floating.push_back(values.back());
  }
  return test::compute(graph, gradients(sum(f(values)), floating), feeds);
}

template <class F>
void check_derivatives(F f, const std::vector<Initial>& inputs) {
  Graph graph({.seed = 5});
  Values values;
  Values parameters;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    parameters.push_back(graph.parameter("x" + std::to_string(i), inputs[i]));
    values.push_back(parameters.back());
  }
  State state(graph);
  const CheckReport report = check_gradients(f(values), parameters, state, {});
  INFO(report.to_string());
  CHECK(report.passed());
}

const Array logits{{1.0, 2.0, -1.0}, {0.5, -0.25, 0.0}, {-2.0, 3.0, 1.0}, {0.0, 0.0, 4.0}};
const std::vector<std::int64_t> labels{1, 0, 2, 2};
const Array weights({0.5, 2.0, 1.5});

double log_probability(std::int64_t example, std::int64_t k) {
  double total = 0;
  for (std::int64_t c = 0; c < 3; ++c) total += std::exp(logits(example, c));
  return logits(example, k) - std::log(total);
}

// PyTorch's definition of cross_entropy with class indices, example by example.
struct Expected {
  Doubles costs;
  double divisor = 0;
  double sum = 0;
};
Expected expected(bool weighted, std::int64_t ignored, double smoothing) {
  Expected out;
  for (std::int64_t i = 0; i < 4; ++i) {
    const std::int64_t k = labels[static_cast<std::size_t>(i)];
    double cost = 0;
    if (k != ignored) {
      const double own = weighted ? weights[k] : 1;
      double all = 0;
      for (std::int64_t c = 0; c < 3; ++c) all -= (weighted ? weights[c] : 1) * log_probability(i, c);
      cost = (1 - smoothing) * -own * log_probability(i, k) + smoothing / 3 * all;
      out.divisor += own;
    }
    out.costs.push_back(cost);
    out.sum += cost;
  }
  return out;
}

}  // namespace

TEST_CASE("cross-entropies by class have weights, ignored classes, smoothing and reductions") {
  for (const bool weighted : {false, true})
    for (const std::int64_t ignored : {-100, 2})
      for (const double smoothing : {0.0, 0.1, 1.0}) {
        const auto options = [&](const Values& x, Reduction reduction) {
          CrossEntropyOptions o{.reduction = reduction, .label_smoothing = smoothing};
          if (weighted) o.class_weights = x[2];
          if (ignored == 2) o.ignore_index = 2;
          return o;
        };
        INFO("weights " << weighted << ", ignored " << ignored << ", smoothing " << smoothing);
        const Expected right = expected(weighted, ignored, smoothing);
        const std::vector<Array> inputs{logits, int64s(labels), weights};
        const auto by = [&](Reduction reduction) {
          return of([&](const Values& x) { return softmax_cross_entropy(x[0], x[1], options(x, reduction)); }, inputs);
        };
        CHECK(by(Reduction::mean).item() == Approx(right.sum / right.divisor).epsilon(1e-13));
        CHECK(by(Reduction::sum).item() == Approx(right.sum).epsilon(1e-13));
        const Array each = by(Reduction::none);
        REQUIRE(each.shape() == Dims{4});
        for (std::int64_t i = 0; i < 4; ++i)
          CHECK(each[i] == Approx(right.costs[static_cast<std::size_t>(i)]).margin(1e-14));
        const Array by_logarithms =
            of([&](const Values& x) { return nll_loss(log_softmax(x[0]), x[1], options(x, Reduction::mean)); }, inputs);
        CHECK(by_logarithms.item() == Approx(right.sum / right.divisor).epsilon(1e-13));
      }
}

TEST_CASE("cross-entropies by class and by one-hot rows agree, along every axis, slopes too") {
  for (const std::int64_t axis : {0, 1, 2, -1}) {
    const Array z = uniform({3, 3, 3}, -2, 2).draw(float64, 3, 0);
    const Array k = integers({3, 3}, 0, 3).draw(float64, 3, 1);
    const auto by_class = [&](const Values& x) { return softmax_cross_entropy(x[0], x[1], axis); };
    const auto by_rows = [&](const Values& x) {
      return softmax_cross_entropy(x[0], one_hot(x[1], 3, float64, axis), axis);
    };
    CHECK(of(by_class, {z, k}).item() == Approx(of(by_rows, {z, k}).item()).epsilon(1e-14));
    CHECK(allclose(slopes(by_class, {z, k})[0], slopes(by_rows, {z, k})[0], 1e-12, 1e-15));
  }
}

TEST_CASE("a class that is ignored may be out of range, its example has no slope, and all of them are no mean") {
  const auto loss = [](const Values& x) { return softmax_cross_entropy(x[0], x[1], {.ignore_index = -100}); };
  const std::vector<Array> inputs{logits, int64s({1, -100, -100, 0})};
  CHECK(of(loss, inputs).item() == Approx(-(log_probability(0, 1) + log_probability(3, 0)) / 2));
  const Array slope = slopes(loss, inputs)[0];
  for (std::int64_t c = 0; c < 3; ++c) {
    CHECK(slope(1, c) == 0);
    CHECK(slope(2, c) == 0);
    CHECK(slope(0, c) != 0);
  }
  CHECK(std::isnan(of(loss, {logits, int64s({-100, -100, -100, -100})}).item()));
  const auto total = [](const Values& x) {
    return softmax_cross_entropy(x[0], x[1], {.reduction = Reduction::sum, .ignore_index = -100});
  };
  CHECK(of(total, {logits, int64s({-100, -100, -100, -100})}).item() == 0);
  CHECK_THROWS_WITH(
      of([](const Values& x) { return softmax_cross_entropy(x[0], x[1]); }, {logits, int64s({0, 1, 3, 0})}),
      ContainsSubstring("class_cross_entropy: requires indices from 0 to 2, got 3 at element {2}"));
  CHECK_THROWS_WITH(of(total, {logits, int64s({0, 1, -1, 0})}), ContainsSubstring("got -1 at element {2}"));
}

TEST_CASE("cross-entropies by distributions have weights and smoothing") {
  const Array y{{0.5, 0.5, 0.0}, {0.0, 1.0, 0.0}, {0.25, 0.25, 0.5}, {1.0, 0.0, 0.0}};
  constexpr double s = 0.2;
  double right = 0;
  for (std::int64_t i = 0; i < 4; ++i)
    for (std::int64_t c = 0; c < 3; ++c) right -= weights[c] * ((1 - s) * y(i, c) + s / 3) * log_probability(i, c);
  const auto loss = [](const Values& x) {
    return softmax_cross_entropy(x[0], x[1], {.class_weights = x[2], .label_smoothing = s});
  };
  CHECK(of(loss, {logits, y, weights}).item() == Approx(right / 4));
  // A class that cannot be costs nothing where it is not asked for.
  const auto plain = [](const Values& x) { return softmax_cross_entropy(x[0], x[1], {.reduction = Reduction::sum}); };
  const std::vector<Array> impossible{Array{{0.0, 0.0, -inf}}, Array{{0.5, 0.5, 0.0}}};
  CHECK(of(plain, impossible).item() == Approx(std::log(2.0)));
  for (const double d : {0, 1, 2})
    CHECK(slopes(plain, impossible)[0][static_cast<std::int64_t>(d)] == Approx(0).margin(1e-15));
}

TEST_CASE("a nearly certain class costs what it costs") {
  // log(1 + exp(-30)) is not lost beside 30.
  const auto loss = [](const Values& x) { return softmax_cross_entropy(x[0], x[1]); };
  CHECK(of(loss, {Array{{30.0, 0.0}}, int64s({0})}).item() == Approx(std::log1p(std::exp(-30.0))).epsilon(1e-2));
}

TEST_CASE("sigmoid cross-entropies have weights, smoothing and reductions") {
  const Array z({-2.0, 0.0, 3.0});
  const Array y({0.25, 1.0, 0.0});
  const Array w({1.0, 2.0, 0.5});
  const auto sp = [](double v) { return std::log1p(std::exp(v)); };
  Doubles right;
  for (std::int64_t i = 0; i < 3; ++i) {
    const double t = 0.9 * y[i] + 0.05;
    right.push_back(w[i] * (3 * t * sp(-z[i]) + (1 - t) * sp(z[i])));
  }
  const auto by = [&](Reduction reduction) {
    return of(
        [&](const Values& x) {
          return sigmoid_cross_entropy(
              x[0], x[1], {.reduction = reduction, .weights = x[2], .positive_weight = x[3], .label_smoothing = 0.1});
        },
        {z, y, w, Array(3.0)});
  };
  const Array each = by(Reduction::none);
  for (std::int64_t i = 0; i < 3; ++i) CHECK(each[i] == Approx(right[static_cast<std::size_t>(i)]));
  CHECK(by(Reduction::sum).item() == Approx(right[0] + right[1] + right[2]));
  CHECK(by(Reduction::mean).item() == Approx((right[0] + right[1] + right[2]) / 3));
}

TEST_CASE("the logits' loss has its slope at 0 and its mixed derivative -1, with positive weights too") {
  for (const double weight : {1.0, 3.0}) {
    Graph graph;
    const Value z = graph.input("z", {4});
    const Value y = graph.input("y", {4});
    SigmoidCrossEntropyOptions options{.reduction = Reduction::sum};
    if (weight != 1) options.positive_weight = graph.constant(weight, float64);
    const Value first = gradients(sigmoid_cross_entropy(z, y, options), {z})[0];
    const Value mixed = gradients(sum(first), {y})[0];
    const auto got =
        test::compute(graph, {first, mixed}, {{z, Array({0.0, 5.0, -5.0, 2.0})}, {y, Array({0.0, 0.0, 1.0, 0.5})}});
    const auto up = [](double v) { return 1 / (1 + std::exp(-v)); };
    CHECK(got[0][0] == Approx(0.5));
    CHECK(got[0][1] == Approx(up(5)));
    CHECK(got[0][2] == Approx(-weight * up(5)));
    const Doubles at{0, 5, -5, 2};
    for (std::size_t i = 0; i < 4; ++i)  // d/dz (weight y softplus(-z) + (1 - y) softplus(z)) by y
      CHECK(got[1][static_cast<std::int64_t>(i)] == Approx(-weight * up(-at[i]) - up(at[i])));
  }
}

TEST_CASE("binary cross-entropy of probabilities knows 0 and 1") {
  const auto loss = [](const Values& x) { return binary_cross_entropy(x[0], x[1], Reduction::none); };
  const Array p({0.0, 1.0, 0.0, 0.25, 1e-20});
  const Array y({0.0, 1.0, 1.0, 0.5, 0.0});
  const Array got = of(loss, {p, y});
  CHECK(got[0] == 0);
  CHECK(got[1] == 0);
  CHECK(got[2] == inf);
  CHECK(got[3] == Approx(-0.5 * (std::log(0.25) + std::log(0.75))));
  CHECK(got[4] == Approx(1e-20));
  const Array slope = slopes(loss, {p, y})[0];
  CHECK(slope[0] == 1);
  CHECK(slope[1] == -1);
  CHECK(slope[2] == -inf);
  CHECK(slope[3] == Approx(-0.5 / 0.25 + 0.5 / 0.75));
  CHECK(of([](const Values& x) { return binary_cross_entropy(x[0], x[1]); }, {Array({0.5, 0.5}), Array({1.0, 0.0})})
            .item() == Approx(std::log(2.0)));
}

TEST_CASE("losses of differences") {
  const Array a({1.0, 2.0, -3.0, 0.5});
  const Array b({1.0, 2.5, 0.0, 0.0});
  const auto sums = [&](auto f) { return of([&](const Values& x) { return f(x[0], x[1]); }, {a, b}); };
  CHECK(sums([](Value p, Value t) { return l1_loss(p, t); }).item() == 1);
  CHECK(sums([](Value p, Value t) { return l1_loss(p, t, Reduction::sum); }).item() == 4);
  CHECK(sums([](Value p, Value t) { return mean_squared_error(p, t, Reduction::sum); }).item() == 9.5);
  CHECK(sums([](Value p, Value t) {
          return mean_squared_error(p, t, Reduction::none);
        }).identical(Array({0.0, 0.25, 9.0, 0.25})));
  CHECK(sums([](Value p, Value t) {
          return huber_loss(p, t, 1, Reduction::none);
        }).identical(Array({0.0, 0.125, 2.5, 0.125})));
  CHECK(sums([](Value p, Value t) {
          return huber_loss(p, t, 0.25, Reduction::none);
        }).identical(Array({0.0, 0.09375, 0.71875, 0.09375})));
  const auto slope = [&](auto f) { return slopes([&](const Values& x) { return f(x[0], x[1]); }, {a, b})[0]; };
  CHECK(slope([](Value p, Value t) { return l1_loss(p, t, Reduction::sum); }).identical(Array({0.0, -1.0, -1.0, 1.0})));
  CHECK(slope([](Value p, Value t) {
          return huber_loss(p, t, 0.5, Reduction::sum);
        }).identical(Array({0.0, -0.5, -0.5, 0.5})));
}

TEST_CASE("hinge, cosine and triplet losses") {
  const auto hinge = [](const Values& x) { return hinge_loss(x[0], x[1], Reduction::none); };
  const Array score({2.0, 0.5, -1.0, 1.0});
  const Array side({1.0, 1.0, 1.0, -1.0});
  CHECK(of(hinge, {score, side}).identical(Array({0.0, 0.5, 2.0, 2.0})));
  CHECK(allclose(slopes(hinge, {Array({1.0, 0.5}), Array({1.0, 1.0})})[0], Array({0.0, -1.0}), 0, 0));

  const Array a{{3.0, 4.0}, {1.0, 0.0}, {0.0, 0.0}};
  const Array b{{4.0, 3.0}, {-2.0, 0.0}, {1.0, 1.0}};
  const auto cosine = [](const Values& x) { return cosine_similarity(x[0], x[1]); };
  CHECK(allclose(of(cosine, {a, b}), Array({0.96, -1.0, 0.0}), 1e-14, 1e-14));
  for (const Array& slope : slopes(cosine, {a, b}))
    for (std::int64_t i = 0; i < slope.size(); ++i) CHECK(std::isfinite(slope[i]));
  const auto embedding = [](const Values& x) {
    return cosine_embedding_loss(x[0], x[1], x[2], {.margin = 0.5, .reduction = Reduction::none});
  };
  CHECK(allclose(of(embedding, {a, b, Array({-1.0, 1.0, -1.0})}), Array({0.46, 2.0, 0.0}), 1e-14, 1e-14));

  const auto triplet = [](const Values& x) {
    return triplet_margin_loss(x[0], x[1], x[2], {.margin = 1, .reduction = Reduction::none});
  };
  const Array anchor{{0.0, 0.0}, {1.0, 1.0}};
  const Array positive{{3.0, 4.0}, {1.0, 1.0}};
  const Array negative{{0.0, 2.0}, {1.0, 1.5}};
  CHECK(of(triplet, {anchor, positive, negative}).identical(Array({4.0, 0.5})));
  const auto swapped = [](const Values& x) {
    return triplet_margin_loss(x[0], x[1], x[2], {.swap = true, .reduction = Reduction::none});
  };
  // |positive - negative| of the first is the root of 13, of the second 1/2.
  CHECK(allclose(of(swapped, {anchor, positive, negative}), Array({4.0, 0.5}), 0, 0));
  CHECK(allclose(of(swapped, {Array{{0.0, 0.0}}, Array{{3.0, 0.0}}, Array{{3.5, 0.0}}}), Array({3.5}), 0, 0));
  // Where anchor and positive are one point the length has no slope, and no NaN.
  const auto slope = slopes(triplet, {anchor, positive, negative});
  CHECK(slope[1](1, 0) == 0);
  CHECK(slope[1](1, 1) == 0);
  CHECK(slope[2](1, 1) == -1);
}

TEST_CASE("likelihoods") {
  const auto kl = [](const Values& x) { return kl_divergence(x[0], x[1], -1, Reduction::none); };
  const Array q{{std::log(0.5), std::log(0.5)}, {std::log(0.25), -inf}};
  const Array p{{0.25, 0.75}, {1.0, 0.0}};
  const Array got = of(kl, {q, p});
  CHECK(got[0] == Approx(0.25 * std::log(0.5) + 0.75 * std::log(1.5)));
  CHECK(got[1] == Approx(std::log(4.0)));
  CHECK(of([](const Values& x) { return kl_divergence(x[0], x[1]); }, {q, p}).item() == Approx((got[0] + got[1]) / 2));
  CHECK(allclose(slopes(kl, {q, p})[0], Array{{-0.25, -0.75}, {-1.0, 0.0}}, 0, 0));

  const auto gaussian = [](const Values& x) { return gaussian_nll_loss(x[0], x[1], x[2], {.full = true}); };
  const double pi = std::acos(-1.0);
  // The variance, not the deviation: -log of the density of a normal distribution of variance 4 at a distance of 2.
  CHECK(of(gaussian, {Array({1.0}), Array({3.0}), Array({4.0})}).item() ==
        Approx(-std::log(std::exp(-0.5) / (2 * std::sqrt(2 * pi)))));
  const auto one_variance = [](const Values& x) {
    return gaussian_nll_loss(x[0], x[1], x[2], {.reduction = Reduction::none});
  };
  CHECK(of(one_variance, {Array({1.0, 2.0}), Array({3.0, 2.0}), Array(0.0)})[1] == Approx(0.5 * std::log(1e-6)));

  const auto poisson = [](bool log_prediction, bool full) {
    return [=](const Values& x) {
      return poisson_nll_loss(x[0], x[1],
                              {.log_prediction = log_prediction, .full = full, .reduction = Reduction::none});
    };
  };
  const Array counts({0.0, 1.0, 5.0});
  const Array rates({0.0, 2.0, 3.0});
  const Array of_rates = of(poisson(false, false), {rates, counts});
  CHECK(of_rates[0] == 0);
  CHECK(of_rates[1] == Approx(2 - std::log(2.0)));
  CHECK(slopes(poisson(false, false), {rates, counts})[0][0] == 1);
  const Array of_logs = of(poisson(true, true), {Array({-1.0, 0.0, 1.0}), counts});
  CHECK(of_logs[0] == Approx(std::exp(-1.0)));
  CHECK(of_logs[1] == 1);
  CHECK(of_logs[2] == Approx(std::exp(1.0) - 5 + 5 * std::log(5.0) - 5 + 0.5 * std::log(10 * pi)));
  // No logarithm of 0, nor its slope.
  CHECK(std::isfinite(slopes(poisson(true, true), {Array({-1.0, 0.0, 1.0}), counts})[1][0]));
}

TEST_CASE("losses are differentiable by all their inputs") {
  check_derivatives([](const Values& x) { return binary_cross_entropy(x[0], x[1]); },
                    {uniform({2, 3}, 0.1, 0.9), uniform({2, 3}, 0.1, 0.9)});
  check_derivatives(
      [](const Values& x) { return sigmoid_cross_entropy(x[0], x[1], {.weights = x[2], .positive_weight = x[3]}); },
      {uniform({2, 3}, -3, 3), uniform({2, 3}, 0.1, 0.9), uniform({2, 1}, 1, 2), uniform({3}, 1, 2)});
  check_derivatives(
      [](const Values& x) {
        return softmax_cross_entropy(x[0], x[1], {.class_weights = x[2], .label_smoothing = 0.1});
      },
      {uniform({2, 3}, -3, 3), uniform({2, 3}, 0.1, 0.9), uniform({3}, 1, 2)});
  check_derivatives(
      [](const Values& x) {
        const Value k = x[0].graph().constant(int64s({2, 0, 1}));
        return softmax_cross_entropy(x[0], k, {.class_weights = x[1], .ignore_index = 0, .label_smoothing = 0.1});
      },
      {uniform({3, 3}, -3, 3), uniform({3}, 1, 2)});
  check_derivatives([](const Values& x) { return kl_divergence(x[0], x[1]); },
                    {uniform({2, 3}, -3, 0), uniform({2, 3}, 0.1, 0.9)});
  check_derivatives(
      [](const Values& x) {
        return cosine_embedding_loss(x[0], x[1], x[0].graph().constant(Array({1.0, -1.0})), {.margin = -2});
      },
      {uniform({2, 3}, -3, 3), uniform({2, 3}, -3, 3)});
  check_derivatives([](const Values& x) { return triplet_margin_loss(x[0], x[1], x[2], {.margin = 20}); },
                    {uniform({2, 3}, -3, 3), uniform({2, 3}, -3, 3), uniform({2, 3}, -3, 3)});
  check_derivatives([](const Values& x) { return gaussian_nll_loss(x[0], x[1], x[2]); },
                    {uniform({2, 3}, -3, 3), uniform({2, 3}, -3, 3), uniform({2, 1}, 1, 3)});
  for (const bool log_prediction : {false, true})
    check_derivatives(
        [&](const Values& x) { return poisson_nll_loss(x[0], x[1], {.log_prediction = log_prediction, .full = true}); },
        {uniform({2, 3}, 0.5, 2), uniform({2, 3}, 1.5, 6)});
}

TEST_CASE("losses take named sizes and both dtypes") {
  Graph graph({.dtype = float32});
  const Dimension batch = graph.dimension("batch");
  const Value z = graph.input("z", {batch, 3});
  const Value k = graph.input("k", {batch}, int64);
  const Value loss = softmax_cross_entropy(z, k, {.ignore_index = -1, .label_smoothing = 0.1});
  const Value slope = gradients(loss, {z})[0];
  CHECK(loss.dtype() == float32);
  CHECK(slope.shape() == Shape{batch, 3});
  State state(graph);
  Program program(state, {.outputs = {loss, slope}});
  for (const std::int64_t n : {4, 1}) {
    const Array ones = Array::full(float32, Dims{n, 3}, 1);
    Array classes(int64, Dims{n});
    for (std::int64_t i = 0; i < n; ++i) classes.set(i, static_cast<double>(i % 3));
    CHECK(program.run({{z, ones}, {k, classes}}).scalar(loss) == Approx(std::log(3.0)));
  }
}

TEST_CASE("mistakes with losses are errors at the user's line") {
  Graph graph;
  const Value x = graph.input("x", {2, 3});
  const Value y = graph.input("y", {2});
  const Value k = graph.input("k", {2}, int64);
  const auto refuse = [&](const std::function<void()>& f, int line, const std::string& text) {
    const std::size_t before = graph.size();
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(text));
    CHECK(error.location().line == line);
    CHECK(graph.size() == before);
  };
  refuse([&] { l1_loss(x, y); }, __LINE__, "l1_loss: requires inputs of one shape, got {2, 3} and {2}");
  refuse([&] { huber_loss(x, x, 0); }, __LINE__, "huber_loss: requires delta > 0, got 0");
  refuse([&] { kl_divergence(x, x, 2); }, __LINE__, "kl_divergence: requires");
  refuse([&] { softmax_cross_entropy(x, k, {.label_smoothing = 2}); }, __LINE__,
         "softmax_cross_entropy: requires label_smoothing from 0 to 1, got 2");
  refuse([&] { softmax_cross_entropy(x, k, {.class_weights = y}); }, __LINE__,
         "softmax_cross_entropy: requires class_weights of float64 and shape {3}, got float64 {2}");
  refuse([&] { softmax_cross_entropy(x, x, {.ignore_index = 1}); }, __LINE__,
         "softmax_cross_entropy: requires class indices where there is an ignore_index, got probabilities");
  refuse([&] { nll_loss(x, graph.find("k"), {.axis = 0}); }, __LINE__,
         "nll_loss: requires class indices of shape {3} for log_probabilities {2, 3}, got {2}");
  refuse([&] { sigmoid_cross_entropy(x, x, {.weights = y}); }, __LINE__,
         "sigmoid_cross_entropy: requires weights of float64 that broadcast to {2, 3}, got float64 {2}");
  refuse([&] { gaussian_nll_loss(x, x, y); }, __LINE__,
         "gaussian_nll_loss: requires a variance of float64 that broadcasts to {2, 3}, got float64 {2}");
  refuse([&] { cosine_embedding_loss(x, x, x); }, __LINE__,
         "cosine_embedding_loss: requires inputs of one shape, got {2} and {2, 3}");
  refuse([&] { triplet_margin_loss(x, x, y); }, __LINE__, "triplet_margin_loss: requires inputs of one shape");
  refuse([&] { hinge_loss(x, Value{}); }, __LINE__, "hinge_loss: requires values of a graph");
}

// ---- cross-entropies by class as one node with their slopes

namespace {

std::size_t times(const std::string& text, const std::string& part) {
  std::size_t out = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++out;
  return out;
}

// How often the listings after the last pass have this op.
std::size_t listed(const Program& program, const std::string& op) {
  const std::string text = program.explain();
  return times(text.substr(text.rfind("update_rows")), " = " + op + "(");
}

}  // namespace

TEST_CASE("a cross-entropy by class and its slope are one node where the slope does not wait for the cost") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto z = graph.input("z", {batch, 5});
  const auto k = graph.input("k", {batch}, int64);
  const auto loss = softmax_cross_entropy(z, k);
  const auto costs = softmax_cross_entropy(z, k, {.reduction = Reduction::none});
  const auto focal = mean(costs * costs);
  const Array numbers = uniform({7, 5}, -3, 3).draw(float64, 1, 0);
  const Array classes = integers({7}, 0, 5).draw(float64, 1, 1);
  State state(graph);
  Program waits(state, {.outputs = {focal, gradients(focal, {z})[0]}});
  const std::vector<Feed> feeds = {{z, numbers}, {k, classes}};
  Program once(state, {.outputs = {loss, gradients(loss, {z})[0]}});
  once.run(feeds);
  waits.run(feeds);
  CHECK(listed(once, "class_cross_entropy") == 0);
  CHECK(times(once.explain(), "class_cross_entropy_slope(") > 0);
  CHECK(listed(waits, "class_cross_entropy") > 0);
  for (const Value y : {loss, focal}) {
    const Values outputs = {y, gradients(y, {z})[0]};
    Program as_built(state, {.outputs = outputs, .optimize = false});
    Program optimized(state, {.outputs = outputs});
    const auto right = as_built.run(feeds);
    const auto made = optimized.run(feeds);
    CHECK(made[0].item() == Approx(right[0].item()).epsilon(1e-14));
    CHECK(allclose(made[1], right[1], 1e-13, 1e-16));
  }
}

TEST_CASE("two cross-entropies that share their weight are each one node with their slope") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto z = graph.input("z", {batch, 5});
  const auto v = graph.input("v", {batch, 3});
  const auto k = graph.input("k", {batch}, int64);
  const auto loss = softmax_cross_entropy(z, k) + softmax_cross_entropy(v, k);
  const Values outputs = {loss, gradients(loss, {z})[0], gradients(loss, {v})[0]};
  State state(graph);
  const std::vector<Feed> feeds = {{z, uniform({4, 5}, -3, 3).draw(float64, 1, 0)},
                                   {v, uniform({4, 3}, -3, 3).draw(float64, 1, 1)},
                                   {k, int64s({2, 0, 1, 2})}};
  Program as_built(state, {.outputs = outputs, .optimize = false});
  Program optimized(state, {.outputs = outputs});
  const auto right = as_built.run(feeds);
  const auto made = optimized.run(feeds);
  CHECK(listed(optimized, "class_cross_entropy") == 0);
  CHECK(made[0].item() == Approx(right[0].item()).epsilon(1e-14));
  CHECK(allclose(made[1], right[1], 1e-13, 1e-16));
  CHECK(allclose(made[2], right[2], 1e-13, 1e-16));
}

TEMPLATE_TEST_CASE("softmax and cross-entropies have the same bits for every number of threads", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const int before = num_threads();
  const auto [rows, columns, axis] = GENERATE(std::tuple{70, 9001, 1}, std::tuple{3000, 17, 1}, std::tuple{90, 700, 0},
                                              std::tuple{1100, 2100, 1});  // the last past the caches
  Graph graph({.dtype = dtype});
  const auto z = graph.input("z", {rows, columns});
  const auto k = graph.input("k", {axis == 1 ? rows : columns}, int64);
  const auto loss = softmax_cross_entropy(z, k, {.axis = axis, .reduction = Reduction::sum});
  State state(graph);
  Program program(state, {.outputs = {loss, gradients(loss, {z})[0], softmax(z, axis), log_softmax(z, axis)}});
  const Array numbers = uniform({rows, columns}, -9, 9).draw(dtype, 1, 0);
  const Array classes = integers({axis == 1 ? rows : columns}, 0, axis == 1 ? columns : rows).draw(dtype, 1, 1);
  std::vector<Array> first;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    const auto made = program.run({{z, numbers}, {k, classes}});
    if (first.empty()) {
      for (std::size_t i = 0; i < 4; ++i) first.push_back(made[i]);
      // A line's probabilities add up to 1, and their logarithms are what log_softmax says.
      const Array& p = first[2];
      const Array& l = first[3];
      const std::int64_t stride = axis == 1 ? 1 : columns;
      double sum = 0;
      double worst = 0;
      for (std::int64_t i = 0; i < (axis == 1 ? columns : rows); ++i) {
        sum += p[i * stride];
        worst = std::max(worst, std::abs(std::exp(l[i * stride]) / p[i * stride] - 1));
      }
      const double tiny = dtype == float32 ? 1e-5 : 1e-13;
      CHECK(sum == Approx(1).epsilon(tiny));
      CHECK(worst < tiny);
    }
    for (std::size_t i = 0; i < 4; ++i) CHECK(made[i].identical(first[i]));
  }
  set_num_threads(before);
}

TEST_CASE("lines with infinities among thousands of elements") {
  for (const std::int64_t n : {7, 5000, 20'000}) {
    INFO(n);
    Array z = Array::full(float64, {4, n}, -inf);
    z.set(0 * n + n - 1, 3.0);  // one element alone
    z.set(0 * n + 0, 3.0);      // with another as great, blocks away
    z.set(2 * n + n / 2, inf);  // line 1 is all -inf
    for (std::int64_t i = 0; i < n; ++i) z.set(3 * n + i, i == n / 2 ? std::nan("") : 1.0);
    const Array p = of([](const Values& x) { return softmax(x[0]); }, {z});
    const Array l = of([](const Values& x) { return log_softmax(x[0]); }, {z});
    const Array c =
        of([](const Values& x) { return softmax_cross_entropy(x[0], x[1], {.reduction = Reduction::none}); },
           {z, int64s({n - 1, 0, 0, 0})});
    CHECK(p[0] == 0.5);
    CHECK(p[1] == 0);
    CHECK(p[n - 1] == 0.5);
    CHECK(l[0] == Approx(-std::log(2.0)));
    CHECK(l[1] == -inf);
    CHECK(c[0] == Approx(std::log(2.0)));
    for (std::int64_t line = 1; line < 4; ++line) {
      CHECK(std::isnan(p[line * n]));
      CHECK(std::isnan(c[line]));
    }
  }
}
