// Cross-entropies: of logits and of probabilities, by class indices and by distributions.
#include <algorithm>
#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/index_range.hpp>
#include <chainrule/ops/indexing.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/loss_parts.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/ops/softmax.hpp>

CHAINRULE_OP_FAMILY(cross_entropy)

namespace chainrule {

namespace {

Type pair_to_scalar(const OpCall& call) {
  detail::require_alike(call);
  return {call.dtype(0), {}};
}

Value number_of(const Node& node) { return extent(node.input(0).graph(), node.input(0).shape(), node.dtype()); }

constexpr double inf = std::numeric_limits<double>::infinity();

// weight * cost, and 0 for an infinite cost of no weight: what cannot happen costs nothing. (Of no weight, any finite
// cost will do; a NaN stays.)
Value weighed(Value weight, Value cost) { return weight * where(equal(weight, 0.0), clip(cost, -1, 1), cost); }

CHAINRULE_EARLY const BuiltinOp sigmoid_cross_entropy_op = register_op({
    .name = "sigmoid_cross_entropy",
    .doc = "mean(|z| (1 - y or, where z <= 0, y) + log(1 + exp(-|z|))).",
    .shape = pair_to_scalar,
    .forward = expand([](const Node& node) -> Value {
      const Value z = node.input(0);
      const Value y = node.input(1);
      return mean(weighed(where(z > 0.0, 1.0 - y, y), abs(z)) + log1p(exp(-abs(z))));
    }),
    // d/dz = sigmoid(z) - y, of which for y = 1 all digits would cancel where sigmoid(z) is near 1.
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value z = node.input(0);
      const Value y = node.input(1);
      const Value scale = dy / number_of(node);
      return {node.wants(0) ? scale * ((1.0 - y) * sigmoid(z) - y * sigmoid(-z)) : Value{},
              node.wants(1) ? -scale * z : Value{}};
    },
    .samples = {{.inputs = {uniform({1, 6}, -3, 3), uniform({1, 6}, 0, 1)}},
                {.inputs = {uniform({2, 3}, -30, 30), uniform({2, 3}, 0, 1)}},
                {.inputs = {Array({1e4, -1e4, 1e4, -1e4, 0.0}), Array({1.0, 0.0, 0.0, 1.0, 1.0})},
                 .differentiate = false},
                {.inputs = {Array({inf, -inf, inf}), Array({1.0, 0.0, 0.5})}, .differentiate = false}},
});

// ---- one logit or one probability an element

CHAINRULE_EARLY const BuiltinOp logistic_loss_op = register_op({
    .name = "logistic_loss",
    .doc = "|z| (1 - y or, where z <= 0, y) + log(1 + exp(-|z|)), of each logit z and probability y.",
    .shape = broadcast_shape,
    .forward = elementwise([](auto z, auto y) {
      const auto weight = simd::select(z > 0.0, 1.0 - y, y);
      const auto size = simd::abs(z);
      // Of no weight any finite cost will do.
      return weight * simd::select(weight == 0.0, simd::min(size, 1.0), size) + simd::log1p(simd::exp(-size));
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value z = node.input(0);
      const Value y = node.input(1);
      return {node.wants(0) ? dy * ((1.0 - y) * sigmoid(z) - y * sigmoid(-z)) : Value{},
              node.wants(1) ? -dy * z : Value{}};
    },
    .samples = {{.inputs = {uniform({2, 6}, -3, 3), uniform({2, 6}, 0, 1)}},
                {.inputs = {uniform({2, 3}, -30, 30), uniform({2, 3}, 0, 1)}},
                {.inputs = {Array({1e4, -1e4, 1e4, -1e4, 0.0, inf, -inf, inf}),
                            Array({1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.5})},
                 .differentiate = false},
                {.inputs = {zeros({0}), zeros({0})}}},
});

// y / p, and 0 for 0 / 0.
Value share(Value y, Value p) { return y / where(logical_and(equal(y, 0.0), equal(p, 0.0)), 1.0, p); }

CHAINRULE_EARLY const BuiltinOp binary_cross_entropy_op = register_op({
    .name = "binary_cross_entropy",
    .doc = "-(y log p + (1 - y) log(1 - p)), where 0 log 0 is 0, of each probability p.",
    .shape = broadcast_shape,
    .forward = elementwise([](auto p, auto y) {
      // Of no weight any finite logarithm will do, but that of a number beyond 0 to 1, NaN, stays.
      const auto term = [](auto weight, auto logarithm) {
        return weight * simd::select(weight == 0.0, simd::max(logarithm, -1.0), logarithm);
      };
      return -(term(y, simd::log(p)) + term(1.0 - y, simd::log1p(-p)));
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value p = node.input(0);
      const Value y = node.input(1);
      return {node.wants(0) ? dy * (share(1.0 - y, 1.0 - p) - share(y, p)) : Value{},
              node.wants(1) ? dy * (log1p(-p) - log(p)) : Value{}};
    },
    .samples = {{.inputs = {uniform({2, 6}, 0.05, 0.95), uniform({2, 6}, 0, 1)}},
                {.inputs = {uniform({3}, 1e-6, 1e-5), uniform({3}, 0.2, 0.8)}},
                {.inputs = {Array({0.0, 1.0, 0.0, 1.0, 0.5, 1e-300}), Array({0.0, 1.0, 1.0, 0.0, 0.0, 0.0})},
                 .differentiate = false},
                {.inputs = {zeros({0}), zeros({0})}}},
});

// ---- distributions over classes

// softmax(z) and its logarithm of their parts, which the cost and its slopes share.
Value shifted(Value z, std::int64_t axis) { return z - max(z, axis, true); }
Value shared_softmax(Value z, std::int64_t axis) {
  const Value e = exp(shifted(z, axis));
  return e / sum(e, axis, true);
}
Value shared_log_softmax(Value z, std::int64_t axis) {
  const Value x = shifted(z, axis);
  return x - log(sum(exp(x), axis, true));
}

CHAINRULE_EARLY const BuiltinOp softmax_cross_entropy_op = register_op({
    .name = "softmax_cross_entropy",
    .doc = "mean over examples of -sum(y log softmax(z)) along an axis.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = [](const OpCall& call) -> Type {
      detail::require_alike(call);
      if (call.shape(0)[call.axis(call.attributes().get<std::int64_t>("axis"))].is(0))
        call.fail("at least one class", to_string(call.shape(0)));
      return {call.dtype(0), {}};
    },
    .forward = expand([](const Node& node) -> Value {
      const std::int64_t axis = node.attribute<std::int64_t>("axis");
      return -mean(sum(weighed(node.input(1), shared_log_softmax(node.input(0), axis)), axis));
    }),
    // Rows of y need not sum to 1: d/dz = softmax(z) sum(y) - y.
    .gradient = [](const Node& node, Value dy) -> Values {
      const auto axis = node.attribute<std::int64_t>("axis");
      const Value z = node.input(0);
      const Value y = node.input(1);
      Shape examples;
      for (std::size_t i = 0; i < z.rank(); ++i)
        if (i != static_cast<std::size_t>(axis)) examples.push_back(z.shape()[i]);
      const Value scale = dy / extent(dy.graph(), examples, dy.dtype());
      return {node.wants(0) ? scale * (shared_softmax(z, axis) * sum(y, axis, true) - y) : Value{},
              node.wants(1) ? -scale * shared_log_softmax(z, axis) : Value{}};
    },
    .samples = {{.inputs = {uniform({4, 3}, -3, 3), uniform({4, 3}, 0, 1)}, .attributes = {{"axis", -1}}},
                {.inputs = {uniform({3, 5}, -3, 3), uniform({3, 5}, 0, 1)}, .attributes = {{"axis", 0}}},
                {.inputs = {Array({{1e4, -1e4, 0.0}, {-1e4, 1e4, 0.0}}), Array({{1.0, 0.0, 0.0}, {1.0, 0.0, 0.0}})},
                 .attributes = {{"axis", 1}},
                 .differentiate = false},
                {.inputs = {Array({{0.0, 0.0, -inf}, {-inf, 1.0, -inf}}), Array({{0.5, 0.5, 0.0}, {0.0, 1.0, 0.0}})},
                 .attributes = {{"axis", 1}},
                 .differentiate = false}},
});

// ---- options

constexpr double no_smoothing = 0;

// What the classes of examples cost, with all options.
class ClassCosts {
 public:
  ClassCosts(std::string_view op, std::string_view noun, Value scores, Value classes,
             const CrossEntropyOptions& options, Location at)
      : op_(op), noun_(noun), scores_(scores), classes_(classes), options_(options), at_(at) {
    if (!(options.label_smoothing >= 0 && options.label_smoothing <= 1))
      fail(fmt::format("label_smoothing from 0 to 1, got {}", options.label_smoothing));
    axis_ = normalize_axis(options.axis, scores.rank(), op, at);
    examples_ = detail::without_axis(scores.shape(), axis_);
    const Dimension extent = scores.shape()[axis_];
    const Value weights = options.class_weights;
    if (weights.defined() && !(weights.shape() == Shape{extent} && weights.dtype() == scores.dtype()))
      fail(fmt::format("class_weights of {} and shape {}, got {} {}", name(scores.dtype()),
                       chainrule::to_string(Shape{extent}), name(weights.dtype()),
                       chainrule::to_string(weights.shape())));
  }

  // By class indices. `own` is the cost of each example's class, `all` makes those of all classes, both without
  // weights.
  template <class Own, class All>
  [[nodiscard]] Value by_index(Own own, All all) const {
    if (!(classes_.shape() == examples_))
      fail(fmt::format("class indices of shape {} for {} {}, got {}", chainrule::to_string(examples_), noun_,
                       chainrule::to_string(scores_.shape()), chainrule::to_string(classes_.shape())));
    Value counted;  // whether an example is
    Value classes = classes_;
    if (options_.ignore_index) {
      counted = not_equal(classes_, *options_.ignore_index);
      classes = where(counted, classes_, 0);
    }
    Value cost = own(classes);
    Value weight;
    if (options_.class_weights.defined()) {
      weight = reshape(take_along_axis(options_.class_weights, reshape(classes, {-1}), 0), examples_);
      cost = detail::weighed_cost(weight, cost);
    }
    if (options_.label_smoothing != no_smoothing) {
      const double s = options_.label_smoothing;
      cost = (1 - s) * cost + (s / number_of_classes()) * sum(weighed_classes(all()), axis());
    }
    if (counted.defined()) {
      cost = where(counted, cost, 0.0);
      const Value one = cast(counted, cost.dtype());
      weight = weight.defined() ? weight * one : one;
    }
    if (options_.reduction != Reduction::mean || !weight.defined())
      return detail::reduced(cost, options_.reduction, at_);
    return sum(cost) / sum(weight);
  }

  // By distributions, of the costs of all classes.
  [[nodiscard]] Value by_distribution(Value costs) const {
    detail::require_alike(op_, at_, scores_, classes_);
    if (options_.ignore_index) fail("class indices where there is an ignore_index, got probabilities");
    Value y = classes_;
    const double s = options_.label_smoothing;
    if (s != no_smoothing) y = (1 - s) * y + s / number_of_classes();
    if (options_.class_weights.defined()) y = y * spread_weights();
    return detail::reduced(sum(detail::weighed_cost(y, costs), axis()), options_.reduction, at_);
  }

  [[nodiscard]] std::int64_t axis() const { return static_cast<std::int64_t>(axis_); }

 private:
  [[noreturn]] void fail(const std::string& required) const { throw Error(at_, op_, "requires " + required); }
  [[nodiscard]] Value number_of_classes() const {
    return extent(scores_.graph(), Shape{scores_.shape()[axis_]}, scores_.dtype());
  }
  [[nodiscard]] Value spread_weights() const {
    Shape shape = Shape::filled(scores_.rank(), 1);
    shape[axis_] = scores_.shape()[axis_];
    return reshape(options_.class_weights, shape);
  }
  [[nodiscard]] Value weighed_classes(Value costs) const {
    return options_.class_weights.defined() ? detail::weighed_cost(spread_weights(), costs) : costs;
  }

  std::string_view op_;
  std::string_view noun_;  // what the scores are called
  Value scores_;
  Value classes_;
  const CrossEntropyOptions& options_;
  Location at_;
  std::size_t axis_ = 0;
  Shape examples_;
};

void require_defined(std::string_view op, Location at, Value a, Value b) {
  if (!a.defined() || !b.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  if (!is_floating(a.dtype())) throw Error(at, op, fmt::format("requires float32 or float64, got {}", name(a.dtype())));
}

}  // namespace

void detail::require_alike(std::string_view op, Location at, Value a, Value b) {
  require_defined(op, at, a, b);
  if (a.dtype() != b.dtype())
    throw Error(at, op, fmt::format("requires inputs of one dtype, got {} and {}", name(a.dtype()), name(b.dtype())));
  if (!(a.shape() == b.shape()))
    throw Error(at, op,
                fmt::format("requires inputs of one shape, got {} and {}", to_string(a.shape()), to_string(b.shape())));
}

Shape detail::without_axis(const Shape& shape, std::size_t axis) {
  Shape out;
  for (std::size_t i = 0; i < shape.rank(); ++i)
    if (i != axis) out.push_back(shape[i]);
  return out;
}

Value detail::class_elements(Value x, Value classes, std::int64_t axis) {
  const auto along = static_cast<std::size_t>(axis);
  Shape indices = x.shape();
  indices[along] = 1;
  const Attributes attributes = {{"axis", axis}, {"from_end", false}};
  return reshape(apply(*find_op("take_along_axis"), {x, reshape(classes, indices)}, attributes), classes.shape());
}

Value detail::weighed_cost(Value weight, Value cost) {
  return weight * where(logical_and(equal(weight, 0.0), equal(abs(cost), inf)), 0.0, cost);
}

Value detail::reduced(Value costs, Reduction reduction, Location at) {
  switch (reduction) {
    case Reduction::mean: return mean(costs, {}, false, at);
    case Reduction::sum: return sum(costs, {}, false, at);
    case Reduction::none: return costs;
  }
  throw Error(at, "reduction", "requires mean, sum or none");
}

Value sigmoid_cross_entropy(Value logits, Value y, Location at) {
  return apply(sigmoid_cross_entropy_op, {logits, y}, {}, at);
}

Value sigmoid_cross_entropy(Value logits, Value y, const SigmoidCrossEntropyOptions& options, Location at) {
  constexpr std::string_view op = "sigmoid_cross_entropy";
  at = detail::scoped(at);
  detail::require_alike(op, at, logits, y);
  const double s = options.label_smoothing;
  if (!(s >= 0 && s <= 1)) throw Error(at, op, fmt::format("requires label_smoothing from 0 to 1, got {}", s));
  return detail::attempt({logits, y, options.weights, options.positive_weight}, [&] {
    const detail::LocationScope scope(at);
    const auto spread = [&](Value weights, std::string_view what) {
      Shape both;
      if (weights.dtype() != logits.dtype() || !broadcast(weights.shape(), logits.shape(), both) ||
          !(both == logits.shape()))
        throw Error(at, op,
                    fmt::format("requires {} of {} that broadcast to {}, got {} {}", what, name(logits.dtype()),
                                to_string(logits.shape()), name(weights.dtype()), to_string(weights.shape())));
      return weights;
    };
    const Value target = s == no_smoothing ? y : (1 - s) * y + s / 2;
    Value costs = apply(logistic_loss_op, {logits, target});
    if (options.positive_weight.defined())
      costs = spread(options.positive_weight, "a positive_weight") * detail::weighed_cost(target, softplus(-logits)) +
              detail::weighed_cost(1.0 - target, softplus(logits));
    if (options.weights.defined()) costs = detail::weighed_cost(spread(options.weights, "weights"), costs);
    return detail::reduced(costs, options.reduction, at);
  });
}

Value binary_cross_entropy(Value probabilities, Value y, Reduction reduction, Location at) {
  detail::require_alike("binary_cross_entropy", detail::scoped(at), probabilities, y);
  return detail::attempt({probabilities, y}, [&] {
    return detail::reduced(apply(binary_cross_entropy_op, {probabilities, y}, {}, at), reduction, at);
  });
}

Value softmax_cross_entropy(Value logits, Value labels, std::int64_t axis, Location at) {
  if (!logits.defined() || !labels.defined() || !is_integer(labels.dtype()))
    return apply(softmax_cross_entropy_op, {logits, labels}, {{"axis", axis}}, at);
  return softmax_cross_entropy(logits, labels, CrossEntropyOptions{.axis = axis}, at);
}

Value softmax_cross_entropy(Value logits, Value y, const CrossEntropyOptions& options, Location at) {
  constexpr std::string_view op = "softmax_cross_entropy";
  at = detail::scoped(at);
  require_defined(op, at, logits, y);
  return detail::attempt({logits, y, options.class_weights}, [&] {
    const detail::LocationScope scope(at);
    const Value labels = as_int64(y, at);
    const ClassCosts costs(op, "logits", logits, labels, options, at);
    const auto of_all = [&] { return -log_softmax(logits, costs.axis()); };
    if (labels.dtype() != int64) return costs.by_distribution(of_all());
    return costs.by_index(
        [&](Value classes) {
          return apply(*find_op("class_cross_entropy"), {logits, classes}, {{"axis", costs.axis()}});
        },
        of_all);
  });
}

Value nll_loss(Value log_probabilities, Value y, const CrossEntropyOptions& options, Location at) {
  constexpr std::string_view op = "nll_loss";
  at = detail::scoped(at);
  require_defined(op, at, log_probabilities, y);
  return detail::attempt({log_probabilities, y, options.class_weights}, [&] {
    const detail::LocationScope scope(at);
    const Value classes = as_int64(y, at);
    const ClassCosts costs(op, "log_probabilities", log_probabilities, classes, options, at);
    if (classes.dtype() != int64) return costs.by_distribution(-log_probabilities);
    return costs.by_index([&](Value of) { return -detail::class_elements(log_probabilities, of, costs.axis()); },
                          [&] { return -log_probabilities; });
  });
}

}  // namespace chainrule
