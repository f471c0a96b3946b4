#include <chainrule/ops/layout.hpp>

#include <algorithm>
#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/copy.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/ops/arithmetic.hpp>

CHAINRULE_OP_FAMILY(layout)

namespace chainrule {

namespace {

// ---- reshape

Type reshape_shape(const OpCall& call) {
  call.require_inputs(1);
  const Shape& from = call.shape(0);
  Shape to = call.attribute<Shape>("shape");
  std::size_t inferred = to.rank();
  Dimension known = 1;
  for (std::size_t i = 0; i < to.rank(); ++i) {
    if (!to[i].is_inferred()) {
      known = known * to[i];
    } else if (inferred < to.rank()) {
      call.fail("at most one extent of -1", to_string(to));
    } else {
      inferred = i;
    }
  }
  if (inferred < to.rank()) {
    if (known.is(0)) call.fail("an extent that -1 can be worked out from", to_string(to));
    to[inferred] = floor_divide(count(from), known);
  }
  if (!(count(to) == count(from)))
    call.fail(fmt::format("a shape of {} elements as {}", count(from).to_string(), to_string(from)),
              to_string(call.attribute<Shape>("shape")));
  return {call.dtype(0), to};
}

CHAINRULE_EARLY const BuiltinOp reshape_op = register_op({
    .name = "reshape",
    .doc = "The same elements under another shape.",
    .attributes = {{"shape", AttributeType::shape}},
    .shape = reshape_shape,
    .forward = kernels::copy_elements(),
    .gradient = [](const Node& node, Value dy) -> Values { return {reshape(dy, node.input(0).shape())}; },
    .samples = {{.inputs = {uniform({3, 4})}, .attributes = {{"shape", Shape{2, 6}}}},
                {.inputs = {uniform({3, 4})}, .attributes = {{"shape", Shape{-1}}}},
                {.inputs = {uniform({})}, .attributes = {{"shape", Shape{1, 1}}}},
                {.inputs = {integers({0, 3}, 0, 9)}, .attributes = {{"shape", Shape{3, 0}}}}},
});

// ---- transpose

Axes inverse(const Axes& permutation) {
  Axes out(permutation.size());
  for (std::size_t i = 0; i < permutation.size(); ++i)
    out[static_cast<std::size_t>(permutation[i])] = static_cast<std::int64_t>(i);
  return out;
}

CHAINRULE_EARLY const BuiltinOp transpose_op = register_op({
    .name = "transpose",
    .doc = "The axes in another order.",
    .attributes = {{"permutation", AttributeType::permutation}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      Type out{call.dtype(0), {}};
      for (const auto axis : call.attribute<Axes>("permutation"))
        out.shape.push_back(call.shape(0)[static_cast<std::size_t>(axis)]);
      return out;
    },
    .forward = kernels::strided_copy([](const KernelCall& call) {
      const Dims strides = row_major_strides(call.inputs[0].shape);
      kernels::Strided view{0, {}};
      for (const auto axis : call.attributes.get<Axes>("permutation"))
        view.strides.push_back(strides[static_cast<std::size_t>(axis)]);
      return view;
    }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {transpose(dy, inverse(node.attribute<Axes>("permutation")))};
    },
    .samples = {{.inputs = {uniform({3, 4})}, .attributes = {{"permutation", Axes{1, 0}}}},
                {.inputs = {uniform({2, 3, 4})}, .attributes = {{"permutation", Axes{2, 0, 1}}}},
                {.inputs = {uniform({37, 70})}, .attributes = {{"permutation", Axes{1, 0}}}, .differentiate = false},
                {.inputs = {uniform({})}, .attributes = {{"permutation", Axes{}}}},
                {.inputs = {zeros({0, 2})}, .attributes = {{"permutation", Axes{1, 0}}}}},
});

// ---- broadcast_to

CHAINRULE_EARLY const BuiltinOp broadcast_to_op = register_op({
    .name = "broadcast_to",
    .doc = "x read as a larger shape by the broadcasting rule.",
    .attributes = {{"shape", AttributeType::shape}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      const auto& to = call.attribute<Shape>("shape");
      Shape both;
      if (!broadcast(call.shape(0), to, both) || !(both == to))
        call.fail(fmt::format("a shape that broadcasts to {}", to_string(to)), to_string(call.shape(0)));
      return {call.dtype(0), to};
    },
    .forward = elementwise([](auto x) { return x; }),
    .gradient = [](const Node&, Value dy) -> Values { return {dy}; },  // summed back to x's shape by gradients()
    .samples = {{.inputs = {uniform({3, 1})}, .attributes = {{"shape", Shape{2, 3, 4}}}},
                {.inputs = {uniform({})}, .attributes = {{"shape", Shape{3}}}},
                {.inputs = {uniform({1, 3})}, .attributes = {{"shape", Shape{0, 3}}}},
                {.inputs = {uniform({3, 4})}, .attributes = {{"shape", Shape{3, 4}}}}},
});

// ---- slice and its adjoint

Dimension dimension_of(const Attributes& attributes, std::string_view name) { return attributes.get<Shape>(name)[0]; }

using kernels::axis_of;

Attributes slice_attributes(std::size_t axis, Dimension start, Dimension size, std::int64_t step) {
  return {{"axis", axis}, {"start", Shape{start}}, {"size", Shape{size}}, {"step", step}};
}

// What is wrong with a slice of an axis of this extent, or nothing: its first and last element must lie in it.
std::string misfit(const Attributes& attributes, std::int64_t whole) {
  const std::int64_t start = dimension_of(attributes, "start").extent();
  const std::int64_t size = dimension_of(attributes, "size").extent();
  const auto step = attributes.get<std::int64_t>("step");
  const auto beyond = [&] { return step > 0 ? (whole - 1 - start) / step : step < 0 ? -(start / step) : 0; };
  if (size == 0 || (start < whole && size - 1 <= beyond())) return {};
  return fmt::format("{} elements from {} on in steps of {} of {}", size, start, step, whole);
}

// A slice of this extent of an axis of the whole array. Between numbers it is known now whether that fits.
void require_within(const OpCall& call, Dimension whole, Dimension part) {
  const Attributes& attributes = call.attributes();
  const Dimension size = dimension_of(attributes, "size");
  if (!(part == size)) call.fail(fmt::format("an extent of {}", size.to_string()), part.to_string());
  if (!whole.is_number() || !size.is_number() || !dimension_of(attributes, "start").is_number()) return;
  if (const std::string wrong = misfit(attributes, whole.extent()); !wrong.empty())
    call.fail("a slice within its axis", wrong);
}

// Where element 0 of the slice lies in the whole array, and the strides with which it goes on.
kernels::Strided slice_view(const KernelCall& call, const Dims& whole) {
  const std::size_t axis = axis_of(call.attributes);
  if (const std::string wrong = misfit(call.attributes, whole[axis]); !wrong.empty())
    throw Error(call.at, call.op, fmt::format("requires a slice within its axis, got {}", wrong));
  kernels::Strided view{0, row_major_strides(whole)};
  std::int64_t below = 1;
  for (std::size_t i = axis + 1; i < whole.rank(); ++i) below *= whole[i];
  view.offset = dimension_of(call.attributes, "start").extent() * below;
  // Of one element no step is made, however long it is.
  view.strides[axis] =
      dimension_of(call.attributes, "size").extent() > 1 ? call.attributes.get<std::int64_t>("step") * below : 0;
  return view;
}

CHAINRULE_EARLY const DeclaredAttributes slice_declaration = {{"axis", AttributeType::axis},
                                                              {"start", AttributeType::extent},
                                                              {"size", AttributeType::extent},
                                                              {"step", std::int64_t{1}}};

CHAINRULE_EARLY const BuiltinOp slice_op = register_op({
    .name = "slice",
    .doc = "Every step-th element from start along an axis, size of them.",
    .attributes = slice_declaration,
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      Type out = call.type(0);
      Dimension& extent = out.shape[axis_of(call.attributes())];
      const Dimension size = dimension_of(call.attributes(), "size");
      require_within(call, extent, size);
      extent = size;
      return out;
    },
    .forward = kernels::strided_copy([](const KernelCall& call) { return slice_view(call, call.inputs[0].shape); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Op& scatter = *find_op("slice_scatter");
      const Dimension whole = node.input(0).shape()[axis_of(node.attributes())];
      return {apply(scatter, {dy}, node.attributes().with("whole", Shape{whole}))};
    },
    .samples = {{.inputs = {uniform({5, 3})}, .attributes = slice_attributes(0, 1, 3, 1)},
                {.inputs = {uniform({2, 7})}, .attributes = slice_attributes(1, 0, 3, 2)},
                {.inputs = {uniform({2, 4, 3})}, .attributes = slice_attributes(1, 3, 4, -1)},
                {.inputs = {uniform({4, 1})}, .attributes = slice_attributes(0, 2, 0, 1)}},
});

CHAINRULE_EARLY const BuiltinOp slice_scatter_op = register_op({
    .name = "slice_scatter",
    .doc = "Zeros with the input at the places of a slice: the adjoint of slice.",
    .attributes = {{"axis", AttributeType::axis},
                   {"start", AttributeType::extent},
                   {"size", AttributeType::extent},
                   {"step", std::int64_t{1}},
                   {"whole", AttributeType::extent}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      Type out = call.type(0);
      Dimension& extent = out.shape[axis_of(call.attributes())];
      const Dimension whole = dimension_of(call.attributes(), "whole");
      require_within(call, whole, extent);
      extent = whole;
      return out;
    },
    .forward = kernels::strided_scatter([](const KernelCall& call) { return slice_view(call, call.output.shape); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Attributes& a = node.attributes();
      return {apply(slice_op, {dy},
                    slice_attributes(axis_of(a), dimension_of(a, "start"), dimension_of(a, "size"),
                                     a.get<std::int64_t>("step")))};
    },
    .samples = {{.inputs = {uniform({3, 2})}, .attributes = slice_attributes(0, 1, 3, 1).with("whole", Shape{5})},
                {.inputs = {uniform({2, 2})}, .attributes = slice_attributes(1, 4, 2, -2).with("whole", Shape{6})}},
});

CHAINRULE_EARLY const BuiltinOp slice_add_op = register_op({
    .name = "slice_add",
    .doc = "The first input, with the second added at the places of a slice.",
    .attributes = slice_declaration,
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(2);
      call.require_floating(0);
      call.require_same_dtype();
      Shape part = call.shape(0);
      const std::size_t axis = axis_of(call.attributes());
      const Dimension size = dimension_of(call.attributes(), "size");
      require_within(call, part[axis], size);
      part[axis] = size;
      if (!(call.shape(1) == part))
        call.fail(fmt::format("a second input of shape {}", to_string(part)), to_string(call.shape(1)));
      return call.type(0);
    },
    .forward = kernels::strided_add([](const KernelCall& call) { return slice_view(call, call.output.shape); }),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {dy, node.wants(1) ? apply(slice_op, {dy}, node.attributes()) : Value{}};
    },
    .samples = {{.inputs = {uniform({5, 2}), uniform({3, 2})}, .attributes = slice_attributes(0, 1, 3, 1)},
                {.inputs = {uniform({2, 6}), uniform({2, 2})}, .attributes = slice_attributes(1, 4, 2, -2)},
                {.inputs = {uniform({2, 4, 3}), uniform({2, 2, 3})}, .attributes = slice_attributes(1, 1, 2, 2)},
                {.inputs = {uniform({4}), uniform({0})}, .attributes = slice_attributes(0, 4, 0, 1)}},
});

// ---- concat

CHAINRULE_EARLY const BuiltinOp concat_op = register_op({
    .name = "concat",
    .doc = "Arrays joined along an axis.",
    .attributes = {{"axis", AttributeType::axis}},
    .shape = [](const OpCall& call) -> Type {
      call.require_same_dtype();
      const std::size_t axis = axis_of(call.attributes());
      Type out = call.type(0);
      for (std::size_t i = 1; i < call.size(); ++i) {
        bool fits = call.shape(i).rank() == out.shape.rank();
        for (std::size_t k = 0; fits && k < out.shape.rank(); ++k) fits = k == axis || call.shape(i)[k] == out.shape[k];
        if (!fits)
          call.fail(fmt::format("shapes that agree but for axis {}", axis),
                    fmt::format("{} and {}", to_string(call.shape(0)), to_string(call.shape(i))));
        out.shape[axis] = out.shape[axis] + call.shape(i)[axis];
      }
      return out;
    },
    .forward = kernels::concat(),
    .gradient = [](const Node& node, Value dy) -> Values {
      const std::size_t axis = axis_of(node.attributes());
      Values out;
      Dimension start = 0;
      for (std::size_t i = 0; i < node.input_count(); ++i) {
        const Dimension size = node.input(i).shape()[axis];
        out.push_back(apply(slice_op, {dy}, slice_attributes(axis, start, size, 1)));
        start = start + size;
      }
      return out;
    },
    .samples = {{.inputs = {uniform({2, 3}), uniform({1, 3})}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({2, 1, 2}), uniform({2, 3, 2}), uniform({2, 0, 2})}, .attributes = {{"axis", 1}}},
                {.inputs = {uniform({4})}, .attributes = {{"axis", 0}}}},
});

