#include <chainrule/ops/control.hpp>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/layout.hpp>

CHAINRULE_OP_FAMILY(control)

namespace chainrule {

namespace {

CHAINRULE_EARLY const BuiltinOp by_mode_op = register_op({
    .name = "by_mode",
    .doc = "The first input in training, the second in inference; with noise, as a program is asked for.",
    .attributes = {{"noise", false}},
    .shape = broadcast_shape,
    // Programs never run it: select_mode takes it out. Computed alone, it trains.
    .forward = elementwise([](auto training, auto /*inference*/) { return training; }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value zero = dy.graph().constant(0.0, dy.dtype());
      return {apply(node.op(), {dy, zero}, node.attributes()), apply(node.op(), {zero, dy}, node.attributes())};
    },
    .samples = {{.inputs = {uniform({3, 4}), uniform({4})}},
                {.inputs = {uniform({}), uniform({2, 2})}, .attributes = {{"noise", true}}}},
});

CHAINRULE_EARLY const BuiltinOp stop_gradient_op = register_op({
    .name = "stop_gradient",
    .doc = "x, as a constant to gradients.",
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      return call.type(0);
    },
    .forward = elementwise([](auto x) { return x; }),
    .gradient = [](const Node&, Value) -> Values { return {Value{}}; },
    .samples = {{.inputs = {uniform({3, 4})}, .differentiate = false}},
});

CHAINRULE_EARLY const BuiltinOp cast_op = register_op({
    .name = "cast",
    .doc = "x in another dtype.",
    .attributes = {{"dtype", AttributeType::dtype}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      return {call.attribute<DType>("dtype"), call.shape(0)};
    },
    .forward = elementwise([](auto x) { return x; }),
    .gradient = [](const Node& node, Value dy) -> Values {
      if (!is_floating(node.input(0).dtype())) return {Value{}};
      return {cast(dy, node.input(0).dtype())};
    },
    .samples = {{.inputs = {integers({3, 4}, -5, 5)}, .attributes = {{"dtype", float64}}},
                {.inputs = {integers({3, 4}, -1, 2)}, .attributes = {{"dtype", boolean}}},
                {.inputs = {uniform({3, 4}, -5, 5)}, .attributes = {{"dtype", int64}}},
                {.inputs = {uniform({3, 4}, -5, 5)}, .attributes = {{"dtype", float64}}}},
});

CHAINRULE_EARLY const BuiltinOp extent_op = register_op({
    .name = "extent",
    .doc = "The product of dimensions, as a number.",
    .attributes = {{"shape", AttributeType::shape}, {"dtype", AttributeType::dtype}},
    .shape = [](const OpCall& call) -> Type {
      const auto& shape = call.attribute<Shape>("shape");
      for (const Dimension d : shape)
        if (d.is_inferred()) call.fail("numbers and named dimensions", to_string(shape));
      return {call.attribute<DType>("dtype"), {}};
    },
    .forward =
        [] {
          Forward forward;
          forward.exact = true;
          forward.kernel = [](KernelCall& call) -> KernelRun {
            const auto number = count(evaluate(call.attributes.get<Shape>("shape"), Sizes{}));
            return visit_dtype(call.output.dtype, [&](auto t) -> KernelRun {
              if (is_integer(call.output.dtype) && !detail::keeps_meaning<decltype(t)>(number))
                throw Error(call.at, call.op,
                            fmt::format("requires a number that {} can be, got {}", name(call.output.dtype), number));
              return [value = static_cast<decltype(t)>(number)](const KernelBuffers& buffers) {
                *static_cast<decltype(t)*>(buffers.output) = value;
              };
            });
          };
          return forward;
        }(),
    .samples = {{.inputs = {}, .attributes = {{"shape", Shape{3, 4}}, {"dtype", float64}}}},
});

}  // namespace

Value by_mode(Value training, Operand inference, Location at) {
  return detail::attempt(training, [&] { return apply(by_mode_op, {training, inference.resolve(training)}, {}, at); });
}

Value stop_gradient(Value x, Location at) { return apply(stop_gradient_op, {x}, {}, at); }

Value cast(Value x, DType dtype, Location at) {
  return x.defined() && x.dtype() == dtype ? x : apply(cast_op, {x}, {{"dtype", dtype}}, at);
}

Value extent(Graph graph, const Shape& dimensions, DType dtype, Location at) {
  return apply(graph, extent_op, {}, {{"shape", dimensions}, {"dtype", dtype}}, at);
}

}  // namespace chainrule
