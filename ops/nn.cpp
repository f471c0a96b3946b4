#include <chainrule/ops/nn.hpp>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/matmul.hpp>

CHAINRULE_OP_FAMILY(nn)

namespace chainrule::nn {

namespace {

// A name under which none of the layer's parameters is in use yet.
std::string layer_name(const Graph& graph, const LayerOptions& options, std::string_view kind, std::string_view first) {
  if (!options.name.empty()) return options.name;
  return graph.unique_name(kind, fmt::format("/{}", first));
}

Dimension features_of(Value x, std::int64_t axis, std::string_view layer, Location at) {
  if (!x.defined()) throw Error(at, layer, "requires values of a graph, got an empty Value");
  const Dimension features = x.shape()[normalize_axis(axis, x.rank(), layer, at)];
  if (!features.is_number())
    throw Error(at, layer,
                fmt::format("requires a number of features, got {} in {}", features.to_string(), to_string(x.shape())));
  return features;
}

}  // namespace

Dense dense(Value x, std::size_t units, const init::Initializer& initializer, const LayerOptions& options,
            Location at) {
  const Dimension features = features_of(x, -1, "dense", at);
  if (x.rank() < 2)
    throw Error(at, "dense", fmt::format("requires {{examples, features}}, got {}", to_string(x.shape())));
  const detail::LocationScope scope(detail::scoped(at));
  Graph graph = x.graph();
  const std::string name = layer_name(graph, options, "dense", "weight");
  const auto fan_in = static_cast<double>(features.extent());
  detail::Attempt attempt(x.data());
  Dense out;
  out.weight =
      graph.parameter(name + "/weight", initializer({features, units}, fan_in, static_cast<double>(units)), at);
  out.bias = graph.parameter(name + "/bias", zeros({units}), at);
  out.output = matmul(x, out.weight) + out.bias;
  attempt.succeed();
  return out;
}

Value batch_norm(Value x, const BatchNormOptions& options, const LayerOptions& layer, Location at) {
  const Dimension features = features_of(x, options.axis, "batch_norm", at);
  Graph graph = x.graph();
  const std::string name = layer_name(graph, layer, "batch_norm", "gamma");
  detail::Attempt attempt(x.data());
  const Value gamma = graph.parameter(name + "/gamma", ones({features}), at);
  const Value beta = graph.parameter(name + "/beta", zeros({features}), at);
  const Value mean = graph.variable(name + "/mean", zeros({features}), at);
  const Value variance = graph.variable(name + "/variance", ones({features}), at);
  const Value y = chainrule::batch_norm(x, gamma, beta, mean, variance, options, at);
  attempt.succeed();
  return y;
}

}  // namespace chainrule::nn