// ---- split

CHAINRULE_EARLY const BuiltinOp split_op = register_op({
    .name = "split",
    .doc = "An array cut along an axis into parts of these extents.",
    .attributes = {{"axis", AttributeType::axis}, {"extents", AttributeType::list}},
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(1);
      const std::size_t axis = axis_of(call.attributes());
      const auto& extents = call.attribute<Axes>("extents");
      const Dimension whole = call.shape(0)[axis];
      // What is left of it: their sum may not be a number of int64.
      std::int64_t left = whole.is_number() ? whole.extent() : -1;
      for (const std::int64_t extent : extents) left = extent >= 0 && extent <= left ? left - extent : -1;
      if (extents.empty() || left != 0)
        call.fail(fmt::format("extents of 0 or more that add up to that of axis {}, {}", axis, whole.to_string()),
                  Attribute(extents).to_string());
      Types out(extents.size(), call.type(0));
      for (std::size_t i = 0; i < extents.size(); ++i) out[i].shape[axis] = extents[i];
      return out;
    },
    .forward = kernels::split(),
    .gradient = [](const Node& node, const Values& dys) -> Values {
      Values parts;
      for (std::size_t i = 0; i < dys.size(); ++i) {
        const Value part = node.output(i);
        parts.push_back(dys[i].defined() ? dys[i]
                                         : broadcast_to(part.graph().constant(0.0, part.dtype()), part.shape()));
      }
      return {concat(parts, node.attribute<std::int64_t>("axis"))};
    },
    .samples = {{.inputs = {uniform({2, 5})}, .attributes = {{"axis", 1}, {"extents", Axes{2, 0, 3}}}},
                {.inputs = {uniform({4, 2, 2})}, .attributes = {{"axis", 0}, {"extents", Axes{1, 1, 2}}}},
                {.inputs = {integers({6}, 0, 9)}, .attributes = {{"axis", 0}, {"extents", Axes{6}}}}},
});

}  // namespace

