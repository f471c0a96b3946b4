// Layers for sequences against their formulas in plain loops: numbers, gradients, names, padding, errors.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;

namespace {

using Doubles = std::vector<double>;
using Names = std::vector<std::string>;
using Lengths = std::vector<std::int64_t>;
constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

Array random_array(const Dims& shape, unsigned seed) {
  return Array(test::random_numbers<double>(count(shape), seed)).reshape(shape);
}

Names names_of(const Values& values) {
  Names out;
  for (const Value v : values) out.push_back(v.name());
  return out;
}

void check_close(const Array& got, const Doubles& expected) {
  REQUIRE(static_cast<std::size_t>(got.size()) == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO(i);
    CHECK(std::abs(got.data<double>()[i] - expected[i]) < 1e-12 * (1 + std::abs(expected[i])));
  }
}

// A matrix in plain loops.
struct Matrix {
  std::size_t rows = 0;
  std::size_t columns = 0;
  Doubles of;

  Matrix(std::size_t r, std::size_t c) : rows(r), columns(c), of(r * c) {}
  Matrix(const Array& x)
      : rows(static_cast<std::size_t>(x.shape().rank() == 1 ? 1 : x.shape()[0])),
        columns(static_cast<std::size_t>(x.size()) / std::max<std::size_t>(rows, 1)),
        of(x.data<double>(), x.data<double>() + x.size()) {}
  double& operator()(std::size_t i, std::size_t j) { return of[i * columns + j]; }
  double operator()(std::size_t i, std::size_t j) const { return of[i * columns + j]; }
};

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix out(a.rows, b.columns);
  for (std::size_t i = 0; i < a.rows; ++i)
    for (std::size_t j = 0; j < b.columns; ++j)
      for (std::size_t k = 0; k < a.columns; ++k) out(i, j) += a(i, k) * b(k, j);
  return out;
}

// a + b, b of one row or as many.
Matrix plus(Matrix a, const Matrix& b) {
  for (std::size_t i = 0; i < a.rows; ++i)
    for (std::size_t j = 0; j < a.columns; ++j) a(i, j) += b(b.rows == 1 ? 0 : i, j);
  return a;
}

// Example e of x {examples, places, features}, of its first `places`.
Matrix example(const Array& x, std::int64_t e, std::int64_t places) {
  Matrix out(static_cast<std::size_t>(places), static_cast<std::size_t>(x.shape()[2]));
  const double* from = x.data<double>() + e * x.shape()[1] * x.shape()[2];
  std::copy(from, from + out.of.size(), out.of.begin());
  return out;
}

// x with another number wherever an example's length is exceeded.
Array padded(const Array& x, const Lengths& lengths, double with) {
  Array out = x;
  const std::int64_t row = x.size() / (x.shape()[0] * x.shape()[1]);
  for (std::int64_t e = 0; e < x.shape()[0]; ++e)
    for (std::int64_t i = lengths[static_cast<std::size_t>(e)] * row; i < x.shape()[1] * row; ++i)
      out.set(e * x.shape()[1] * row + i, with);
  return out;
}

// Results of a graph with what was fed; and again with NaN and another number in the padding of x, which must change
// no bit of them.
std::vector<Array> without_a_trace(const State& state, const Values& results, Value x, const Array& xs, Value n,
                                   const Lengths& lengths) {
  std::vector<Array> first;
  for (const double with : {0.0, nan, -inf, 1e30}) {
    State copy = state;
    Program program(copy, {.outputs = results});
    const Results now = program.run({{x, padded(xs, lengths, with)}, {n, Array(lengths)}});
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (first.size() < results.size()) {
        first.push_back(now[i]);
        for (std::int64_t k = 0; k < now[i].size(); ++k) REQUIRE(std::isfinite(now[i][k]));
      }
      INFO(i << " of padding " << with);
      CHECK(now[i].identical(first[i]));
    }
  }
  return first;
}

// ---- recurrent networks

enum class Kind : std::uint8_t { rnn, lstm, gru };
constexpr Kind kinds[] = {Kind::rnn, Kind::lstm, Kind::gru};
const std::string kind_names[] = {"rnn", "lstm", "gru"};

nn::Recurrent layer(Kind kind, Value x, std::size_t units, const nn::RecurrentOptions& options = {}) {
  if (kind == Kind::rnn) return nn::rnn(x, units, options);
  if (kind == Kind::lstm) return nn::lstm(x, units, options);
  return nn::gru(x, units, options);
}

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

// One network over one example, by the formulas of PyTorch's documentation; h and c become the last state.
Matrix network(Kind kind, const Matrix& x, const State& state, const RecurrentWeights& weights, bool reverse,
               Doubles& h, Doubles& c) {
  const std::size_t units = h.size();
  const Matrix of_x = plus(product(x, state[weights.input]), state[*weights.bias]);
  Matrix out(x.rows, units);
  for (std::size_t t = 0; t < x.rows; ++t) {
    const std::size_t place = reverse ? x.rows - 1 - t : t;
    Matrix before(1, units);
    before.of = h;
    const Matrix of_h = plus(product(before, state[weights.hidden]), state[*weights.hidden_bias]);
    const auto sum = [&](std::size_t gate, std::size_t j) {
      return of_x(place, gate * units + j) + of_h(0, gate * units + j);
    };
    for (std::size_t j = 0; j < units; ++j) {
      if (kind == Kind::rnn) {
        h[j] = std::tanh(sum(0, j));
      } else if (kind == Kind::lstm) {
        c[j] = logistic(sum(1, j)) * c[j] + logistic(sum(0, j)) * std::tanh(sum(2, j));
        h[j] = logistic(sum(3, j)) * std::tanh(c[j]);
      } else {
        const double z = logistic(sum(1, j));
        const double n = std::tanh(of_x(place, 2 * units + j) + logistic(sum(0, j)) * of_h(0, 2 * units + j));
        h[j] = (1 - z) * n + z * h[j];
      }
      out(place, j) = h[j];
    }
  }
  return out;
}

