#include <chainrule/ops/loss.hpp>

#include <cmath>
#include <limits>
#include <numbers>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/loss_parts.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/matmul.hpp>
#include <chainrule/ops/reduce.hpp>

CHAINRULE_OP_FAMILY(loss)

namespace chainrule {

namespace {

Type pair_to_scalar(const OpCall& call) {
  detail::require_alike(call);
  return {call.dtype(0), {}};
}

Value number_of(const Node& node) { return extent(node.input(0).graph(), node.input(0).shape(), node.dtype()); }

CHAINRULE_EARLY const BuiltinOp mean_squared_error_op = register_op({
    .name = "mean_squared_error",
    .doc = "mean((prediction - target)^2).",
    .shape = pair_to_scalar,
    .forward = expand([](const Node& node) -> Value { return mean(square(node.input(0) - node.input(1))); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value d = (2.0 * dy / number_of(node)) * (node.input(0) - node.input(1));
      return {d, node.wants(1) ? -d : Value{}};
    },
    .samples = {{.inputs = {uniform({3, 2}, -2, 2), uniform({3, 2}, -2, 2)}}, {.inputs = {uniform({}), uniform({})}}},
});

constexpr double inf = std::numeric_limits<double>::infinity();

CHAINRULE_EARLY const BuiltinOp huber_op = register_op({
    .name = "huber",
    .doc = "d^2 / 2 where |d| <= delta, delta (|d| - delta / 2) elsewhere.",
    .shape = same_shape,
    .forward = elementwise(
        [](auto d, auto delta) {
          const auto size = simd::abs(d);
          const auto within = simd::min(size, delta);
          return within * (size - 0.5 * within);
        },
        {"delta"}),
    .gradient = [](const Node& node, Value dy) -> Values {
      const double delta = node.attributes().number("delta");
      return {dy * clip(node.input(0), -delta, delta)};
    },
    .samples = {{.inputs = {uniform({3, 4}, -3, 3)}, .attributes = {{"delta", 1.0}}},
                {.inputs = {uniform({5}, -1, 1)}, .attributes = {{"delta", 0.3}}},
                {.inputs = {Array({0.0, -0.0, 1.0, -1.0, 1e300, -inf, std::numeric_limits<double>::quiet_NaN()})},
                 .attributes = {{"delta", 1.0}},
                 .differentiate = false},
                {.inputs = {zeros({0, 2})}, .attributes = {{"delta", 1.0}}}},
});

CHAINRULE_EARLY const BuiltinOp xlogy_op = register_op({
    .name = "xlogy",
    .doc = "x log(y), and 0 where x is 0.",
    .shape = broadcast_shape,
    .forward = elementwise(
        [](auto x, auto y) { return simd::select(x == 0.0, simd::select(y == y, 0.0, y), x * simd::log(y)); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      const Value y = node.input(1);
      return {node.wants(0) ? dy * log(y) : Value{},
              node.wants(1) ? dy * (x / where(logical_and(equal(x, 0.0), equal(y, 0.0)), 1.0, y)) : Value{}};
    },
    .samples = {{.inputs = {uniform({3, 4}, -2, 2), uniform({4}, 0.1, 3)}},
                {.inputs = {Array({0.0, 2.0, 0.0}), uniform({3}, 0.5, 2)}},
                {.inputs = {Array({0.0, 0.0, 0.0, 0.0, 1.0, -1.0}),
                            Array({0.0, inf, -1.0, std::numeric_limits<double>::quiet_NaN(), 0.0, 0.0})},
                 .differentiate = false},
                {.inputs = {zeros({0}), uniform({1}, 1, 2)}}},
});

CHAINRULE_EARLY const BuiltinOp kl_term_op = register_op({
    .name = "kl_term",
    .doc = "p (log p - q), and 0 where p is 0.",
    .shape = broadcast_shape,
    .forward = elementwise(
        [](auto p, auto q) { return simd::select(p == 0.0, simd::select(q == q, 0.0, q), p * (simd::log(p) - q)); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value p = node.input(0);
      return {node.wants(0) ? dy * (log(p) + 1.0 - node.input(1)) : Value{}, node.wants(1) ? -dy * p : Value{}};
    },
    .samples = {{.inputs = {uniform({3, 4}, 0.1, 1), uniform({3, 4}, -3, 0)}},
                {.inputs = {uniform({2}, 0.1, 1), uniform({2}, -30, -20)}},
                {.inputs = {Array({0.0, 0.0, 0.5, 1.0}), Array({-inf, -1.0, -inf, 0.0})}, .differentiate = false},
                {.inputs = {zeros({0}), zeros({0})}}},
});

// ---- what losses are made of

// The length of vectors along an axis: of 0 its slope is 0, and not the root's, which is infinite.
Value length(Value x, std::int64_t axis) {
  const Value squares = sum(square(x), axis);
  const Value some = squares > 0.0;
  return where(some, sqrt(where(some, squares, 1.0)), 0.0);
}

// Two floating values of one shape and an axis of them, below its rank.
std::int64_t axis_of_alike(std::string_view op, Location at, Value a, Value b, std::int64_t axis) {
  detail::require_alike(op, at, a, b);
  return static_cast<std::int64_t>(normalize_axis(axis, a.rank(), op, at));
}

void require_finite_above(std::string_view op, Location at, std::string_view what, double number, double bound) {
  if (!(number > bound && std::isfinite(number)))
    throw Error(at, op, fmt::format("requires {} > {}, got {}", what, bound, number));
}

// An elementwise loss of two values of one shape.
template <class F>
Value loss_of(std::string_view op, Value a, Value b, Reduction reduction, Location at, F costs) {
  at = detail::scoped(at);
  detail::require_alike(op, at, a, b);
  return detail::attempt({a, b}, [&] {
    const detail::LocationScope scope(at);
    return detail::reduced(costs(), reduction, at);
  });
}

Value total(const Values& weights, std::string_view op, Location at, Value (*term)(Value, Location)) {
  if (weights.empty()) throw Error(at, op, "requires at least one weight, got none");
  return detail::attempt(weights, [&] {
    Value out;
    for (const Value w : weights) {
      const Value next = sum(term(w, at), {}, false, at);
      out = out.defined() ? add(Operand(out, at), Operand(next, at)) : next;
    }
    return out;
  });
}

Value penalty(const Values& weights, double lambda, Dimension examples, Location at,
              Value (*norm)(const Values&, Location)) {
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(weights, [&] { return norm(weights, at) * (lambda / 2) / examples; });
}

}  // namespace

Value mean_squared_error(Value prediction, Value target, Location at) {
  return apply(mean_squared_error_op, {prediction, target}, {}, at);
}

Value mean_squared_error(Value prediction, Value target, Reduction reduction, Location at) {
  if (reduction == Reduction::mean) return mean_squared_error(prediction, target, at);
  return loss_of("mean_squared_error", prediction, target, reduction, at, [&] { return square(prediction - target); });
}

Value l1_loss(Value prediction, Value target, Reduction reduction, Location at) {
  return loss_of("l1_loss", prediction, target, reduction, at, [&] { return abs(prediction - target); });
}

Value huber_loss(Value prediction, Value target, double delta, Reduction reduction, Location at) {
  require_finite_above("huber_loss", detail::scoped(at), "delta", delta, 0);
  return loss_of("huber_loss", prediction, target, reduction, at, [&] {
    return apply(huber_op, {prediction - target}, {{"delta", delta}});
  });
}

Value hinge_loss(Value score, Value y, Reduction reduction, Location at) {
  return loss_of("hinge_loss", score, y, reduction, at, [&] { return relu(1.0 - y * score); });
}

Value kl_divergence(Value log_prediction, Value target, std::int64_t axis, Reduction reduction, Location at) {
  at = detail::scoped(at);
  const std::int64_t along = axis_of_alike("kl_divergence", at, log_prediction, target, axis);
  return loss_of("kl_divergence", log_prediction, target, reduction, at, [&] {
    return sum(apply(kl_term_op, {target, log_prediction}), along);
  });
}

Value cosine_similarity(Value a, Value b, std::int64_t axis, double epsilon, Location at) {
  constexpr std::string_view op = "cosine_similarity";
  at = detail::scoped(at);
  const std::int64_t along = axis_of_alike(op, at, a, b, axis);
  require_finite_above(op, at, "epsilon", epsilon, 0);
  return detail::attempt({a, b}, [&] {
    const detail::LocationScope scope(at);
    const auto least_length = [&](Value x) { return sqrt(clip(sum(square(x), along), epsilon * epsilon, inf)); };
    return sum(a * b, along) / (least_length(a) * least_length(b));
  });
}

Value cosine_embedding_loss(Value a, Value b, Value y, const CosineEmbeddingOptions& options, Location at) {
  constexpr std::string_view op = "cosine_embedding_loss";
  at = detail::scoped(at);
  const std::int64_t along = axis_of_alike(op, at, a, b, options.axis);
  return detail::attempt({a, b, y}, [&] {
    const detail::LocationScope scope(at);
    const Value cosine = cosine_similarity(a, b, along);
    detail::require_alike(op, at, cosine, y);
    return detail::reduced(where(y > 0.0, 1.0 - cosine, relu(cosine - options.margin)), options.reduction, at);
  });
}

Value triplet_margin_loss(Value anchor, Value positive, Value negative, const TripletOptions& options, Location at) {
  constexpr std::string_view op = "triplet_margin_loss";
  at = detail::scoped(at);
  const std::int64_t along = axis_of_alike(op, at, anchor, positive, options.axis);
  detail::require_alike(op, at, anchor, negative);
  return detail::attempt({anchor, positive, negative}, [&] {
    const detail::LocationScope scope(at);
    const Value near = length(anchor - positive, along);
    Value far = length(anchor - negative, along);
    if (options.swap) far = minimum(far, length(positive - negative, along));
    return detail::reduced(relu(near - far + options.margin), options.reduction, at);
  });
}

Value info_nce(Value queries, Value keys, const InfoNceOptions& options, Location at) {
  constexpr std::string_view op = "info_nce";
  at = detail::scoped(at);
  detail::require_alike(op, at, queries, keys);
  if (queries.rank() != 2)
    throw Error(at, op, fmt::format("requires vectors {{examples, width}}, got {}", to_string(queries.shape())));
  require_finite_above(op, at, "temperature", options.temperature, 0);
  return detail::attempt({queries, keys}, [&] {
    const detail::LocationScope scope(at);
    const auto vectors = [&](Value x) {
      constexpr double least = 1e-8;
      return options.normalize ? x / sqrt(clip(sum(square(x), 1, true), least * least, inf)) : x;
    };
    const Value logits = matmul(vectors(queries), transpose(vectors(keys))) / options.temperature;
    const Value own = iota(queries.graph(), queries.shape()[0]);
    const auto costs = [&](std::int64_t axis) {
      return softmax_cross_entropy(logits, own, CrossEntropyOptions{.axis = axis, .reduction = options.reduction});
    };
    return options.symmetric ? 0.5 * (costs(1) + costs(0)) : costs(1);
  });
}

Value gaussian_nll_loss(Value mean, Value target, Value variance, const GaussianNllOptions& options, Location at) {
  constexpr std::string_view op = "gaussian_nll_loss";
  at = detail::scoped(at);
  require_finite_above(op, at, "epsilon", options.epsilon, 0);
  detail::require_alike(op, at, mean, target);
  Shape both;
  if (!variance.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  if (variance.dtype() != mean.dtype() || !broadcast(variance.shape(), mean.shape(), both) || !(both == mean.shape()))
    throw Error(at, op,
                fmt::format("requires a variance of {} that broadcasts to {}, got {} {}", name(mean.dtype()),
                            to_string(mean.shape()), name(variance.dtype()), to_string(variance.shape())));
  return detail::attempt({mean, target, variance}, [&] {
    const detail::LocationScope scope(at);
    const Value spread = clip(variance, options.epsilon, inf);
    Value costs = 0.5 * (log(spread) + square(mean - target) / spread);
    if (options.full) costs = costs + 0.5 * std::log(2 * std::numbers::pi);
    return detail::reduced(costs, options.reduction, at);
  });
}

Value poisson_nll_loss(Value prediction, Value target, const PoissonNllOptions& options, Location at) {
  return loss_of("poisson_nll_loss", prediction, target, options.reduction, at, [&] {
    Value costs = options.log_prediction ? exp(prediction) - target * prediction
                                         : prediction - apply(xlogy_op, {target, prediction});
    if (!options.full) return costs;
    const Value many = target > 1.0;
    const Value t = where(many, target, 1.0);  // not the logarithm of 0, nor its slope
    return costs + where(many, t * log(t) - t + 0.5 * log(2 * std::numbers::pi * t), 0.0);
  });
}

Value l2(const Values& weights, Location at) { return total(weights, "l2", at, square); }
Value l1(const Values& weights, Location at) { return total(weights, "l1", at, abs); }

Value l2_penalty(const Values& weights, double lambda, Dimension examples, Location at) {
  return penalty(weights, lambda, examples, at, l2);
}

Value l1_penalty(const Values& weights, double lambda, Dimension examples, Location at) {
  return penalty(weights, lambda, examples, at, l1);
}

}  // namespace chainrule