Value reshape(Value x, const Shape& shape, Location at) { return apply(reshape_op, {x}, {{"shape", shape}}, at); }

Value transpose(Value x, const Axes& permutation, Location at) {
  Axes axes = permutation;
  if (x.defined() && axes.empty())
    for (std::size_t i = x.rank(); i-- > 0;) axes.push_back(static_cast<std::int64_t>(i));
  return apply(transpose_op, {x}, {{"permutation", axes}}, at);
}

Value broadcast_to(Value x, const Shape& shape, Location at) {
  return apply(broadcast_to_op, {x}, {{"shape", shape}}, at);
}

Value concat(const Values& parts, std::int64_t axis, Location at) {
  return apply(concat_op, parts, {{"axis", axis}}, at);
}

Values split(Value x, const Axes& extents, std::int64_t axis, Location at) {
  return apply_all(split_op, {x}, {{"axis", axis}, {"extents", extents}}, at);
}

Values split(Value x, std::int64_t parts, std::int64_t axis, Location at) {
  at = detail::scoped(at);
  if (!x.defined()) throw Error(at, split_op->name, "requires values of a graph, got an empty Value");
  const Dimension whole = x.shape()[normalize_axis(axis, x.rank(), split_op->name, at)];
  if (parts < 1 || !whole.is_number() || whole.extent() % parts != 0)
    throw Error(at, split_op->name,
                fmt::format("requires an extent that {} parts divide, got {}", parts, whole.to_string()));
  return split(x, Axes(static_cast<std::size_t>(parts), whole.extent() / parts), axis, at);
}