// What layers of both directions (or one) should give: output, then hidden and cell of each network.
std::vector<Doubles> networks(Kind kind, const Array& x, const State& state, const nn::Recurrent& made,
                              std::size_t directions, std::size_t units, const Lengths& lengths,
                              const std::vector<Array>& h0 = {}, const std::vector<Array>& c0 = {}) {
  const std::size_t count = made.weights.size();
  std::vector<Doubles> out(1 + 2 * count);
  for (std::int64_t e = 0; e < x.shape()[0]; ++e) {
    Matrix now = example(x, e, lengths[static_cast<std::size_t>(e)]);
    for (std::size_t layer = 0; layer < count / directions; ++layer) {
      Matrix both(now.rows, directions * units);
      for (std::size_t d = 0; d < directions; ++d) {
        const std::size_t i = layer * directions + d;
        Doubles h(units);
        Doubles c(units);
        for (std::size_t j = 0; j < units && !h0.empty(); ++j) {
          h[j] = h0[i][e * static_cast<std::int64_t>(units) + static_cast<std::int64_t>(j)];
          if (!c0.empty()) c[j] = c0[i][e * static_cast<std::int64_t>(units) + static_cast<std::int64_t>(j)];
        }
        const Matrix one = network(kind, now, state, made.weights[i], d == 1, h, c);
        for (std::size_t t = 0; t < now.rows; ++t)
          for (std::size_t j = 0; j < units; ++j) both(t, d * units + j) = one(t, j);
        out[1 + 2 * i].insert(out[1 + 2 * i].end(), h.begin(), h.end());
        out[2 + 2 * i].insert(out[2 + 2 * i].end(), c.begin(), c.end());
      }
      now = both;
    }
    now.of.resize(static_cast<std::size_t>(x.shape()[1]) * now.columns, 0);  // 0 in the padding
    out[0].insert(out[0].end(), now.of.begin(), now.of.end());
  }
  return out;
}

}  // namespace

TEST_CASE("recurrent layers of both directions, with lengths, are the formulas'") {
  for (const Kind kind : kinds) {
    for (const bool both : {false, true}) {
      INFO(kind_names[static_cast<int>(kind)] << " " << both);
      const Lengths lengths{3, 5, 0};
      const Array xs = random_array({3, 5, 2}, 1);
      Graph graph({.seed = 2});
      const Value x = graph.input("x", {3, 5, 2});
      const Value n = graph.input("n", {3}, int64);
      const auto made = layer(kind, x, 3, {.layers = 2, .bidirectional = both, .lengths = n});
      const std::size_t networks_made = both ? 4 : 2;
      CHECK(made.output.shape() == Shape{3, 5, both ? 6 : 3});
      REQUIRE(made.hidden.size() == networks_made);
      REQUIRE(made.cell.size() == (kind == Kind::lstm ? networks_made : 0));
      Values results{made};
      for (std::size_t i = 0; i < networks_made; ++i) {
        results.push_back(made.hidden[i]);
        results.push_back(kind == Kind::lstm ? made.cell[i] : made.hidden[i] * 0.0);
      }
      State state(graph);
      Program program(state, {.outputs = results});
      const Results got = program.run({{x, xs}, {n, Array(lengths)}});
      const auto expected = networks(kind, xs, state, made, both ? 2 : 1, 3, lengths);
      for (std::size_t i = 0; i < results.size(); ++i) check_close(got[i], expected[i]);
    }
  }
}

TEST_CASE("recurrent layers begin with the states that each network is given") {
  for (const Kind kind : {Kind::lstm, Kind::gru}) {
    const Array xs = random_array({2, 3, 2}, 1);
    Graph graph({.seed = 3});
    std::vector<Array> h0;
    std::vector<Array> c0;
    nn::RecurrentOptions options{.layers = 2, .bidirectional = true};
    for (unsigned i = 0; i < 4; ++i) {
      h0.push_back(random_array({2, 3}, 10 + i));
      c0.push_back(random_array({2, 3}, 20 + i));
      options.hidden.push_back(graph.constant(h0.back()));
      if (kind == Kind::lstm) options.cell.push_back(graph.constant(c0.back()));
    }
    const auto made = layer(kind, graph.constant(xs), 3, options);
    State state(graph);
    Program program(state, {.outputs = {made, stack(made.hidden)}});
    const Results got = program.run();
    const auto expected = networks(kind, xs, state, made, 2, 3, {3, 3}, h0, kind == Kind::lstm ? c0 : h0);
    check_close(got[0], expected[0]);
    Doubles hidden;
    for (std::size_t i = 0; i < 4; ++i)
      hidden.insert(hidden.end(), expected[1 + 2 * i].begin(), expected[1 + 2 * i].end());
    check_close(got[1], hidden);
  }
}

TEST_CASE("gradients of recurrent layers are right, through dropout and lengths") {
  for (const Kind kind : kinds) {
    Graph graph({.seed = 4});
    const Value x = graph.parameter("x", random_array({2, 3, 2}, 5));
    const Value n = graph.constant(Array(Lengths{3, 2}));
    const auto made = layer(kind, x, 2, {.layers = 2, .bidirectional = true, .keep = 0.7, .lengths = n});
    Value loss = sum(sin(made.output));
    for (const Value h : made.hidden) loss = loss + sum(square(h));
    State state(graph);
    const CheckReport report = check_gradients(loss, graph.parameters(), state, {}, {.full_below = 64});
    INFO(report.to_string());
    CHECK(report.passed());
  }
}

