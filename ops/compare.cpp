#include <chainrule/ops/compare.hpp>

#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>

CHAINRULE_OP_FAMILY(compare)

namespace chainrule {

namespace {

Shape broadcast_all(const OpCall& call) {
  Shape shape = call.shape(0);
  for (std::size_t i = 1; i < call.size(); ++i) {
    const Shape left = shape;
    if (!broadcast(left, call.shape(i), shape))
      call.fail("shapes that broadcast", fmt::format("{} and {}", to_string(left), to_string(call.shape(i))));
  }
  return shape;
}

Type comparison_shape(const OpCall& call) {
  call.require_inputs(2);
  call.require_same_dtype();
  return {boolean, broadcast_all(call)};
}

Type logic_shape(const OpCall& call) {
  for (std::size_t i = 0; i < call.size(); ++i)
    if (call.dtype(i) != boolean) call.fail("bool inputs", name(call.dtype(i)));
  return {boolean, broadcast_all(call)};
}

Type where_shape(const OpCall& call) {
  call.require_inputs(3);
  if (call.dtype(0) != boolean) call.fail("a bool condition", name(call.dtype(0)));
  if (call.dtype(1) != call.dtype(2))
    call.fail("choices of one dtype", fmt::format("{} and {}", name(call.dtype(1)), name(call.dtype(2))));
  return {call.dtype(1), broadcast_all(call)};
}

Initial booleans() {
  Array out(boolean, Dims{3, 4});
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, i % 3 == 0 ? 1 : 0);
  return out;
}

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
CHAINRULE_EARLY const std::vector<Sample> comparison_samples = {
    {.inputs = {uniform({3, 4}, -1, 1), uniform({4}, -1, 1)}},
    {.inputs = {Array({1.0, 2.0, nan, nan, -0.0}), Array({1.0, 3.0, nan, 0.0, 0.0})}},
    {.inputs = {integers({20}, 0, 3), integers({20}, 0, 3)}},
    {.inputs = {zeros({0}), zeros({1})}},
};
CHAINRULE_EARLY const std::vector<Sample> logic_samples = {{.inputs = {booleans(), booleans()}}};

template <class F>
const Op& comparison(const char* name, const char* doc, F functor) {
  return register_op({
      .name = name,
      .doc = doc,
      .shape = comparison_shape,
      .forward = elementwise(functor),
      .samples = comparison_samples,
  });
}

CHAINRULE_EARLY const BuiltinOp less_op = comparison("less", "a < b.", [](auto a, auto b) { return a < b; });
CHAINRULE_EARLY const BuiltinOp less_equal_op =
    comparison("less_equal", "a <= b.", [](auto a, auto b) { return a <= b; });
CHAINRULE_EARLY const BuiltinOp greater_op = comparison("greater", "a > b.", [](auto a, auto b) { return a > b; });
CHAINRULE_EARLY const BuiltinOp greater_equal_op =
    comparison("greater_equal", "a >= b.", [](auto a, auto b) { return a >= b; });
CHAINRULE_EARLY const BuiltinOp equal_op = comparison("equal", "a == b.", [](auto a, auto b) { return a == b; });
CHAINRULE_EARLY const BuiltinOp not_equal_op =
    comparison("not_equal", "a != b.", [](auto a, auto b) { return a != b; });

CHAINRULE_EARLY const BuiltinOp and_op = register_op({
    .name = "logical_and",
    .doc = "a and b, of bool values.",
    .shape = logic_shape,
    .forward = elementwise([](auto a, auto b) { return a && b; }),
    .samples = logic_samples,
});

CHAINRULE_EARLY const BuiltinOp or_op = register_op({
    .name = "logical_or",
    .doc = "a or b, of bool values.",
    .shape = logic_shape,
    .forward = elementwise([](auto a, auto b) { return a || b; }),
    .samples = logic_samples,
});

CHAINRULE_EARLY const BuiltinOp not_op = register_op({
    .name = "logical_not",
    .doc = "not a, of a bool value.",
    .shape = logic_shape,
    .forward = elementwise([](auto a) { return !a; }),
    .samples = {{.inputs = {booleans()}}},
});

CHAINRULE_EARLY const BuiltinOp where_op = register_op({
    .name = "where",
    .doc = "condition ? a : b elementwise, broadcast; the gradient of the side that is not chosen is 0.",
    .shape = where_shape,
    .forward = elementwise([](auto condition, auto a, auto b) { return simd::select(condition, a, b); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {Value{}, node.wants(1) ? where(node.input(0), dy, 0.0) : Value{},
              node.wants(2) ? where(node.input(0), 0.0, dy) : Value{}};
    },
    .samples = {{.inputs = {booleans(), uniform({3, 4}), uniform({4})}},
                {.inputs = {booleans(), uniform({}), uniform({3, 1})}},
                {.inputs = {booleans(), integers({3, 4}, 0, 9), integers({1, 4}, 0, 9)}}},
});

}  // namespace

Value less(Operand a, Operand b) { return detail::apply_operands(less_op, a, b); }
Value less_equal(Operand a, Operand b) { return detail::apply_operands(less_equal_op, a, b); }
Value greater(Operand a, Operand b) { return detail::apply_operands(greater_op, a, b); }
Value greater_equal(Operand a, Operand b) { return detail::apply_operands(greater_equal_op, a, b); }
Value equal(Operand a, Operand b) { return detail::apply_operands(equal_op, a, b); }
Value not_equal(Operand a, Operand b) { return detail::apply_operands(not_equal_op, a, b); }
Value logical_and(Value a, Value b, Location at) { return apply(and_op, {a, b}, {}, at); }
Value logical_or(Value a, Value b, Location at) { return apply(or_op, {a, b}, {}, at); }
Value logical_not(Value a, Location at) { return apply(not_op, {a}, {}, at); }

namespace {

Value classified(std::string_view name, Value x, Location at, Value (*f)(Value)) {
  at = detail::scoped(at);
  if (!x.defined()) throw Error(at, name, "requires values of a graph, got an empty Value");
  if (!is_floating(x.dtype()))
    throw Error(at, name, fmt::format("requires float32 or float64, got {}", chainrule::name(x.dtype())));
  return detail::attempt(x, [&] {
    const detail::LocationScope scope(at);
    return f(x);
  });
}

constexpr double inf = std::numeric_limits<double>::infinity();

}  // namespace

Value isnan(Value x, Location at) {
  return classified("isnan", x, at, [](Value v) { return not_equal(v, v); });
}
Value isinf(Value x, Location at) {
  return classified("isinf", x, at, [](Value v) { return equal(abs(v), inf); });
}
Value isfinite(Value x, Location at) {
  return classified("isfinite", x, at, [](Value v) { return abs(v) < inf; });
}

Value where(Value condition, Operand a, Operand b) {
  if (!condition.defined()) throw Error(a.location(), "where", "requires values of a graph, got an empty Value");
  Value like = a.is_value() ? a.value() : b.value();
  return detail::attempt({condition, like}, [&] {
    // Two numbers take the graph's dtype.
    if (!a.is_value() && !b.is_value()) like = condition.graph().constant(0.0, condition.graph().dtype());
    return apply(where_op, {condition, a.resolve(like), b.resolve(like)}, {}, a.location());
  });
}

}  // namespace chainrule
