// Activations that are x times a gate between 0 and 1: silu, gelu, mish, and the hard ones.
//
// Of the smooth ones the tails are what can go wrong: 1 + erf(x) is 0 long before the gate is, and so is the product of
// a gate that is below the least number and an x that would bring it back. So what decays is multiplied last, in two
// halves each of which can be represented, and the slopes are ops of their own with the same care.
#include <chainrule/ops/activation.hpp>

#include <cmath>
#include <numbers>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/activation_samples.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>

CHAINRULE_OP_FAMILY(gate_activation)

namespace chainrule {

namespace {

CHAINRULE_EARLY const std::vector<Sample> samples = {matrix, steep, empty, edges};

constexpr auto clamped = [](auto x, double bound) { return simd::min(simd::max(x, -bound), bound); };

// ---- a logistic gate: x sigmoid(z), where z is x or a function like it

// m: x, kept from where the product has long become x or 0. With h = exp(-|z| / 2) the gate is 1 / (1 + h^2), times h^2
// below 0.
constexpr auto logistic_gate = [](auto x, auto m, auto z) {
  const auto h = simd::exp(-0.5 * simd::abs(z));
  return simd::select(x < 0.0, (m * h) * h, x) / (1.0 + h * h);
};

// Its slope, sigmoid(z) + m z' sigmoid(z) sigmoid(-z), for mz' = m times the slope of z.
constexpr auto logistic_gate_slope = [](auto x, auto mz, auto z) {
  const auto h = simd::exp(-0.5 * simd::abs(z));
  const auto e = h * h;
  return simd::select(x < 0.0, (h * (1.0 + e + mz)) * h, 1.0 + e + mz * e) / simd::square(1.0 + e);
};

constexpr double no_more = 800;  // exp(-no_more) is 0 in every dtype

CHAINRULE_EARLY const BuiltinOp silu_slope_op = register_op({
    .name = "silu_slope",
    .doc = "sigmoid(x) (1 + x sigmoid(-x)), the slope of silu.",
    .shape = same_shape,
    .forward = elementwise([](auto x) {
      const auto m = clamped(x, no_more);
      return logistic_gate_slope(x, m, m);
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      const Value up = sigmoid(x);
      const Value down = sigmoid(-x);
      return {dy * (up * down * (2.0 + x * (down - up)))};
    },
    .samples = samples,
});

CHAINRULE_EARLY const BuiltinOp silu_op = register_op({
    .name = "silu",
    .doc = "x sigmoid(x).",
    .shape = same_shape,
    .forward = elementwise([](auto x) {
      const auto m = clamped(x, no_more);
      return logistic_gate(x, m, m);
    }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * apply(silu_slope_op, {node.input(0)})}; },
    .samples = samples,
});

// ---- gelu, approximated by a logistic gate: 1/2 (1 + tanh(u)) is sigmoid(2 u), with 2 u = factor (x + cubic x^3)

constexpr double cubic = 0.044715;
constexpr double factor = 1.5957691216057307117597842397375;  // 2 sqrt(2 / pi)
constexpr double no_more_tanh = 25;                           // where 2 u is beyond no_more

constexpr auto doubled_u = [](auto m) { return factor * m * (1.0 + cubic * (m * m)); };
constexpr auto doubled_u_slope = [](auto m) { return factor * (1.0 + 3 * cubic * (m * m)); };

CHAINRULE_EARLY const BuiltinOp gelu_tanh_slope_op = register_op({
    .name = "gelu_tanh_slope",
    .doc = "The slope of gelu_tanh.",
    .shape = same_shape,
    .forward = elementwise([](auto x) {
      const auto m = clamped(x, no_more_tanh);
      return logistic_gate_slope(x, m * doubled_u_slope(m), doubled_u(m));
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      // (x s(z))'' = s(z) s(-z) (2 z' + x z'' + x z'^2 (s(-z) - s(z)))
      const Value x = clip(node.input(0), -no_more_tanh, no_more_tanh);
      const Value z = doubled_u(x);
      const Value slope = doubled_u_slope(x);
      const Value up = sigmoid(z);
      const Value down = sigmoid(-z);
      const Value curve = 6 * factor * cubic * square(x);  // x z''
      return {dy * (up * down * (2.0 * slope + curve + x * square(slope) * (down - up)))};
    },
    .samples = samples,
});

CHAINRULE_EARLY const BuiltinOp gelu_tanh_op = register_op({
    .name = "gelu_tanh",
    .doc = "x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).",
    .shape = same_shape,
    .forward = elementwise([](auto x) {
      const auto m = clamped(x, no_more_tanh);
      return logistic_gate(x, m, doubled_u(m));
    }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * apply(gelu_tanh_slope_op, {node.input(0)})}; },
    .samples = samples,
});

// ---- gelu: x P(x), with the normal distribution's P

// exp(a^2 / 2) P(-a) for 0 <= a is (c[0] + c[1] t + ...) / (a + k), with t = (a - k) / (a + k). Each dtype has numbers
// of its own: float32 does with less than half as many.
struct Double {
  static constexpr double no_more = 39;  // P(-39) is 0
  // The interpolating polynomial in the roots of Chebyshev's, right to 3e-16.
  static constexpr double k = 4.5;
  static constexpr double mills[] = {0x1.86c626e278bb4p-1,   -0x1.47cfdd7a97266p-1,  0x1.c92ad93fe22d3p-2,
                                     -0x1.03379aa027799p-2,  0x1.c8391e19e869p-4,    -0x1.157951c7bc37cp-5,
                                     0x1.14cc7938245ebp-8,   0x1.ca720a4319b4dp-10,  -0x1.e129d0a9e511fp-11,
                                     0x1.ac2f0f31d5f1bp-18,  0x1.d5ef5a7931cb4p-14,  -0x1.0b4466c88f7a8p-16,
                                     -0x1.dd80d8a581454p-17, 0x1.ab5b420703e78p-19,  0x1.1e0726b6082adp-19,
                                     -0x1.0847dd54c4d75p-21, -0x1.85132faf44919p-22, 0x1.e7c82ae0bdb87p-25,
                                     0x1.e0c8367d39462p-25,  -0x1.7392367aec7cbp-29, -0x1.424cb9579de63p-28};
  static auto exp_of_rest(auto x) { return simd::exp(x); }
};

struct Single {
  static constexpr double no_more = 15;  // P(-15) is 0
  // With the least relative error, 1.5e-8.
  static constexpr double k = 3.75;
  static constexpr double mills[] = {0.7502940742122988,    -0.5881882776588762,   0.3529396042054542,
                                     -0.15152083514889242,  0.0374925068177496,    0.0012000738172314451,
                                     -0.004169018763725385, 0.0005096282782285078, 0.0004434500532869978};
  // For -0.23 <= x <= 0, as it is there; the same.
  static auto exp_of_rest(auto x) {
    return 1.0 +
           x * (0.9999978934154274 + x * (0.49992727241980206 + x * (0.16577789346664176 + x * 0.03716667469235102)));
  }
};

template <class Numbers>
constexpr auto scaled_tail = [](auto a) {
  constexpr auto& mills = Numbers::mills;
  const auto inverse = 1.0 / (a + Numbers::k);
  const auto t = (a - Numbers::k) * inverse;
  auto p = t * mills[std::size(mills) - 1] + mills[std::size(mills) - 2];
  for (std::size_t i = std::size(mills) - 2; i-- > 0;) p = p * t + mills[i];
  return p * inverse;
};

// f exp(-a^2 / 2). The square would be rounded by more than the exponential can bear, so it is taken of a's leading
// bits, exactly, and of the rest: a^2 = high^2 + (a - high) (a + high).
template <class Numbers>
constexpr auto times_normal = [](auto f, auto a) {
  const auto high = simd::floor(64.0 * a) * (1.0 / 64);
  const auto half = simd::exp(-0.25 * (high * high));
  const auto rest = Numbers::exp_of_rest(-0.5 * ((a - high) * (a + high)));
  return (f * rest * half) * half;
};

constexpr double normal_scale = 0.39894228040143267793994605993438;  // 1 / sqrt(2 pi)

template <class Numbers>
constexpr auto gelu_slope_of = [](auto x) {
  const auto a = simd::min(simd::abs(x), Numbers::no_more);
  const auto tail = times_normal<Numbers>(scaled_tail<Numbers>(a) - normal_scale * a, a);
  return simd::select(x < 0.0, tail, 1.0 - tail);
};

template <class Numbers>
constexpr auto gelu_of = [](auto x) {
  const auto a = simd::min(simd::abs(x), Numbers::no_more);
  const auto tail = times_normal<Numbers>(a * scaled_tail<Numbers>(a), a);
  return simd::select(x < 0.0, -tail, x - tail);  // x P(x) = x - x P(-x)
};

// What an op is in one dtype. It stands outside the registry.
template <class F>
Op in_one_dtype(const char* name, F f) {
  Op op;
  op.name = name;
  op.shape = same_shape;
  op.forward = elementwise(f);
  return op;
}

// An elementwise op that has a formula for each dtype.
template <class Single, class Double>
Forward by_dtype(const char* name, Single single, Double twice) {
  return expand([name, single, twice](const Node& node) -> Value {
    static const Op ops[] = {in_one_dtype(name, single), in_one_dtype(name, twice)};
    return apply(ops[node.dtype() == float32 ? 0 : 1], {node.input(0)});
  });
}

Type floating_shape(const OpCall& call) {
  call.require_inputs(1);
  call.require_floating(0);
  return call.type(0);
}

CHAINRULE_EARLY const BuiltinOp gelu_slope_op = register_op({
    .name = "gelu_slope",
    .doc = "P(x) + x p(x) with the standard normal distribution P and its density p, the slope of gelu.",
    .shape = floating_shape,
    .forward = by_dtype("gelu_slope", gelu_slope_of<Single>, gelu_slope_of<Double>),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value square_x = square(clip(node.input(0), -Double::no_more, Double::no_more));
      return {dy * (normal_scale * (2.0 - square_x) * exp(-0.5 * square_x))};
    },
    .samples = samples,
});

CHAINRULE_EARLY const BuiltinOp gelu_op = register_op({
    .name = "gelu",
    .doc = "x P(x) with the standard normal distribution P, that is, x / 2 (1 + erf(x / sqrt(2))).",
    .shape = floating_shape,
    .forward = by_dtype("gelu", gelu_of<Single>, gelu_of<Double>),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * apply(gelu_slope_op, {node.input(0)})}; },
    .samples = samples,
});

