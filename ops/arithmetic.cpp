#include <chainrule/ops/arithmetic.hpp>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>

CHAINRULE_OP_FAMILY(arithmetic)

namespace chainrule {

namespace {

// Broadcast inputs of one dtype, integers included.
Type number_shape(const OpCall& call) {
  call.require_same_dtype();
  if (!is_integer(call.dtype(0))) return broadcast_shape(call);
  Shape shape = call.shape(0);
  for (std::size_t i = 1; i < call.size(); ++i) {
    const Shape left = shape;
    if (!broadcast(left, call.shape(i), shape))
      call.fail("shapes that broadcast", fmt::format("{} and {}", to_string(left), to_string(call.shape(i))));
  }
  return {call.dtype(0), shape};
}

CHAINRULE_EARLY const Sample matrix_and_row{.inputs = {uniform({3, 4}, -2, 2), uniform({4}, 1, 3)}};
CHAINRULE_EARLY const Sample column_and_row{.inputs = {uniform({3, 1}, -2, 2), uniform({1, 4}, -3, -1)}};
CHAINRULE_EARLY const Sample matrix_and_scalar{.inputs = {uniform({2, 3}, -2, 2), uniform({}, 1, 2)}};
CHAINRULE_EARLY const Sample empty{.inputs = {zeros({0, 3}), zeros({1, 3})}};
CHAINRULE_EARLY const Sample whole{.inputs = {integers({5}, -9, 9), integers({5}, 1, 9)}};

CHAINRULE_EARLY const BuiltinOp add_op = register_op({
    .name = "add",
    .doc = "a + b, broadcast.",
    .shape = number_shape,
    .forward = elementwise([](auto a, auto b) { return a + b; }),
    .gradient = [](const Node&, Value dy) -> Values {
      return {dy, dy};
    },
    .samples = {matrix_and_row, column_and_row, matrix_and_scalar, empty, whole},
});

CHAINRULE_EARLY const BuiltinOp sub_op = register_op({
    .name = "sub",
    .doc = "a - b, broadcast.",
    .shape = number_shape,
    .forward = elementwise([](auto a, auto b) { return a - b; }),
    .gradient = [](const Node&, Value dy) -> Values {
      return {dy, -dy};
    },
    .samples = {matrix_and_row, column_and_row, matrix_and_scalar, empty, whole},
});

CHAINRULE_EARLY const BuiltinOp mul_op = register_op({
    .name = "mul",
    .doc = "a * b elementwise, broadcast.",
    .shape = number_shape,
    .forward = elementwise([](auto a, auto b) { return a * b; }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {node.wants(0) ? dy * node.input(1) : Value{}, node.wants(1) ? dy * node.input(0) : Value{}};
    },
    .samples = {matrix_and_row, column_and_row, matrix_and_scalar, empty, whole},
});

CHAINRULE_EARLY const BuiltinOp div_op = register_op({
    .name = "div",
    .doc = "a / b elementwise, broadcast.",
    .shape = broadcast_shape,
    .forward = elementwise([](auto a, auto b) { return a / b; }),
    .gradient = [](const Node& node, Value dy) -> Values {
      // dy y / b, not (dy / b) y: where b is tiny dy / b may be infinite, and y 0.
      return {node.wants(0) ? dy / node.input(1) : Value{},
              node.wants(1) ? -(dy * node.output()) / node.input(1) : Value{}};
    },
    .samples = {matrix_and_row, column_and_row, matrix_and_scalar, empty},
});

CHAINRULE_EARLY const BuiltinOp neg_op = register_op({
    .name = "neg",
    .doc = "-x.",
    .shape = number_shape,
    .forward = elementwise([](auto x) { return -x; }),
    .gradient = [](const Node&, Value dy) -> Values { return {-dy}; },
    .samples = {{.inputs = {uniform({3, 4}, -2, 2)}}, {.inputs = {zeros({0})}}, {.inputs = {integers({4}, -9, 9)}}},
});

// dy to the side that `wins`, half to each where both are equal.
Values to_winner(const Node& node, Value dy, Value wins) {
  const Value half = where(equal(node.input(0), node.input(1)), 0.5 * dy, 0.0);
  return {where(wins, dy, half), where(logical_or(wins, equal(node.input(0), node.input(1))), half, dy)};
}

CHAINRULE_EARLY const std::vector<Sample> extremum_samples = {
    matrix_and_row,
    column_and_row,
    {.inputs = {uniform({2, 3}, -1, 1), uniform({2, 3}, -1, 1)}},
    {.inputs = {Array({1.0, -2.0, 0.0}), Array({1.0, -2.0, 0.0})}, .differentiate = false},  // ties
};

CHAINRULE_EARLY const BuiltinOp maximum_op = register_op({
    .name = "maximum",
    .doc = "max(a, b) elementwise, broadcast; NaN if either is. Ties share the gradient equally.",
    .shape = number_shape,
    .forward = elementwise([](auto a, auto b) { return simd::max(a, b); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return to_winner(node, dy, greater(node.input(0), node.input(1)));
    },
    .samples = extremum_samples,
});

CHAINRULE_EARLY const BuiltinOp minimum_op = register_op({
    .name = "minimum",
    .doc = "min(a, b) elementwise, broadcast; NaN if either is. Ties share the gradient equally.",
    .shape = number_shape,
    .forward = elementwise([](auto a, auto b) { return simd::min(a, b); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return to_winner(node, dy, less(node.input(0), node.input(1)));
    },
    .samples = extremum_samples,
});

CHAINRULE_EARLY const BuiltinOp pow_op = register_op({
    .name = "pow",
    .doc = "a to the power of b elementwise, broadcast; d/da = b a^(b-1), d/db = a^b log a.",
    .shape = broadcast_shape,
    .forward = elementwise([](auto a, auto b) { return simd::pow(a, b); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value a = node.input(0);
      const Value b = node.input(1);
      Values out(2);
      // Where a factor is 0 the base of the other is kept away from 0, and the product is as it stands: so its
      // derivatives, to any order, are those of the power.
      if (node.wants(0)) {
        const Value base = where(equal(b, 0.0), where(equal(a, 0.0), 1.0, a), a);
        out[0] = dy * (b * pow(base, b - 1.0));
      }
      if (node.wants(1)) {
        const Value at_zero = logical_and(equal(a, 0.0), greater_equal(b, 0.0));
        out[1] = dy * (node.output() * log(where(at_zero, 1.0, a)));
      }
      return out;
    },
    .samples = {{.inputs = {uniform({3, 4}, 0.5, 2), uniform({4}, -2, 2)}},
                {.inputs = {Array({0.5, 1.5, 2.0, 0.7}), Array({{0.0}, {1.0}, {2.0}, {0.5}, {-1.0}})}},
                {.inputs = {uniform({5}, -2, 2), Array(3.0)}, .differentiate = false},
                {.inputs = {Array({0.0, -0.0, 2.0, -2.0}), Array({{0.0}, {1.0}, {2.0}, {3.0}, {0.5}, {-0.5}, {-1.0}})},
                 .differentiate = false}},
});

}  // namespace

Value detail::apply_operands(const Op& op, const Operand& a, const Operand& b) {
  if (!a.is_value() && !b.is_value())
    throw Error(
        a.location(), op.name,
        fmt::format("requires a value of a graph among its operands, got {} and {}{}", a.describe(), b.describe(),
                    a.is_dimension() || b.is_dimension() ? "; extent() makes a value of a dimension" : ""));
  const Value like = a.is_value() ? a.value() : b.value();
  if (!like.defined()) throw Error(a.location(), op.name, "requires values of a graph, got an empty Value");
  return attempt(like, [&] { return apply(op, {a.resolve(like), b.resolve(like)}, {}, a.location()); });
}

Value add(Operand a, Operand b) { return detail::apply_operands(add_op, a, b); }
Value sub(Operand a, Operand b) { return detail::apply_operands(sub_op, a, b); }
Value mul(Operand a, Operand b) { return detail::apply_operands(mul_op, a, b); }
Value div(Operand a, Operand b) { return detail::apply_operands(div_op, a, b); }
Value maximum(Operand a, Operand b) { return detail::apply_operands(maximum_op, a, b); }
Value minimum(Operand a, Operand b) { return detail::apply_operands(minimum_op, a, b); }
Value pow(Operand a, Operand b) { return detail::apply_operands(pow_op, a, b); }
Value neg(Operand x) {
  if (!x.is_value())
    throw Error(x.location(), neg_op->name, fmt::format("requires a value of a graph, got {}", x.describe()));
  return apply(neg_op, {x.value()}, {}, x.location());
}

}  // namespace chainrule
