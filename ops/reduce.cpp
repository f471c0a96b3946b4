#include <chainrule/ops/reduce.hpp>

#include <algorithm>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/framework/kernels/reduce.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>

CHAINRULE_OP_FAMILY(reduce)

namespace chainrule {

namespace {

// ---- shapes

// Whether each axis of an input of this rank is reduced.
std::vector<char> reduced_axes(std::size_t rank, const Attributes& attributes) {
  std::vector<char> reduced(rank, 0);
  for (const auto a : attributes.get<Axes>("axes")) reduced[static_cast<std::size_t>(a)] = 1;
  return reduced;
}

Type reduced_shape(const OpCall& call) {
  call.require_inputs(1);
  if (call.dtype(0) == boolean) call.fail("a number", "bool (cast it first)");
  const auto reduced = reduced_axes(call.shape(0).rank(), call.attributes());
  const bool keepdims = call.attribute<bool>("keepdims");
  Type out{call.dtype(0), {}};
  for (std::size_t i = 0; i < reduced.size(); ++i) {
    if (!reduced[i]) out.shape.push_back(call.shape(0)[i]);
    if (reduced[i] && keepdims) out.shape.push_back(1);
  }
  return out;
}

// Of integers int64, as NumPy's: what few bits hold soon overflow.
Type sum_shape(const OpCall& call) {
  Type out = reduced_shape(call);
  if (is_integer(out.dtype)) out.dtype = int64;
  return out;
}

Type floating_reduced_shape(const OpCall& call) {
  call.require_inputs(1);
  call.require_floating(0);
  return reduced_shape(call);
}

Type extremum_shape(const OpCall& call) {
  const Type out = reduced_shape(call);
  const auto reduced = reduced_axes(call.shape(0).rank(), call.attributes());
  for (std::size_t i = 0; i < reduced.size(); ++i)
    if (reduced[i] && call.shape(0)[i].is(0)) call.fail("at least one element", to_string(call.shape(0)));
  return out;
}

// The gradient or result of a reduction, with the reduced axes back as 1s so that it broadcasts against the input.
Value keep(const Node& node, Value reduced) {
  if (node.attribute<bool>("keepdims")) return reduced;
  Shape shape = node.input(0).shape();
  for (const auto a : node.attribute<Axes>("axes")) shape[static_cast<std::size_t>(a)] = 1;
  return reshape(reduced, shape);
}

Shape reduced_part(const Node& node) {
  Shape shape;
  const Shape& from = node.input(0).shape();
  for (const auto a : node.attribute<Axes>("axes")) shape.push_back(from[static_cast<std::size_t>(a)]);
  return shape;
}

// ---- kernels

Forward reduction(kernels::Reduction kind) {
  Forward forward;
  forward.kernel = [kind](KernelCall& call) -> KernelRun {
    const auto reduced = reduced_axes(call.inputs[0].shape.rank(), call.attributes);
    if (kind != kernels::Reduction::sum)
      for (std::size_t i = 0; i < reduced.size(); ++i)
        if (reduced[i] && call.inputs[0].shape[i] == 0)
          throw Error(call.at, call.op,
                      fmt::format("requires at least one element, got {}", to_string(call.inputs[0].shape)));
    return kernels::make_reduction(kind, call.inputs[0].dtype, call.inputs[0].shape, reduced, call.workspace);
  };
  forward.sum = kind == kernels::Reduction::sum;
  forward.exact = !forward.sum;
  return forward;
}

Forward argmax_kernel() {
  Forward forward;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const Dims& shape = call.inputs[0].shape;
    const kernels::Lines lines(shape, kernels::axis_of(call.attributes));
    if (lines.n == 0)
      throw Error(call.at, call.op, fmt::format("requires at least one element, got {}", to_string(shape)));
    return kernels::make_argmax(call.inputs[0].dtype, lines, call.workspace);
  };
  return forward;
}

// ---- ops

CHAINRULE_EARLY const DeclaredAttributes reduction_attributes = {{"axes", AttributeType::axes}, {"keepdims", false}};

std::vector<Sample> reduction_samples(bool empty) {
  std::vector<Sample> samples = {
      {.inputs = {uniform({3, 4}, -2, 2)}, .attributes = {{"axes", Axes{0, 1}}, {"keepdims", false}}},
      {.inputs = {uniform({3, 4}, -2, 2)}, .attributes = {{"axes", Axes{0}}, {"keepdims", true}}},
      {.inputs = {uniform({3, 4}, -2, 2)}, .attributes = {{"axes", Axes{-1}}, {"keepdims", false}}},
      {.inputs = {uniform({2, 3, 4, 2}, -2, 2)}, .attributes = {{"axes", Axes{0, 2}}, {"keepdims", false}}},
      {.inputs = {uniform({2, 3, 4}, -2, 2)}, .attributes = {{"axes", Axes{1}}, {"keepdims", true}}},
      {.inputs = {uniform({}, -2, 2)}, .attributes = {{"axes", Axes{}}, {"keepdims", false}}},
      {.inputs = {uniform({37, 41}, -2, 2)},
       .attributes = {{"axes", Axes{1}}, {"keepdims", false}},
       .differentiate = false},
      {.inputs = {uniform({300, 5}, -2, 2)},
       .attributes = {{"axes", Axes{0}}, {"keepdims", false}},
       .differentiate = false},
      {.inputs = {Array({1.0, std::numeric_limits<double>::quiet_NaN(), -1.0, 7.0, 2.0, 3.0, 4.0, 5.0, 6.0})},
       .attributes = {{"axes", Axes{0}}, {"keepdims", false}},
       .differentiate = false},
  };
  if (empty) {
    samples.push_back({.inputs = {zeros({0, 3})}, .attributes = {{"axes", Axes{0}}, {"keepdims", false}}});
    samples.push_back({.inputs = {zeros({2, 0})}, .attributes = {{"axes", Axes{0}}, {"keepdims", true}}});
  }
  return samples;
}

CHAINRULE_EARLY const BuiltinOp sum_op = register_op({
    .name = "sum",
    .doc = "The sum over axes; floating sums are made pairwise in blocks, those of integers are int64.",
    .attributes = reduction_attributes,
    .shape = sum_shape,
    .forward = reduction(kernels::Reduction::sum),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {broadcast_to(keep(node, dy), node.input(0).shape())};
    },
    .samples = reduction_samples(true),
});

