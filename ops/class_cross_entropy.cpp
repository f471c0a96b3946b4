// The cross-entropy of logits by class, each line read once.
#include <fmt/core.h>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/softmax.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/index_range.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/loss_parts.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/ops/softmax.hpp>

CHAINRULE_OP_FAMILY(class_cross_entropy)

namespace chainrule {

namespace {

using kernels::axis_of;

// Logits and an index below the extent of the axis for each line.
void require_classes(const OpCall& call) {
  call.require_floating(0);
  require_indices(call, 1);
  const std::size_t axis = axis_of(call.attributes());
  const Shape expected = detail::without_axis(call.shape(0), axis);
  if (!(call.shape(1) == expected))
    call.fail(fmt::format("class indices of shape {} for {}", to_string(expected), to_string(call.shape(0))),
              to_string(call.shape(1)));
  if (call.shape(0)[axis].is(0)) call.fail("at least one class", to_string(call.shape(0)));
}

// Where each of these is among the operands of a run.
struct Operands {
  std::optional<std::size_t> weight;
  std::optional<std::size_t> slope;
  std::size_t cost;
};

Forward kernel_of(Operands operands) {
  Forward forward;
  forward.may_throw = true;
  forward.skips_unread = operands.slope.has_value();
  forward.dtypes = Forward::Dtypes::floating;
  forward.kernel = [operands](KernelCall& call) -> KernelRun {
    const kernels::Lines lines(call.inputs[0].shape, axis_of(call.attributes));
    const IndexRange range(call, call.inputs[1].shape, lines.n, false);
    return visit_floating(call.inputs[0].dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [=](const KernelBuffers& buffers) {
        kernels::ClassCosts<T> costs;
        costs.z = static_cast<const T*>(buffers.inputs[0]);
        costs.classes = static_cast<const std::int64_t*>(buffers.inputs[1]);
        if (operands.weight) costs.weight = static_cast<const T*>(buffers.inputs[*operands.weight]);
        if (operands.slope) costs.slope = static_cast<T*>(buffers.outputs[*operands.slope]);
        costs.cost = static_cast<T*>(buffers.outputs[operands.cost]);
        range.check(costs.classes);
        kernels::class_costs(lines, costs);
      };
    });
  };
  return forward;
}

// A value for each line, with the axis as a 1.
Value with_axis(const Node& node, Value of_lines) {
  Shape shape = node.input(0).shape();
  shape[axis_of(node.attributes())] = 1;
  return reshape(of_lines, shape);
}

constexpr double inf = std::numeric_limits<double>::infinity();

CHAINRULE_EARLY const std::vector<Initial> beyond_numbers = {
    Array({{1e4, -1e4, 0.0}, {-inf, 1.0, -inf}, {3.0, 0.0, 0.0}, {-inf, -inf, -inf}}), integers({4}, 0, 3)};

// What class_cross_entropy makes of a gradient, with its cost beside it: passes/costs_with_slopes.cpp has both made by
// one node, so that a line is read once for both.
CHAINRULE_EARLY const BuiltinOp slope_op = register_op({
    .name = "class_cross_entropy_slope",
    .doc = "weight (softmax(z), less 1 for the class) along an axis, and -log softmax(z) of the class.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(3);
      require_classes(call);
      if (!(call.type(2) == Type{call.dtype(0), call.shape(1)}))
        call.fail(fmt::format("weights of {} and shape {}", name(call.dtype(0)), to_string(call.shape(1))),
                  fmt::format("{} {}", name(call.dtype(2)), to_string(call.shape(2))));
      return {call.type(0), {call.dtype(0), call.shape(1)}};
    },
    .forward = kernel_of({.weight = 2, .slope = 0, .cost = 1}),
    .gradient = [](const Node& node, const Values& dys) -> Values {
      const Value classes = node.input(1);
      const auto axis = node.attribute<std::int64_t>("axis");
      Values out(3);
      if (dys[0].defined()) {
        const Value g = dys[0];
        const Value p = softmax(node.input(0), axis);
        if (node.wants(0))
          out[0] = apply(*find_op("softmax_gradient"), {p, with_axis(node, node.input(2)) * g}, node.attributes());
        if (node.wants(2)) out[2] = sum(g * p, axis) - detail::class_elements(g, classes, axis);
      }
      if (dys[1].defined() && node.wants(0)) {
        const Value of_cost = apply_all(node.op(), {node.input(0), classes, dys[1]}, node.attributes())[0];
        out[0] = out[0].defined() ? out[0] + of_cost : of_cost;
      }
      return out;
    },
    .samples = {{.inputs = {uniform({4, 3}, -3, 3), integers({4}, 0, 3), uniform({4}, -1, 1)},
                 .attributes = {{"axis", -1}}},
                {.inputs = {uniform({3, 5}, -3, 3), integers({5}, 0, 3), uniform({5}, -1, 1)},
                 .attributes = {{"axis", 0}}},
                {.inputs = {uniform({2, 3, 2}, -3, 3), integers({2, 2}, 0, 3), uniform({2, 2}, -1, 1)},
                 .attributes = {{"axis", 1}}},
                {.inputs = {uniform({3, 9000}, -3, 3), integers({3}, 0, 9000), uniform({3}, -1, 1)},
                 .attributes = {{"axis", 1}},
                 .differentiate = false},
                {.inputs = {beyond_numbers[0], beyond_numbers[1], uniform({4}, 0.5, 1)},
                 .attributes = {{"axis", 1}},
                 .differentiate = false}},
});

CHAINRULE_EARLY const BuiltinOp class_cross_entropy_op = register_op({
    .name = "class_cross_entropy",
    .doc = "-log softmax(z) of the class of each example, along an axis.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(2);
      require_classes(call);
      return {call.dtype(0), call.shape(1)};
    },
    .forward = kernel_of({.weight = {}, .slope = {}, .cost = 0}),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {apply_all(slope_op, {node.input(0), node.input(1), dy}, node.attributes())[0], {}};
    },
    .samples = {{.inputs = {uniform({4, 3}, -3, 3), integers({4}, 0, 3)}, .attributes = {{"axis", -1}}},
                {.inputs = {uniform({3, 5}, -3, 3), integers({5}, 0, 3)}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({2, 3, 2}, -3, 3), integers({2, 2}, 0, 3)}, .attributes = {{"axis", 1}}},
                {.inputs = {uniform({3, 9000}, -3, 3), integers({3}, 0, 9000)},
                 .attributes = {{"axis", 1}},
                 .differentiate = false},
                {.inputs = {uniform({300, 70}, -3, 3), integers({70}, 0, 300)},
                 .attributes = {{"axis", 0}},
                 .differentiate = false},
                {.inputs = beyond_numbers, .attributes = {{"axis", 1}}, .differentiate = false}},
});

}  // namespace

}  // namespace chainrule