TEST_CASE("padding leaves no trace in recurrent layers, be it NaN") {
  for (const Kind kind : kinds) {
    const Lengths lengths{2, 5, 0};
    Graph graph({.seed = 6});
    const Value x = graph.input("x", {3, 5, 3});
    const Value n = graph.input("n", {3}, int64);
    const auto made = layer(kind, x, 4, {.layers = 2, .bidirectional = true, .keep = 0.8, .lengths = n});
    Value loss = sum(square(made.output));
    for (const Value h : made.hidden) loss = loss + sum(sin(h));
    Values wanted = graph.parameters();
    wanted.push_back(x);
    Values results = gradients(loss, wanted);
    results.push_back(made.output);
    results.insert(results.end(), made.hidden.begin(), made.hidden.end());
    const auto got = without_a_trace(State(graph), results, x, random_array({3, 5, 3}, 7), n, lengths);
    CHECK(padded(got[wanted.size() - 1], lengths, 0).identical(got[wanted.size() - 1]));
    CHECK(padded(got[wanted.size()], lengths, 0).identical(got[wanted.size()]));
  }
}

TEST_CASE("recurrent layers name their parameters by layer and direction") {
  Graph graph;
  const Value x = graph.input("x", {graph.dimension("batch"), 4, 2});
  const auto made = nn::lstm(x, 3, {.layers = 2, .bidirectional = true});
  CHECK(names_of(graph.parameters()) ==
        Names{"lstm/0/weight", "lstm/0/hidden_weight", "lstm/0/bias", "lstm/0/hidden_bias", "lstm/0/reverse/weight",
              "lstm/0/reverse/hidden_weight", "lstm/0/reverse/bias", "lstm/0/reverse/hidden_bias", "lstm/1/weight",
              "lstm/1/hidden_weight", "lstm/1/bias", "lstm/1/hidden_bias", "lstm/1/reverse/weight",
              "lstm/1/reverse/hidden_weight", "lstm/1/reverse/bias", "lstm/1/reverse/hidden_bias"});
  CHECK(made.weights[1].input.shape() == Shape{2, 12});
  CHECK(made.weights[2].input.shape() == Shape{6, 12});
  CHECK(made.weights[3].hidden.shape() == Shape{3, 12});
  CHECK(made.output.shape() == Shape{graph.dimension("batch"), 4, 6});
  // PyTorch's count: 2 * 4 * 3 * (2 + 3 + 2) + 2 * 4 * 3 * (6 + 3 + 2)
  CHECK(summary(graph).parameters == 168 + 264);
  const auto bare = nn::gru(x, 3, {.bias = false, .name = "encoder"});
  CHECK(bare.weights[0].input.name() == "encoder/0/weight");
  CHECK_FALSE(bare.weights[0].bias.has_value());
  CHECK_FALSE(graph.has("encoder/0/bias"));
  CHECK(nn::lstm(x, 3).weights[0].input.name() == "lstm_2/0/weight");
  CHECK(nn::rnn(x, 3).weights[0].input.shape() == Shape{2, 3});
}

TEST_CASE("recurrent layers begin as PyTorch's, or as they are told") {
  Graph graph({.seed = 8});
  const Value x = graph.input("x", {1, 2, 4});
  const auto usual = nn::lstm(x, 16);
  const auto told = nn::lstm(x, 16, {.forget_bias = 1.5, .hidden_initializer = init::orthogonal()});
  const auto zero = nn::gru(x, 16, {.bias_initializer = init::zeros()});
  State state(graph);
  for (const Value v : {usual.weights[0].input, usual.weights[0].hidden, *usual.weights[0].bias,
                        *usual.weights[0].hidden_bias, told.weights[0].input}) {
    const Array now = state[v];
    double most = 0;
    double total = 0;
    for (std::int64_t i = 0; i < now.size(); ++i) {
      most = std::max(most, std::abs(now[i]));
      total += now[i];
    }
    CHECK(most <= 0.25);  // 1 / sqrt(16)
    CHECK(most > 0.22);
    CHECK(std::abs(total / static_cast<double>(now.size())) < 0.06);
  }
  const Matrix hidden = state[told.weights[0].hidden];
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 16; ++j) {
      double dot = 0;
      for (std::size_t k = 0; k < 64; ++k) dot += hidden(i, k) * hidden(j, k);
      CHECK(std::abs(dot - (i == j ? 1 : 0)) < 1e-12);
    }
  }
  for (std::int64_t i = 0; i < 64; ++i) {
    CHECK(state[*told.weights[0].bias][i] == (i / 16 == 1 ? 1.5 : 0));
    CHECK(state[*told.weights[0].hidden_bias][i] == 0);
    if (i < 48) CHECK(state[*zero.weights[0].bias][i] == 0);
  }
}

TEST_CASE("dropout between recurrent layers is for training, and not behind the last") {
  Graph graph({.seed = 9});
  const Value x = graph.constant(random_array({2, 3, 2}, 1));
  // With 1 of 1e9 kept the second layer reads zeros.
  const auto dropped = nn::lstm(x, 4, {.layers = 2, .keep = 1e-9});
  const auto of_zeros = chainrule::lstm(graph.constant(Array::full(float64, {2, 3, 4}, 0)), dropped.weights[1]);
  const auto whole = chainrule::lstm(chainrule::lstm(x, dropped.weights[0]), dropped.weights[1]);
  State state(graph);
  Program train(state, {.outputs = {dropped, of_zeros}});
  const Results trained = train.run();
  CHECK(trained[0].identical(trained[1]));
  Program infer(state, {.outputs = {dropped, whole}, .mode = Mode::inference});
  const Results inferred = infer.run();
  CHECK(inferred[0].identical(inferred[1]));
}