// ---- mish: x tanh(log(1 + exp(x))), where with e = exp(-|x|) the gate is
//   (1 + 2 e) / (1 + 2 e + 2 e^2) above 0 and e (2 + e) / (2 + 2 e + e^2) below.

CHAINRULE_EARLY const BuiltinOp mish_slope_op = register_op({
    .name = "mish_slope",
    .doc = "t + x (1 - t^2) sigmoid(x) with t = tanh(log(1 + exp(x))), the slope of mish.",
    .shape = same_shape,
    .forward = elementwise([](auto x) {
      const auto m = clamped(x, no_more);
      const auto h = simd::exp(-0.5 * simd::abs(m));
      const auto e = h * h;
      const auto below = 2.0 + e * (2.0 + e);
      const auto above = 1.0 + 2.0 * (e * (1.0 + e));
      const auto both = 4.0 * m * (1.0 + e);
      return simd::select(x < 0.0, (h * ((2.0 + e) * below + both)) * h, (1.0 + 2.0 * e) * above + both * e * e) /
             simd::square(simd::select(x < 0.0, below, above));
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      const Value up = sigmoid(x);
      const Value s = softplus(x);
      const Value t = tanh(s);
      const Value falls = apply(*find_op("sech2"), {s});
      return {dy * (2.0 * up * falls + falls * silu(x) * (sigmoid(-x) - 2.0 * t * up))};
    },
    .samples = samples,
});

CHAINRULE_EARLY const BuiltinOp mish_op = register_op({
    .name = "mish",
    .doc = "x tanh(log(1 + exp(x))).",
    .shape = same_shape,
    .forward = elementwise([](auto x) {
      const auto m = clamped(x, no_more);
      const auto h = simd::exp(-0.5 * simd::abs(m));
      const auto e = h * h;
      return simd::select(x < 0.0, (m * h * (2.0 + e)) * h, x * (1.0 + 2.0 * e)) /
             simd::select(x < 0.0, 2.0 + e * (2.0 + e), 1.0 + 2.0 * (e * (1.0 + e)));
    }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * apply(mish_slope_op, {node.input(0)})}; },
    .samples = samples,
});

