// Recurrent cells and sequences against their formulas in plain loops, with lengths, in reverse, and their gradients.
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

enum class Kind : std::uint8_t { rnn, lstm, gru, gru_before };
constexpr Kind kinds[] = {Kind::rnn, Kind::lstm, Kind::gru, Kind::gru_before};

int gates_of(Kind kind) { return kind == Kind::rnn ? 1 : kind == Kind::lstm ? 4 : 3; }

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

// One layer's numbers, and one step of one example by the definitions.
struct Numbers {
  Kind kind;
  int inputs;
  int units;
  Doubles w, u, b, c;

  Numbers(Kind k, int in, int out) : kind(k), inputs(in), units(out) {
    const int columns = gates_of(k) * units;
    w = test::random_numbers<double>(in * columns, 1);
    u = test::random_numbers<double>(out * columns, 2);
    b = test::random_numbers<double>(columns, 3);
    c = test::random_numbers<double>(columns, 4);
    for (double& x : u) x *= 0.5;
  }
  [[nodiscard]] std::size_t columns() const { return b.size(); }

  [[nodiscard]] Doubles product(const double* x, int rows, const Doubles& matrix) const {
    Doubles out(columns());
    for (std::size_t j = 0; j < columns(); ++j)
      for (int i = 0; i < rows; ++i) out[j] += x[i] * matrix[static_cast<std::size_t>(i) * columns() + j];
    return out;
  }

  void step(const double* x, Doubles& h, Doubles& cell) const {
    const Doubles of_x = product(x, inputs, w);
    const Doubles of_h = product(h.data(), units, u);
    const auto n = static_cast<std::size_t>(units);
    Doubles next(n);
    const auto both = [&](std::size_t j) { return of_x[j] + b[j] + of_h[j] + c[j]; };
    Doubles reset(n);
    for (std::size_t j = 0; j < n; ++j) reset[j] = kind == Kind::gru_before ? logistic(both(j)) * h[j] : 0;
    const Doubles of_reset = product(reset.data(), units, u);
    for (std::size_t j = 0; j < n; ++j) {
      if (kind == Kind::rnn) {
        next[j] = std::tanh(both(j));
      } else if (kind == Kind::lstm) {
        cell[j] = logistic(both(n + j)) * cell[j] + logistic(both(j)) * std::tanh(both(2 * n + j));
        next[j] = logistic(both(3 * n + j)) * std::tanh(cell[j]);
      } else {
        const double z = logistic(both(n + j));
        const double hidden = kind == Kind::gru ? logistic(both(j)) * (of_h[2 * n + j] + c[2 * n + j])
                                                : of_reset[2 * n + j] + c[2 * n + j];
        next[j] = (1 - z) * std::tanh(of_x[2 * n + j] + b[2 * n + j] + hidden) + z * h[j];
      }
    }
    h = next;
  }

  [[nodiscard]] RecurrentWeights in(Graph& graph) const {
    const auto columns_ = static_cast<std::int64_t>(columns());
    return {.input = graph.parameter("w", Array(w).reshape({inputs, columns_})),
            .hidden = graph.parameter("u", Array(u).reshape({units, columns_})),
            .bias = graph.parameter("b", Array(b)),
            .hidden_bias = graph.parameter("c", Array(c))};
  }
};

Sequence sequence(Kind kind, Value x, const RecurrentWeights& weights, const SequenceOptions& options = {}) {
  if (kind == Kind::rnn) return rnn(x, weights, options);
  if (kind == Kind::lstm) return lstm(x, weights, options);
  return gru(x, weights, options, {.reset_after = kind == Kind::gru});
}

constexpr int examples = 3;
constexpr int places = 4;
constexpr int inputs = 2;
constexpr int units = 3;

struct Expected {
  Doubles output = Doubles(examples * places * units);
  Doubles hidden, cell;
};

Expected expected(const Numbers& numbers, const Doubles& x, const std::vector<int>& lengths, bool reverse,
                  const Doubles& h0 = Doubles(examples * units), const Doubles& c0 = Doubles(examples * units)) {
  Expected out;
  for (int e = 0; e < examples; ++e) {
    Doubles h(h0.begin() + e * units, h0.begin() + (e + 1) * units);
    Doubles cell(c0.begin() + e * units, c0.begin() + (e + 1) * units);
    const int length = lengths[static_cast<std::size_t>(e)];
    for (int t = 0; t < length; ++t) {
      const int place = reverse ? length - 1 - t : t;
      numbers.step(x.data() + (e * places + place) * inputs, h, cell);
      std::copy(h.begin(), h.end(), out.output.begin() + (e * places + place) * units);
    }
    out.hidden.insert(out.hidden.end(), h.begin(), h.end());
    out.cell.insert(out.cell.end(), cell.begin(), cell.end());
  }
  return out;
}