// ---- attention

namespace {

// By its definition; bias(h, i, j) is added to the scores.
using Bias = std::function<double(std::size_t, std::size_t, std::size_t)>;
Matrix attention(const Matrix& x, const Matrix& memory, const State& state, const nn::MultiHeadAttention& made,
                 std::size_t heads, std::size_t key_heads, const Bias& bias) {
  const auto projected = [&](const Matrix& from, const nn::Dense& dense) {
    return plus(product(from, state[dense.weight]), state[dense.bias]);
  };
  const Matrix q = projected(x, made.query);
  const Matrix k = projected(memory, made.key);
  const Matrix v = projected(memory, made.value);
  const std::size_t width = q.columns / heads;
  Matrix out(x.rows, q.columns);
  for (std::size_t h = 0; h < heads; ++h) {
    const std::size_t of = h / (heads / key_heads) * width;  // columns of keys and values
    for (std::size_t i = 0; i < x.rows; ++i) {
      Doubles weights;
      double total = 0;
      for (std::size_t j = 0; j < memory.rows; ++j) {
        double score = 0;
        for (std::size_t d = 0; d < width; ++d) score += q(i, h * width + d) * k(j, of + d);
        weights.push_back(std::exp(score / std::sqrt(static_cast<double>(width)) + bias(h, i, j)));
        total += weights.back();
      }
      for (std::size_t j = 0; j < memory.rows && total > 0; ++j)
        for (std::size_t d = 0; d < width; ++d) out(i, h * width + d) += weights[j] / total * v(j, of + d);
    }
  }
  return projected(out, made.projection);
}

Bias within(std::int64_t length, bool causal = false) {
  return
      [=](auto, auto i, auto j) { return static_cast<std::int64_t>(j) < length && (!causal || j <= i) ? 0.0 : -inf; };
}

// Parameters of biases and norms begin as 0 and 1; here as something else.
void shake(State& state) {
  unsigned seed = 100;
  for (const Value p : state.graph().parameters()) state.set(p, random_array(state[p].shape(), seed++));
}

}  // namespace

TEST_CASE("multi-head attention is the formula's, with grouped heads, masks and lengths") {
  const Lengths lengths{3, 5, 0};
  const Array xs = random_array({3, 5, 8}, 1);
  for (const std::size_t key_heads : {1, 2, 4}) {
    for (const bool causal : {false, true}) {
      Graph graph({.seed = 2});
      const Value x = graph.input("x", {3, 5, 8});
      const Value n = graph.input("n", {3}, int64);
      const auto made =
          nn::multi_head_attention(x, 4, {.key_heads = key_heads, .width = 3, .causal = causal, .lengths = n});
      const auto plain = nn::multi_head_attention(x, 4, {.key_heads = key_heads, .causal = causal});
      CHECK(made.key.weight.shape() == Shape{8, static_cast<std::int64_t>(3 * key_heads)});
      State state(graph);
      shake(state);
      Program program(state, {.outputs = {made, plain}});
      const Results got = program.run({{x, xs}, {n, Array(lengths)}});
      Doubles expected;
      Doubles expected_plain;
      for (std::int64_t e = 0; e < 3; ++e) {
        Matrix of = example(xs, e, 5);
        const Matrix all = attention(of, of, state, plain, 4, key_heads, within(5, causal));
        expected_plain.insert(expected_plain.end(), all.of.begin(), all.of.end());
        const auto length = lengths[static_cast<std::size_t>(e)];
        std::fill(of.of.begin() + length * 8, of.of.end(), 0);
        const Matrix one = attention(of, of, state, made, 4, key_heads, within(length, causal));
        expected.insert(expected.end(), one.of.begin(), one.of.end());
      }
      check_close(got[0], expected);
      check_close(got[1], expected_plain);
    }
  }
}

TEST_CASE("cross-attention, with both kinds of masks") {
  const Lengths lengths{4, 2};
  const Array xs = random_array({2, 3, 4}, 1);
  const Array ms = random_array({2, 4, 6}, 2);
  Array mask = Array::full(boolean, {3, 4}, 1);
  for (const std::int64_t i : {1, 4, 5, 6, 7, 10}) mask.set(i, 0);  // the second query: nothing
  const Array bias = random_array({2, 1, 4}, 3);
  Graph graph({.seed = 2});
  const Value x = graph.input("x", {2, 3, 4});
  const Value memory = graph.input("memory", {2, 4, 6});
  const Value n = graph.constant(Array(lengths));
  const auto boolean_mask =
      nn::multi_head_attention(x, 2, {.memory = memory, .mask = graph.constant(mask), .lengths = n});
  const auto additive = nn::multi_head_attention(x, 2, {.memory = memory, .mask = graph.constant(bias), .lengths = n});
  CHECK(additive.key.weight.shape() == Shape{6, 4});
  State state(graph);
  shake(state);
  Program program(state, {.outputs = {boolean_mask, additive}});
  const Results got = program.run({{x, xs}, {memory, ms}});
  Doubles expected;
  Doubles expected_additive;
  for (std::int64_t e = 0; e < 2; ++e) {
    const Bias inside = within(lengths[static_cast<std::size_t>(e)]);
    const Matrix one =
        attention(example(xs, e, 3), example(ms, e, 4), state, boolean_mask, 2, 2, [&](auto h, auto i, auto j) {
          return mask[static_cast<std::int64_t>(4 * i + j)] != 0 ? inside(h, i, j) : -inf;
        });
    const Matrix other =
        attention(example(xs, e, 3), example(ms, e, 4), state, additive, 2, 2,
                  [&](auto h, auto i, auto j) { return bias[static_cast<std::int64_t>(4 * h + j)] + inside(h, i, j); });
    expected.insert(expected.end(), one.of.begin(), one.of.end());
    expected_additive.insert(expected_additive.end(), other.of.begin(), other.of.end());
  }
  check_close(got[0], expected);
  check_close(got[1], expected_additive);
}

