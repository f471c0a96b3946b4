#include <chainrule/ops/logsumexp.hpp>

#include <algorithm>
#include <limits>
#include <numbers>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>

CHAINRULE_OP_FAMILY(logsumexp)

namespace chainrule {

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

// What is reduced as it was, or with extents of 1.
Shape reduced_shape(const Shape& x, const Axes& axes, bool keepdims) {
  Shape out;
  for (std::size_t i = 0; i < x.rank(); ++i) {
    const bool reduced = std::find(axes.begin(), axes.end(), static_cast<std::int64_t>(i)) != axes.end();
    if (!reduced) out.push_back(x[i]);
    if (reduced && keepdims) out.push_back(1);
  }
  return out;
}

// A result or gradient of the node with the reduced axes as 1s.
Value kept(const Node& node, Value reduced) {
  return reshape(reduced, reduced_shape(node.input(0).shape(), node.attribute<Axes>("axes"), true));
}

CHAINRULE_EARLY const BuiltinOp logsumexp_op = register_op({
    .name = "logsumexp",
    .doc = "log(sum(exp(x))) over axes, without overflow.",
    .attributes = {{"axes", AttributeType::axes}, {"keepdims", false}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      call.require_floating(0);
      const auto& axes = call.attribute<Axes>("axes");
      for (const auto a : axes)
        if (call.shape(0)[static_cast<std::size_t>(a)].is(0))
          call.fail("at least one element", to_string(call.shape(0)));
      return {call.dtype(0), reduced_shape(call.shape(0), axes, call.attribute<bool>("keepdims"))};
    },
    .forward = expand([](const Node& node) -> Value {
      const Value x = node.input(0);
      const Attributes keeping = node.attributes().with("keepdims", true);
      const Value greatest = apply(*find_op("max"), {x}, keeping);
      // Any shift will do; with an infinite one x - shift would be NaN.
      const Value shift = where(equal(abs(greatest), inf), 0.0, greatest);
      const Value total = apply(*find_op("sum"), {exp(x - shift)}, keeping);
      return reshape(shift + log(total), node.shape());
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value y = kept(node, node.output());
      return {kept(node, dy) * exp(node.input(0) - where(equal(y, -inf), 0.0, y))};
    },
    .samples = {{.inputs = {uniform({3, 4}, -3, 3)}, .attributes = {{"axes", Axes{1}}, {"keepdims", false}}},
                {.inputs = {uniform({2, 3, 2}, -30, 30)}, .attributes = {{"axes", Axes{0, 2}}, {"keepdims", true}}},
                {.inputs = {uniform({}, -3, 3)}, .attributes = {{"axes", Axes{}}, {"keepdims", false}}},
                {.inputs = {uniform({3}, 700, 702)}, .attributes = {{"axes", Axes{0}}, {"keepdims", false}}},
                {.inputs = {Array({{-inf, 0.0, -inf}, {-inf, -inf, -inf}, {inf, 0.0, 1e300}, {-1e300, 3.0, 1e3}})},
                 .attributes = {{"axes", Axes{1}}, {"keepdims", false}},
                 .differentiate = false},
                {.inputs = {zeros({0, 3})}, .attributes = {{"axes", Axes{1}}, {"keepdims", false}}}},
});

CHAINRULE_EARLY const BuiltinOp logaddexp_op = register_op({
    .name = "logaddexp",
    .doc = "log(exp(a) + exp(b)), without overflow.",
    .shape = broadcast_shape,
    .forward = elementwise([](auto a, auto b) {
      return simd::select(a == b, a + std::numbers::ln2, simd::max(a, b) + simd::log1p(simd::exp(-simd::abs(a - b))));
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value a = node.input(0);
      const Value b = node.input(1);
      // Equal infinities are no apart, though their difference is NaN.
      const Value d = where(logical_and(equal(a, b), equal(abs(a), inf)), 0.0, a - b);
      return {node.wants(0) ? dy * sigmoid(d) : Value{}, node.wants(1) ? dy * sigmoid(-d) : Value{}};
    },
    .samples = {{.inputs = {uniform({3, 4}, -3, 3), uniform({4}, -3, 3)}},
                {.inputs = {uniform({2, 3}, -40, 40), uniform({2, 1}, -40, 40)}},
                {.inputs = {Array({1.0, -2.0, 0.0}), Array({1.0, -2.0, 0.0})}},
                {.inputs = {Array({inf, -inf, inf, -inf, 1e300, std::numeric_limits<double>::quiet_NaN()}),
                            Array({inf, -inf, -inf, 3.0, -1e300, 0.0})},
                 .differentiate = false},
                {.inputs = {zeros({0}), zeros({1})}}},
});

}  // namespace

Value logsumexp(Value x, const AxisList& axes, bool keepdims, Location at) {
  Axes list = axes.list();
  if (list.empty() && x.defined())
    for (std::size_t i = 0; i < x.rank(); ++i) list.push_back(static_cast<std::int64_t>(i));
  return apply(logsumexp_op, {x}, {{"axes", list}, {"keepdims", keepdims}}, at);
}

Value logaddexp(Operand a, Operand b) { return detail::apply_operands(logaddexp_op, a, b); }

}  // namespace chainrule
