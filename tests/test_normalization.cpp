// Normalization of activations and weights: numbers by hand, edges, derivatives of order 3, and the same bits for every
// number of threads. (batch_norm's conventions: test_program.cpp. Values on made-up shapes: test_ops.cpp.)
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "compare.hpp"
#include "support.hpp"

using namespace chainrule;
using namespace chainrule::test;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

bool same_bits(const Array& a, const Array& b) { return a.identical(b); }

using Norm = std::function<Value(Value x, Value gamma, Value beta)>;

struct NamedNorm {
  std::string name;
  Norm build;
  Shape x;
  Shape features;
};

Value rms(Value x, Value gamma, Value beta) { return rms_norm(x, gamma) + beta; }

// y, and the gradients of sum(weights * y) in x, gamma and beta.
struct Numbers {
  Array y, dx, dgamma, dbeta;
};

Numbers numbers(const Norm& norm, const Array& x, const Array& gamma, const Array& beta, const Array& weights) {
  Graph graph({.dtype = x.dtype()});
  const auto in = [&](const char* name, const Array& a) { return graph.input(name, to_shape(a.shape()), a.dtype()); };
  const auto vx = in("x", x);
  const auto vgamma = in("gamma", gamma);
  const auto vbeta = in("beta", beta);
  const auto w = in("w", weights);
  const auto y = norm(vx, vgamma, vbeta);
  const auto d = gradients(y, {vx, vgamma, vbeta}, w);
  const auto out = compute(graph, {y, d[0], d[1], d[2]}, {{vx, x}, {vgamma, gamma}, {vbeta, beta}, {w, weights}});
  return {out[0], out[1], out[2], out[3]};
}

Array drawn(DType dtype, const Dims& shape, std::uint64_t stream, double low = -2, double high = 2) {
  return uniform(to_shape(shape), low, high).draw(dtype, 7, stream);
}

}  // namespace

TEST_CASE("layer_norm: hand-computed numbers") {
  // 1, 2, 3, 6: mean 3, variance 3.5; with epsilon 0.5 the root is 2, and z = -1, -0.5, 0, 1.5.
  const Norm norm = [](Value x, Value gamma, Value beta) { return layer_norm(x, gamma, beta, {.epsilon = 0.5}); };
  const Numbers n = numbers(norm, Array({{1.0, 2.0, 3.0, 6.0}, {4.0, 4.0, 4.0, 4.0}}), Array({2.0, 4.0, -1.0, -2.0}),
                            Array({0.5, 0.0, 1.0, 2.0}), Array({{0.5, 0.0, 0.0, 0.0}, {0.0, 1.0, 3.0, 0.0}}));
  CHECK(allclose(n.y, Array({{-1.5, -2.0, 1.0, -1.0}, {0.5, 0.0, 1.0, 2.0}}), 0, 1e-15));
  // Row 0: g = gamma dy = 1, 0, 0, 0; mean(g) = 0.25, mean(g z) = -0.25; dx = (g - 0.25 + 0.25 z) / 2.
  // Row 1: g = 0, 4, -3, 0 and z = 0; dx = (g - 0.25) / sqrt(0.5).
  const double root = std::sqrt(2.0);
  CHECK(allclose(n.dx,
                 Array({{0.25, -0.1875, -0.125, 0.0625}, {-0.25 * root, 3.75 * root, -3.25 * root, -0.25 * root}}),
                 1e-14, 1e-15));
  CHECK(allclose(n.dgamma, Array({-0.5, 0.0, 0.0, 0.0}), 0, 1e-15));
  CHECK(allclose(n.dbeta, Array({0.5, 1.0, 3.0, 0.0}), 0, 1e-15));
}

TEST_CASE("layer_norm over several axes is that over one of all their elements, with gamma and beta optional") {
  Graph graph;
  const auto x = graph.input("x", {2, 3, 4});
  const auto gamma = graph.input("gamma", {3, 4});
  const auto beta = graph.input("beta", {3, 4});
  const auto flat = reshape(x, {2, 12});
  const auto flat_gamma = reshape(gamma, {12});
  const auto flat_beta = reshape(beta, {12});
  const auto out = compute(
      graph,
      {layer_norm(x, gamma, beta, {.axis = 1}), layer_norm(flat, flat_gamma, flat_beta),
       layer_norm(x, gamma, {.axis = -2}), layer_norm(flat) * flat_gamma, layer_norm(x, {.axis = 0}),
       layer_norm(reshape(x, {24}))},
      {{x, drawn(float64, {2, 3, 4}, 0)}, {gamma, drawn(float64, {3, 4}, 1)}, {beta, drawn(float64, {3, 4}, 2)}});
  CHECK(same_bits(out[0].reshape({2, 12}), out[1]));
  CHECK(allclose(out[2].reshape({2, 12}), out[3], 1e-15, 0));
  CHECK(same_bits(out[4].reshape({24}), out[5]));
}