CHAINRULE_EARLY const BuiltinOp mean_op = register_op({
    .name = "mean",
    .doc = "The sum over axes divided by the number of elements.",
    .attributes = reduction_attributes,
    .shape = floating_reduced_shape,
    .forward = expand([](const Node& node) -> Value {
      const Value total = apply(sum_op, {node.input(0)}, node.attributes());  // sum() takes no axes for all of them
      return total / extent(node.input(0).graph(), reduced_part(node), node.dtype());
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value share = dy / extent(dy.graph(), reduced_part(node), node.dtype());
      return {broadcast_to(keep(node, share), node.input(0).shape())};
    },
    .samples = reduction_samples(false),
});

// Two means, which fuse with what x is made by and with each other's readers: of a kernel of its own, which would read
// x once, x would have to be stored first.
CHAINRULE_EARLY const BuiltinOp moments_op = register_op({
    .name = "moments",
    .doc = "The mean over axes, and the mean of the squared distances from it.",
    .attributes = reduction_attributes,
    .shape = [](const OpCall& call) -> Types {
      const Type out = floating_reduced_shape(call);
      return {out, out};
    },
    .forward = expand([](const Node& node) -> Values {
      const Value x = node.input(0);
      const Attributes kept = node.attributes().with("keepdims", true);
      const Value center = apply(mean_op, {x}, kept);
      const Value variance = apply(mean_op, {square(x - center)}, kept);
      return {reshape(center, node.shape()), reshape(variance, node.shape())};
    }),
    .gradient = [](const Node& node, const Values& dys) -> Values {
      const Value x = node.input(0);
      const Value n = extent(x.graph(), reduced_part(node), x.dtype());
      Value dx;
      if (dys[0].defined()) dx = broadcast_to(keep(node, dys[0] / n), x.shape());
      if (dys[1].defined()) {
        const Value of_variance = (x - keep(node, node.output(0))) * keep(node, 2.0 * dys[1] / n);
        dx = dx.defined() ? dx + of_variance : of_variance;
      }
      return {dx};
    },
    .samples = reduction_samples(false),
});

// dy shared equally among the elements equal to the extremum.
Values to_extrema(const Node& node, Value dy) {
  const AxisList axes(node.attribute<Axes>("axes"));
  const Value x = node.input(0);
  const Value hit = cast(equal(x, keep(node, node.output())), x.dtype());
  return {hit * (keep(node, dy) / (axes.empty() ? hit : sum(hit, axes, true)))};
}

CHAINRULE_EARLY const BuiltinOp max_op = register_op({
    .name = "max",
    .doc = "The greatest element over axes; ties share the gradient equally.",
    .attributes = reduction_attributes,
    .shape = extremum_shape,
    .forward = reduction(kernels::Reduction::max),
    .gradient = to_extrema,
    .samples = reduction_samples(false),
});

CHAINRULE_EARLY const BuiltinOp min_op = register_op({
    .name = "min",
    .doc = "The least element over axes; ties share the gradient equally.",
    .attributes = reduction_attributes,
    .shape = extremum_shape,
    .forward = reduction(kernels::Reduction::min),
    .gradient = to_extrema,
    .samples = reduction_samples(false),
});

CHAINRULE_EARLY const BuiltinOp argmax_op = register_op({
    .name = "argmax",
    .doc = "The index of the first greatest element along an axis.",
    .attributes = {{"axis", AttributeType::axis}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      Type out{int64, {}};
      const auto axis = static_cast<std::size_t>(call.attribute<std::int64_t>("axis"));
      for (std::size_t i = 0; i < call.shape(0).rank(); ++i)
        if (i != axis) out.shape.push_back(call.shape(0)[i]);
      return out;
    },
    .forward = argmax_kernel(),
    .samples = {{.inputs = {uniform({3, 4})}, .attributes = {{"axis", std::int64_t{1}}}},
                {.inputs = {uniform({3, 4, 2})}, .attributes = {{"axis", std::int64_t{0}}}},
                {.inputs = {integers({30}, 0, 3)}, .attributes = {{"axis", std::int64_t{0}}}}},
});

// The axes in order, all of them where none is given.
Axes sorted_axes(const Op& op, Value x, const AxisList& axes, Location at) {
  Axes list = axes.list();
  if (list.empty())
    for (std::size_t i = 0; i < x.rank(); ++i) list.push_back(static_cast<std::int64_t>(i));
  for (auto& axis : list) axis = static_cast<std::int64_t>(normalize_axis(axis, x.rank(), op.name, at));
  std::sort(list.begin(), list.end());
  return list;
}

Value reduce(const Op& op, Value x, const AxisList& axes, bool keepdims, Location at) {
  const Axes list = x.defined() ? sorted_axes(op, x, axes, at) : axes.list();
  return apply(op, {x}, {{"axes", list}, {"keepdims", keepdims}}, at);
}

}  // namespace

