#include <chainrule/ops/loss.hpp>

#include <algorithm>
#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/ops/softmax.hpp>

CHAINRULE_OP_FAMILY(loss)

namespace chainrule {

namespace {

// Two inputs of one shape and floating dtype; broadcasting a loss is nearly always a mistake of the caller's.
void require_alike(const OpCall& call) {
  call.require_inputs(2);
  call.require_floating(0);
  call.require_same_dtype();
  if (!(call.shape(0) == call.shape(1)))
    call.fail("inputs of one shape", fmt::format("{} and {}", to_string(call.shape(0)), to_string(call.shape(1))));
}

Type pair_to_scalar(const OpCall& call) {
  require_alike(call);
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

// Zeros that are worth another thread's while.
constexpr std::int64_t elements_of_part = 65'536;

Forward one_hot_kernel() {
  Forward forward;
  forward.exact = true;
  forward.may_throw = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const auto axis = static_cast<std::size_t>(call.attributes.get<std::int64_t>("axis"));
    std::int64_t outer = 1;
    std::int64_t inner = 1;
    for (std::size_t i = 0; i < axis; ++i) outer *= call.output.shape[i];
    for (std::size_t i = axis + 1; i < call.output.shape.rank(); ++i) inner *= call.output.shape[i];
    const std::int64_t classes = call.output.shape[axis];
    const std::int64_t grain = std::max<std::int64_t>(1, elements_of_part / std::max<std::int64_t>(1, classes * inner));
    return visit_dtype(call.output.dtype, [&]<class T>(T) -> KernelRun {
      return [=, at = call.at](const KernelBuffers& buffers) {
        const auto* index = static_cast<const std::int64_t*>(buffers.inputs[0]);
        auto* out = static_cast<T*>(buffers.output);
        parallel_for(outer, grain, [=](std::int64_t begin, std::int64_t end) {
          std::fill(out + begin * classes * inner, out + end * classes * inner, T{0});
          for (std::int64_t o = begin; o < end; ++o) {
            for (std::int64_t i = 0; i < inner; ++i) {
              const std::int64_t k = index[o * inner + i];
              if (k < 0 || k >= classes)
                throw Error(at, "one_hot",
                            fmt::format("requires class indices from 0 to {}, got {} at element {}", classes - 1, k,
                                        o * inner + i));
              out[(o * classes + k) * inner + i] = T{1};
            }
          }
        });
      };
    });
  };
  return forward;
}

CHAINRULE_EARLY const BuiltinOp one_hot_op = register_op({
    .name = "one_hot",
    .doc = "1 at the class index along a new axis, 0 elsewhere.",
    .attributes = {{"classes", AttributeType::extent},
                   {"dtype", AttributeType::dtype},
                   {"axis", AttributeType::new_axis, -1}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      if (call.dtype(0) != int64) call.fail("int64 class indices", name(call.dtype(0)));
      const auto axis = static_cast<std::size_t>(call.attribute<std::int64_t>("axis"));
      Type out{call.attribute<DType>("dtype"), {}};
      for (std::size_t i = 0; i <= call.shape(0).rank(); ++i) {
        if (i == axis) out.shape.push_back(call.attribute<Shape>("classes")[0]);
        if (i < call.shape(0).rank()) out.shape.push_back(call.shape(0)[i]);
      }
      return out;
    },
    .forward = one_hot_kernel(),
    .samples = {{.inputs = {integers({4}, 0, 3)},
                 .attributes = {{"classes", Shape{3}}, {"dtype", float64}, {"axis", 1}}},
                {.inputs = {integers({2, 3}, 0, 5)},
                 .attributes = {{"classes", Shape{5}}, {"dtype", float64}, {"axis", 0}}}},
});

CHAINRULE_EARLY const BuiltinOp softmax_cross_entropy_op = register_op({
    .name = "softmax_cross_entropy",
    .doc = "mean over examples of -sum(y log softmax(z)) along an axis.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = [](const OpCall& call) -> Type {
      require_alike(call);
      if (call.shape(0)[call.axis(call.attributes().get<std::int64_t>("axis"))].is(0))
        call.fail("at least one class", to_string(call.shape(0)));
      return {call.dtype(0), {}};
    },
    .forward = expand([](const Node& node) -> Value {
      const std::int64_t axis = node.attribute<std::int64_t>("axis");
      return -mean(sum(weighed(node.input(1), log_softmax(node.input(0), axis)), axis));
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
      return {node.wants(0) ? scale * (softmax(z, axis) * sum(y, axis, true) - y) : Value{},
              node.wants(1) ? -scale * log_softmax(z, axis) : Value{}};
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

Value sigmoid_cross_entropy(Value logits, Value y, Location at) {
  return apply(sigmoid_cross_entropy_op, {logits, y}, {}, at);
}

Value softmax_cross_entropy(Value logits, Value labels, std::int64_t axis, Location at) {
  if (!logits.defined() || !labels.defined() || labels.dtype() != int64)
    return apply(softmax_cross_entropy_op, {logits, labels}, {{"axis", axis}}, at);
  return detail::attempt({logits, labels}, [&] {
    const auto a = normalize_axis(axis, logits.rank(), "softmax_cross_entropy", detail::scoped(at));
    Shape expected;
    for (std::size_t i = 0; i < logits.rank(); ++i)
      if (i != a) expected.push_back(logits.shape()[i]);
    if (!(labels.shape() == expected))
      throw Error(detail::scoped(at), "softmax_cross_entropy",
                  fmt::format("requires class indices of shape {} for logits {}, got {}", to_string(expected),
                              to_string(logits.shape()), to_string(labels.shape())));
    const Value rows = apply(one_hot_op, {labels},
                             {{"classes", Shape{logits.shape()[a]}}, {"dtype", logits.dtype()}, {"axis", a}}, at);
    return apply(softmax_cross_entropy_op, {logits, rows}, {{"axis", axis}}, at);
  });
}

Value mean_squared_error(Value prediction, Value target, Location at) {
  return apply(mean_squared_error_op, {prediction, target}, {}, at);
}

Value one_hot(Value indices, std::int64_t classes, DType dtype, std::int64_t axis, Location at) {
  if (classes < 0) throw Error(at, "one_hot", fmt::format("requires classes of 0 or more, got {}", classes));
  return apply(one_hot_op, {indices}, {{"classes", Shape{classes}}, {"dtype", dtype}, {"axis", axis}}, at);
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