// ---- hard ones: pieces of straight lines, with the outer slope where two of them meet

CHAINRULE_EARLY const BuiltinOp hardtanh_op = register_op({
    .name = "hardtanh",
    .doc = "min(max(x, low), high); slope 0 at the bounds.",
    .shape = same_shape,
    .forward =
        elementwise([](auto x, auto low, auto high) { return simd::min(simd::max(x, low), high); }, {"low", "high"}),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      const Value within = logical_and(x > node.attributes().number("low"), x < node.attributes().number("high"));
      return {where(within, dy, 0.0)};
    },
    .samples = {{.inputs = {uniform({3, 4}, -2, 2)}, .attributes = {{"low", -1.0}, {"high", 1.0}}},
                {.inputs = {uniform({2, 5}, -4, 10)}, .attributes = {{"low", 0.0}, {"high", 6.0}}},
                {.inputs = edges.inputs, .attributes = {{"low", -1.0}, {"high", 1.0}}, .differentiate = false}},
});

CHAINRULE_EARLY const BuiltinOp hardsigmoid_op = register_op({
    .name = "hardsigmoid",
    .doc = "min(max(x + 3, 0), 6) / 6; slope 0 at -3 and 3.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::min(simd::max(x + 3.0, 0.0), 6.0) / 6.0; }),
    .gradient = [](const Node& node, Value dy) -> Values { return {where(abs(node.input(0)) < 3.0, dy / 6.0, 0.0)}; },
    .samples = samples,
});

