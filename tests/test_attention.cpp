// Attention against its formula in plain loops, its masks, and positions.
#include <cmath>
#include <limits>
#include <optional>
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

using Doubles = std::vector<double>;
constexpr double inf = std::numeric_limits<double>::infinity();

Array random_array(const Dims& shape, unsigned seed) {
  return Array(test::random_numbers<double>(count(shape), seed)).reshape(shape);
}

// {heads, queries, width}, {groups, keys, width}, {groups, keys, features}; bias(h, i, j) is added to the scores.
template <class Bias>
Doubles attended(const Array& q, const Array& k, const Array& v, double scale, Bias bias) {
  const auto heads = q.shape()[0];
  const auto queries = q.shape()[1];
  const auto width = q.shape()[2];
  const auto keys = k.shape()[1];
  const auto features = v.shape()[2];
  const auto of_group = heads / k.shape()[0];
  Doubles out;
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t i = 0; i < queries; ++i) {
      Doubles weights;
      double total = 0;
      for (std::int64_t j = 0; j < keys; ++j) {
        double score = 0;
        for (std::int64_t d = 0; d < width; ++d)
          score +=
              q.data<double>()[(h * queries + i) * width + d] * k.data<double>()[(h / of_group * keys + j) * width + d];
        weights.push_back(std::exp(scale * score + bias(h, i, j)));
        total += weights.back();
      }
      for (std::int64_t f = 0; f < features; ++f) {
        double sum = 0;
        for (std::int64_t j = 0; j < keys; ++j)
          sum += weights[static_cast<std::size_t>(j)] * v.data<double>()[(h / of_group * keys + j) * features + f];
        out.push_back(total == 0 ? 0 : sum / total);
      }
    }
  }
  return out;
}

constexpr auto no_bias = [](auto, auto, auto) { return 0.0; };
constexpr auto earlier = [](auto, auto i, auto j) { return j <= i ? 0.0 : -inf; };

void check_close(const Array& got, const Doubles& expected, double tolerance = 1e-12) {
  const Array as_double = got.astype(float64);
  REQUIRE(static_cast<std::size_t>(as_double.size()) == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO(i);
    CHECK(std::abs(as_double.data<double>()[i] - expected[i]) <= tolerance * (1 + std::abs(expected[i])));
  }
}

struct Operands {
  Graph graph{GraphOptions{.seed = 3}};
  Value q, k, v;
  Array qs, ks, vs;

  Operands(const Dims& query, const Dims& key, const Dims& value)
      : qs(random_array(query, 1)), ks(random_array(key, 2)), vs(random_array(value, 3)) {
    q = graph.parameter("q", qs);
    k = graph.parameter("k", ks);
    v = graph.parameter("v", vs);
  }
  [[nodiscard]] Array run(const AttentionOptions& options) {
    return compute(graph, {scaled_dot_product_attention(q, k, v, options)})[0];
  }
  [[nodiscard]] CheckReport check(const AttentionOptions& options) {
    State state(graph);
    return check_gradients(sum(sin(scaled_dot_product_attention(q, k, v, options))), {q, k, v}, state, {});
  }
};

}  // namespace

TEST_CASE("attention is the formula's, for one head and several, and heads that share keys") {
  for (const std::int64_t groups : {1, 2, 4}) {
    Operands a({4, 3, 6}, {groups, 5, 6}, {groups, 5, 2});
    CHECK(a.run({}).shape() == Dims{4, 3, 2});
    check_close(a.run({}), attended(a.qs, a.ks, a.vs, 1 / std::sqrt(6.0), no_bias));
    check_close(a.run({.scale = 0.25}), attended(a.qs, a.ks, a.vs, 0.25, no_bias));
  }
  Operands flat({3, 6}, {5, 6}, {5, 2});
  check_close(flat.run({}), attended(flat.qs.reshape({1, 3, 6}), flat.ks.reshape({1, 5, 6}), flat.vs.reshape({1, 5, 2}),
                                     1 / std::sqrt(6.0), no_bias));
}

TEST_CASE("attention of several examples is that of each") {
  Operands all({2, 4, 3, 6}, {2, 2, 5, 6}, {2, 2, 5, 2});
  const Array got = all.run({});
  for (std::int64_t i = 0; i < 2; ++i) {
    const auto part = [i](const Array& x) {
      const Dims shape{x.shape()[1], x.shape()[2], x.shape()[3]};
      const double* first = x.data<double>() + i * count(shape);
      return Array(Doubles(first, first + count(shape))).reshape(shape);
    };
    check_close(part(got), attended(part(all.qs), part(all.ks), part(all.vs), 1 / std::sqrt(6.0), no_bias));
  }
}

