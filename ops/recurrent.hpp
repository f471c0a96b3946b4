// Recurrent networks: one step, and whole sequences, whose steps are written out one after another.
#pragma once

#include <optional>
#include <vector>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// What a recurrent layer multiplies and adds. The columns are those of its gates one after another: of an rnn the
// units, of an lstm i f g o, of a gru r z n (PyTorch's orders), of `units` columns each.
struct RecurrentWeights {
  Value input;                               // {inputs, columns}
  Value hidden;                              // {units, columns}
  std::optional<Value> bias = std::nullopt;  // {columns}, added to the input's product
  // {columns}, added to the hidden state's product. Only a gru that resets after the product tells it from `bias`.
  std::optional<Value> hidden_bias = std::nullopt;
};

enum class RnnActivation : std::uint8_t { tanh, relu };
struct GruOptions {
  // The hidden state's part of n is multiplied by r after its product with the weights (PyTorch, cuDNN), or before
  // (Cho et al. 2014).
  bool reset_after = true;
};

// ---- one step, of x {examples, inputs} and a state {examples, units}

// activation(x W + b + h U + c), Elman 1990.
Value rnn_cell(Value x, Value hidden, const RecurrentWeights& weights, RnnActivation activation = RnnActivation::tanh,
               Location at = Location::here());

struct LstmState {
  Value hidden;
  Value cell;
};
// i, f, o = sigmoid and g = tanh of their columns of x W + b + h U + c; cell' = f cell + i g, hidden' = o tanh(cell').
// Hochreiter and Schmidhuber 1997, with Gers's forget gates.
LstmState lstm_cell(Value x, const LstmState& state, const RecurrentWeights& weights, Location at = Location::here());

// r, z = sigmoid of their columns of x W + b + h U + c; n = tanh(x W_n + b_n + r (h U_n + c_n)), or with the reset
// before the product tanh(x W_n + b_n + (r h) U_n + c_n); hidden' = (1 - z) n + z h.
Value gru_cell(Value x, Value hidden, const RecurrentWeights& weights, const GruOptions& options = {},
               Location at = Location::here());

// ---- sequences

struct SequenceOptions {
  // int64 {examples}: how many places of each example are its sequence; the others are padding, whose numbers do not
  // matter. There the output is 0 and the state stays as it is: the last state is that of the example's own last place,
  // and a reversed sequence begins there. All places where there are none.
  std::optional<Value> lengths = std::nullopt;
  bool reverse = false;                        // from the last place to the first
  std::optional<Value> hidden = std::nullopt;  // the state before the first step, {examples, units}; zeros without
  std::optional<Value> cell = std::nullopt;    // the same of an lstm's cell
};

// Converts to its output.
struct Sequence {
  Value output;  // {examples, places, units}: the hidden state at each place
  Value hidden;  // {examples, units}: after the last step
  Value cell;    // the same of an lstm; else empty
  operator Value() const { return output; }
};

// The cells above over x {examples, places, inputs}, one place after another. The places are a number, at least 1. The
// product of the inputs is one for all places. Throw Error for shapes and dtypes that do not fit.
Sequence rnn(Value x, const RecurrentWeights& weights, const SequenceOptions& options = {},
             RnnActivation activation = RnnActivation::tanh, Location at = Location::here());
Sequence lstm(Value x, const RecurrentWeights& weights, const SequenceOptions& options = {},
              Location at = Location::here());
Sequence gru(Value x, const RecurrentWeights& weights, const SequenceOptions& options = {},
             const GruOptions& gru_options = {}, Location at = Location::here());

}  // namespace chainrule