void check_close(const Array& got, const Doubles& wanted) {
  REQUIRE(static_cast<std::size_t>(got.size()) == wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    INFO(i);
    CHECK(std::abs(got.data<double>()[i] - wanted[i]) < 1e-13 * (1 + std::abs(wanted[i])));
  }
}

const Doubles xs = test::random_numbers<double>(examples * places * inputs, 9);
const std::vector<int> all_places(examples, places);

}  // namespace

TEST_CASE("a sequence is its steps, forwards and in reverse") {
  for (const Kind kind : kinds) {
    for (const bool reverse : {false, true}) {
      const Numbers numbers(kind, inputs, units);
      Graph graph;
      const Value x = graph.constant(Array(xs).reshape({examples, places, inputs}));
      const Sequence y = sequence(kind, x, numbers.in(graph), {.reverse = reverse});
      const Expected wanted = expected(numbers, xs, all_places, reverse);
      const auto results = compute(graph, {y.output, y.hidden});
      check_close(results[0], wanted.output);
      check_close(results[1], wanted.hidden);
      CHECK(y.cell.defined() == (kind == Kind::lstm));
      if (kind == Kind::lstm) check_close(compute(graph, {y.cell})[0], wanted.cell);
    }
  }
}

TEST_CASE("a sequence begins with the state that it is given") {
  for (const Kind kind : kinds) {
    const Numbers numbers(kind, inputs, units);
    const Doubles h0 = test::random_numbers<double>(examples * units, 11);
    const Doubles c0 = test::random_numbers<double>(examples * units, 12);
    Graph graph;
    const Value x = graph.constant(Array(xs).reshape({examples, places, inputs}));
    SequenceOptions options{.hidden = graph.constant(Array(h0).reshape({examples, units}))};
    if (kind == Kind::lstm) options.cell = graph.constant(Array(c0).reshape({examples, units}));
    check_close(compute(graph, {sequence(kind, x, numbers.in(graph), options).output})[0],
                expected(numbers, xs, all_places, false, h0, c0).output);
  }
}

TEST_CASE("padding is neither read nor stepped over, whatever it holds") {
  const std::vector<int> lengths{2, 4, 0};
  Doubles padded = xs;
  for (int e = 0; e < examples; ++e)
    for (int i = lengths[static_cast<std::size_t>(e)] * inputs; i < places * inputs; ++i)
      padded[static_cast<std::size_t>(e * places * inputs + i)] = std::numeric_limits<double>::quiet_NaN();
  for (const Kind kind : kinds) {
    for (const bool reverse : {false, true}) {
      const Numbers numbers(kind, inputs, units);
      Graph graph;
      const Value x = graph.constant(Array(padded).reshape({examples, places, inputs}));
      const RecurrentWeights weights = numbers.in(graph);
      const Value n = graph.constant(Array(std::vector<std::int64_t>(lengths.begin(), lengths.end())));
      const Sequence y = sequence(kind, x, weights, {.lengths = n, .reverse = reverse});
      const auto slopes = gradients(sum(square(y.output)), {weights.input, weights.hidden});
      const auto results = compute(graph, {y.output, y.hidden, slopes[0], slopes[1]});
      const Expected wanted = expected(numbers, xs, lengths, reverse);
      check_close(results[0], wanted.output);
      check_close(results[1], wanted.hidden);
      for (std::size_t i = 2; i < 4; ++i)
        for (std::int64_t j = 0; j < results[i].size(); ++j) CHECK(std::isfinite(results[i].data<double>()[j]));
    }
  }
}

TEST_CASE("a cell is one step of its sequence") {
  const Doubles first(xs.begin(), xs.begin() + examples * inputs);
  for (const Kind kind : kinds) {
    const Numbers numbers(kind, inputs, units);
    const Doubles h0 = test::random_numbers<double>(examples * units, 11);
    Graph graph;
    const Value x = graph.constant(Array(first).reshape({examples, inputs}));
    const Value h = graph.constant(Array(h0).reshape({examples, units}));
    const RecurrentWeights weights = numbers.in(graph);
    Value next;
    if (kind == Kind::rnn) next = rnn_cell(x, h, weights);
    if (kind == Kind::lstm) next = lstm_cell(x, {h, h}, weights).hidden;
    if (kind == Kind::gru) next = gru_cell(x, h, weights);
    if (kind == Kind::gru_before) next = gru_cell(x, h, weights, {.reset_after = false});
    Doubles wanted;
    for (int e = 0; e < examples; ++e) {
      Doubles hidden(h0.begin() + e * units, h0.begin() + (e + 1) * units);
      Doubles cell = hidden;
      numbers.step(first.data() + e * inputs, hidden, cell);
      wanted.insert(wanted.end(), hidden.begin(), hidden.end());
    }
    check_close(compute(graph, {next})[0], wanted);
  }
  Graph graph;
  const Numbers numbers(Kind::rnn, inputs, units);
  const Value x = graph.constant(Array(first).reshape({examples, inputs}));
  const Value h = graph.constant(Array::full(float64, {examples, units}, 0));
  const RecurrentWeights weights = numbers.in(graph);
  const Value sum = matmul(x, weights.input) + *weights.bias + *weights.hidden_bias;
  const auto results = compute(graph, {rnn_cell(x, h, weights, RnnActivation::relu), relu(sum)});
  check_close(results[0], Doubles(results[1].data<double>(), results[1].data<double>() + examples * units));
}

