// Layer, root mean square, group and instance normalization: one rule over the parts that each of them normalizes.
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/normalization.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/ops/statistics.hpp>

CHAINRULE_OP_FAMILY(layer_norm)

namespace chainrule {

namespace {

// What an op normalizes: x, reshaped to `view`, each part by itself, whose axes are the first `parts` of the view.
// gamma and beta, of shape `features`, broadcast to the view reshaped to `spread`.
struct Parts {
  Shape view;
  std::size_t parts;
  Shape features;
  Shape spread;
  bool by_channel;  // gamma and beta are for axes 1 and 2 of the view, each part having some channels, along axis 2
};

Value reshaped(Value x, const Shape& shape) { return x.shape() == shape ? x : reshape(x, shape); }

Parts last_axes(const Shape& x, const Attributes& attributes) {
  Parts p{x, static_cast<std::size_t>(attributes.get<std::int64_t>("axis")), {}, {}, false};
  for (std::size_t i = p.parts; i < x.rank(); ++i) p.features.push_back(x[i]);
  p.spread = p.features;
  return p;
}

// Of x {N, C, ...} as {N, groups, channels of a group, ...}.
Parts channels(const Shape& x, Dimension groups, Dimension of_a_group) {
  Parts p{{x[0], groups, of_a_group}, 2, {x[1]}, {groups, of_a_group}, true};
  for (std::size_t i = 2; i < x.rank(); ++i) {
    p.view.push_back(x[i]);
    p.spread.push_back(1);
  }
  return p;
}

Parts each_channel(const Shape& x, const Attributes&) { return channels(x, x[1], 1); }

Parts groups_of_channels(const Shape& x, const Attributes& attributes) {
  const auto groups = attributes.get<std::int64_t>("groups");
  return channels(x, groups, groups == 1 ? x[1] : Dimension(x[1].extent() / groups));
}

// The values that the forward and the gradient rule have in common. Each builds them anew; common subexpressions are
// found when a program is compiled.
struct Statistics {
  Value mean;   // 0 where none is taken off, with the axes of a part as 1s
  Value scale;  // 1 / sqrt(variance + epsilon)

  Statistics(Value x, std::size_t parts, double epsilon, bool centered) {
    Value variance;
    if (centered) {
      const Moments m = detail::statistics(x, 0, parts);
      mean = m.mean;
      variance = m.variance;
    } else {
      AxisList axes;
      for (std::size_t i = parts; i < x.rank(); ++i) axes.push_back(static_cast<std::int64_t>(i));
      variance = chainrule::mean(square(x), axes, true);
      mean = broadcast_to(x.graph().constant(0.0, x.dtype()), variance.shape());
    }
    scale = 1.0 / sqrt(variance + epsilon);
  }
};

using PartsRule = Parts (*)(const Shape& x, const Attributes&);

struct Norm {
  std::size_t most_inputs = 3;  // x, gamma, beta
  bool centered = true;         // whether the mean is taken off
  PartsRule parts;
};

void require_features(const OpCall& call, const Norm& norm) {
  if (call.size() < 1 || call.size() > norm.most_inputs)
    call.fail(fmt::format("1 to {} inputs", norm.most_inputs), fmt::format("{}", call.size()));
  call.require_floating(0);
  call.require_same_dtype();
  const Shape features = norm.parts(call.shape(0), call.attributes()).features;
  const char* names[] = {"x", "gamma", "beta"};
  for (std::size_t i = 1; i < call.size(); ++i)
    if (!(call.shape(i) == features))
      call.fail(fmt::format("{} of shape {} for {}", names[i], to_string(features), to_string(call.shape(0))),
                to_string(call.shape(i)));
}

void require_epsilon(const OpCall& call) {
  const double epsilon = call.attributes().number("epsilon");
  if (!(epsilon > 0 && std::isfinite(epsilon))) call.fail("epsilon > 0", fmt::format("{}", epsilon));
}

// One use of an op.
struct Use {
  Parts p;
  Value x;      // as the view
  Value gamma;  // spread; not defined where there is none
  Statistics of;

