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
#include <chainrule/ops/statistics.hpp>

CHAINRULE_OP_FAMILY(normalization)

namespace chainrule {

namespace {

// The values that the forward rule, the gradient rule and the running statistics have in common. Each builds them
// anew; common subexpressions are found when a program is compiled.
struct Statistics {
  std::size_t axis;
  Value x;
  AxisList axes;  // all but the features'
  Shape per_feature;
  Shape reduced;  // the extents that are averaged over
  Value batch_mean, batch_variance;
  Value scale;       // 1 / sqrt(variance + epsilon), of the batch or of the running variance
  Value normalized;  // (x - mean) * scale

  explicit Statistics(const Node& node)
      : axis(static_cast<std::size_t>(node.attribute<std::int64_t>("axis"))), x(node.input(0)) {
    const double epsilon = node.attributes().number("epsilon");
    for (std::size_t i = 0; i < x.rank(); ++i) {
      if (i != axis) {
        axes.push_back(static_cast<std::int64_t>(i));
        reduced.push_back(x.shape()[i]);
      }
      per_feature.push_back(i == axis ? x.shape()[i] : Dimension(1));
    }
    if (in_runs()) {
      const Moments m = detail::statistics(x, axis, axis + 1);
      batch_mean = m.mean;
      batch_variance = m.variance;
    } else {
      batch_mean = mean(x, axes, true);
      batch_variance = mean(square(x - batch_mean), axes, true);
    }
    const Value centered = x - batch_mean;
    const Value variance = by_mode(batch_variance, spread(node.input(4)));
    scale = 1.0 / sqrt(variance + epsilon);
    normalized = by_mode(centered, x - spread(node.input(3))) * scale;
  }

  [[nodiscard]] Value spread(Value feature) const { return reshape(feature, per_feature); }
  // Whether a feature's elements lie together, some at a time. Else sums over rows run in the same steps as what is
  // made of the rows.
  [[nodiscard]] bool in_runs() const { return axis + 1 < x.rank(); }
};

// With n the normalized x: dx = gamma scale (dy - mean(dy) - n mean(dy n)) in training, where the statistics move with
// x; gamma scale dy in inference.
Values batch_norm_gradient(const Node& node, Value dy) {
  const Statistics s(node);
  Value dbeta;
  Value dgamma;
  Value minus_n;
  if (s.in_runs()) {
    const Value mean = by_mode(s.batch_mean, s.spread(node.input(3)));
    // Anew, of mean - x: x - mean would be one node for both passes, and so an array to store.
    minus_n = (mean - s.x) * s.scale;
    const detail::CenteredSums sums = detail::centered_sums(s.x, dy, mean, {}, s.axis, s.axis + 1);
    dbeta = sums.plain;
    dgamma = sums.centered * s.scale;
  } else {
    dbeta = sum(dy, s.axes, true);
    dgamma = sum(dy * s.normalized, s.axes, true);
  }
  const Value count = extent(dy.graph(), s.reduced, dy.dtype());
  const Value factor = s.spread(node.input(1)) * s.scale;
  Values out(5);
  if (node.wants(0)) {
    const Value across = dy - dbeta / count;
    const Value along = dgamma / count;
    out[0] = factor * by_mode(s.in_runs() ? across + minus_n * along : across - s.normalized * along, dy);
  }
  if (node.wants(1)) out[1] = reshape(dgamma, node.input(1).shape());
  if (node.wants(2)) out[2] = reshape(dbeta, node.input(2).shape());
  // y depends on the running statistics in inference only.
  const Value none = dy.graph().constant(0.0, dy.dtype());
  if (node.wants(3)) out[3] = reshape(by_mode(none, -factor * dbeta), node.input(3).shape());
  if (node.wants(4)) out[4] = reshape(by_mode(none, -0.5 * factor * s.scale * dgamma), node.input(4).shape());
  return out;
}

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
    .gradient = batch_norm_gradient,
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