TEST_CASE("rotary positions make attention one of distances") {
  // With one key that is x's place 0 moved on, and the query too, nothing changes.
  Graph graph({.seed = 2});
  const Value x = graph.constant(random_array({1, 4, 8}, 1));
  const auto here = nn::multi_head_attention(x, 2, {.rotary = RotaryOptions{}, .name = "a"});
  const Value later = iota(graph, 4, float64) + 1000.0;
  const auto moved = nn::multi_head_attention(x, 2, {.rotary = RotaryOptions{.positions = later}, .name = "b"});
  const auto without = nn::multi_head_attention(x, 2, {.name = "c"});
  State state(graph);
  for (const char* name : {"query/weight", "key/weight", "value/weight", "projection/weight"})
    for (const char* other : {"b/", "c/"})
      state.set(graph.find(std::string(other) + name), state.get("a/" + std::string(name)));
  Program program(state, {.outputs = {here, moved, without}});
  const Results got = program.run();
  double far = 0;
  for (std::int64_t i = 0; i < got[0].size(); ++i) {
    CHECK(std::abs(got[0][i] - got[1][i]) < 1e-10);
    far = std::max(far, std::abs(got[0][i] - got[2][i]));
  }
  CHECK(far > 1e-3);
}

TEST_CASE("gradients of multi-head attention are right, through dropout and rows without keys") {
  Graph graph({.seed = 4});
  const Value x = graph.parameter("x", random_array({2, 3, 4}, 5));
  const Value memory = graph.parameter("memory", random_array({2, 3, 2}, 6));
  const Value n = graph.constant(Array(Lengths{2, 0}));
  Value h = nn::multi_head_attention(
      x, 2, {.key_heads = 1, .causal = true, .lengths = n, .rotary = RotaryOptions{}, .keep = 0.7});
  h = nn::multi_head_attention(h, 2, {.memory = memory, .lengths = n});
  State state(graph);
  shake(state);
  const CheckReport report = check_gradients(sum(sin(h)), graph.parameters(), state, {}, {.full_below = 64});
  INFO(report.to_string());
  CHECK(report.passed());
}

// ---- the transformer's block

namespace {

Matrix normalized(Matrix x, const State& state, const nn::Norm& norm) {
  const bool centred = norm.beta.defined();
  for (std::size_t i = 0; i < x.rows; ++i) {
    double mean = 0;
    double squares = 0;
    for (std::size_t j = 0; j < x.columns && centred; ++j) mean += x(i, j) / static_cast<double>(x.columns);
    for (std::size_t j = 0; j < x.columns; ++j)
      squares += (x(i, j) - mean) * (x(i, j) - mean) / static_cast<double>(x.columns);
    for (std::size_t j = 0; j < x.columns; ++j) {
      const auto column = static_cast<std::int64_t>(j);
      x(i, j) = (x(i, j) - mean) / std::sqrt(squares + 1e-5) * state[norm.gamma][column] +
                (centred ? state[norm.beta][column] : 0);
    }
  }
  return x;
}

Matrix perceptron(const Matrix& x, const State& state, const nn::Mlp& mlp) {
  Matrix h = plus(product(x, state[mlp.layers[0].weight]), state[mlp.layers[0].bias]);
  for (double& u : h.of) u = u / 2 * (1 + std::erf(u / std::sqrt(2.0)));
  return plus(product(h, state[mlp.layers[1].weight]), state[mlp.layers[1].bias]);
}

}  // namespace

TEST_CASE("a transformer's block is its formula's, the norm before or after, with and without a memory") {
  const Lengths lengths{3, 2};
  const Array xs = random_array({2, 3, 4}, 1);
  const Array ms = random_array({2, 5, 2}, 2);
  for (const bool after : {false, true}) {
    for (const bool crossed : {false, true}) {
      INFO(after << crossed);
      Graph graph({.seed = 2});
      const Value x = graph.input("x", {2, 3, 4});
      const Value memory = graph.input("memory", {2, 5, 2});
      nn::TransformerOptions options{.attention = {.causal = true, .lengths = graph.constant(Array(lengths))},
                                     .hidden = 6,
                                     .norm = crossed ? nn::BlockNorm::rms_norm : nn::BlockNorm::layer_norm,
                                     .norm_after = after};
      if (crossed) options.cross_attention = nn::MultiHeadOptions{.memory = memory, .key_heads = 1};
      const auto made = nn::transformer_block(x, 2, options);
      REQUIRE(made.norms.size() == (crossed ? 3 : 2));
      CHECK(made.cross_attention.has_value() == crossed);
      CHECK(made.norms.back().gamma.name() == "transformer_block/mlp_norm/gamma");
      State state(graph);
      shake(state);
      Program program(state, {.outputs = {made}});
      const Results got = crossed ? program.run({{x, xs}, {memory, ms}}) : program.run({{x, xs}});
      for (std::int64_t e = 0; e < 2; ++e) {
        const auto length = lengths[static_cast<std::size_t>(e)];
        Matrix h = example(xs, e, length);
        std::size_t part = 0;
        const auto add = [&](const std::function<Matrix(const Matrix&)>& f) {
          const nn::Norm& norm = made.norms[part++];
          h = after ? normalized(plus(h, f(h)), state, norm) : plus(h, f(normalized(h, state, norm)));
        };
        add([&](const Matrix& y) { return attention(y, y, state, made.attention, 2, 2, within(length, true)); });
        if (crossed)
          add([&](const Matrix& y) {
            return attention(y, example(ms, e, 5), state, *made.cross_attention, 2, 1, within(5));
          });
        add([&](const Matrix& y) { return perceptron(y, state, made.mlp); });
        const Matrix of = example(got[0], e, length);
        for (std::size_t i = 0; i < h.of.size(); ++i) CHECK(std::abs(of.of[i] - h.of[i]) < 1e-11);
      }
    }
  }
}

