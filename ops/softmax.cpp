#include <chainrule/ops/softmax.hpp>

#include <algorithm>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/framework/kernels/softmax.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
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

// f(lines, x, y) for pointers to float or double.
template <class F>
Forward kernel_of(F f) {
  Forward forward;
  forward.kernel = [f](KernelCall& call) -> KernelRun {
    const kernels::Lines lines(call.output.shape, kernels::axis_of(call.attributes));
    return visit_floating(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [lines, f](const KernelBuffers& buffers) {
        f(lines, static_cast<const T*>(buffers.inputs[0]), static_cast<T*>(buffers.output));
      };
    });
  };
  return forward;
}

CHAINRULE_EARLY const std::vector<Sample> samples = {
    {.inputs = {uniform({3, 4}, -3, 3)}, .attributes = {{"axis", -1}}},
    {.inputs = {uniform({3, 4}, -3, 3)}, .attributes = {{"axis", 0}}},
    {.inputs = {uniform({2, 3, 2}, -3, 3)}, .attributes = {{"axis", 1}}},
    {.inputs = {uniform({4, 1}, -3, 3)}, .attributes = {{"axis", 1}}},
    {.inputs = {Array({{1e4, -1e4, 0.0}, {-1e4, -1e4, -1e4}})}, .attributes = {{"axis", 1}}, .differentiate = false},
    {.inputs = {uniform({2, 9000}, -9, 9)}, .attributes = {{"axis", 1}}, .differentiate = false},
    {.inputs = {uniform({150, 67}, -9, 9)}, .attributes = {{"axis", 0}}, .differentiate = false},
    {.inputs = {Array({-std::numeric_limits<double>::infinity(), 0.0, 1.0})},
     .attributes = {{"axis", 0}},
     .differentiate = false},
};

// Elements of a part for a thread, about, and columns of it.
constexpr std::int64_t part_elements = 16'384;
constexpr std::int64_t part_columns = 256;

template <class T>
void run_gradient(const kernels::Lines& lines, const T* y, const T* dy, T* dx) {
  const auto& table = kernels::table<T>();
  const auto n = static_cast<std::size_t>(lines.n);
  const auto lines_of_part = [&](std::int64_t columns) {
    return std::max<std::int64_t>(1, part_elements / std::max<std::int64_t>(1, lines.n * columns));
  };
  if (lines.inner == 1) {
    parallel_for(lines.outer, lines_of_part(1), [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t first = begin * lines.n;
      table.softmax_gradient_lines(y + first, dy + first, static_cast<std::size_t>(end - begin), n, dx + first);
    });
    return;
  }
  const std::int64_t columns = std::min(lines.inner, part_columns);
  const std::int64_t stripes = (lines.inner + part_columns - 1) / part_columns;
  parallel_for(lines.outer * stripes, lines_of_part(columns), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t column = i % stripes * part_columns;
      const std::int64_t first = i / stripes * lines.n * lines.inner + column;
      table.softmax_gradient_rows(y + first, dy + first, static_cast<std::size_t>(lines.inner), n,
                                  static_cast<std::size_t>(std::min(part_columns, lines.inner - column)), dx + first);
    }
  });
}

Forward gradient_kernel() {
  Forward forward;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const kernels::Lines lines(call.output.shape, kernels::axis_of(call.attributes));
    return visit_floating(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [lines](const KernelBuffers& buffers) {
        run_gradient(lines, static_cast<const T*>(buffers.inputs[0]), static_cast<const T*>(buffers.inputs[1]),
                     static_cast<T*>(buffers.output));
      };
    });
  };
  forward.adds_to = 1;  // dx in the memory of dy, which is read before it
  return forward;
}

// A kernel that reads and writes each line once. As a sum and what is made with it the lines would be read twice, and
// short ones one by one.
CHAINRULE_EARLY const BuiltinOp softmax_gradient_op = register_op({
    .name = "softmax_gradient",
    .doc = "y (dy - sum(y dy)) along an axis: what a softmax of value y makes of a gradient dy.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(2);
      call.require_floating(0);
      call.require_same_dtype();
      if (!(call.shape(1) == call.shape(0))) call.fail(to_string(call.shape(0)), to_string(call.shape(1)));
      return call.type(0);
    },
    .forward = gradient_kernel(),
    .gradient = [](const Node& node, Value g) -> Values {
      const Value y = node.input(0);
      const Value dy = node.input(1);
      const std::int64_t axis = axis_of(node);
      Values out(2);
      if (node.wants(0)) out[0] = g * (dy - sum(y * dy, axis, true)) - dy * sum(g * y, axis, true);
      if (node.wants(1)) out[1] = apply(node.op(), {y, g}, node.attributes());
      return out;
    },
    .samples = {{.inputs = {uniform({3, 4}, 0.1, 1), uniform({3, 4}, -2, 2)}, .attributes = {{"axis", -1}}},
                {.inputs = {uniform({3, 4}, 0.1, 1), uniform({3, 4}, -2, 2)}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({2, 3, 2}, -1, 1), uniform({2, 3, 2}, -2, 2)}, .attributes = {{"axis", 1}}},
                {.inputs = {uniform({37, 19}, 0, 1), uniform({37, 19}, -2, 2)},
                 .attributes = {{"axis", 1}},
                 .differentiate = false},
                {.inputs = {uniform({300, 21}, 0, 1), uniform({300, 21}, -2, 2)},
                 .attributes = {{"axis", 0}},
                 .differentiate = false}},
});

CHAINRULE_EARLY const BuiltinOp softmax_op = register_op({
    .name = "softmax",
    .doc = "exp(x) / sum(exp(x)) along an axis.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = softmax_shape,
    .forward = kernel_of([]<class T>(const kernels::Lines& lines, const T* x, T* y) { kernels::softmax(lines, x, y); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {apply(softmax_gradient_op, {node.output(), dy}, node.attributes())};
    },
    .samples = samples,
});

CHAINRULE_EARLY const BuiltinOp log_softmax_op = register_op({
    .name = "log_softmax",
    .doc = "log(softmax(x)) along an axis, stable.",
    .attributes = {{"axis", AttributeType::axis, -1}},
    .shape = softmax_shape,
    .forward =
        kernel_of([]<class T>(const kernels::Lines& lines, const T* x, T* y) { kernels::log_softmax(lines, x, y); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {dy - exp(node.output()) * sum(dy, axis_of(node), true)};
    },
    .samples = samples,
});

}  // namespace

Value softmax(Value x, std::int64_t axis, Location at) { return apply(softmax_op, {x}, {{"axis", axis}}, at); }
Value log_softmax(Value x, std::int64_t axis, Location at) { return apply(log_softmax_op, {x}, {{"axis", axis}}, at); }

}  // namespace chainrule