TEST_CASE("rms_norm: hand-computed numbers") {
  // 3, 4: mean square 12.5; with epsilon 12.5 the root is 5, and z = 0.6, 0.8.
  const Norm norm = [](Value x, Value gamma, Value beta) { return rms_norm(x, gamma, {.epsilon = 12.5}) + beta; };
  const Numbers n = numbers(norm, Array({{3.0, 4.0}}), Array({2.0, -1.0}), Array({0.0, 0.0}), Array({{0.5, 0.0}}));
  CHECK(allclose(n.y, Array({{1.2, -0.8}}), 1e-15, 0));
  // g = 1, 0; mean(g z) = 0.3; dx = (g - 0.3 z) / 5.
  CHECK(allclose(n.dx, Array({{0.164, -0.048}}), 1e-14, 0));
  CHECK(allclose(n.dgamma, Array({0.3, 0.0}), 1e-15, 0));
}

TEST_CASE("group_norm and instance_norm: hand-computed numbers") {
  // Group 0 has 1, 2, 3, 6 as above, group 1 equal elements.
  const Norm by_groups = [](Value x, Value gamma, Value beta) {
    return group_norm(x, 2, gamma, beta, {.epsilon = 0.5});
  };
  const Numbers n = numbers(by_groups, Array({{1.0, 2.0}, {3.0, 6.0}, {5.0, 5.0}, {5.0, 5.0}}).reshape({1, 4, 2}),
                            Array({2.0, -1.0, 3.0, 1.0}), Array({0.0, 1.0, 2.0, 3.0}),
                            Array({{0.5, 0.0}, {0.0, 0.0}, {0.0, 0.0}, {0.0, 2.0}}).reshape({1, 4, 2}));
  CHECK(allclose(n.y, Array({{-2.0, -1.0}, {1.0, -0.5}, {2.0, 2.0}, {3.0, 3.0}}).reshape({1, 4, 2}), 0, 1e-15));
  const double root = std::sqrt(2.0);
  CHECK(allclose(n.dx,
                 Array({{0.25, -0.1875}, {-0.125, 0.0625}, {-0.5 * root, -0.5 * root}, {-0.5 * root, 1.5 * root}})
                     .reshape({1, 4, 2}),
                 1e-14, 1e-15));
  CHECK(allclose(n.dgamma, Array({-0.5, 0.0, 0.0, 0.0}), 0, 1e-15));
  CHECK(allclose(n.dbeta, Array({0.5, 0.0, 0.0, 2.0}), 0, 1e-15));

  // 1, 3: mean 2, variance 1; with epsilon 3 z = -0.5, 0.5.
  const Norm by_instance = [](Value x, Value gamma, Value beta) {
    return instance_norm(x, gamma, beta, {.epsilon = 3});
  };
  const Numbers i = numbers(by_instance, Array({{1.0, 3.0}, {7.0, 7.0}}).reshape({1, 2, 2}), Array({4.0, 5.0}),
                            Array({1.0, 2.0}), Array({{1.0, 0.0}, {0.0, 0.0}}).reshape({1, 2, 2}));
  CHECK(allclose(i.y, Array({{-1.0, 3.0}, {2.0, 2.0}}).reshape({1, 2, 2}), 0, 1e-15));
  // g = 4, 0; mean(g) = 2, mean(g z) = -1; dx = (g - 2 + z) / 2.
  CHECK(allclose(i.dx, Array({{0.75, -0.75}, {0.0, 0.0}}).reshape({1, 2, 2}), 1e-15, 1e-15));
}

TEST_CASE("instance_norm is group_norm with a group for each channel; one group is all of an example") {
  Graph graph;
  const auto x = graph.input("x", {2, 3, 4, 5});
  const auto gamma = graph.input("gamma", {3});
  const auto beta = graph.input("beta", {3});
  const auto out =
      compute(graph,
              {instance_norm(x, gamma, beta), group_norm(x, 3, gamma, beta), group_norm(x, 1),
               layer_norm(x, {.axis = 1}), instance_norm(x, gamma), group_norm(x, 3, gamma)},
              {{x, drawn(float64, {2, 3, 4, 5}, 0)}, {gamma, drawn(float64, {3}, 1)}, {beta, drawn(float64, {3}, 2)}});
  CHECK(same_bits(out[0], out[1]));
  CHECK(allclose(out[2], out[3], 1e-13, 1e-14));
  CHECK(same_bits(out[4], out[5]));
}

