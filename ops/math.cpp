#include <chainrule/ops/math.hpp>

#include <numbers>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>

CHAINRULE_OP_FAMILY(math)

namespace chainrule {

namespace {

// Floating, or integers for the functions that have whole results.
Type number_shape(const OpCall& call) {
  call.require_inputs(1);
  if (!is_integer(call.dtype(0))) call.require_floating(0);
  return call.type(0);
}

CHAINRULE_EARLY const Sample matrix{.inputs = {uniform({3, 4}, -2, 2)}};
CHAINRULE_EARLY const Sample positive{.inputs = {uniform({3, 4}, 0.1, 3)}};
CHAINRULE_EARLY const Sample scalar{.inputs = {uniform({}, 0.5, 1)}};
CHAINRULE_EARLY const Sample empty{.inputs = {zeros({2, 0})}};
CHAINRULE_EARLY const Sample whole{.inputs = {integers({5}, -9, 9)}};
// Extremes, where only values are compared.
CHAINRULE_EARLY const Sample edges{
    .inputs = {Array({0.0, -0.0, 1e-300, -1e-300, 1e300, -1e300, 700.0, -700.0, 800.0, -800.0, 1e-8,
                      std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                      std::numeric_limits<double>::quiet_NaN(), 5e-324})},
    .differentiate = false};
CHAINRULE_EARLY const Sample moderate_edges{
    .inputs = {Array({0.0, -0.0, 1e-300, -1e-300, 1e-8, 1000.0, -1000.0, std::numeric_limits<double>::quiet_NaN()})},
    .differentiate = false};

CHAINRULE_EARLY const BuiltinOp square_op = register_op({
    .name = "square",
    .doc = "x * x.",
    .shape = number_shape,
    .forward = elementwise([](auto x) { return simd::square(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {2.0 * dy * node.input(0)}; },
    .samples = {matrix, scalar, empty, whole, edges},
});

CHAINRULE_EARLY const BuiltinOp sqrt_op = register_op({
    .name = "sqrt",
    .doc = "The square root; NaN below 0.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::sqrt(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {0.5 * dy / node.output()}; },
    .samples = {positive, scalar, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp exp_op = register_op({
    .name = "exp",
    .doc = "e to the power of x.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::exp(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * node.output()}; },
    .samples = {matrix, scalar, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp expm1_op = register_op({
    .name = "expm1",
    .doc = "exp(x) - 1, without cancellation near 0.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::expm1(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * exp(node.input(0))}; },
    .samples = {matrix, scalar, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp log_op = register_op({
    .name = "log",
    .doc = "The natural logarithm; -inf at 0, NaN below.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::log(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy / node.input(0)}; },
    .samples = {positive, scalar, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp log1p_op = register_op({
    .name = "log1p",
    .doc = "log(1 + x), without cancellation near 0.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::log1p(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy / (1.0 + node.input(0))}; },
    .samples = {positive, scalar, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp sin_op = register_op({
    .name = "sin",
    .doc = "The sine of x in radians.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::sin(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * cos(node.input(0))}; },
    .samples = {matrix, scalar, empty, moderate_edges},
});

CHAINRULE_EARLY const BuiltinOp cos_op = register_op({
    .name = "cos",
    .doc = "The cosine of x in radians.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::cos(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {-dy * sin(node.input(0))}; },
    .samples = {matrix, scalar, empty, moderate_edges},
});

// Generated code has what sine and cosine have in common once.
CHAINRULE_EARLY const BuiltinOp tan_op = register_op({
    .name = "tan",
    .doc = "The tangent of x in radians.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::sin(x) / simd::cos(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * (1.0 + square(node.output()))}; },
    .samples = {{.inputs = {uniform({3, 4}, -1.2, 1.2)}}, scalar, empty, moderate_edges},
});

// The slope of tanh. Of its value y it is 1 - y^2, but that loses its digits where y is near 1, and is 0 long before
// the slope is. With q = 1 / (1 + exp(2 |x|)), of which there is never more than a half, tanh |x| is 1 - 2 q, and
// generated code makes q once for both (kernels/vector_math.hpp).
CHAINRULE_EARLY const BuiltinOp sech2_op = register_op({
    .name = "sech2",
    .doc = "1 / cosh(x)^2, the slope of tanh.",
    .shape = same_shape,
    .forward = elementwise([](auto x) {
      const auto e = simd::exp(-2.0 * simd::abs(x));
      const auto q = e / (1.0 + e);
      return 4.0 * q * (1.0 - q);
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {-2.0 * dy * (tanh(node.input(0)) * node.output())};
    },
    .samples = {matrix, scalar, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp tanh_op = register_op({
    .name = "tanh",
    .doc = "The hyperbolic tangent.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::tanh(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * apply(sech2_op, {node.input(0)})}; },
    .samples = {matrix, scalar, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp erf_op = register_op({
    .name = "erf",
    .doc = "The error function.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::erf(x); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {dy * (2 * std::numbers::inv_sqrtpi) * exp(-square(node.input(0)))};
    },
    .samples = {matrix, scalar, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp abs_op = register_op({
    .name = "abs",
    .doc = "The absolute value; slope 0 at 0.",
    .shape = number_shape,
    .forward = elementwise([](auto x) { return simd::abs(x); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * sign(node.input(0))}; },
    .samples = {{.inputs = {uniform({3, 4}, 0.2, 2)}}, {.inputs = {uniform({5}, -3, -0.2)}}, empty, whole, edges},
});

// Step functions have a zero derivative wherever they have one: an empty Value contributes nothing.
Values no_slope(const Node&, Value) { return {Value{}}; }

CHAINRULE_EARLY const BuiltinOp sign_op = register_op({
    .name = "sign",
    .doc = "-1, 0 or 1; NaN for NaN. Slope 0.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::sign(x); }),
    .gradient = no_slope,
    .samples = {positive, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp floor_op = register_op({
    .name = "floor",
    .doc = "The greatest whole number not above x. Slope 0.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::floor(x); }),
    .gradient = no_slope,
    .samples = {matrix, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp ceil_op = register_op({
    .name = "ceil",
    .doc = "The least whole number not below x. Slope 0.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::ceil(x); }),
    .gradient = no_slope,
    .samples = {matrix, empty, edges},
});

CHAINRULE_EARLY const BuiltinOp clip_op = register_op({
    .name = "clip",
    .doc = "min(max(x, low), high); slope 1 at the bounds.",
    .shape = same_shape,
    .forward =
        elementwise([](auto x, auto low, auto high) { return simd::min(simd::max(x, low), high); }, {"low", "high"}),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      const Value within = logical_and(x >= node.attributes().number("low"), x <= node.attributes().number("high"));
      return {where(within, dy, 0.0)};
    },
    .samples = {{.inputs = {uniform({3, 4}, -2, 2)}, .attributes = {{"low", -1.0}, {"high", 0.5}}},
                {.inputs = {Array({-1.0, 0.5, 0.0, std::numeric_limits<double>::quiet_NaN(), 1e300})},
                 .attributes = {{"low", -1.0}, {"high", 0.5}},
                 .differentiate = false}},
});

}  // namespace

Value square(Value x, Location at) { return apply(square_op, {x}, {}, at); }
Value sqrt(Value x, Location at) { return apply(sqrt_op, {x}, {}, at); }
Value exp(Value x, Location at) { return apply(exp_op, {x}, {}, at); }
Value expm1(Value x, Location at) { return apply(expm1_op, {x}, {}, at); }
Value log(Value x, Location at) { return apply(log_op, {x}, {}, at); }
Value log1p(Value x, Location at) { return apply(log1p_op, {x}, {}, at); }
Value sin(Value x, Location at) { return apply(sin_op, {x}, {}, at); }
Value cos(Value x, Location at) { return apply(cos_op, {x}, {}, at); }
Value tan(Value x, Location at) { return apply(tan_op, {x}, {}, at); }
Value tanh(Value x, Location at) { return apply(tanh_op, {x}, {}, at); }
Value erf(Value x, Location at) { return apply(erf_op, {x}, {}, at); }
Value abs(Value x, Location at) { return apply(abs_op, {x}, {}, at); }
Value sign(Value x, Location at) { return apply(sign_op, {x}, {}, at); }
Value floor(Value x, Location at) { return apply(floor_op, {x}, {}, at); }
Value ceil(Value x, Location at) { return apply(ceil_op, {x}, {}, at); }

Value clip(Value x, Number low, Number high, Location at) {
  if (!(low.as<double>() <= high.as<double>()))
    throw Error(at, "clip", fmt::format("requires low <= high, got {} and {}", low.to_string(), high.to_string()));
  if (x.defined() && is_integer(x.dtype())) {  // whose bounds are exact
    const auto bound = [&](Number number) { return number.visit([&](auto value) { return Operand(value, at); }); };
    return detail::attempt(x, [&] { return minimum(Operand(maximum(Operand(x, at), bound(low)), at), bound(high)); });
  }
  return apply(clip_op, {x}, {{"low", low.as<double>()}, {"high", high.as<double>()}}, at);
}

}  // namespace chainrule