TEST_CASE("attention honours its masks") {
  Operands a({2, 4, 3}, {2, 4, 3}, {2, 4, 3});
  const double scale = 1 / std::sqrt(3.0);
  check_close(a.run({.causal = true}), attended(a.qs, a.ks, a.vs, scale, earlier));

  const std::vector<bool> allowed{true, false, true, true, false, true,  true, false,
                                  true, true,  true, true, false, false, true, false};
  Array mask = Array::full(boolean, {4, 4}, 0);
  for (std::size_t i = 0; i < 16; ++i) mask.data<bool>()[i] = allowed[i];
  const auto where_allowed = [&](auto, auto i, auto j) {
    return allowed[static_cast<std::size_t>(4 * i + j)] ? 0.0 : -inf;
  };
  check_close(a.run({.mask = a.graph.constant(mask)}), attended(a.qs, a.ks, a.vs, scale, where_allowed));
  check_close(a.run({.mask = a.graph.constant(mask), .causal = true}),
              attended(a.qs, a.ks, a.vs, scale,
                       [&](auto h, auto i, auto j) { return where_allowed(h, i, j) + earlier(h, i, j); }));

  const Array bias = random_array({2, 1, 4}, 9);
  check_close(a.run({.mask = a.graph.constant(bias)}),
              attended(a.qs, a.ks, a.vs, scale, [&](auto h, auto, auto j) { return bias.data<double>()[4 * h + j]; }));
}

TEST_CASE("a query that may attend to nothing gets zeros and gradients of zero") {
  for (const bool additive : {false, true}) {
    Operands a({1, 3, 2}, {1, 4, 2}, {1, 4, 2});
    Array mask = Array::full(additive ? float64 : boolean, {3, 4}, 0);
    for (int j = 0; j < 4; ++j) {
      if (additive) {
        mask.data<double>()[4 + j] = -inf;
      } else {
        mask.data<bool>()[j] = mask.data<bool>()[8 + j] = true;
      }
    }
    const AttentionOptions options{.mask = a.graph.constant(mask)};
    const Value y = scaled_dot_product_attention(a.q, a.k, a.v, options);
    const auto slopes = gradients(sum(square(y)), {a.q, a.k, a.v});
    const auto results = compute(a.graph, {y, slopes[0], slopes[1], slopes[2]});
    check_close(results[0],
                attended(a.qs, a.ks, a.vs, 1 / std::sqrt(2.0), [](auto, auto i, auto) { return i == 1 ? -inf : 0.0; }));
    CHECK(results[0].data<double>()[2] == 0);
    CHECK(results[0].data<double>()[3] == 0);
    for (std::size_t i = 1; i < 4; ++i)
      for (std::int64_t j = 0; j < results[i].size(); ++j) CHECK(std::isfinite(results[i].data<double>()[j]));
    CHECK(results[1].data<double>()[2] == 0);
    CHECK(results[1].data<double>()[3] == 0);
    const CheckReport report = a.check(options);
    INFO(report.to_string());
    CHECK(report.passed());
  }
}

TEST_CASE("gradients of attention are right in both orders") {
  Operands a({2, 2, 3, 2}, {2, 1, 3, 2}, {2, 1, 3, 3});
  for (const AttentionOptions& options : {AttentionOptions{}, AttentionOptions{.causal = true}}) {
    const CheckReport report = a.check(options);
    INFO(report.to_string());
    CHECK(report.passed());
  }
}

TEST_CASE("attention over named sizes") {
  Graph graph({.dtype = float32});
  const Dimension batch = graph.dimension("batch");
  const Dimension places = graph.dimension("places");
  const Value q = graph.input("q", {batch, 4, places, 6});
  const Value k = graph.input("k", {batch, 2, places, 6});
  const Value y = scaled_dot_product_attention(rotary(q), rotary(k), k, {.causal = true});
  CHECK(y.shape() == Shape{batch, 4, places, 6});
  const Value cost = sum(square(y));
  const auto slopes = gradients(cost, {q, k});
  State state(graph);
  Program program(state, {.outputs = {y, slopes[0]}});
  for (const std::int64_t n : {1, 2, 5}) {
    const Array qs = random_array({1, 4, n, 6}, 4).astype(float32);
    const Array ks = random_array({1, 2, n, 6}, 5).astype(float32);
    const auto results = program.run({{q, qs}, {k, ks}});
    // The first place attends to itself only.
    for (int h = 0; h < 4; ++h)
      for (int d = 0; d < 6; ++d) CHECK(results[y].data<float>()[h * n * 6 + d] == ks.data<float>()[h / 2 * n * 6 + d]);
  }
}