TEMPLATE_TEST_CASE("parts of equal elements become 0, exactly, with a slope of 0", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  for (const std::int64_t n : {1, 2, 3, 7, 100, 1000, 5000}) {
    for (const double value : {0.1, -3.3, 1e6 + 0.0625, 1e-3}) {
      INFO(n << " times " << value);
      const Array x = Array::full(dtype, {2, 3, n}, value);
      const Array w = drawn(dtype, {2, 3, n}, 1);
      const Array zero = Array::full(dtype, {2, 3, n}, 0);
      const auto layer = [](Value v, Value, Value beta) { return layer_norm(v) + 0.0 * beta; };
      const auto group = [](Value v, Value, Value beta) { return group_norm(v, 3) + 0.0 * beta; };
      const auto instance = [](Value v, Value, Value beta) { return instance_norm(v) + 0.0 * beta; };
      for (const Norm& norm : {Norm(layer), Norm(group), Norm(instance)}) {
        const Numbers out = numbers(norm, x, Array(0.0).astype(dtype), Array(0.0).astype(dtype), w);
        CHECK(allclose(out.y, zero, 0, 0));
        // The slope of the formula, (g - mean(g)) / sqrt(epsilon), is that of one element in n.
        if (n == 1) CHECK(allclose(out.dx, zero, 0, 0));
      }
    }
  }
}

TEST_CASE("a mean of 1e6 beside a variance of 1, in float32") {
  // Multiples of 1/16, which float32 has exactly; the mean is none.
  constexpr std::int64_t n = 768;
  Array x = Array::full(float32, {1, n}, 0);
  double mean = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    x.set(i, 1e6 + std::round(16 * std::sqrt(2.0) * std::sin(0.37 * static_cast<double>(i))) / 16);
    mean += x[i] / n;
  }
  double variance = 0;
  for (std::int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean) / n;
  REQUIRE(variance == Approx(1).epsilon(0.02));
  Graph graph({.dtype = float32});
  const auto in = graph.input("x", {1, n});
  const auto image = reshape(in, {1, 1, n});
  const auto zero = graph.constant(zeros({1}).draw(float32, 0, 0));
  const auto one = graph.constant(ones({1}).draw(float32, 0, 0));
  const auto batch = batch_norm(image, one, zero, zero, one);
  const auto out =
      compute(graph, {layer_norm(in), reshape(instance_norm(image), {1, n}), reshape(batch, {1, n})}, {{in, x}});
  for (std::size_t k = 0; k < out.size(); ++k) {
    INFO("norm " << k);
    double worst = 0;
    double worst_difference = 0;
    const auto expected = [&](std::int64_t i) { return (x[i] - mean) / std::sqrt(variance + 1e-5); };
    for (std::int64_t i = 0; i < n; ++i) {
      worst = std::max(worst, std::abs(out[k][i] - expected(i)));
      worst_difference = std::max(worst_difference, std::abs((out[k][i] - out[k][0]) - (expected(i) - expected(0))));
    }
    // layer_norm takes off what the mean was rounded by; of the others that is half of 1/16. Their variance is right.
    CHECK(worst < (k == 0 ? 2e-6 : 0.0321));
    CHECK(worst_difference < 2e-6);
  }
}

TEST_CASE("NaN and infinity stay in their part") {
  const std::vector<NamedNorm> norms = {
      {"layer", [](Value x, Value gamma, Value beta) { return layer_norm(x, gamma, beta); }, {3, 2, 20}, {20}},
      {"rms", rms, {3, 2, 20}, {20}},
      {"group", [](Value x, Value gamma, Value beta) { return group_norm(x, 1, gamma, beta); }, {3, 2, 20}, {2}},
      {"instance", [](Value x, Value gamma, Value beta) { return instance_norm(x, gamma, beta); }, {3, 2, 20}, {2}}};
  for (const NamedNorm& norm : norms) {
    for (const double bad : {not_a_number, std::numeric_limits<double>::infinity()}) {
      INFO(norm.name << " with " << bad);
      const Dims features = evaluate(norm.features, Sizes{});
      const Array clean = drawn(float64, {3, 2, 20}, 0);
      Array dirty = Array(clean);
      dirty.set(45, bad);  // row 2, in the second example
      const Array gamma = drawn(float64, features, 1);
      const Array beta = drawn(float64, features, 2);
      const Array w = drawn(float64, {3, 2, 20}, 3);
      const Numbers right = numbers(norm.build, clean, gamma, beta, w);
      const Numbers out = numbers(norm.build, dirty, gamma, beta, w);
      for (std::int64_t i = 0; i < clean.size(); ++i) {
        if (norm.name == "group" ? i / 40 == 1 : i / 20 == 2) continue;
        CHECK(out.y[i] == right.y[i]);
        CHECK(out.dx[i] == right.dx[i]);
      }
      CHECK(std::isnan(out.y[45]));
    }
  }
}

