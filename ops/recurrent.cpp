#include <chainrule/ops/recurrent.hpp>

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/matmul.hpp>
#include <chainrule/ops/padding.hpp>

CHAINRULE_OP_FAMILY(recurrent)

namespace chainrule {

namespace {

// One layer's call: its weights, checked, and its errors in the name of `op`.
class Layer {
 public:
  Layer(std::string_view op, std::int64_t gates, const RecurrentWeights& weights, Value x, Location at)
      : op_(op), at_(at), weights_(weights) {
    require_defined(x, "x");
    require_defined(weights.input, "weights.input");
    require_defined(weights.hidden, "weights.hidden");
    if (!is_floating(x.dtype())) fail("x of a floating dtype", name(x.dtype()));
    const Shape& hidden = weights.hidden.shape();
    if (hidden.rank() != 2 || !hidden[0].is_number())
      fail("weights.hidden {units, columns}, with a number of units", to_string(hidden));
    units_ = hidden[0].extent();
    const Dimension columns = gates * units_;
    require(weights.hidden, {units_, columns}, "weights.hidden", x.dtype());
    if (x.rank() == 0) fail("x of at least one axis", to_string(x.shape()));
    require(weights.input, {x.shape().back(), columns}, "weights.input", x.dtype());
    if (weights.bias) require(*weights.bias, {columns}, "weights.bias", x.dtype());
    if (weights.hidden_bias) require(*weights.hidden_bias, {columns}, "weights.hidden_bias", x.dtype());
  }

  void require(Value value, const Shape& shape, std::string_view what, DType dtype) const {
    require_defined(value, what);
    if (!(value.shape() == shape)) fail(fmt::format("{} {}", what, to_string(shape)), to_string(value.shape()));
    if (value.dtype() != dtype) fail(fmt::format("{} of {}", what, name(dtype)), name(value.dtype()));
  }
  void require_state(Value state, Dimension examples, std::string_view what, DType dtype) const {
    require(state, {examples, units_}, what, dtype);
  }
  [[noreturn]] void fail(std::string_view required, std::string_view got) const {
    throw Error(at_, op_, fmt::format("requires {}, got {}", required, got));
  }

  [[nodiscard]] std::int64_t units() const { return units_; }
  [[nodiscard]] const RecurrentWeights& weights() const { return weights_; }

  // x W + b, and with it the hidden state's bias where that may be added here.
  [[nodiscard]] Value of_input(Value x, bool with_hidden_bias) const {
    Value out = matmul(x, weights_.input);
    if (weights_.bias && with_hidden_bias && weights_.hidden_bias)
      return out + (*weights_.bias + *weights_.hidden_bias);
    if (weights_.bias) out = out + *weights_.bias;
    if (with_hidden_bias && weights_.hidden_bias) out = out + *weights_.hidden_bias;
    return out;
  }
  // The columns of gates [first, first + n).
  [[nodiscard]] Value gate(Value x, std::int64_t first, std::int64_t n = 1) const {
    return slice(x, -1, {first * units_, (first + n) * units_});
  }

 private:
  void require_defined(Value value, std::string_view what) const {
    if (!value.defined()) fail("values of a graph", fmt::format("an empty {}", what));
  }

  std::string_view op_;
  Location at_;
  const RecurrentWeights& weights_;
  std::int64_t units_ = 0;
};

// What is carried from step to step; the cell is an lstm's.
using Carried = LstmState;

// From the input's product and the state to the next state.
class RnnStep {
 public:
  RnnStep(const Layer& layer, RnnActivation activation) : layer_(layer), activation_(activation) {}
  static constexpr bool adds_hidden_bias = false;
  [[nodiscard]] Carried operator()(Value of_input, const Carried& state) const {
    const Value sum = of_input + matmul(state.hidden, layer_.weights().hidden);
    return {activation_ == RnnActivation::tanh ? tanh(sum) : relu(sum), {}};
  }

