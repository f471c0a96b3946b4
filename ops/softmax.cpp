#include <chainrule/ops/softmax.hpp>

#include <fmt/core.h>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/reduce.hpp>

CHAINRULE_OP_FAMILY(softmax)

namespace chainrule {

namespace {

Type softmax_shape(const OpCall& call) {
  call.require_inputs(1);
  call.require_floating(0);
  const auto axis = call.axis(call.attributes().get<std::int64_t>("axis"));
  if (call.shape(0)[axis].is(0))
    call.fail(fmt::format("at least one element along axis {}", axis), to_string(call.shape(0)));
  return call.type(0);
}

std::int64_t axis_of(const Node& node) { return node.attribute<std::int64_t>("axis"); }

// x with its maximum along the axis taken off: the result is the same, and so is its gradient.
Value shifted(const Node& node) { return node.input(0) - max(node.input(0), axis_of(node), true); }

CHAINRULE_EARLY const std::vector<Sample> samples = {
    {.inputs = {uniform({3, 4}, -3, 3)}, .attributes = {{"axis", -1}}},
    {.inputs = {uniform({3, 4}, -3, 3)}, .attributes = {{"axis", 0}}},
    {.inputs = {uniform({2, 3, 2}, -3, 3)}, .attributes = {{"axis", 1}}},
    {.inputs = {uniform({4, 1}, -3, 3)}, .attributes = {{"axis", 1}}},
    {.inputs = {Array({{1e4, -1e4, 0.0}, {-1e4, -1e4, -1e4}})}, .attributes = {{"axis", 1}}, .differentiate = false},
    {.inputs = {Array({-std::numeric_limits<double>::infinity(), 0.0, 1.0})},
     .attributes = {{"axis", 0}},
     .differentiate = false},
};

CHAINRULE_EARLY const BuiltinOp softmax_op = register_op({
    .name = "softmax",
    .doc = "exp(x) / sum(exp(x)) along an axis.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = softmax_shape,
    .forward = expand([](const Node& node) -> Value {
      const Value e = exp(shifted(node));
      return e / sum(e, axis_of(node), true);
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value y = node.output();
      return {y * (dy - sum(dy * y, axis_of(node), true))};
    },
    .samples = samples,
});

CHAINRULE_EARLY const BuiltinOp log_softmax_op = register_op({
    .name = "log_softmax",
    .doc = "log(softmax(x)) along an axis, stable.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = softmax_shape,
    .forward = expand([](const Node& node) -> Value {
      const Value x = shifted(node);
      return x - log(sum(exp(x), axis_of(node), true));
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {dy - exp(node.output()) * sum(dy, axis_of(node), true)};
    },
    .samples = samples,
});

}  // namespace

Value softmax(Value x, std::int64_t axis, Location at) { return apply(softmax_op, {x}, {{"axis", axis}}, at); }
Value log_softmax(Value x, std::int64_t axis, Location at) { return apply(log_softmax_op, {x}, {{"axis", axis}}, at); }

}  // namespace chainrule