TEST_CASE("padding leaves no trace in attention and transformers, be it NaN") {
  const Lengths lengths{2, 5, 0};
  for (const bool after : {false, true}) {
    Graph graph({.seed = 6});
    const Value x = graph.input("x", {3, 5, 4});
    const Value n = graph.input("n", {3}, int64);
    const nn::TransformerOptions options{.attention = {.lengths = n, .keep = 0.8}, .norm_after = after, .keep = 0.9};
    Value h = nn::transformer_block(nn::transformer_block(x, 2, options), 2, options);
    h = nn::multi_head_attention(h, 2, {.lengths = n});
    const Value query = graph.parameter("query", random_array({3, 1, 4}, 8));
    const Value pooled = nn::multi_head_attention(query, 1, {.memory = x, .lengths = n});
    const Value within_lengths = expand_dims(length_mask(n, 5), -1);
    const Value loss = sum(where(within_lengths, sin(h), 0.0)) + sum(square(pooled));
    Values wanted = graph.parameters();
    wanted.push_back(x);
    Values results = gradients(loss, wanted);
    results.push_back(h);
    results.push_back(pooled);
    const auto got = without_a_trace(State(graph), results, x, random_array({3, 5, 4}, 7), n, lengths);
    CHECK(padded(got[wanted.size() - 1], lengths, 0).identical(got[wanted.size() - 1]));
  }
}

TEST_CASE("gradients of transformers are right") {
  Graph graph({.seed = 4});
  const Value x = graph.parameter("x", random_array({2, 3, 4}, 5));
  const Value memory = graph.parameter("memory", random_array({2, 2, 4}, 6));
  const Value h = nn::transformer_block(
      nn::transformer_block(nn::learned_positions(x, 5), 2, {.attention = {.causal = true, .keep = 0.8}, .keep = 0.7}),
      2,
      {.cross_attention = nn::MultiHeadOptions{.memory = memory},
       .hidden = 5,
       .activation = chainrule::tanh,
       .norm = nn::BlockNorm::rms_norm,
       .norm_after = true});
  State state(graph);
  const CheckReport report = check_gradients(sum(sin(h)), graph.parameters(), state, {}, {.full_below = 32});
  INFO(report.to_string());
  CHECK(report.passed());
}

TEST_CASE("attention and transformers name their parameters") {
  Graph graph;
  const Value x = graph.input("x", {graph.dimension("batch"), graph.dimension("places"), 4});
  const auto block = nn::transformer_block(
      x, 2, {.attention = {.bias = false}, .cross_attention = nn::MultiHeadOptions{.memory = x, .name = "of memory"}});
  CHECK(block.output.shape() == x.shape());
  CHECK(names_of(graph.parameters("transformer_block/*")) == Names{"transformer_block/attention_norm/gamma",
                                                                   "transformer_block/attention_norm/beta",
                                                                   "transformer_block/attention/query/weight",
                                                                   "transformer_block/attention/key/weight",
                                                                   "transformer_block/attention/value/weight",
                                                                   "transformer_block/attention/projection/weight",
                                                                   "transformer_block/cross_attention_norm/gamma",
                                                                   "transformer_block/cross_attention_norm/beta",
                                                                   "transformer_block/of memory/query/weight",
                                                                   "transformer_block/of memory/query/bias",
                                                                   "transformer_block/of memory/key/weight",
                                                                   "transformer_block/of memory/key/bias",
                                                                   "transformer_block/of memory/value/weight",
                                                                   "transformer_block/of memory/value/bias",
                                                                   "transformer_block/of memory/projection/weight",
                                                                   "transformer_block/of memory/projection/bias",
                                                                   "transformer_block/mlp_norm/gamma",
                                                                   "transformer_block/mlp_norm/beta",
                                                                   "transformer_block/mlp/0/weight",
                                                                   "transformer_block/mlp/0/bias",
                                                                   "transformer_block/mlp/1/weight",
                                                                   "transformer_block/mlp/1/bias"});
  CHECK(block.mlp.layers[0].weight.shape() == Shape{4, 16});
  CHECK(nn::transformer_block(x, 1, {.name = "last"}).attention.query.weight.name() == "last/attention/query/weight");
  CHECK(nn::transformer_block(x, 1).mlp.layers[1].bias.name() == "transformer_block_2/mlp/1/bias");
  CHECK(nn::multi_head_attention(x, 1).query.bias.name() == "multi_head_attention/query/bias");
  CHECK(nn::learned_positions(x, 7).table.name() == "learned_positions/table");
  CHECK(nn::learned_positions(x, 7, {.name = "p"}).table.shape() == Shape{7, 4});
}