 private:
  const Layer& layer_;
  RnnActivation activation_;
};

class LstmStep {
 public:
  explicit LstmStep(const Layer& layer) : layer_(layer) {}
  static constexpr bool adds_hidden_bias = false;
  [[nodiscard]] Carried operator()(Value of_input, const Carried& state) const {
    const Value sum = of_input + matmul(state.hidden, layer_.weights().hidden);
    const Value i = sigmoid(layer_.gate(sum, 0));
    const Value f = sigmoid(layer_.gate(sum, 1));
    const Value g = tanh(layer_.gate(sum, 2));
    const Value o = sigmoid(layer_.gate(sum, 3));
    const Value cell = f * state.cell + i * g;
    return {o * tanh(cell), cell};
  }

 private:
  const Layer& layer_;
};

class GruStep {
 public:
  GruStep(const Layer& layer, const GruOptions& options) : layer_(layer), reset_after_(options.reset_after) {}
  static constexpr bool adds_hidden_bias = true;  // here, not with the input's product
  [[nodiscard]] Carried operator()(Value of_input, const Carried& state) const {
    return {reset_after_ ? after(of_input, state.hidden) : before(of_input, state.hidden), {}};
  }

 private:
  [[nodiscard]] Value after(Value of_input, Value h) const {
    Value of_hidden = matmul(h, layer_.weights().hidden);
    if (layer_.weights().hidden_bias) of_hidden = of_hidden + *layer_.weights().hidden_bias;
    const Value r = sigmoid(layer_.gate(of_input, 0) + layer_.gate(of_hidden, 0));
    const Value z = sigmoid(layer_.gate(of_input, 1) + layer_.gate(of_hidden, 1));
    return mixed(z, tanh(layer_.gate(of_input, 2) + r * layer_.gate(of_hidden, 2)), h);
  }
  [[nodiscard]] Value before(Value of_input, Value h) const {
    const Value u = layer_.weights().hidden;
    if (layer_.weights().hidden_bias) of_input = of_input + *layer_.weights().hidden_bias;
    const Value rz = sigmoid(layer_.gate(of_input, 0, 2) + matmul(h, layer_.gate(u, 0, 2)));
    const Value n = tanh(layer_.gate(of_input, 2) + matmul(layer_.gate(rz, 0) * h, layer_.gate(u, 2)));
    return mixed(layer_.gate(rz, 1), n, h);
  }
  // (1 - z) n + z h
  static Value mixed(Value z, Value n, Value h) { return n + z * (h - n); }

