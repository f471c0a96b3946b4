// Recurrent networks of several layers and directions.
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/nn_parts.hpp>
#include <chainrule/ops/nn_sequences.hpp>

CHAINRULE_OP_FAMILY(nn_recurrent)

namespace chainrule::nn {

namespace {

// What the kinds of networks differ in.
struct Kind {
  std::string_view name;
  std::int64_t gates;
  bool has_cell;
};

// The parameters of one network of one direction, in the scope that is open.
class Maker {
 public:
  Maker(const Kind& kind, std::int64_t units, const RecurrentOptions& options, Location at)
      : kind_(kind), units_(units), options_(options), at_(at) {}

  [[nodiscard]] RecurrentWeights weights(Graph graph, std::int64_t inputs) const {
    const std::int64_t columns = kind_.gates * units_;
    RecurrentWeights out;
    out.input = graph.parameter("weight", initial(options_.initializer, {inputs, columns}, inputs), at_);
    out.hidden = graph.parameter("hidden_weight", initial(options_.hidden_initializer, {units_, columns}, units_), at_);
    if (!options_.bias) return out;
    if (options_.forget_bias) {
      Array bias = Array::full(float64, {columns}, 0);
      for (std::int64_t i = units_; i < 2 * units_; ++i) bias.set(i, *options_.forget_bias);
      out.bias = graph.parameter("bias", bias, at_);
      out.hidden_bias = graph.parameter("hidden_bias", zeros({columns}), at_);
      return out;
    }
    out.bias = graph.parameter("bias", initial(options_.bias_initializer, {columns}, units_), at_);
    out.hidden_bias = graph.parameter("hidden_bias", initial(options_.bias_initializer, {columns}, units_), at_);
    return out;
  }

 private:
  [[nodiscard]] Initial initial(const init::Initializer& initializer, const Shape& shape, std::int64_t fan_in) const {
    if (initializer) return initializer(shape, static_cast<double>(fan_in), static_cast<double>(units_));
    const double bound = 1 / std::sqrt(static_cast<double>(units_));
    return uniform(shape, -bound, bound);
  }

  const Kind& kind_;
  std::int64_t units_;
  const RecurrentOptions& options_;
  Location at_;
};

void require_states(const Values& states, std::size_t networks, std::string_view what, const Kind& kind, Location at) {
  if (!states.empty() && states.size() != networks)
    refuse(kind.name, at, fmt::format("no {} or one for each of {} networks", what, networks),
           fmt::format("{}", states.size()));
}

void require_options(Value x, std::size_t units, const RecurrentOptions& options, const Kind& kind, Location at) {
  require_value(x, kind.name, at);
  if (x.rank() != 3) refuse(kind.name, at, "x {examples, places, inputs}", to_string(x.shape()));
  if (units == 0) refuse(kind.name, at, "at least one unit", "0");
  if (options.layers == 0) refuse(kind.name, at, "at least one layer", "0");
  const std::size_t networks = options.layers * (options.bidirectional ? 2 : 1);
  require_states(options.hidden, networks, "hidden states", kind, at);
  require_states(options.cell, networks, "cells", kind, at);
  if (!options.cell.empty() && !kind.has_cell) refuse(kind.name, at, "no cells", "some");
  if (!options.forget_bias) return;
  if (!kind.has_cell) refuse(kind.name, at, "no forget_bias", "one");
  if (!options.bias || options.bias_initializer)
    refuse(kind.name, at, "a forget_bias only where there are biases without an initializer", "one");
}

// `op` runs one network over a sequence: chainrule::lstm and its like.
template <class Op>
Recurrent recurrent(Value x, std::size_t units, const Kind& kind, const RecurrentOptions& options, Location at, Op op) {
  at = detail::scoped(at);
  require_options(x, units, options, kind, at);
  const Maker maker(kind, Dimension(units).extent(), options, at);
  const detail::LocationScope location(at);
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope scope = network_scope(graph, options.name, kind.name, at);
  Recurrent out{.output = x, .hidden = {}, .cell = {}, .weights = {}};
  // One network; its weights stand in the scope that is open.
  const auto run = [&](Value from, bool reverse) {
    const std::size_t i = out.weights.size();
    out.weights.push_back(maker.weights(graph, number_of("inputs", from, 2, kind.name, at)));
    SequenceOptions given{.lengths = options.lengths, .reverse = reverse};
    if (!options.hidden.empty()) given.hidden = options.hidden[i];
    if (!options.cell.empty()) given.cell = options.cell[i];
    const Sequence sequence = op(from, out.weights.back(), given);
    out.hidden.push_back(sequence.hidden);
    if (kind.has_cell) out.cell.push_back(sequence.cell);
    return sequence.output;
  };
  for (std::size_t layer = 0; layer < options.layers; ++layer) {
    if (layer > 0 && options.keep != 1) out.output = dropout(out.output, {.keep = options.keep}, at);
    const NameScope inner = graph.scope(fmt::format("{}", layer), at);
    const Value from = out.output;
    out.output = run(from, false);
    if (!options.bidirectional) continue;
    const NameScope reverse = graph.scope("reverse", at);
    out.output = concat({out.output, run(from, true)}, 2);
  }
  attempt.succeed();
  return out;
}

}  // namespace

Recurrent rnn(Value x, std::size_t units, const RecurrentOptions& options, RnnActivation activation, Location at) {
  return recurrent(x, units, {"rnn", 1, false}, options, at, [&](Value from, const auto& weights, const auto& given) {
    return chainrule::rnn(from, weights, given, activation, at);
  });
}

Recurrent lstm(Value x, std::size_t units, const RecurrentOptions& options, Location at) {
  return recurrent(x, units, {"lstm", 4, true}, options, at, [&](Value from, const auto& weights, const auto& given) {
    return chainrule::lstm(from, weights, given, at);
  });
}

Recurrent gru(Value x, std::size_t units, const RecurrentOptions& options, const GruOptions& gru_options, Location at) {
  return recurrent(x, units, {"gru", 3, false}, options, at, [&](Value from, const auto& weights, const auto& given) {
    return chainrule::gru(from, weights, given, gru_options, at);
  });
}

}  // namespace chainrule::nn