// ---- positions and masks

TEST_CASE("learned positions are added by place, of a number or a named one") {
  Graph graph;
  const Value fixed = graph.input("fixed", {1, 2, 2});
  const Value named = graph.input("named", {1, graph.dimension("places"), 2});
  const auto rows = [](const Shape&, double places, double features) -> Initial {
    CHECK(places == 3);
    CHECK(features == 2);
    return Array({{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}});
  };
  const auto a = nn::learned_positions(fixed, 3, {.initializer = rows});
  const auto b = nn::learned_positions(named, 3, {.initializer = rows});
  CHECK(b.output.shape() == named.shape());
  State state(graph);
  Program program(state, {.outputs = {a, b}});
  const Array two = Array({{10.0, 20.0}, {30.0, 40.0}}).reshape({1, 2, 2});
  const Results got = program.run({{fixed, two}, {named, two}});
  for (std::size_t i = 0; i < 2; ++i) check_close(got[i], {11, 22, 33, 44});
  const Error error = error_of([&] { program.run({{fixed, two}, {named, Array::full(float64, {1, 4, 2}, 0)}}); });
  CHECK_THAT(error.what(), ContainsSubstring("3"));
  CHECK_THAT(error_of([&] { nn::learned_positions(fixed, 1); }).what(),
             ContainsSubstring("learned_positions: requires at most 1 places, got {1, 2, 2}"));
}

TEST_CASE("a mask of lengths") {
  Graph graph;
  const Value mask = length_mask(graph.constant(Array(Lengths{0, 2, 3})), 3);
  CHECK(mask.dtype() == boolean);
  const Array got = test::compute(graph, {mask})[0];
  REQUIRE(got.shape() == Dims{3, 3});
  for (std::int64_t i = 0; i < 9; ++i) CHECK(got[i] == (i < 3 ? 0 : i < 6 ? i < 5 : 1));
  CHECK(length_mask(graph.constant(5, int64), graph.dimension("n")).shape() == Shape{graph.dimension("n")});
  const int line = __LINE__ + 1;
  const Error error = error_of([&] { length_mask(graph.constant(5, float64), 3); });
  CHECK_THAT(error.what(), ContainsSubstring("length_mask: requires lengths of int64, got float64"));
  CHECK(error.location().line == line);
}

// ---- errors

TEST_CASE("layers for sequences refuse what they cannot take, at the caller's line, and leave nothing behind") {
  Graph graph;
  Graph other;
  const Value x = graph.input("x", {5, 4, 6});
  const Value flat = graph.input("flat", {6});
  const Value named = graph.input("named", {5, 4, graph.dimension("features")});
  const Value state = graph.input("state", {5, 3});
  const Value n = graph.input("n", {4}, int64);
  const Value nothing;
  const auto refuse = [&](const std::function<void()>& f, int line, const std::string& message) {
    const std::string before = graph.to_string();
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
    CHECK(graph.to_string() == before);
    CHECK(graph.parameters().empty());
  };
  refuse([&] { nn::lstm(nothing, 3); }, __LINE__, "lstm: requires values of a graph, got an empty Value");
  refuse([&] { nn::gru(flat, 3); }, __LINE__, "gru: requires x {examples, places, inputs}, got {6}");
  refuse([&] { nn::rnn(x, 0); }, __LINE__, "rnn: requires at least one unit, got 0");
  refuse([&] { nn::rnn(x, 3, {.layers = 0}); }, __LINE__, "rnn: requires at least one layer, got 0");
  refuse([&] { nn::lstm(named, 3); }, __LINE__, "lstm: requires a number of inputs, got features in {5, 4, features}");
  refuse([&] { nn::lstm(x, 3, {.layers = 2, .hidden = {state}}); }, __LINE__,
         "lstm: requires no hidden states or one for each of 2 networks, got 1");
  refuse([&] { nn::lstm(x, 4, {.hidden = {state}}); }, __LINE__, "lstm: requires options.hidden {5, 4}, got {5, 3}");
  refuse([&] { nn::gru(x, 3, {.cell = {state}}); }, __LINE__, "gru: requires no cells, got some");
  refuse([&] { nn::gru(x, 3, {.forget_bias = 1}); }, __LINE__, "gru: requires no forget_bias, got one");
  refuse([&] { nn::lstm(x, 3, {.bias = false, .forget_bias = 1}); }, __LINE__, "lstm: requires a forget_bias only");
  refuse([&] { nn::lstm(x, 3, {.lengths = n}); }, __LINE__, "lstm: requires lengths {5}, got {4}");
  refuse([&] { nn::lstm(x, 3, {.layers = 2, .keep = 2}); }, __LINE__, "dropout: requires");
  refuse([&] { nn::lstm(x, 3, {.name = "/a"}); }, __LINE__, "scope: requires a name with '/' only between its parts");

  refuse([&] { nn::multi_head_attention(nothing, 2); }, __LINE__, "multi_head_attention: requires values of a graph");
  refuse([&] { nn::multi_head_attention(flat, 2); }, __LINE__,
         "multi_head_attention: requires x {..., places, features}, got {6}");
  refuse([&] { nn::multi_head_attention(named, 2); }, __LINE__,
         "multi_head_attention: requires a number of features, got features");
  refuse([&] { nn::multi_head_attention(x, 4); }, __LINE__,
         "multi_head_attention: requires heads that divide the features, or a width, got 4 of 6");
  refuse([&] { nn::multi_head_attention(x, 0); }, __LINE__, "requires a number of heads of 1 or more");
  refuse([&] { nn::multi_head_attention(x, 3, {.key_heads = 2}); }, __LINE__,
         "requires a number of heads of 1 or more that is a multiple of the key_heads, got 3 and 2");
  refuse([&] { nn::multi_head_attention(x, 3, {.lengths = n}); }, __LINE__,
         "multi_head_attention: requires lengths {5} of int64, got {4} of int64");
  refuse([&] { nn::multi_head_attention(x, 3, {.memory = flat}); }, __LINE__,
         "multi_head_attention: requires a memory {..., places, features}, got {6}");
  refuse([&] { nn::multi_head_attention(x, 3, {.memory = other.input("m", {5, 4, 6})}); }, __LINE__, "graph");
  refuse([&] { nn::multi_head_attention(x, 2, {.rotary = RotaryOptions{}}); }, __LINE__,
         "rotary: requires an even number of features, got 3");
  refuse([&] { nn::multi_head_attention(x, 2, {.mask = x}); }, __LINE__,
         "scaled_dot_product_attention: requires a mask that broadcasts to {5, 2, 4, 4}, got {5, 4, 6}");

  refuse([&] { nn::transformer_block(nothing, 2); }, __LINE__, "transformer_block: requires values of a graph");
  refuse([&] { nn::transformer_block(x, 2, {.attention = {.memory = x}}); }, __LINE__,
         "transformer_block: requires an attention of x to itself");
  refuse([&] { nn::transformer_block(x, 2, {.cross_attention = nn::MultiHeadOptions{}}); }, __LINE__,
         "transformer_block: requires a memory for cross_attention, got none");
  refuse([&] { nn::transformer_block(x, 4); }, __LINE__, "requires heads that divide the features");
  refuse([&] { nn::transformer_block(x, 2, {.attention = {.lengths = n}}); }, __LINE__, "requires lengths {5}");
  refuse([&] { nn::transformer_block(x, 2, {.epsilon = 0}); }, __LINE__, "requires epsilon > 0");
  refuse([&] { nn::learned_positions(flat, 4); }, __LINE__, "learned_positions: requires x {..., places, features}");
}

