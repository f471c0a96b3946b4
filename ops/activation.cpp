#include <chainrule/ops/activation.hpp>

#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/activation_samples.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/math.hpp>

CHAINRULE_OP_FAMILY(activation)

namespace chainrule {

namespace {

CHAINRULE_EARLY const BuiltinOp relu_op = register_op({
    .name = "relu",
    .doc = "max(x, 0); slope 0 at 0.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::max(x, 0.0); }),
    // y is above 0 where x is, and what reads y mostly needs it stored anyway.
    .gradient = [](const Node& node, Value dy) -> Values { return {where(node.output() > 0.0, dy, 0.0)}; },
    .samples = {matrix, steep, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp leaky_relu_op = register_op({
    .name = "leaky_relu",
    .doc = "x above 0, slope * x elsewhere.",
    .shape = same_shape,
    .forward = elementwise([](auto x, auto slope) { return simd::select(x > 0.0, x, slope * x); }, {"slope"}),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {where(node.input(0) > 0.0, dy, node.attributes().number("slope") * dy)};
    },
    .samples = {{.inputs = {uniform({3, 4}, -4, 4)}, .attributes = {{"slope", 0.01}}},
                {.inputs = {uniform({5}, -4, 4)}, .attributes = {{"slope", 1.5}}}},
});

CHAINRULE_EARLY const BuiltinOp prelu_op = register_op({
    .name = "prelu",
    .doc = "x above 0, slope * x elsewhere, with a slope that is an input.",
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(2);
      const Type out = broadcast_shape(call);
      if (!(out == call.type(0)))
        call.fail(fmt::format("a slope that broadcasts to {}", to_string(call.shape(0))), to_string(call.shape(1)));
      return out;
    },
    .forward = elementwise([](auto x, auto slope) { return simd::select(x > 0.0, x, slope * x); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      const Value above = x > 0.0;
      return {where(above, dy, node.input(1) * dy), where(above, 0.0, x * dy)};
    },
    .samples = {{.inputs = {uniform({3, 4}, -4, 4), uniform({}, 0.1, 0.5)}},
                {.inputs = {uniform({3, 4}, -4, 4), uniform({3, 1}, -0.5, 0.5)}},
                {.inputs = {uniform({2, 3}, -4, 4), uniform({2, 3}, 0.1, 2)}},
                {.inputs = {zeros({0, 2}), uniform({2})}}},
});

// exp(x) where x <= 0, and 1 above, where it may overflow: an infinity would make NaN of the gradient's own gradient.
Value exp_below_zero(Value x) { return exp(where(x > 0.0, 0.0, x)); }

CHAINRULE_EARLY const BuiltinOp elu_op = register_op({
    .name = "elu",
    .doc = "x above 0, alpha * (exp(x) - 1) elsewhere.",
    .shape = same_shape,
    .forward =
        elementwise([](auto x, auto alpha) { return simd::select(x > 0.0, x, alpha * simd::expm1(x)); }, {"alpha"}),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      return {where(x > 0.0, dy, node.attributes().number("alpha") * dy * exp_below_zero(x))};
    },
    .samples = {{.inputs = {uniform({3, 4}, -4, 4)}, .attributes = {{"alpha", 1.0}}},
                {.inputs = {uniform({2, 3}, -40, 40)}, .attributes = {{"alpha", 0.5}}},
                {.inputs = {zeros({0, 2})}, .attributes = {{"alpha", 1.0}}},
                {.inputs = edges.inputs, .attributes = {{"alpha", 1.0}}, .differentiate = false},
                {.inputs = {Array({900.0, -900.0, 2.0})}, .attributes = {{"alpha", 1.5}}}},
});

CHAINRULE_EARLY const BuiltinOp celu_op = register_op({
    .name = "celu",
    .doc = "x above 0, alpha * (exp(x / alpha) - 1) elsewhere.",
    .shape = same_shape,
    .forward = elementwise([](auto x, auto alpha) { return simd::select(x > 0.0, x, alpha * simd::expm1(x / alpha)); },
                           {"alpha"}),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      return {where(x > 0.0, dy, dy * exp_below_zero(x / node.attributes().number("alpha")))};
    },
    .samples = {{.inputs = {uniform({3, 4}, -4, 4)}, .attributes = {{"alpha", 1.0}}},
                {.inputs = {uniform({2, 3}, -40, 40)}, .attributes = {{"alpha", 2.5}}},
                {.inputs = {zeros({0, 2})}, .attributes = {{"alpha", 1.0}}},
                {.inputs = edges.inputs, .attributes = {{"alpha", 0.5}}, .differentiate = false},
                {.inputs = {Array({900.0, -900.0, 2.0})}, .attributes = {{"alpha", 0.75}}}},
});

// The fixed point of mean and variance for normally distributed sums: Klambauer et al. 2017, equation 14.
constexpr double selu_scale = 1.0507009873554804934193349852946;
constexpr double selu_alpha = 1.6732632423543772848170429916717;

CHAINRULE_EARLY const BuiltinOp selu_op = register_op({
    .name = "selu",
    .doc = "1.0507 * x above 0, 1.7581 * (exp(x) - 1) elsewhere.",
    .shape = same_shape,
    .forward = elementwise(
        [](auto x) { return simd::select(x > 0.0, selu_scale * x, selu_scale * selu_alpha * simd::expm1(x)); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      return {where(x > 0.0, selu_scale * dy, selu_scale * selu_alpha * dy * exp_below_zero(x))};
    },
    .samples = {matrix, steep, empty, edges, {.inputs = {Array({900.0, -900.0, 2.0})}}},
});

CHAINRULE_EARLY const BuiltinOp sigmoid_op = register_op({
    .name = "sigmoid",
    .doc = "1 / (1 + exp(-x)).",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::sigmoid(x); }),
    // sigmoid(-x), not 1 - y: that loses all its digits in float32 where y is near 1.
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * (node.output() * sigmoid(-node.input(0)))}; },
    .samples = {matrix, steep, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp softplus_op = register_op({
    .name = "softplus",
    .doc = "log(1 + exp(x)), without overflow.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::max(x, 0.0) + simd::log1p(simd::exp(-simd::abs(x))); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * sigmoid(node.input(0))}; },
    .samples = {matrix, steep, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp log_sigmoid_op = register_op({
    .name = "log_sigmoid",
    .doc = "-log(1 + exp(-x)), the logarithm of sigmoid(x), without overflow.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return -(simd::max(-x, 0.0) + simd::log1p(simd::exp(-simd::abs(x)))); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * sigmoid(-node.input(0))}; },
    .samples = {matrix, steep, empty, edges},
});

// Where x / (1 + |x|) has long been 1.
constexpr double most_of_softsign = 1e30;

CHAINRULE_EARLY const BuiltinOp softsign_op = register_op({
    .name = "softsign",
    .doc = "x / (1 + |x|).",
    .shape = same_shape,
    // An infinity is as good as the greatest number, and its quotient is no NaN.
    .forward = elementwise([](auto x) {
      const auto size = simd::abs(x);
      return simd::select(size > most_of_softsign, simd::sign(x), x / (1.0 + size));
    }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy / square(1.0 + abs(node.input(0)))}; },
    .samples = {matrix, steep, empty, edges},
});

}  // namespace

Value relu(Value x, Location at) { return apply(relu_op, {x}, {}, at); }
Value leaky_relu(Value x, double slope, Location at) { return apply(leaky_relu_op, {x}, {{"slope", slope}}, at); }
Value prelu(Value x, Operand slope, Location at) {
  return detail::attempt(x, [&] { return apply(prelu_op, {x, slope.resolve(x)}, {}, at); });
}
Value elu(Value x, double alpha, Location at) { return apply(elu_op, {x}, {{"alpha", alpha}}, at); }
Value selu(Value x, Location at) { return apply(selu_op, {x}, {}, at); }
Value sigmoid(Value x, Location at) { return apply(sigmoid_op, {x}, {}, at); }
Value softplus(Value x, Location at) { return apply(softplus_op, {x}, {}, at); }
Value log_sigmoid(Value x, Location at) { return apply(log_sigmoid_op, {x}, {}, at); }
Value softsign(Value x, Location at) { return apply(softsign_op, {x}, {}, at); }
Value celu(Value x, double alpha, Location at) {
  if (!(alpha > 0 && std::isfinite(alpha))) throw Error(at, "celu", fmt::format("requires alpha > 0, got {}", alpha));
  return apply(celu_op, {x}, {{"alpha", alpha}}, at);
}

}  // namespace chainrule