Value sum(Value x, const AxisList& axes, bool keepdims, Location at) { return reduce(sum_op, x, axes, keepdims, at); }
Value mean(Value x, const AxisList& axes, bool keepdims, Location at) { return reduce(mean_op, x, axes, keepdims, at); }
Moments moments(Value x, const AxisList& axes, bool keepdims, Location at) {
  const Value first = reduce(moments_op, x, axes, keepdims, at);
  return {first, first.node().output(1)};
}
Value max(Value x, const AxisList& axes, bool keepdims, Location at) { return reduce(max_op, x, axes, keepdims, at); }
Value min(Value x, const AxisList& axes, bool keepdims, Location at) { return reduce(min_op, x, axes, keepdims, at); }
Value argmax(Value x, const AxisList& axes, bool keepdims, Location at) {
  if (!x.defined()) throw Error(at, argmax_op->name, "requires values of a graph, got an empty Value");
  const Axes list = sorted_axes(argmax_op, x, axes, at);
  if (std::adjacent_find(list.begin(), list.end()) != list.end())
    throw Error(at, argmax_op->name, fmt::format("requires each axis once, got {}", Attribute(list).to_string()));
  // The op has one axis: the last, onto which those that are reduced are moved and joined.
  const auto is_reduced = [&](std::size_t i) {
    return std::binary_search(list.begin(), list.end(), static_cast<std::int64_t>(i));
  };
  Axes order;
  Shape joined;
  Shape out;
  Dimension length = 1;
  for (std::size_t i = 0; i < x.rank(); ++i) {
    if (is_reduced(i)) {
      length = length * x.shape()[i];
      if (keepdims) out.push_back(1);
    } else {
      order.push_back(static_cast<std::int64_t>(i));
      joined.push_back(x.shape()[i]);
      out.push_back(x.shape()[i]);
    }
  }
  if (list.size() == 1 && !keepdims) return apply(argmax_op, {x}, {{"axis", list[0]}}, at);
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(x, [&] {
    if (list.size() == 1) return reshape(apply(argmax_op, {x}, {{"axis", list[0]}}), out);
    order.insert(order.end(), list.begin(), list.end());
    joined.push_back(length);
    const auto last = static_cast<std::int64_t>(joined.rank()) - 1;
    return reshape(apply(argmax_op, {reshape(transpose(x, order), joined)}, {{"axis", last}}), out);
  });
}

}  // namespace chainrule
