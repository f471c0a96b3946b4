// Layers for sequences: recurrent networks, attention, the transformer's block. As those of nn.hpp, they are functions
// that add parameters to the graph together with the ops that use them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <chainrule/ops/attention.hpp>
#include <chainrule/ops/nn.hpp>
#include <chainrule/ops/recurrent.hpp>

namespace chainrule::nn {

// ---- recurrent networks

struct RecurrentOptions {
  std::size_t layers = 1;      // each reads what the one before gives
  bool bidirectional = false;  // in each layer a second network from the last place to the first
  double keep = 1;             // of dropout on what each layer but the last gives; 1 for none
  // int64 {examples}: as of chainrule::lstm, places beyond are padding. What they hold has no influence on anything.
  std::optional<Value> lengths = std::nullopt;
  // The states before the first step, {examples, units} each: of the first layer's forward network, of its reverse one
  // if there is one, of the second layer's and so on. Zeros where there are none. `cell` only of an lstm.
  Values hidden = {};
  Values cell = {};
  bool bias = true;                                  // both, of the input's product and of the hidden state's
  std::optional<double> forget_bias = std::nullopt;  // of an lstm: its biases begin as this at the forget gate, else 0
  // Of the inputs' weights, the hidden states' and the biases; where empty, uniform within 1 / sqrt(units), all three.
  // The fans are a gate's: inputs (or units, of the hidden and of biases) and units. init::orthogonal() makes the rows
  // of all gates together orthonormal.
  init::Initializer initializer = {};
  init::Initializer hidden_initializer = {};
  init::Initializer bias_initializer = {};
  std::string name = {};
};

// Converts to its output.
struct Recurrent {
  Value output;   // {examples, places, units} of the last layer; of both directions {..., 2 units}, forward first
  Values hidden;  // {examples, units}: after the last step, in the order of options.hidden
  Values cell;    // the same of an lstm; else empty
  std::vector<RecurrentWeights> weights;  // in that order too
  operator Value() const { return output; }
};

// chainrule::rnn, lstm and gru over x {examples, places, inputs}, the places a number, with parameters. Layer number i
// has NAME/i/weight {inputs, columns}, NAME/i/hidden_weight {units, columns} and the biases NAME/i/bias and
// NAME/i/hidden_bias {columns}, its reverse network the same in NAME/i/reverse; columns are the gates' in PyTorch's
// orders. As in PyTorch there are two biases, also where one would do; only a gru that resets after the product tells
// them apart. Throw Error for no layers or units, and states that are not one for each network.
Recurrent rnn(Value x, std::size_t units, const RecurrentOptions& options = {},
              RnnActivation activation = RnnActivation::tanh, Location at = Location::here());
Recurrent lstm(Value x, std::size_t units, const RecurrentOptions& options = {}, Location at = Location::here());
Recurrent gru(Value x, std::size_t units, const RecurrentOptions& options = {}, const GruOptions& gru_options = {},
              Location at = Location::here());

// ---- attention

struct MultiHeadOptions {
  // What is attended to, {..., keys, features of its own}: cross-attention. x itself where there is none.
  std::optional<Value> memory = std::nullopt;
  // How many heads keys and values have, which divides the queries'; as many where there is none.
  std::optional<std::size_t> key_heads = std::nullopt;
  std::optional<std::size_t> width = std::nullopt;  // of a head; x's features over the heads where there is none
  bool causal = false;                              // place i attends to places 0 to i only
  // As AttentionOptions': broadcasts to {..., heads, queries, keys}.
  std::optional<Value> mask = std::nullopt;
  // int64 {...}: places of what is attended to beyond these are padding. No place attends to them, and what they hold
  // has no influence on anything.
  std::optional<Value> lengths = std::nullopt;
  std::optional<RotaryOptions> rotary = std::nullopt;  // turns queries and keys by their places
  double keep = 1;                                     // of dropout on the weights
  bool bias = true;
  init::Initializer initializer = {};
  std::string name = {};
};

// Converts to its output.
struct MultiHeadAttention {
  Value output;
  Dense query;
  Dense key;
  Dense value;
  Dense projection;
  operator Value() const { return output; }
};

// Multi-head attention (Vaswani et al. 2017) of x {..., queries, features} -> {..., queries, features}: dense layers
// NAME/query, NAME/key and NAME/value of heads times width units, scaled_dot_product_attention of their heads, and
// a dense layer NAME/projection of x's features. Throws Error for heads that do not divide the features where no width
// is given, or that the key_heads do not divide; and what its parts throw.
MultiHeadAttention multi_head_attention(Value x, std::size_t heads, const MultiHeadOptions& options = {},
                                        Location at = Location::here());

// ---- the transformer's block

enum class BlockNorm : std::uint8_t { layer_norm, rms_norm };

struct TransformerOptions {
  MultiHeadOptions attention = {};  // of x to itself: .causal, .lengths, .rotary, ...
  // A second attention, to its .memory: a decoder's.
  std::optional<MultiHeadOptions> cross_attention = std::nullopt;
  std::optional<std::size_t> hidden = std::nullopt;  // units between the two dense layers; 4 times x's features
  Activation activation = gelu;
  BlockNorm norm = BlockNorm::layer_norm;
  bool norm_after = false;             // of x + part(x), as in the paper, rather than of what each part reads (GPT-2)
  double epsilon = 1e-5;               // of the norms
  double keep = 1;                     // of dropout on what each part adds to x
  init::Initializer initializer = {};  // of all weights; init::glorot_uniform() where empty
  std::string name = {};
};

// Converts to its output.
struct TransformerBlock {
  Value output;
  MultiHeadAttention attention;
  std::optional<MultiHeadAttention> cross_attention;
  Mlp mlp;
  std::vector<Norm> norms;  // of attention, of cross-attention where there is one, of the mlp
  operator Value() const { return output; }
};

// A block of a transformer of x {..., places, features}: x += part(norm(x)) with the parts attention, cross-attention
// and a multilayer perceptron, one after the other; or with norm_after x = norm(x + part(x)). The parameters stand in
// NAME/attention, NAME/cross_attention, NAME/mlp and NAME/attention_norm, NAME/cross_attention_norm, NAME/mlp_norm.
// attention.lengths are also x's: at the padding behind them the output is of no meaning, but finite whatever x is.
TransformerBlock transformer_block(Value x, std::size_t heads, const TransformerOptions& options = {},
                                   Location at = Location::here());

// ---- positions

struct PositionOptions {
  std::string name = {};
  init::Initializer initializer = {};  // init::normal(0.02) where empty; the fans are the places and the features
};

// x {..., places, features} plus the first rows of a parameter table {most_places, features}: learned positions. Throws
// Error for more places than that, of a named size in a run.
Embedding learned_positions(Value x, std::size_t most_places, const PositionOptions& options = {},
                            Location at = Location::here());

}  // namespace chainrule::nn