TEST_CASE("attention says what does not fit") {
  Graph graph;
  const Value q = graph.input("q", {2, 4, 3, 6});
  const auto message = [&](const Shape& key, const Shape& value, const AttentionOptions& options = {}) {
    static int n = 0;
    const std::string number = std::to_string(n++);
    const Value k = graph.input("k" + number, key);
    const Value v = graph.input("v" + number, value);
    const std::size_t before = graph.size();
    const Error error = error_of([&] { scaled_dot_product_attention(q, k, v, options); });
    CHECK(graph.size() == before);
    return std::string(error.what());
  };
  CHECK_THAT(message({2, 4, 5, 7}, {2, 4, 5, 6}), ContainsSubstring("requires keys as wide as queries"));
  CHECK_THAT(message({2, 4, 5, 6}, {2, 4, 4, 6}), ContainsSubstring("requires as many values as keys"));
  CHECK_THAT(message({2, 3, 5, 6}, {2, 3, 5, 6}), ContainsSubstring("multiple of the groups"));
  CHECK_THAT(message({1, 4, 5, 6}, {1, 4, 5, 6}), ContainsSubstring("same extents before the heads"));
  CHECK_THAT(message({4, 5, 6}, {4, 5, 6}), ContainsSubstring("one rank"));
  CHECK_THAT(message({2, 4, 0, 6}, {2, 4, 0, 6}), ContainsSubstring("at least one key"));
  CHECK_THAT(message({2, 4, 5, 6}, {2, 4, 5, 6}, {.causal = true}), ContainsSubstring("as many queries as keys"));
  CHECK_THAT(message({2, 4, 5, 6}, {2, 4, 5, 6}, {.mask = graph.constant(Array::full(boolean, {5, 5}, 0))}),
             ContainsSubstring("a mask that broadcasts to {2, 4, 3, 5}"));
  CHECK_THAT(message({2, 4, 5, 6}, {2, 4, 5, 6}, {.mask = graph.constant(Array::full(int64, {3, 5}, 0))}),
             ContainsSubstring("a mask of dtype bool or float64, got int64"));
  CHECK_THAT(message({2, 4, 5, 6}, {2, 4, 5, 6}, {.scale = inf}), ContainsSubstring("a finite scale"));
}

TEST_CASE("rotary turns pairs of features by their position") {
  for (const bool interleaved : {false, true}) {
    const Array xs = random_array({2, 3, 4}, 7);
    Graph graph;
    const Value x = graph.constant(xs);
    const Array y = compute(graph, {rotary(x, {.base = 100, .interleaved = interleaved})})[0];
    Doubles expected(24);
    for (std::size_t r = 0; r < 6; ++r) {
      for (std::size_t i = 0; i < 2; ++i) {
        const double angle = static_cast<double>(r % 3) * std::pow(100.0, -static_cast<double>(i) / 2);
        const std::size_t a = r * 4 + (interleaved ? 2 * i : i);
        const std::size_t b = r * 4 + (interleaved ? 2 * i + 1 : i + 2);
        const double* in = xs.data<double>();
        expected[a] = in[a] * std::cos(angle) - in[b] * std::sin(angle);
        expected[b] = in[b] * std::cos(angle) + in[a] * std::sin(angle);
      }
    }
    check_close(y, expected);
  }
}

TEST_CASE("products of rotated rows depend on the distance of their positions") {
  Graph graph;
  const Value x = graph.constant(random_array({1, 8}, 1));
  const Value y = graph.constant(random_array({1, 8}, 2));
  const auto product = [&](double p, double q) {
    return sum(rotary(x, {.positions = graph.constant(Array({p}))}) *
               rotary(y, {.positions = graph.constant(Array({q}))}));
  };
  const auto results = compute(graph, {product(0, 3), product(1000, 1003), product(3, 0)});
  CHECK(std::abs(results[0].item() - results[1].item()) < 1e-11);
  CHECK(std::abs(results[0].item() - results[2].item()) > 1e-3);
}

TEST_CASE("rotary says what does not fit") {
  Graph graph;
  CHECK_THAT(error_of([&] { rotary(graph.input("odd", {3, 5})); }).what(), ContainsSubstring("an even number"));
  CHECK_THAT(error_of([&] {
               rotary(graph.input("x", {3, 4}), {.positions = graph.constant(Array({1.0, 2.0}))});
             }).what(),
             ContainsSubstring("positions that broadcast to {3}, got {2}"));
}

TEST_CASE("sinusoidal positions and ALiBi's bias are the papers'") {
  Graph graph;
  const auto results =
      compute(graph, {sinusoidal_positions(graph, 3, 4, float64), alibi_bias(graph, 8, 2, 3, float64)});
  CHECK(results[0].shape() == Dims{3, 4});
  check_close(results[0], {0, 1, 0, 1, std::sin(1.0), std::cos(1.0), std::sin(0.01), std::cos(0.01), std::sin(2.0),
                           std::cos(2.0), std::sin(0.02), std::cos(0.02)});
  CHECK(results[1].shape() == Dims{8, 2, 3});
  Doubles expected;
  for (int h = 1; h <= 8; ++h)
    for (const double distance : {0.0, 1.0, 2.0, 1.0, 0.0, 1.0}) expected.push_back(-distance * std::pow(0.5, h));
  check_close(results[1], expected);
  CHECK_THAT(error_of([&] { alibi_bias(graph, std::int64_t{1} << 62, 2, 2, float64); }).what(),
             Catch::Matchers::ContainsSubstring("alibi_bias: requires 1 to 1048576 heads, got 4611686018427387904"));
  CHECK(compute(graph, {sinusoidal_positions(graph, 2, 2, float32)})[0].dtype() == float32);
}