CHAINRULE_EARLY const BuiltinOp hardswish_op = register_op({
    .name = "hardswish",
    .doc = "x min(max(x + 3, 0), 6) / 6; slope 0 at -3 and 1 at 3.",
    .shape = same_shape,
    // x is -3 where the gate is 0, for the product with -infinity
    .forward = elementwise([](auto x) { return simd::max(x, -3.0) * (simd::min(simd::max(x + 3.0, 0.0), 6.0) / 6.0); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      return {where(x <= -3.0, 0.0, where(x >= 3.0, dy, dy * (x / 3.0 + 0.5)))};
    },
    .samples = samples,
});

// ---- gated linear units

// x's first half along the axis times f of its second half.
Value gated(Value x, std::int64_t axis, std::string_view op, Location at, Value (*f)(Value, Location)) {
  at = detail::scoped(at);
  if (!x.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  const std::size_t a = normalize_axis(axis, x.rank(), op, at);
  const Dimension whole = x.shape()[a];
  const Dimension half = floor_divide(whole, 2);
  if (!(half + half == whole))
    throw Error(at, op, fmt::format("requires an even extent on axis {}, got {}", a, to_string(x.shape())));
  return detail::attempt(x, [&] {
    const Op& slice = *find_op("slice");
    const auto part = [&](Dimension start) {
      return apply(slice, {x}, {{"axis", a}, {"start", Shape{start}}, {"size", Shape{half}}}, at);
    };
    return mul(Operand(part(0), at), Operand(f(part(half), at), at));
  });
}

}  // namespace

Value silu(Value x, Location at) { return apply(silu_op, {x}, {}, at); }
Value gelu(Value x, Location at) { return apply(gelu_op, {x}, {}, at); }
Value gelu_tanh(Value x, Location at) { return apply(gelu_tanh_op, {x}, {}, at); }
Value mish(Value x, Location at) { return apply(mish_op, {x}, {}, at); }

Value hardtanh(Value x, double low, double high, Location at) {
  if (!(low <= high)) throw Error(at, "hardtanh", fmt::format("requires low <= high, got {} and {}", low, high));
  return apply(hardtanh_op, {x}, {{"low", low}, {"high", high}}, at);
}
Value relu6(Value x, Location at) { return apply(hardtanh_op, {x}, {{"low", 0.0}, {"high", 6.0}}, at); }
Value hardsigmoid(Value x, Location at) { return apply(hardsigmoid_op, {x}, {}, at); }
Value hardswish(Value x, Location at) { return apply(hardswish_op, {x}, {}, at); }

Value glu(Value x, std::int64_t axis, Location at) { return gated(x, axis, "glu", at, sigmoid); }
Value swiglu(Value x, std::int64_t axis, Location at) { return gated(x, axis, "swiglu", at, silu); }
Value geglu(Value x, std::int64_t axis, Location at) { return gated(x, axis, "geglu", at, gelu); }

}  // namespace chainrule