// ---- nothing

TEST_CASE("no examples give nothing, and gradients of 0") {
  Graph graph({.seed = 6});
  const Value x = graph.input("x", {0, 3, 4});
  const Value n = graph.input("n", {0}, int64);
  const Value read = nn::gru(x, 4, {.layers = 2, .bidirectional = true, .keep = 0.9, .lengths = n});
  const Value block = nn::transformer_block(x, 2, {.attention = {.causal = true, .lengths = n, .keep = 0.9}});
  Values results = gradients(sum(square(read)) + sum(square(block)), graph.parameters());
  const std::size_t of_parameters = results.size();
  results.push_back(block);
  results.push_back(read);
  State state(graph);
  Program program(state, {.outputs = results});
  const Results got = program.run({{x, Array::full(float64, {0, 3, 4}, 1)}, {n, Array::full(int64, {0}, 0)}});
  CHECK(got[block].shape() == Dims{0, 3, 4});
  CHECK(got[read].shape() == Dims{0, 3, 8});
  for (std::size_t i = 0; i < of_parameters; ++i)
    for (std::int64_t k = 0; k < got[i].size(); ++k) REQUIRE(got[i][k] == 0);
}

// ---- memory

namespace {

struct Trained {
  Program::Memory memory;
  std::vector<Array> numbers;  // losses and parameters
};

// Two steps of a language model of this many blocks, of context 1024.
Trained trained(std::size_t blocks, double keep, std::size_t limit) {
  constexpr std::int64_t places = 1024;
  Graph graph({.dtype = float32, .seed = 1});
  const Value x = graph.input("x", {1, places}, int64);
  const Value y = graph.input("y", {1, places}, int64);
  Value h = nn::learned_positions(nn::embedding(x, 16, 8), places);
  for (std::size_t i = 0; i < blocks; ++i)
    h = nn::transformer_block(h, 2, {.attention = {.causal = true, .keep = keep}});
  const Value loss = softmax_cross_entropy(nn::dense(h, 16), y);
  State state(graph);
  Program train(state, {.outputs = {loss}, .updates = optim::Momentum{}.minimize(loss), .memory_limit = limit});
  Array text(int64, {1, places});
  for (std::int64_t i = 0; i < places; ++i) text.set(i, static_cast<double>(i * i % 13));
  Trained out;
  for (int step = 0; step < 2; ++step) out.numbers.push_back(train.run({{x, text}, {y, text}})[0]);
  for (const Value p : graph.parameters()) out.numbers.push_back(state[p]);
  out.memory = train.memory();
  return out;
}

}  // namespace

TEST_CASE("at context 1024, within a limit, no weights of attention are kept for the backward pass") {
  // What one block's weights take, for two heads.
  constexpr std::size_t weights = 2 * 1024 * 1024 * sizeof(float);
  for (const double keep : {1.0, 0.9}) {
    const Trained free = trained(3, keep, 0);
    CHECK(free.memory.arena_bytes > 4 * weights);
    // Its own slope and weights are what any block's backward pass needs at once, however many blocks there are.
    const std::size_t limit = 24 * weights / 10;
    for (const std::size_t blocks : {3, 5}) CHECK(trained(blocks, keep, limit).memory.arena_bytes <= limit);
    const Trained limited = trained(3, keep, limit);
    REQUIRE(limited.numbers.size() == free.numbers.size());
    for (std::size_t i = 0; i < free.numbers.size(); ++i) CHECK(limited.numbers[i].identical(free.numbers[i]));
  }
}
