#include <chainrule/ops/normalization.hpp>

#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/reduce.hpp>

CHAINRULE_OP_FAMILY(normalization)

namespace chainrule {

namespace {

// The values that the forward rule, the gradient rule and the running statistics have in common. Each builds them
// anew; common subexpressions are found when a program is compiled.
struct Statistics {
  AxisList axes;  // all but the features'
  Shape per_feature;
  Shape reduced;  // the extents that are averaged over
  Value batch_mean, batch_variance;
  Value scale;       // 1 / sqrt(variance + epsilon), of the batch or of the running variance
  Value normalized;  // (x - mean) * scale

  explicit Statistics(const Node& node) {
    const Value x = node.input(0);
    const auto axis = static_cast<std::size_t>(node.attribute<std::int64_t>("axis"));
    const double epsilon = node.attributes().number("epsilon");
    for (std::size_t i = 0; i < x.rank(); ++i) {
      if (i != axis) {
        axes.push_back(static_cast<std::int64_t>(i));
        reduced.push_back(x.shape()[i]);
      }
      per_feature.push_back(i == axis ? x.shape()[i] : Dimension(1));
    }
    batch_mean = mean(x, axes, true);
    const Value centered = x - batch_mean;
    batch_variance = mean(square(centered), axes, true);
    const Value variance = by_mode(batch_variance, spread(node.input(4)));
    scale = 1.0 / sqrt(variance + epsilon);
    normalized = by_mode(centered, x - spread(node.input(3))) * scale;
  }

  [[nodiscard]] Value spread(Value feature) const { return reshape(feature, per_feature); }
};

Initial positive() { return uniform({3}, 0.5, 2); }

CHAINRULE_EARLY const BuiltinOp batch_norm_op = register_op({
    .name = "batch_norm",
    .doc = "gamma * (x - mean) / sqrt(variance + epsilon) + beta, for each feature.",
    .attributes = {{"axis", AttributeType::axis}, {"epsilon", AttributeType::number}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(5);
      call.require_same_dtype();
      call.require_floating(0);
      const Shape& x = call.shape(0);
      const auto axis = static_cast<std::size_t>(call.attribute<std::int64_t>("axis"));
      if (x.rank() < 2) call.fail("an axis of features and at least one of examples", to_string(x));
      const char* names[] = {"gamma", "beta", "running_mean", "running_variance"};
      for (std::size_t i = 1; i < 5; ++i)
        if (!(call.shape(i) == Shape{x[axis]}))
          call.fail(fmt::format("{} of shape {}, one for each feature of {}", names[i - 1], to_string(Shape{x[axis]}),
                                to_string(x)),
                    to_string(call.shape(i)));
      return call.type(0);
    },
    .forward = expand([](const Node& node) -> Value {
      const Statistics s(node);
      return s.spread(node.input(1)) * s.normalized + s.spread(node.input(2));
    }),
    // With n the normalized x: dx = gamma scale (dy - mean(dy) - n mean(dy n)) in training, where the statistics move
    // with x; gamma scale dy in inference.
    .gradient = [](const Node& node, Value dy) -> Values {
      const Statistics s(node);
      const Value dbeta = sum(dy, s.axes, true);
      const Value dgamma = sum(dy * s.normalized, s.axes, true);
      const Value count = extent(dy.graph(), s.reduced, dy.dtype());
      Values out(5);
      if (node.wants(0))
        out[0] = s.spread(node.input(1)) * s.scale * by_mode(dy - dbeta / count - s.normalized * (dgamma / count), dy);
      if (node.wants(1)) out[1] = reshape(dgamma, node.input(1).shape());
      if (node.wants(2)) out[2] = reshape(dbeta, node.input(2).shape());
      // y depends on the running statistics in inference only.
      const Value none = dy.graph().constant(0.0, dy.dtype());
      const Value factor = s.spread(node.input(1)) * s.scale;
      if (node.wants(3)) out[3] = reshape(by_mode(none, -factor * dbeta), node.input(3).shape());
      if (node.wants(4)) out[4] = reshape(by_mode(none, -0.5 * factor * s.scale * dgamma), node.input(4).shape());
      return out;
    },
    .samples = {{.inputs = {uniform({6, 3}, -2, 2), positive(), positive(), positive(), positive()},
                 .attributes = {{"axis", 1}, {"epsilon", 1e-5}}},
                {.inputs = {uniform({3, 5}, -2, 2), positive(), positive(), positive(), positive()},
                 .attributes = {{"axis", 0}, {"epsilon", 1e-3}}},
                {.inputs = {uniform({2, 3, 2, 2}, -2, 2), positive(), positive(), positive(), positive()},
                 .attributes = {{"axis", 1}, {"epsilon", 1e-5}}}},
});

}  // namespace

Value batch_norm(Value x, Value gamma, Value beta, Value running_mean, Value running_variance,
                 const BatchNormOptions& options, Location at) {
  if (!(options.epsilon > 0 && std::isfinite(options.epsilon)))
    throw Error(at, "batch_norm", fmt::format("requires epsilon > 0, got {}", options.epsilon));
  if (!(options.momentum >= 0 && options.momentum <= 1))
    throw Error(at, "batch_norm", fmt::format("requires 0 <= momentum <= 1, got {}", options.momentum));
  if (!x.defined()) throw Error(at, "batch_norm", "requires values of a graph, got an empty Value");
  detail::Attempt attempt(x.data());
  const Value y = apply(batch_norm_op, {x, gamma, beta, running_mean, running_variance},
                        {{"axis", options.axis}, {"epsilon", options.epsilon}}, at);
  const auto is_variable = [](Value v) { return &v.node().op() == &detail::variable_op(); };
  if (is_variable(running_mean) != is_variable(running_variance))
    throw Error(at, "batch_norm",
                fmt::format("requires variables for both running statistics, or for neither, got {} and {}",
                            running_mean.node().op().name, running_variance.node().op().name));
  // Statistics that are given do not follow the batches.
  if (!is_variable(running_mean)) {
    attempt.succeed();
    return y;
  }
  const detail::LocationScope scope(detail::scoped(at));
  const Statistics s(y.node());
  Graph graph = x.graph();
  const Value n = extent(graph, s.reduced, x.dtype());
  // Of a single example there is no unbiased variance; dividing by 1 leaves its 0.
  const Value unbiased = s.batch_variance * (n / maximum(n - 1.0, 1.0));
  const double m = options.momentum;
  const auto follow = [&](Value running, Value batch) {
    graph.update_with(y, running, (1 - m) * running + m * reshape(batch, running.shape()), at);
  };
  follow(running_mean, s.batch_mean);
  follow(running_variance, unbiased);
  attempt.succeed();
  return y;
}

}  // namespace chainrule