TEST_CASE("a batch of one, groups of one element, nothing at all") {
  const Norm instance = [](Value x, Value gamma, Value beta) { return instance_norm(x, gamma, beta); };
  const Numbers one = numbers(instance, drawn(float64, {1, 3, 1}, 0), drawn(float64, {3}, 1), Array({1.0, 2.0, 3.0}),
                              drawn(float64, {1, 3, 1}, 2));
  CHECK(same_bits(one.y, Array({{1.0}, {2.0}, {3.0}}).reshape({1, 3, 1})));
  CHECK(allclose(one.dx, zeros({1, 3, 1}).draw(float64, 0, 0), 0, 0));

  const Norm layer = [](Value x, Value gamma, Value beta) { return layer_norm(x, gamma, beta); };
  const Numbers none = numbers(layer, zeros({0, 3}).draw(float64, 0, 0), drawn(float64, {3}, 1), drawn(float64, {3}, 2),
                               zeros({0, 3}).draw(float64, 0, 0));
  CHECK(none.y.shape() == Dims{0, 3});
  CHECK(same_bits(none.dgamma, Array({0.0, 0.0, 0.0})));
  CHECK(same_bits(none.dbeta, Array({0.0, 0.0, 0.0})));
  const Numbers empty_rows = numbers(layer, zeros({2, 0}).draw(float64, 0, 0), zeros({0}).draw(float64, 0, 0),
                                     zeros({0}).draw(float64, 0, 0), zeros({2, 0}).draw(float64, 0, 0));
  CHECK(empty_rows.dx.shape() == Dims{2, 0});
  CHECK(empty_rows.dgamma.shape() == Dims{0});
}

TEST_CASE("norms of named sizes") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto channels = graph.dimension("channels");
  const auto length = graph.dimension("length");
  const auto x = graph.input("x", {batch, channels, length});
  const auto gamma = graph.input("gamma", {length});
  const auto by_channel = graph.input("by_channel", {channels});
  const Values ys = {layer_norm(x, gamma), rms_norm(x, gamma), instance_norm(x, by_channel),
                     group_norm(x, 1, by_channel)};
  Values outputs = ys;
  for (const Value y : ys) outputs.push_back(gradients(sum(square(y) * y), {x})[0]);
  State state(graph);
  Program program(state, {.outputs = outputs});
  for (const Dims& shape : {Dims{2, 3, 5}, Dims{4, 1, 70}, Dims{1, 2, 1}}) {
    const Array fed = drawn(float64, shape, 0);
    const Array g = drawn(float64, {shape[2]}, 1);
    const Array c = drawn(float64, {shape[1]}, 2);
    const Results out = program.run({{x, fed}, {gamma, g}, {by_channel, c}});
    Graph fixed;
    const auto fx = fixed.input("x", to_shape(shape));
    const auto fg = fixed.input("gamma", {shape[2]});
    const auto fc = fixed.input("by_channel", {shape[1]});
    const Values fys = {layer_norm(fx, fg), rms_norm(fx, fg), instance_norm(fx, fc), group_norm(fx, 1, fc)};
    Values foutputs = fys;
    for (const Value y : fys) foutputs.push_back(gradients(sum(square(y) * y), {fx})[0]);
    const auto expected = compute(fixed, foutputs, {{fx, fed}, {fg, g}, {fc, c}});
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(allclose(out[i], expected[i], 1e-12, 1e-13));
  }
}

// The gradient of a weighted gradient is checked to order 2: what is wrong in a third derivative fails. Weights have
// both signs, as the sum of what is normalized is a constant.
TEST_CASE("third derivatives of normalizations") {
  const auto images = [](Value x, Value gamma, Value beta) {
    Graph graph = x.graph();
    return batch_norm(x, gamma, beta, graph.constant(drawn(float64, {3}, 8)),
                      graph.constant(drawn(float64, {3}, 9, 0.5, 2)));
  };
  const auto weights = [](Value v, Value g, Value beta) { return weight_norm(v, g, {0, 2}) + sum(square(beta)); };
  const auto spectral = [](Value w, Value u, Value beta) {
    Graph graph = w.graph();
    return spectral_norm(square(w) + 1.0, graph.constant(drawn(float64, {3}, 7, 0.5, 1)),
                         graph.constant(drawn(float64, {8}, 8, 0.5, 1)), {.axis = 1, .iterations = 0}) *
           sum(u * square(beta));
  };
  const std::vector<NamedNorm> norms = {
      {"layer", [](Value x, Value gamma, Value beta) { return layer_norm(x, gamma, beta); }, {3, 4}, {4}},
      {"layer of two axes",
       [](Value x, Value gamma, Value beta) { return layer_norm(x, gamma, beta, {.axis = 1, .epsilon = 0.1}); },
       {2, 2, 3},
       {2, 3}},
      {"rms", rms, {3, 4}, {4}},
      {"group", [](Value x, Value gamma, Value beta) { return group_norm(x, 2, gamma, beta); }, {2, 4, 2}, {4}},
      {"instance", [](Value x, Value gamma, Value beta) { return instance_norm(x, gamma, beta); }, {2, 2, 4}, {2}},
      {"batch, images", images, {2, 3, 3}, {3}},
      {"weight", weights, {2, 3, 3}, {3}},
      {"spectral", spectral, {2, 3, 4}, {3}}};
  for (const NamedNorm& norm : norms) {
    INFO(norm.name);
    Graph graph;
    const auto x = graph.parameter("x", uniform(norm.x, -2, 2));
    const auto gamma = graph.parameter("gamma", uniform(norm.features, -2, 2));
    const auto beta = graph.parameter("beta", uniform(norm.features, -2, 2));
    const auto y = norm.build(x, gamma, beta);
    const auto mixed = [&](Value v, std::uint64_t stream) {
      return sum(v * graph.constant(drawn(float64, evaluate(v.shape(), Sizes{}), stream)));
    };
    Value loss;
    const Values first = gradients(mixed(y * y, 1), {x, gamma});
    loss = mixed(first[0] * first[0], 2) + mixed(first[1], 3);
    State state(graph);
    const CheckReport report = check_gradients(loss, {x, gamma, beta}, state);
    INFO(report.to_string());
    CHECK(report.passed());
  }
}

