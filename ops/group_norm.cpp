// Group and instance normalization. Statistics are a kernel's, which reads x once; what is made with them is
// elementwise, and runs in one step with what follows (an activation, say).
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/norm_parts.hpp>
#include <chainrule/ops/normalization.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/ops/statistics.hpp>

CHAINRULE_OP_FAMILY(group_norm)

namespace chainrule {

namespace {

// How many groups there are, and how many channels in each.
struct Groups {
  Dimension count;
  Dimension channels;
};

Groups groups_of(const Node& node) {
  const Dimension channels = node.shape()[1];
  if (!node.attributes().has("groups")) return {channels, 1};
  const auto groups = node.attribute<std::int64_t>("groups");
  return {groups, groups == 1 ? channels : Dimension(channels.extent() / groups)};
}

// One use of an op, x {N, C, ...} as {N, groups, channels of a group, ...}.
struct Use {
  Shape view;
  Shape per_channel;  // of gamma and beta, to be broadcast to the view
  Value x;
  Value gamma;  // not defined where there is none
  Moments of_group;
  Value scale;  // 1 / sqrt(variance + epsilon)

  explicit Use(const Node& node) {
    const auto [groups, channels] = groups_of(node);
    view = {node.shape()[0], groups, channels};
    per_channel = {groups, channels};
    for (std::size_t i = 2; i < node.shape().rank(); ++i) {
      view.push_back(node.shape()[i]);
      per_channel.push_back(1);
    }
    x = reshape(node.input(0), view);
    if (node.input_count() > 1) gamma = reshape(node.input(1), per_channel);
    of_group = detail::statistics(x, 0, 2);
    scale = 1.0 / sqrt(of_group.variance + node.attributes().number("epsilon"));
  }
  [[nodiscard]] Value weigh(Value v) const { return gamma.defined() ? gamma * v : v; }
};

Forward by_groups() {
  return expand([](const Node& node) -> Value {
    const Use u(node);
    Value y = u.weigh((u.x - u.of_group.mean) * u.scale);
    if (node.input_count() > 2) y = y + reshape(node.input(2), u.per_channel);
    return reshape(y, node.shape());
  });
}

// With n the normalized x and g = gamma dy: dx = scale (g - mean(g) - n mean(g n)), dgamma and dbeta the sums of dy n
// and dy. All sums are made of those of each channel of each example.
Values group_norm_gradient(const Node& node, Value dy) {
  const Use u(node);
  dy = reshape(dy, u.view);
  Shape channels = {u.view[0]};
  for (const Dimension d : u.per_channel) channels.push_back(d);
  const auto sums = detail::centered_sums(u.x, dy, broadcast_to(u.of_group.mean, channels), 0, 3);
  Values out(node.input_count());
  if (node.wants(0)) {
    Shape part;
    for (std::size_t i = 2; i < u.view.rank(); ++i) part.push_back(u.view[i]);
    const Value count = extent(dy.graph(), part, dy.dtype());
    const Value across = sum(u.weigh(sums.plain), 2, true) / count;
    const Value along = u.scale * sum(u.weigh(sums.centered), 2, true) / count;
    // -n anew, of mean - x: x - mean would be one node for both passes, and so an array to store.
    const Value minus_n = (u.of_group.mean - u.x) * u.scale;
    out[0] = reshape(u.scale * (u.weigh(dy) - across) + minus_n * (u.scale * along), node.shape());
  }
  if (out.size() > 1) out[1] = reshape(sum(sums.centered * u.scale, 0), node.input(1).shape());
  if (out.size() > 2) out[2] = reshape(sum(sums.plain, 0), node.input(2).shape());
  return out;
}

Attributes in_groups(std::int64_t groups, double epsilon) { return {{"groups", groups}, {"epsilon", epsilon}}; }

CHAINRULE_EARLY const BuiltinOp group_norm_op = register_op({
    .name = "group_norm",
    .doc = "gamma * (x - mean) / sqrt(variance + epsilon) + beta, of groups of channels of each example.",
    .attributes = {{"groups", AttributeType::whole}, {"epsilon", 1e-5}},
    .shape = [](const OpCall& call) -> Type {
      detail::require_epsilon(call);
      const Shape& x = call.shape(0);
      const auto groups = call.attribute<std::int64_t>("groups");
      if (x.rank() < 2) call.fail("an axis of examples and one of channels", to_string(x));
      if (groups < 1) call.fail("at least one group", fmt::format("{}", groups));
      if (groups > 1 && (!x[1].is_number() || x[1].extent() % groups != 0))
        call.fail(fmt::format("a number of channels that {} groups divide", groups), to_string(x));
      detail::require_features(call, 3, {x[1]});
      return call.type(0);
    },
    .forward = by_groups(),
    .gradient = group_norm_gradient,
    .samples = detail::joined({detail::norm_samples(3, {2, 4, 3}, {4}, in_groups(2, 1e-5)),
                               detail::norm_samples(3, {3, 6, 2, 2}, {6}, in_groups(3, 1e-2)),
                               detail::norm_samples(3, {2, 4}, {4}, in_groups(1, 0.5)),
                               detail::norm_samples(3, {1, 3, 0, 2}, {3}, in_groups(3, 1e-5), false),
                               detail::norm_samples(3, {0, 2, 2}, {2}, in_groups(1, 1e-5)),
                               detail::norm_samples(3, {3, 4, 9, 9}, {4}, in_groups(2, 1e-5), false)}),
});

CHAINRULE_EARLY const BuiltinOp instance_norm_op = register_op({
    .name = "instance_norm",
    .doc = "gamma * (x - mean) / sqrt(variance + epsilon) + beta, of each channel of each example.",
    .attributes = {{"epsilon", 1e-5}},
    .shape = [](const OpCall& call) -> Type {
      detail::require_epsilon(call);
      if (call.shape(0).rank() < 3)
        call.fail("axes of examples and channels, and at least one behind them", to_string(call.shape(0)));
      detail::require_features(call, 3, {call.shape(0)[1]});
      return call.type(0);
    },
    .forward = by_groups(),
    .gradient = group_norm_gradient,
    .samples = detail::joined({detail::norm_samples(3, {2, 3, 4}, {3}, {{"epsilon", 1e-5}}),
                               detail::norm_samples(3, {1, 2, 3, 2}, {2}, {{"epsilon", 0.1}}),
                               detail::norm_samples(3, {0, 2, 3}, {2}, {{"epsilon", 1e-5}})}),
});

Attributes attributes_of(const NormOptions& options) { return {{"epsilon", options.epsilon}}; }

}  // namespace

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