TEST_CASE("gradients through time are right in both orders") {
  for (const Kind kind : kinds) {
    const Numbers numbers(kind, inputs, 2);
    Graph graph;
    const Value x = graph.parameter("x", Array(Doubles(xs.begin(), xs.begin() + 12)).reshape({2, 3, inputs}));
    const RecurrentWeights weights = numbers.in(graph);
    const Value h = graph.parameter("h", Array(Doubles{0.5, -0.25, 0.125, 1}).reshape({2, 2}));
    const Value n = graph.constant(Array(std::vector<std::int64_t>{3, 2}));
    const Sequence y = sequence(kind, x, weights, {.lengths = n, .hidden = h});
    State state(graph);
    const CheckReport report =
        check_gradients(sum(sin(y.output)) + sum(y.hidden),
                        {x, weights.input, weights.hidden, *weights.bias, *weights.hidden_bias, h}, state, {});
    INFO(report.to_string());
    CHECK(report.passed());
  }
}

TEST_CASE("a sequence over a named number of examples, and of one place") {
  Graph graph({.dtype = float32});
  const Dimension batch = graph.dimension("batch");
  const Value x = graph.input("x", {batch, 1, 2});
  const RecurrentWeights weights{.input = graph.parameter("w", ones({2, 12})),
                                 .hidden = graph.parameter("u", ones({3, 12}))};
  const Sequence y = lstm(x, weights);
  CHECK(y.output.shape() == Shape{batch, 1, 3});
  State state(graph);
  Program program(state, {.outputs = {y}});
  for (const std::int64_t n : {1, 5})
    CHECK(program.run({{x, Array::full(float32, {n, 1, 2}, 1)}})[0].shape() == Dims{n, 1, 3});
}

TEST_CASE("the work of a sequence's gradient grows in proportion to its places") {
  const auto steps = [](std::int64_t n) {
    Graph graph;
    const Value x = graph.input("x", {2, n, 2});
    const RecurrentWeights weights{.input = graph.parameter("w", ones({2, 8})),
                                   .hidden = graph.parameter("u", ones({2, 8}))};
    const Value cost = sum(lstm(x, weights).output);
    State state(graph);
    Program program(state, {.outputs = gradients(cost, {weights.input, weights.hidden, x})});
    return static_cast<double>(program.memory().steps);
  };
  CHECK(steps(40) < 4.2 * steps(10));
}

TEST_CASE("recurrent layers say what does not fit") {
  Graph graph;
  const Value x = graph.input("x", {5, 4, 2});
  const Value w = graph.parameter("w", ones({2, 12}));
  const Value u = graph.parameter("u", ones({3, 12}));
  const auto message = [&](const std::function<void()>& f) {
    const std::size_t before = graph.size();
    const Error error = error_of(f);
    CHECK(graph.size() == before);
    return std::string(error.what());
  };
  const Value narrow = graph.parameter("narrow", ones({3, 12}));
  CHECK_THAT(message([&] { lstm(x, {.input = narrow, .hidden = u}); }),
             ContainsSubstring("lstm: requires weights.input {2, 12}, got {3, 12}"));
  CHECK_THAT(message([&] { gru(x, {.input = w, .hidden = u}); }), ContainsSubstring("requires weights.hidden {3, 9}"));
  CHECK_THAT(message([&] { lstm(x, {.hidden = u}); }), ContainsSubstring("an empty weights.input"));
  CHECK_THAT(message([&] { lstm(graph.find("x"), {.input = w, .hidden = u}, {.lengths = w}); }),
             ContainsSubstring("requires lengths {5}, got {2, 12}"));
  CHECK_THAT(message([&] { lstm(x, {.input = w, .hidden = u}, {.hidden = u}); }),
             ContainsSubstring("options.hidden {5, 3}"));
  const Value flat = graph.input("flat", {5, 2});
  CHECK_THAT(message([&] { lstm(flat, {.input = w, .hidden = u}); }),
             ContainsSubstring("requires x {examples, places, inputs}, got {5, 2}"));
  const Value open = graph.input("open", {5, graph.dimension("places"), 2});
  CHECK_THAT(message([&] { lstm(open, {.input = w, .hidden = u}); }), ContainsSubstring("a number of places"));
  CHECK_THAT(message([&] {
               lstm_cell(flat, {flat, flat}, {.input = w, .hidden = u});
             }),
             ContainsSubstring("the cell {5, 3}"));
}