  const Layer& layer_;
  bool reset_after_;
};

// One step of examples that are {examples, inputs}.
template <class Step>
Carried one_step(const Layer& layer, const Step& step, Value x, const Carried& state) {
  if (x.rank() != 2) layer.fail("x {examples, inputs}", to_string(x.shape()));
  layer.require_state(state.hidden, x.shape()[0], "the hidden state", x.dtype());
  return step(layer.of_input(x, !Step::adds_hidden_bias), state);
}

Value initial_state(const Layer& layer, const std::optional<Value>& given, Value x, std::string_view what) {
  if (given) {
    layer.require_state(*given, x.shape()[0], what, x.dtype());
    return *given;
  }
  return broadcast_to(x.graph().constant(0, x.dtype()), {x.shape()[0], layer.units()});
}

template <class Step>
Sequence whole_sequence(const Layer& layer, const Step& step, Value x, const SequenceOptions& options, bool has_cell) {
  if (x.rank() != 3) layer.fail("x {examples, places, inputs}", to_string(x.shape()));
  if (!x.shape()[1].is_number() || x.shape()[1].is(0))
    layer.fail("a number of places, at least 1", to_string(x.shape()));
  if (options.cell && !has_cell) layer.fail("no cell", "one");
  const std::int64_t places = x.shape()[1].extent();
  if (options.lengths) layer.require(*options.lengths, {x.shape()[0]}, "lengths", int64);
  Carried state{initial_state(layer, options.hidden, x, "options.hidden"), {}};
  if (has_cell) state.cell = initial_state(layer, options.cell, x, "options.cell");
  const Value lengths = options.lengths ? expand_dims(*options.lengths, 1) : Value{};
  // Places first: what a step reads lies together.
  const Value by_place = swapaxes(options.lengths ? detail::without_padding(x, *options.lengths) : x, 0, 1);
  const Value of_input = layer.of_input(by_place, !Step::adds_hidden_bias);
  Values outputs(static_cast<std::size_t>(places));
  for (std::int64_t i = 0; i < places; ++i) {
    const std::int64_t place = options.reverse ? places - 1 - i : i;
    Carried next = step(slice(of_input, {place}), state);
    Value& output = outputs[static_cast<std::size_t>(place)];
    output = next.hidden;
    if (options.lengths) {
      const Value within = greater(lengths, place);
      output = where(within, next.hidden, 0.0);
      next.hidden = where(within, next.hidden, state.hidden);
      if (has_cell) next.cell = where(within, next.cell, state.cell);
    }
    state = std::move(next);
  }
  return {stack(outputs, 1), state.hidden, state.cell};
}

// All values that a call is given, whose graphs are as they were after an error.
Values all_of(Value x, const RecurrentWeights& weights) {
  Values out{x, weights.input, weights.hidden};
  if (weights.bias) out.push_back(*weights.bias);
  if (weights.hidden_bias) out.push_back(*weights.hidden_bias);
  return out;
}

// `build` with a Layer, all or nothing, its nodes at the caller's line.
template <class F>
auto built(std::string_view op, std::int64_t gates, Value x, const RecurrentWeights& weights, Location at, F build) {
  at = detail::scoped(at);
  const Layer layer(op, gates, weights, x, at);
  return detail::attempt(all_of(x, weights), [&] {
    const detail::LocationScope scope(at);
    return build(layer);
  });
}

}  // namespace

Value rnn_cell(Value x, Value hidden, const RecurrentWeights& weights, RnnActivation activation, Location at) {
  return built("rnn_cell", 1, x, weights, at, [&](const Layer& layer) {
    return one_step(layer, RnnStep(layer, activation), x, {hidden, {}}).hidden;
  });
}

LstmState lstm_cell(Value x, const LstmState& state, const RecurrentWeights& weights, Location at) {
  return built("lstm_cell", 4, x, weights, at, [&](const Layer& layer) {
    layer.require_state(state.cell, x.shape()[0], "the cell", x.dtype());
    return one_step(layer, LstmStep(layer), x, state);
  });
}

Value gru_cell(Value x, Value hidden, const RecurrentWeights& weights, const GruOptions& options, Location at) {
  return built("gru_cell", 3, x, weights, at, [&](const Layer& layer) {
    return one_step(layer, GruStep(layer, options), x, {hidden, {}}).hidden;
  });
}

Sequence rnn(Value x, const RecurrentWeights& weights, const SequenceOptions& options, RnnActivation activation,
             Location at) {
  return built("rnn", 1, x, weights, at, [&](const Layer& layer) {
    return whole_sequence(layer, RnnStep(layer, activation), x, options, false);
  });
}

Sequence lstm(Value x, const RecurrentWeights& weights, const SequenceOptions& options, Location at) {
  return built("lstm", 4, x, weights, at,
               [&](const Layer& layer) { return whole_sequence(layer, LstmStep(layer), x, options, true); });
}

Sequence gru(Value x, const RecurrentWeights& weights, const SequenceOptions& options, const GruOptions& gru_options,
             Location at) {
  return built("gru", 3, x, weights, at, [&](const Layer& layer) {
    return whole_sequence(layer, GruStep(layer, gru_options), x, options, false);
  });
}

}  // namespace chainrule
