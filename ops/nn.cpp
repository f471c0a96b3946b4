#include <chainrule/ops/nn.hpp>

#include <algorithm>

#include <fmt/core.h>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/matmul.hpp>
#include <chainrule/ops/nn_parts.hpp>

CHAINRULE_OP_FAMILY(nn)

namespace chainrule::nn {

namespace {

Initial weights(const LayerOptions& options, const Shape& shape, std::int64_t fan_in, std::int64_t fan_out) {
  static const init::Initializer otherwise = init::glorot_uniform();
  return (options.initializer ? options.initializer : otherwise)(shape, static_cast<double>(fan_in),
                                                                 static_cast<double>(fan_out));
}

}  // namespace

// ---- products

Dense dense(Value x, std::size_t units, const LayerOptions& options, Location at) {
  require_value(x, "dense", at);
  const detail::LocationScope scope(detail::scoped(at));
  if (x.rank() < 2)
    throw Error(detail::scoped(at), "dense",
                fmt::format("requires {{examples, features}}, got {}", to_string(x.shape())));
  const std::int64_t features = number_of("features", x, x.rank() - 1, "dense", at);
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope name = layer_scope(graph, options.name, "dense", "weight", at);
  Dense out;
  out.weight = graph.parameter("weight", weights(options, {features, units}, features, Dimension(units).extent()), at);
  out.output = matmul(x, out.weight);
  if (options.bias) {
    out.bias = graph.parameter("bias", zeros({units}), at);
    out.output = out.output + out.bias;
  }
  attempt.succeed();
  return out;
}

// ---- convolutions

namespace {

// What the two kinds of convolutions differ in.
struct Kind {
  std::string_view name;
  std::int64_t groups;
  std::int64_t channels;  // of x
  std::int64_t features;  // of the output
  bool transposed;
};

// One spatial extent of the weights for each of x.
Axes taps_of(Value x, const PerAxis& taps, const Kind& kind, Location at) {
  const std::size_t axes = x.rank() - 2;
  const Axes& given = taps.numbers();
  if ((given.size() != 1 && given.size() != axes) ||
      std::any_of(given.begin(), given.end(), [](std::int64_t n) { return n < 1; }))
    throw Error(detail::scoped(at), kind.name,
                fmt::format("requires a number of taps of 1 or more for all {} axes or one for each, got {}", axes,
                            Attribute(given).to_string()));
  return given.size() == axes ? given : Axes(axes, given[0]);
}

template <class Options>
Kind kind_of(Value x, std::size_t features, const Options& options, std::string_view name, Location at) {
  require_value(x, name, at);
  if (x.rank() < 3 || x.rank() > 5)
    throw Error(detail::scoped(at), name,
                fmt::format("requires {{N, C, ...}} with one to three spatial axes, got {}", to_string(x.shape())));
  const Kind kind{name, options.groups, number_of("channels", x, 1, name, at), Dimension(features).extent(),
                  std::is_same_v<Options, ConvTransposeOptions>};
  if (kind.groups < 1 || kind.channels % kind.groups != 0 || kind.features % kind.groups != 0)
    throw Error(detail::scoped(at), name,
                fmt::format("requires groups of 1 or more that divide the channels and features, got {} for {} "
                            "channels and {} features",
                            kind.groups, kind.channels, kind.features));
  return kind;
}

template <class Op>
Conv convolution(Value x, const PerAxis& taps, const Kind& kind, const LayerOptions& options, Op op, Location at) {
  const detail::LocationScope scope(detail::scoped(at));
  const Axes kernel = taps_of(x, taps, kind, at);
  Shape shape = kind.transposed ? Shape{kind.channels, kind.features / kind.groups}
                                : Shape{kind.features, kind.channels / kind.groups};
  std::int64_t area = 1;
  Shape bias{kind.features};  // beside the channels
  for (const std::int64_t n : kernel) {
    shape.push_back(n);
    bias.push_back(1);
    area *= n;
  }
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope name = layer_scope(graph, options.name, kind.name, "weight", at);
  Conv out;
  out.weight = graph.parameter(
      "weight", weights(options, shape, kind.channels / kind.groups * area, kind.features / kind.groups * area), at);
  out.output = op(out.weight);
  if (options.bias) {
    out.bias = graph.parameter("bias", zeros({kind.features}), at);
    out.output = out.output + reshape(out.bias, bias);
  }
  attempt.succeed();
  return out;
}

}  // namespace

Conv conv(Value x, std::size_t features, const PerAxis& taps, const ConvOptions& conv, const LayerOptions& options,
          Location at) {
  const Kind kind = kind_of(x, features, conv, "conv", at);
  return convolution(
      x, taps, kind, options, [&](Value w) { return chainrule::conv(x, w, conv, at); }, at);
}

Conv conv_transpose(Value x, std::size_t features, const PerAxis& taps, const ConvTransposeOptions& conv,
                    const LayerOptions& options, Location at) {
  const Kind kind = kind_of(x, features, conv, "conv_transpose", at);
  return convolution(
      x, taps, kind, options, [&](Value w) { return chainrule::conv_transpose(x, w, conv, at); }, at);
}

// ---- norms

BatchNorm batch_norm(Value x, const BatchNormOptions& options, const NameOptions& layer, Location at) {
  require_value(x, "batch_norm", at);
  const std::size_t axis = normalize_axis(options.axis, x.rank(), "batch_norm", detail::scoped(at));
  const std::int64_t features = number_of("features", x, axis, "batch_norm", at);
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope name = layer_scope(graph, layer.name, "batch_norm", "gamma", at);
  BatchNorm out;
  out.gamma = graph.parameter("gamma", ones({features}), at);
  out.beta = graph.parameter("beta", zeros({features}), at);
  out.mean = graph.variable("mean", zeros({features}), at);
  out.variance = graph.variable("variance", ones({features}), at);
  out.output = chainrule::batch_norm(x, out.gamma, out.beta, out.mean, out.variance, options, at);
  attempt.succeed();
  return out;
}

namespace {

// A norm with parameters of this shape; `op` makes the output of them.
template <class Op>
Norm norm(Value x, const Shape& shape, bool with_beta, std::string_view kind, const NameOptions& layer, Location at,
          Op op) {
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope name = layer_scope(graph, layer.name, kind, "gamma", at);
  Norm out;
  out.gamma = graph.parameter("gamma", ones(shape), at);
  if (with_beta) out.beta = graph.parameter("beta", zeros(shape), at);
  out.output = op(out);
  attempt.succeed();
  return out;
}

// Of the axes from this one on.
Shape last_axes(Value x, std::int64_t axis, std::string_view layer, Location at) {
  require_value(x, layer, at);
  Shape out;
  for (std::size_t i = normalize_axis(axis, x.rank(), layer, detail::scoped(at)); i < x.rank(); ++i)
    out.push_back(number_of("features", x, i, layer, at));
  return out;
}

Shape channels_of(Value x, std::string_view layer, Location at) {
  require_value(x, layer, at);
  if (x.rank() < 2)
    throw Error(detail::scoped(at), layer, fmt::format("requires {{N, C, ...}}, got {}", to_string(x.shape())));
  return {number_of("channels", x, 1, layer, at)};
}

}  // namespace

Norm layer_norm(Value x, const LayerNormOptions& options, const NameOptions& layer, Location at) {
  return norm(x, last_axes(x, options.axis, "layer_norm", at), true, "layer_norm", layer, at,
              [&](const Norm& made) { return chainrule::layer_norm(x, made.gamma, made.beta, options, at); });
}

Norm rms_norm(Value x, const LayerNormOptions& options, const NameOptions& layer, Location at) {
  return norm(x, last_axes(x, options.axis, "rms_norm", at), false, "rms_norm", layer, at,
              [&](const Norm& made) { return chainrule::rms_norm(x, made.gamma, options, at); });
}

Norm group_norm(Value x, std::int64_t groups, const NormOptions& options, const NameOptions& layer, Location at) {
  return norm(x, channels_of(x, "group_norm", at), true, "group_norm", layer, at,
              [&](const Norm& made) { return chainrule::group_norm(x, groups, made.gamma, made.beta, options, at); });
}

Norm instance_norm(Value x, const NormOptions& options, const NameOptions& layer, Location at) {
  return norm(x, channels_of(x, "instance_norm", at), true, "instance_norm", layer, at,
              [&](const Norm& made) { return chainrule::instance_norm(x, made.gamma, made.beta, options, at); });
}

// ---- tables

Embedding embedding(Value indices, std::size_t rows, std::size_t width, const TableOptions& options, Location at) {
  require_value(indices, "embedding", at);
  Graph graph = indices.graph();
  detail::Attempt attempt(indices.data());
  const NameScope name = layer_scope(graph, options.name, "embedding", "table", at);
  const init::Initializer initializer = options.initializer ? options.initializer : init::normal(1);
  Embedding out;
  out.table =
      graph.parameter("table", initializer({rows, width}, static_cast<double>(rows), static_cast<double>(width)), at);
  out.output = chainrule::embedding(out.table, indices, options.embedding, at);
  attempt.succeed();
  return out;
}

}  // namespace chainrule::nn