  Use(const Node& node, const Norm& norm)
      : p(norm.parts(node.input(0).shape(), node.attributes())),
        x(reshaped(node.input(0), p.view)),
        gamma(node.input_count() > 1 ? reshaped(node.input(1), p.spread) : Value{}),
        of(x, p.parts, node.attributes().number("epsilon"), norm.centered) {}
  [[nodiscard]] Value weigh(Value v) const { return gamma.defined() ? gamma * v : v; }
};

Forward forward_of(const Norm& norm) {
  return expand([norm](const Node& node) -> Value {
    const Use u(node, norm);
    Value y = u.weigh((norm.centered ? u.x - u.of.mean : u.x) * u.of.scale);
    if (node.input_count() > 2) y = y + reshaped(node.input(2), u.p.spread);
    return reshaped(y, node.shape());
  });
}

// With n the normalized x and g = gamma dy: dx = scale (g - mean(g) - n mean(g n)), without mean(g) where no mean is
// taken off, as the statistics move with x; dgamma and dbeta are sums of dy n and dy over the examples.
//
// -n is made anew of mean - x: of x - mean, which the forward pass has made, there would be one node for both, and so
// an array to store.
Values norm_gradient(const Node& node, const Norm& norm, Value dy) {
  const Use u(node, norm);
  dy = reshaped(dy, u.p.view);
  const Value minus_n = (norm.centered ? u.of.mean - u.x : -u.x) * u.of.scale;
  detail::CenteredSums of_part;  // sums of g and of g (x - mean)
  Values out(node.input_count());
  if (u.p.by_channel) {
    Shape channel = {u.p.view[0]};
    for (const Dimension d : u.p.spread) channel.push_back(d);
    const auto of_channel = detail::centered_sums(u.x, dy, broadcast_to(u.of.mean, channel), {}, 0, 3);
    of_part = {sum(u.weigh(of_channel.plain), 2, true), sum(u.weigh(of_channel.centered), 2, true)};
    if (out.size() > 1) out[1] = reshape(sum(of_channel.centered * u.of.scale, 0), u.p.features);
    if (out.size() > 2) out[2] = reshape(sum(of_channel.plain, 0), u.p.features);
  } else {
    of_part = detail::centered_sums(u.x, dy, u.of.mean, u.gamma, 0, u.p.parts);
    AxisList examples;
    for (std::size_t i = 0; i < u.p.parts; ++i) examples.push_back(static_cast<std::int64_t>(i));
    const auto over_examples = [&](Value v) { return examples.empty() ? v : sum(v, examples); };
    if (out.size() > 1) out[1] = -over_examples(dy * minus_n);
    if (out.size() > 2) out[2] = over_examples(dy);
  }
  Shape reduced;
  for (std::size_t i = u.p.parts; i < u.p.view.rank(); ++i) reduced.push_back(u.p.view[i]);
  const Value count = extent(dy.graph(), reduced, dy.dtype());
  Value across = u.weigh(dy);
  if (norm.centered) across = across - of_part.plain / count;
  const Value along = u.of.scale * of_part.centered / count;
  out[0] = reshaped(u.of.scale * across + minus_n * (u.of.scale * along), node.input(0).shape());
  return out;
}

GradientRule gradient_of(const Norm& norm) {
  return [norm](const Node& node, Value dy) { return norm_gradient(node, norm, dy); };
}

Initial both_signs(const Shape& shape) { return uniform(shape, -2, 2); }

// x alone, with gamma, and with both where the op has them.
std::vector<Sample> samples_of(std::size_t most_inputs, const Shape& x, const Shape& features,
                               const Attributes& attributes) {
  std::vector<Sample> out;
  for (std::size_t count = 1; count <= most_inputs; ++count) {
    Sample sample{.inputs = {both_signs(x)}, .attributes = attributes};
    for (std::size_t i = 1; i < count; ++i) sample.inputs.push_back(both_signs(features));
    out.push_back(sample);
  }
  return out;
}

std::vector<Sample> joined(std::initializer_list<std::vector<Sample>> parts) {
  std::vector<Sample> out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

Attributes from_axis(std::int64_t axis, double epsilon) { return {{"axis", axis}, {"epsilon", epsilon}}; }
Attributes in_groups(std::int64_t groups, double epsilon) { return {{"groups", groups}, {"epsilon", epsilon}}; }

std::vector<Sample> layer_samples(std::size_t most_inputs) {
  return joined({samples_of(most_inputs, {4, 5}, {5}, from_axis(-1, 1e-5)),
                 samples_of(most_inputs, {2, 3, 4}, {3, 4}, from_axis(1, 1e-2)),
                 samples_of(most_inputs, {6}, {6}, from_axis(0, 0.5)),
                 samples_of(most_inputs, {0, 3}, {3}, from_axis(1, 1e-5))});
}

CHAINRULE_EARLY const DeclaredAttributes axis_attributes = {{"axis", AttributeType::axis, -1}, {"epsilon", 1e-5}};

Type layer_shape(const OpCall& call, const Norm& norm) {
  require_epsilon(call);
  require_features(call, norm);
  return call.type(0);
}

constexpr Norm layer{.parts = last_axes};
constexpr Norm rms{.most_inputs = 2, .centered = false, .parts = last_axes};
constexpr Norm group{.parts = groups_of_channels};
constexpr Norm instance{.parts = each_channel};

CHAINRULE_EARLY const BuiltinOp layer_norm_op = register_op({
    .name = "layer_norm",
    .doc = "gamma * (x - mean) / sqrt(variance + epsilon) + beta, over the axes from `axis` on.",
    .attributes = axis_attributes,
    .shape = [](const OpCall& call) -> Type { return layer_shape(call, layer); },
    .forward = forward_of(layer),
    .gradient = gradient_of(layer),
    .samples = layer_samples(3),
});

CHAINRULE_EARLY const BuiltinOp rms_norm_op = register_op({
    .name = "rms_norm",
    .doc = "gamma * x / sqrt(mean(x^2) + epsilon), over the axes from `axis` on.",
    .attributes = axis_attributes,
    .shape = [](const OpCall& call) -> Type { return layer_shape(call, rms); },
    .forward = forward_of(rms),
    .gradient = gradient_of(rms),
    .samples = layer_samples(2),
});

CHAINRULE_EARLY const BuiltinOp group_norm_op = register_op({
    .name = "group_norm",
    .doc = "gamma * (x - mean) / sqrt(variance + epsilon) + beta, of groups of channels of each example.",
    .attributes = {{"groups", AttributeType::whole}, {"epsilon", 1e-5}},
    .shape = [](const OpCall& call) -> Type {
      require_epsilon(call);
      const Shape& x = call.shape(0);
      const auto groups = call.attribute<std::int64_t>("groups");
      if (x.rank() < 2) call.fail("an axis of examples and one of channels", to_string(x));
      if (groups < 1) call.fail("at least one group", fmt::format("{}", groups));
      if (groups > 1 && (!x[1].is_number() || x[1].extent() % groups != 0))
        call.fail(fmt::format("a number of channels that {} groups divide", groups), to_string(x));
      require_features(call, group);
      return call.type(0);
    },
    .forward = forward_of(group),
    .gradient = gradient_of(group),
    .samples =
        joined({samples_of(3, {2, 4, 3}, {4}, in_groups(2, 1e-5)), samples_of(3, {3, 6, 2, 2}, {6}, in_groups(3, 1e-2)),
                samples_of(3, {2, 4}, {4}, in_groups(1, 0.5)), samples_of(3, {1, 3, 0, 2}, {3}, in_groups(3, 1e-5))}),
});

CHAINRULE_EARLY const BuiltinOp instance_norm_op = register_op({
    .name = "instance_norm",
    .doc = "gamma * (x - mean) / sqrt(variance + epsilon) + beta, of each channel of each example.",
    .attributes = {{"epsilon", 1e-5}},
    .shape = [](const OpCall& call) -> Type {
      require_epsilon(call);
      if (call.shape(0).rank() < 3)
        call.fail("axes of examples and channels, and at least one behind them", to_string(call.shape(0)));
      require_features(call, instance);
      return call.type(0);
    },
    .forward = forward_of(instance),
    .gradient = gradient_of(instance),
    .samples = joined({samples_of(3, {2, 3, 4}, {3}, {{"epsilon", 1e-5}}),
                       samples_of(3, {1, 2, 3, 2}, {2}, {{"epsilon", 0.1}}),
                       samples_of(3, {0, 2, 3}, {2}, {{"epsilon", 1e-5}})}),
});

Attributes attributes_of(const LayerNormOptions& options) { return from_axis(options.axis, options.epsilon); }
Attributes attributes_of(const NormOptions& options) { return {{"epsilon", options.epsilon}}; }

}  // namespace

Value layer_norm(Value x, const LayerNormOptions& options, Location at) {
  return apply(layer_norm_op, {x}, attributes_of(options), at);
}
Value layer_norm(Value x, Value gamma, const LayerNormOptions& options, Location at) {
  return apply(layer_norm_op, {x, gamma}, attributes_of(options), at);
}
Value layer_norm(Value x, Value gamma, Value beta, const LayerNormOptions& options, Location at) {
  return apply(layer_norm_op, {x, gamma, beta}, attributes_of(options), at);
}

Value rms_norm(Value x, const LayerNormOptions& options, Location at) {
  return apply(rms_norm_op, {x}, attributes_of(options), at);
}
Value rms_norm(Value x, Value gamma, const LayerNormOptions& options, Location at) {
  return apply(rms_norm_op, {x, gamma}, attributes_of(options), at);
}

Value group_norm(Value x, std::int64_t groups, const NormOptions& options, Location at) {
  return apply(group_norm_op, {x}, in_groups(groups, options.epsilon), at);
}
Value group_norm(Value x, std::int64_t groups, Value gamma, const NormOptions& options, Location at) {
  return apply(group_norm_op, {x, gamma}, in_groups(groups, options.epsilon), at);
}
Value group_norm(Value x, std::int64_t groups, Value gamma, Value beta, const NormOptions& options, Location at) {
  return apply(group_norm_op, {x, gamma, beta}, in_groups(groups, options.epsilon), at);
}

Value instance_norm(Value x, const NormOptions& options, Location at) {
  return apply(instance_norm_op, {x}, attributes_of(options), at);
}
Value instance_norm(Value x, Value gamma, const NormOptions& options, Location at) {
  return apply(instance_norm_op, {x, gamma}, attributes_of(options), at);
}
Value instance_norm(Value x, Value gamma, Value beta, const NormOptions& options, Location at) {
  return apply(instance_norm_op, {x, gamma, beta}, attributes_of(options), at);
}

}  // namespace chainrule