TEMPLATE_TEST_CASE("large norms: right, and the same bits for every number of threads", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const double allowed = dtype == float32 ? 2e-5 : 1e-13;
  const std::vector<NamedNorm> norms = {
      {"layer", [](Value x, Value gamma, Value beta) { return layer_norm(x, gamma, beta); }, {700, 300}, {300}},
      {"layer of long rows",
       [](Value x, Value gamma, Value beta) { return layer_norm(x, gamma, beta); },
       {3, 70'001},
       {70'001}},
      {"layer of short rows",
       [](Value x, Value gamma, Value beta) { return layer_norm(x, gamma, beta); },
       {20'000, 3},
       {3}},
      {"rms", rms, {500, 401}, {401}},
      {"group", [](Value x, Value gamma, Value beta) { return group_norm(x, 2, gamma, beta); }, {40, 6, 31, 33}, {6}},
      {"group of many",
       [](Value x, Value gamma, Value beta) { return group_norm(x, 1, gamma, beta); },
       {2, 3, 70, 1001},
       {3}},
      {"batch, images",
       [](Value x, Value gamma, Value beta) { return batch_norm(x, gamma, beta, gamma, square(beta)); },
       {50, 4, 32, 33},
       {4}},
      {"batch, images of 2 x 2",
       [](Value x, Value gamma, Value beta) { return batch_norm(x, gamma, beta, gamma, square(beta)); },
       {300, 50, 2, 2},
       {50}},
      {"batch, one feature",
       [](Value x, Value gamma, Value beta) { return batch_norm(x, gamma, beta, gamma, square(beta)); },
       {200, 1, 1500},
       {1}}};
  const int threads = num_threads();
  for (const NamedNorm& norm : norms) {
    INFO(norm.name);
    const Dims shape = evaluate(norm.x, Sizes{});
    const Dims features = evaluate(norm.features, Sizes{});
    const Array x = drawn(float32, shape, 0, 1, 3).astype(dtype);
    const Array gamma = drawn(float32, features, 1).astype(dtype);
    const Array beta = drawn(float32, features, 2).astype(dtype);
    const Array w = drawn(float32, shape, 3).astype(dtype);
    set_num_threads(1);
    const Numbers one = numbers(norm.build, x, gamma, beta, w);
    for (const int n : {2, 3, 5}) {
      set_num_threads(n);
      const Numbers some = numbers(norm.build, x, gamma, beta, w);
      CHECK(same_bits(some.y, one.y));
      CHECK(same_bits(some.dx, one.dx));
      CHECK(same_bits(some.dgamma, one.dgamma));
      CHECK(same_bits(some.dbeta, one.dbeta));
    }
    set_num_threads(threads);

    // The formula, in double. Where gamma and beta of element i are, and which part it is in.
    const bool by_row = norm.features.rank() == 1 && features[0] == shape[shape.rank() - 1] && shape.rank() == 2;
    std::int64_t inner = 1;
    for (std::size_t a = 2; a < shape.rank(); ++a) inner *= shape[a];
    const auto feature = [&](std::int64_t i) { return by_row ? i % features[0] : i / inner % features[0]; };
    const auto part = [&](std::int64_t i) {
      if (by_row) return i / features[0];
      if (norm.name.starts_with("batch")) return feature(i);
      return i / (inner * features[0] / (norm.name == "group" ? 2 : 1));
    };
    const auto parts = static_cast<std::size_t>(part(x.size() - 1) + 1);
    const bool centered = norm.name != "rms";
    std::vector<double> count(parts, 0);
    std::vector<double> mean(parts, 0);
    std::vector<double> variance(parts, 0);
    std::vector<double> of_g(parts, 0);
    std::vector<double> of_gz(parts, 0);
    const auto p = [&](std::int64_t i) { return static_cast<std::size_t>(part(i)); };
    for (std::int64_t i = 0; i < x.size(); ++i) count[p(i)] += 1;
    for (std::int64_t i = 0; centered && i < x.size(); ++i) mean[p(i)] += x[i] / count[p(i)];
    for (std::int64_t i = 0; i < x.size(); ++i)
      variance[p(i)] += (x[i] - mean[p(i)]) * (x[i] - mean[p(i)]) / count[p(i)];
    const auto scale = [&](std::int64_t i) { return 1 / std::sqrt(variance[p(i)] + 1e-5); };
    const auto z = [&](std::int64_t i) { return (x[i] - mean[p(i)]) * scale(i); };
    std::vector<double> dgamma(static_cast<std::size_t>(features[0]), 0);
    std::vector<double> dbeta(dgamma);
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const double g = gamma[feature(i)] * w[i];
      of_g[p(i)] += centered ? g / count[p(i)] : 0;
      of_gz[p(i)] += g * z(i) / count[p(i)];
      dgamma[static_cast<std::size_t>(feature(i))] += w[i] * z(i);
      dbeta[static_cast<std::size_t>(feature(i))] += w[i];
    }
    double worst = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, std::abs(one.y[i] - (gamma[feature(i)] * z(i) + beta[feature(i)])));
      const double g = gamma[feature(i)] * w[i];
      worst = std::max(worst, std::abs(one.dx[i] - scale(i) * (g - of_g[p(i)] - z(i) * of_gz[p(i)])));
    }
    // Three elements may be near each other, and what they are rounded by is then large beside the deviation.
    CHECK(worst < allowed * (norm.name == "layer of short rows" ? 100 : 1));
    const double terms = static_cast<double>(x.size()) / static_cast<double>(features[0]);
    for (std::int64_t k = 0; k < features[0]; ++k) {
      CHECK(std::abs(one.dgamma[k] - dgamma[static_cast<std::size_t>(k)]) < allowed * std::sqrt(terms) * 10);
      CHECK(std::abs(one.dbeta[k] - dbeta[static_cast<std::size_t>(k)]) < allowed * std::sqrt(terms) * 10);
    }
  }
}

TEST_CASE("norms that a user gets wrong") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 6, 4});
  const auto named = graph.input("named", {2, batch, 4});
  const auto whole = graph.input("whole", {3, 4}, int64);
  const auto narrow = graph.input("narrow", {4}, float32);
  const auto four = graph.input("four", {4});
  const auto six = graph.input("six", {6});
  const auto pair = graph.input("pair", {2, 2});
  const std::size_t size = graph.size();
  const auto refuse = [&](const std::function<void()>& f, int line, const char* text) {
    const Error error = error_of(f);
    INFO(error.what());
    CHECK(ContainsSubstring(text).match(error.what()));
    CHECK(ContainsSubstring("test_normalization.cpp:" + std::to_string(line) + ":").match(error.what()));
    CHECK(graph.size() == size);
  };
  refuse([&] { layer_norm(x, six); }, __LINE__, "layer_norm: requires gamma of shape {4} for {batch, 6, 4}, got {6}");
  refuse([&] { layer_norm(x, four, six); }, __LINE__,
         "layer_norm: requires beta of shape {4} for {batch, 6, 4}, got {6}");
  refuse([&] { layer_norm(x, four, {.axis = 1}); }, __LINE__, "layer_norm: requires gamma of shape {6, 4}");
  refuse([&] { layer_norm(x, {.axis = 3}); }, __LINE__, "layer_norm: ");
  refuse([&] { layer_norm(x, {.epsilon = 0}); }, __LINE__, "layer_norm: requires epsilon > 0, got 0");
  refuse([&] { layer_norm(x, {.epsilon = not_a_number}); }, __LINE__, "layer_norm: requires epsilon > 0, got nan");
  refuse([&] { layer_norm(whole); }, __LINE__, "layer_norm: ");
  refuse([&] { layer_norm(x, narrow); }, __LINE__, "layer_norm: ");
  refuse([&] { layer_norm(Value()); }, __LINE__, "layer_norm: requires values of a graph, got an empty Value");
  refuse([&] { rms_norm(x, six); }, __LINE__, "rms_norm: requires gamma of shape {4}");
  refuse([&] { group_norm(x, 4); }, __LINE__,
         "group_norm: requires a number of channels that 4 groups divide, got {batch, 6, 4}");
  refuse([&] { group_norm(named, 2); }, __LINE__,
         "group_norm: requires a number of channels that 2 groups divide, got {2, batch, 4}");
  refuse([&] { group_norm(x, 0); }, __LINE__, "group_norm: requires at least one group, got 0");
  refuse([&] { group_norm(four, 1); }, __LINE__,
         "group_norm: requires an axis of examples and one of channels, got {4}");
  refuse([&] { group_norm(x, 2, four); }, __LINE__, "group_norm: requires gamma of shape {6}");
  refuse([&] { instance_norm(x, six, four); }, __LINE__, "instance_norm: requires beta of shape {6}");
  refuse([&] { instance_norm(pair); }, __LINE__, "instance_norm: requires axes of examples and");
}

