// Layers: functions that add parameters to the graph together with the ops that use them. No op is defined here.
#pragma once

#include <string>

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/graph/initializers.hpp>
#include <chainrule/ops/normalization.hpp>

namespace chainrule::nn {

struct LayerOptions {
  std::string name = {};  // of the parameters; "dense", "dense_2", ... where empty
};

// A fully connected layer. Converts to its output.
struct Dense {
  Value output;
  Value weight;
  Value bias;
  operator Value() const { return output; }
};

// x {examples, features} -> x W + b {examples, units}, with parameters NAME/weight {features, units} and NAME/bias
// {units}, which begins as zeros. Throws Error where the features are not a number.
Dense dense(Value x, std::size_t units, const init::Initializer& initializer = init::glorot_uniform(),
            const LayerOptions& options = {}, Location at = Location::here());

// batch_norm with parameters NAME/gamma (ones), NAME/beta (zeros) and running averages NAME/mean (zeros) and
// NAME/variance (ones) for the features of x along options.axis.
Value batch_norm(Value x, const BatchNormOptions& options = {}, const LayerOptions& layer = {},
                 Location at = Location::here());

}  // namespace chainrule::nn
