// Layers: functions that add parameters to the graph together with the ops that use them, and return both. No op is
// defined here, and a layer of one's own is such a function.
//
// A layer opens a name scope (Graph::scope) of its name, "dense", "dense_2", ... where it is given none, and its
// parameters are called NAME/weight, NAME/bias and so on. Every layer throws Error, with the graph as it was, for an
// empty Value, sizes that it needs as numbers and gets as names, and names in use; and what its ops throw.
#pragma once

#include <concepts>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/graph/initializers.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/convolution.hpp>
#include <chainrule/ops/indexing.hpp>
#include <chainrule/ops/normalization.hpp>
#include <chainrule/ops/random.hpp>

namespace chainrule::nn {

// Of layers with weights.
struct LayerOptions {
  std::string name = {};
  init::Initializer initializer = {};  // of the weights; init::glorot_uniform() where empty
  bool bias = true;                    // begins as zeros
};

// ---- products

// A fully connected layer. Converts to its output.
struct Dense {
  Value output;
  Value weight;
  Value bias;  // empty without
  operator Value() const { return output; }
};

// x W + b, x {examples, ..., features} -> {examples, ..., units}, with parameters weight {features, units} and bias
// {units}. The fans are the features and the units.
Dense dense(Value x, std::size_t units, const LayerOptions& options = {}, Location at = Location::here());
// (A template, so that braces are LayerOptions to every compiler.)
template <std::convertible_to<init::Initializer> I>
Dense dense(Value x, std::size_t units, const I& initializer, LayerOptions options = {},
            Location at = Location::here()) {
  options.initializer = initializer;
  return dense(x, units, options, at);
}

// ---- convolutions

// Converts to its output.
struct Conv {
  Value output;
  Value weight;
  Value bias;  // empty without
  operator Value() const { return output; }
};

// conv(x, weight, conv) + bias of x {N, C, ...} with one, two or three spatial axes -> {N, features, ...}, with
// parameters weight {features, C / groups, taps...} and bias {features}: nn::conv(x, 32, 3, {.padding = "same"}).
// `taps` are a number for all axes or one for each, {3, 5}. The fans: fan_in = C / groups times the taps, of all axes
// together, and fan_out = features / groups times the taps.
Conv conv(Value x, std::size_t features, const PerAxis& taps, const ConvOptions& conv = {},
          const LayerOptions& options = {}, Location at = Location::here());

// conv_transpose(x, weight, conv) + bias of x {N, K, ...} -> {N, features, ...}, with parameters weight
// {K, features / groups, taps...} and bias {features}. The fans: fan_in = K / groups times the taps, and fan_out =
// features / groups times the taps.
Conv conv_transpose(Value x, std::size_t features, const PerAxis& taps, const ConvTransposeOptions& conv = {},
                    const LayerOptions& options = {}, Location at = Location::here());

// ---- norms

struct NameOptions {
  std::string name = {};
};

// Converts to its output.
struct BatchNorm {
  Value output;
  Value gamma;
  Value beta;
  Value mean;
  Value variance;
  operator Value() const { return output; }
};

// batch_norm with parameters gamma (ones) and beta (zeros) and running averages, which are variables, mean (zeros) and
// variance (ones), one for each of the features of x along options.axis.
BatchNorm batch_norm(Value x, const BatchNormOptions& options = {}, const NameOptions& layer = {},
                     Location at = Location::here());

// Converts to its output.
struct Norm {
  Value output;
  Value gamma;
  Value beta;  // empty of rms_norm
  operator Value() const { return output; }
};

// layer_norm and rms_norm with parameters gamma (ones) and, of layer_norm, beta (zeros), of the shape of the axes that
// are normalized over, which are numbers.
Norm layer_norm(Value x, const LayerNormOptions& options = {}, const NameOptions& layer = {},
                Location at = Location::here());
Norm rms_norm(Value x, const LayerNormOptions& options = {}, const NameOptions& layer = {},
              Location at = Location::here());

// group_norm and instance_norm with parameters gamma (ones) and beta (zeros), one for each channel of x {N, C, ...}.
Norm group_norm(Value x, std::int64_t groups, const NormOptions& options = {}, const NameOptions& layer = {},
                Location at = Location::here());
Norm instance_norm(Value x, const NormOptions& options = {}, const NameOptions& layer = {},
                   Location at = Location::here());

// ---- tables

// Converts to its output.
struct Embedding {
  Value output;
  Value table;
  operator Value() const { return output; }
};

struct TableOptions {
  std::string name = {};
  init::Initializer initializer = {};  // init::normal(1) where empty; the fans are the rows and the width
  EmbeddingOptions embedding = {};
};

// embedding(table, indices) with a parameter table {rows, width}: indices {...} -> {..., width}. The initializer fills
// the row padding_idx as well.
Embedding embedding(Value indices, std::size_t rows, std::size_t width, const TableOptions& options = {},
                    Location at = Location::here());

// ---- networks

// What a network does between its layers: cr::tanh, or any function of a Value.
class Activation {
 public:
  Activation(Value (*function)(Value, Location))
      : function_([function](Value x) { return function(x, Location::here()); }) {}
  template <class F>
  requires(std::is_invocable_r_v<Value, F&, Value> && !std::is_same_v<F, Activation>) Activation(F function)
      : function_(std::move(function)) {}
  Value operator()(Value x) const { return function_(x); }

 private:
  std::function<Value(Value)> function_;
};

struct MlpOptions {
  Activation activation = relu;  // after each layer but the last
  bool activate_last = false;
  double keep = 1;  // of dropout behind each activation; 1 for none
  std::string name = {};
  init::Initializer initializer = {};
  bool bias = true;
};

// Converts to its output.
struct Mlp {
  Value output;
  std::vector<Dense> layers;
  operator Value() const { return output; }
};

// Dense layers one after the other, of these numbers of units: a multilayer perceptron. nn::mlp(x, {128, 64, 10},
// {.activation = cr::tanh}) names its parameters mlp/0/weight, mlp/0/bias, mlp/1/weight, ...
Mlp mlp(Value x, const std::vector<std::size_t>& units, const MlpOptions& options = {}, Location at = Location::here());

using Block = std::function<Value(Value)>;

struct ResidualOptions {
  Block projection = {};  // of x, where the block changes its shape
  std::string name = {};
};

// x + block(x), or projection(x) + block(x) (He, Zhang, Ren and Sun 2016). What the block names stands in the scope
// NAME, and what the projection does in NAME/projection. Throws Error where the two are not of one shape.
Value residual(Value x, const Block& block, const ResidualOptions& options = {}, Location at = Location::here());

using chainrule::dropout;  // a layer without parameters

}  // namespace chainrule::nn