// ---- weights

TEST_CASE("weight_norm: hand-computed numbers, and columns of zeros") {
  Graph graph;
  const auto v = graph.input("v", {2, 2});
  const auto g = graph.input("g", {2});
  const auto dw = graph.input("dw", {2, 2});
  const auto w = weight_norm(v, g, 0);
  const auto d = gradients(w, {v, g}, dw);
  const auto second = gradients(sum(square(d[0])) + sum(square(d[1])), {v, g});
  // Column 0: norm 5, w = 2 v; n = 0.6, 0.8, sum(dw n) = 0.6, dv = 2 (dw - 0.6 n).
  const auto out =
      compute(graph, {w, d[0], d[1], second[0], second[1]},
              {{v, Array({{3.0, 0.0}, {4.0, 0.0}})}, {g, Array({10.0, 2.0})}, {dw, Array({{1.0, 5.0}, {0.0, 7.0}})}});
  CHECK(allclose(out[0], Array({{6.0, 0.0}, {8.0, 0.0}}), 1e-15, 0));
  CHECK(allclose(out[1], Array({{1.28, 0.0}, {-0.96, 0.0}}), 1e-14, 0));
  CHECK(allclose(out[2], Array({0.6, 0.0}), 1e-15, 0));
  for (std::int64_t i = 0; i < 4; ++i) CHECK(std::isfinite(out[3][i]));
  CHECK(out[3][1] == 0);
  CHECK(std::isfinite(out[4][1]));
}