Value detail::add_contributions(Value a, Value b) {
  const Node x = a.node();
  const Node y = b.node();
  // All slices of a reshaped or transposed array, which was made anew for each.
  const bool same_elements = (x.op() == reshape_op || x.op() == transpose_op) && &y.op() == &x.op() &&
                             y.attributes() == x.attributes() && y.input(0).shape() == x.input(0).shape();
  if (same_elements) return apply(x.op(), {add_contributions(x.input(0), y.input(0))}, x.attributes());
  for (const auto& [to, scattered] : {std::pair(a, b), std::pair(b, a)}) {
    const Node node = scattered.node();
    if (node.op() != slice_scatter_op) continue;
    const Attributes& s = node.attributes();
    return apply(slice_add_op, {to, node.input(0)},
                 slice_attributes(static_cast<std::size_t>(s.get<std::int64_t>("axis")), dimension_of(s, "start"),
                                  dimension_of(s, "size"), s.get<std::int64_t>("step")));
  }
  return add(a, b);
}

namespace {

std::uint64_t magnitude(std::int64_t number) {
  return number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
}

}  // namespace

Attributes detail::slice_attributes_of(Value x, std::size_t a, const Slice& range, std::string_view op, Location at) {
  const Dimension extent = x.shape()[a];
  if (range.step == 0) throw Error(at, op, "requires a step that is not 0");
  if (!extent.is_number()) {
    const std::int64_t first = range.start.value_or(0);
    if (range.step != 1 || (range.stop && *range.stop >= 0))
      throw Error(at, op,
                  fmt::format("requires step 1 and no stop or one from the end for an extent that is only "
                              "known in a run, {}",
                              extent.to_string()));
    const auto from_end = [&](std::int64_t position) { return extent - Dimension(magnitude(position)); };
    const Dimension start = first >= 0 ? Dimension(first) : from_end(first);
    const Dimension stop = range.stop ? from_end(*range.stop) : extent;
    const bool none = first < 0 && range.stop && *range.stop <= first;
    return slice_attributes(a, start, none ? Dimension(0) : stop - start, 1);
  }
  // Python's slice.indices().
  const std::int64_t n = extent.extent();
  const bool forward = range.step > 0;
  const auto place = [&](std::optional<std::int64_t> position, std::int64_t otherwise) {
    if (!position) return otherwise;
    const std::int64_t p = *position < 0 ? *position + n : *position;
    return forward ? std::clamp<std::int64_t>(p, 0, n) : std::clamp<std::int64_t>(p, -1, n - 1);
  };
  const std::int64_t start = place(range.start, forward ? 0 : n - 1);
  const std::int64_t stop = place(range.stop, forward ? n : -1);
  const std::int64_t span = forward ? stop - start : start - stop;
  const std::uint64_t size = span <= 0 ? 0 : (static_cast<std::uint64_t>(span) - 1) / magnitude(range.step) + 1;
  // A step that is never taken is 1: it could be as large as no array.
  return slice_attributes(a, size == 0 ? 0 : start, size, size <= 1 ? 1 : range.step);
}

Value slice(Value x, std::int64_t axis, Slice range, Location at) {
  at = detail::scoped(at);
  if (!x.defined()) throw Error(at, "slice", "requires values of a graph, got an empty Value");
  const std::size_t a = normalize_axis(axis, x.rank(), "slice", at);
  return apply(slice_op, {x}, detail::slice_attributes_of(x, a, range, "slice", at), at);
}

}  // namespace chainrule