TEST_CASE("weight_norm over all axes, and what it refuses") {
  Graph graph;
  const auto v = graph.input("v", {2, 2});
  const auto g = graph.input("g", {});
  const auto three = graph.input("three", {3});
  CHECK(allclose(compute(graph, {weight_norm(v, g)}, {{v, Array({{1.0, 1.0}, {1.0, -1.0}})}, {g, Array(6.0)}})[0],
                 Array({{3.0, 3.0}, {3.0, -3.0}}), 1e-15, 0));
  CHECK_THROWS_WITH(weight_norm(v, three, 0),
                    ContainsSubstring("weight_norm: requires g of shape {2} for v {2, 2}, got {3}"));
  CHECK_THROWS_WITH(weight_norm(v, g, 2), ContainsSubstring("weight_norm: "));
  CHECK_THROWS_WITH(weight_norm(v, Value()), ContainsSubstring("weight_norm: requires values of a graph"));
}

namespace {

struct Spectral {
  Graph graph;
  Value w = graph.parameter("w", Array({{3.0, 0.0}, {0.0, 1.0}}));
  Value u = graph.variable("u", Array({1.0, 1.0}));
  Value v = graph.variable("v", Array({1.0, 0.0}));
};

}  // namespace

TEST_CASE("spectral_norm: one step of the power method by hand, kept by runs that update") {
  Spectral s;
  const auto y = spectral_norm(s.w, s.u, s.v);
  const auto dy = s.graph.input("dy", {2, 2});
  const auto dw = gradients(y, {s.w}, dy)[0];
  State state(s.graph);
  Program evaluate_it(state, {.outputs = {y}});
  Program train(state, {.outputs = {y, dw}, .updates = {{s.w, s.w}}});
  Program infer(state, {.outputs = {y}, .mode = Mode::inference});
  const Array slopes({{1.0, 2.0}, {-1.0, 0.5}});
  // v = (3, 1) / sqrt(10), u = w v / ||w v|| = (9, 1) / sqrt(82), u^T w v = 82 / sqrt(820).
  const double norm = 82 / std::sqrt(820.0);
  const Array expected({{3 / norm, 0.0}, {0.0, 1 / norm}});
  // u^T w v with u and v as they are is 3.
  CHECK(allclose(infer.run()[0], Array({{1.0, 0.0}, {0.0, 1.0 / 3}}), 1e-15, 0));
  CHECK(allclose(evaluate_it.run()[0], expected, 1e-14, 0));
  CHECK(same_bits(state["u"], Array({1.0, 1.0})));
  const Results out = train.run({{dy, slopes}});
  CHECK(allclose(out[0], expected, 1e-14, 0));
  // dy / s - sum(dy y) / s u v^T, with u and v as constants.
  const double c = (3 / norm + 0.5 / norm) / norm;
  const double root = std::sqrt(820.0);
  CHECK(allclose(out[1],
                 Array({{1 / norm - c * 27 / root, 2 / norm - c * 9 / root},
                        {-1 / norm - c * 3 / root, 0.5 / norm - c * 1 / root}}),
                 1e-13, 0));
  CHECK(allclose(state["u"], Array({9 / std::sqrt(82.0), 1 / std::sqrt(82.0)}), 1e-14, 0));
  CHECK(allclose(state["v"], Array({3 / std::sqrt(10.0), 1 / std::sqrt(10.0)}), 1e-14, 0));
  for (int i = 0; i < 30; ++i) train.run({{dy, slopes}});
  CHECK(allclose(infer.run()[0], Array({{1.0, 0.0}, {0.0, 1.0 / 3}}), 1e-14, 1e-14));
}

TEST_CASE("spectral_norm: several iterations are as many runs; converged, its gradient is that of w / norm") {
  Spectral once;
  Spectral thrice;
  const auto a = spectral_norm(once.w, once.u, once.v);
  const auto b = spectral_norm(thrice.w, thrice.u, thrice.v, {.iterations = 3});
  State first(once.graph);
  State second(thrice.graph);
  Program one(first, {.outputs = {a}, .updates = {{once.w, once.w}}});
  Program three(second, {.outputs = {b}, .updates = {{thrice.w, thrice.w}}});
  one.run();
  one.run();
  CHECK(allclose(one.run()[0], three.run()[0], 1e-15, 0));
  CHECK(allclose(first["u"], second["u"], 1e-15, 0));

  // A convolution's weight, its rows along axis 1, from u alone: 200 iterations find the singular vectors wherever w
  // is, so that numeric differences, which move u and v too, agree with the gradient.
  Graph graph;
  const auto w = graph.parameter("w", uniform({2, 3, 2, 2}, -2, 2));
  const auto u = graph.constant(drawn(float64, {3}, 1));
  const auto y = spectral_norm(w, u, graph.constant(drawn(float64, {8}, 2)), {.axis = 1, .iterations = 200});
  const auto loss = sum(y * graph.constant(drawn(float64, {2, 3, 2, 2}, 3)));
  State state(graph);
  const CheckReport report = check_gradients(loss, {w}, state, {}, {.orders = 1});
  INFO(report.to_string());
  CHECK(report.passed());
}

TEST_CASE("spectral_norm of zeros is zeros, and its vectors stay") {
  Graph graph;
  const auto w = graph.parameter("w", zeros({2, 3}));
  const auto u = graph.variable("u", Array({0.6, 0.8}));
  const auto v = graph.variable("v", Array({1.0, 0.0, 0.0}));
  const auto y = spectral_norm(w, u, v);
  const auto dw = gradients(sum(y), {w})[0];
  State state(graph);
  Program train(state, {.outputs = {y, dw}, .updates = {{w, w}}});
  const Results out = train.run();
  CHECK(allclose(out[0], zeros({2, 3}).draw(float64, 0, 0), 0, 0));
  CHECK(allclose(out[1], zeros({2, 3}).draw(float64, 0, 0), 0, 0));
  CHECK(same_bits(state["u"], Array({0.6, 0.8})));
  CHECK(same_bits(state["v"], Array({1.0, 0.0, 0.0})));
}

TEST_CASE("what spectral_norm refuses leaves the graph as it was") {
  Spectral s;
  const auto three = s.graph.constant(Array({1.0, 2.0, 3.0}));
  const auto two = s.graph.constant(Array({1.0, 2.0}));
  const std::size_t size = s.graph.size();
  CHECK_THROWS_WITH(spectral_norm(s.w, three, s.v),
                    ContainsSubstring("spectral_norm: requires u of shape {2} for w {2, 2}, got {3}"));
  CHECK_THROWS_WITH(spectral_norm(s.w, s.u, three), ContainsSubstring("spectral_norm: requires v of shape {2}"));
  CHECK_THROWS_WITH(
      spectral_norm(s.w, s.u, two),
      ContainsSubstring("requires variables for both u and v, or for neither, got variable and constant"));
  CHECK_THROWS_WITH(spectral_norm(s.w, s.u, s.v, {.axis = 2}), ContainsSubstring("spectral_norm: "));
  CHECK_THROWS_WITH(spectral_norm(s.w, s.u, s.v, {.iterations = -1}),
                    ContainsSubstring("spectral_norm: requires iterations >= 0, got -1"));
  CHECK_THROWS_WITH(spectral_norm(Value(), s.u, s.v),
                    ContainsSubstring("requires values of a graph, got an empty Value"));
  CHECK(s.graph.size() == size);
}
