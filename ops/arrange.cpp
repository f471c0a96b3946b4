// Layout by ops of layout.cpp: several axes at once, padding, stacking, tiling; and what has its elements from their
// places alone: iota, triangles, diagonals.
#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>

CHAINRULE_OP_FAMILY(arrange)

namespace chainrule {

namespace {

using kernels::axis_of;

// ---- slice_update, along one axis

Dimension dimension_of(const Attributes& attributes, std::string_view name) { return attributes.get<Shape>(name)[0]; }

Attributes slice_attributes(std::size_t axis, Dimension start, Dimension size, std::int64_t step) {
  return {{"axis", axis}, {"start", Shape{start}}, {"size", Shape{size}}, {"step", step}};
}

Value slice_at(Value x, std::size_t axis, Dimension start, Dimension size, std::int64_t step = 1) {
  return apply(*find_op("slice"), {x}, slice_attributes(axis, start, size, step));
}

// Whether all places of a slice lie in an axis of this extent.
bool lies_within(std::int64_t start, std::int64_t size, std::int64_t step, std::int64_t whole) {
  if (size == 0) return true;
  if (start >= whole) return false;
  const std::int64_t beyond = step > 0 ? (whole - 1 - start) / step : step < 0 ? -(start / step) : 0;
  return size - 1 <= beyond;
}

struct Places {
  kernels::Lines lines;
  std::int64_t start;
  std::int64_t size;
  std::int64_t step;

  explicit Places(const KernelCall& call)
      : lines(call.output.shape, axis_of(call.attributes)),
        start(dimension_of(call.attributes, "start").extent()),
        size(dimension_of(call.attributes, "size").extent()),
        step(call.attributes.get<std::int64_t>("step")) {
    if (!lies_within(start, size, step, lines.n))
      throw Error(call.at, call.op,
                  fmt::format("requires a slice within its axis, got {} elements from {} on in steps of {} of {}", size,
                              start, step, lines.n));
  }

  template <class T>
  void set(T* whole, const T* part) const {
    const auto run = static_cast<std::size_t>(lines.inner);
    for (std::int64_t o = 0; o < lines.outer; ++o)
      for (std::int64_t i = 0; i < size; ++i, part += run)
        std::copy_n(part, run, whole + (o * lines.n + start + i * step) * lines.inner);
  }
};

CHAINRULE_EARLY const BuiltinOp slice_update_op = register_op({
    .name = "slice_update",
    .doc = "The first input, with the second in the places of a slice.",
    .attributes = {{"axis", AttributeType::axis},
                   {"start", AttributeType::extent},
                   {"size", AttributeType::extent},
                   {"step", std::int64_t{1}}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(2);
      call.require_same_dtype();
      Shape part = call.shape(0);
      const std::size_t axis = axis_of(call.attributes());
      const Dimension whole = part[axis];
      const Dimension start = dimension_of(call.attributes(), "start");
      part[axis] = dimension_of(call.attributes(), "size");
      if (!(call.shape(1) == part))
        call.fail(fmt::format("a second input of shape {}", to_string(part)), to_string(call.shape(1)));
      if (whole.is_number() && start.is_number() && part[axis].is_number() &&
          !lies_within(start.extent(), part[axis].extent(), call.attribute<std::int64_t>("step"), whole.extent()))
        call.fail("a slice within its axis",
                  fmt::format("{} elements from {} on in steps of {} of {}", part[axis].extent(), start.extent(),
                              call.attribute<std::int64_t>("step"), whole.extent()));
      return call.type(0);
    },
    .forward =
        [] {
          Forward forward;
          forward.exact = true;
          forward.adds_to = 0;  // it leaves the rest as it is
          forward.kernel = [](KernelCall& call) -> KernelRun {
            const Places places(call);
            const std::size_t bytes = static_cast<std::size_t>(count(call.output.shape)) * size_of(call.output.dtype);
            return visit_bits(call.output.dtype, [&](auto t) -> KernelRun {
              using T = decltype(t);
              return [places, bytes](const KernelBuffers& buffers) {
                if (buffers.inputs[0] != buffers.output && bytes > 0)
                  std::memcpy(buffers.output, buffers.inputs[0], bytes);
                places.set(static_cast<T*>(buffers.output), static_cast<const T*>(buffers.inputs[1]));
              };
            });
          };
          return forward;
        }(),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value update = node.input(1);
      const Value none = broadcast_to(dy.graph().constant(0.0, dy.dtype()), update.shape());
      return {node.wants(0) ? apply(*find_op("slice_update"), {dy, none}, node.attributes()) : Value{},
              node.wants(1) ? apply(*find_op("slice"), {dy}, node.attributes()) : Value{}};
    },
    .samples = {{.inputs = {uniform({5, 2}), uniform({3, 2})}, .attributes = slice_attributes(0, 1, 3, 1)},
                {.inputs = {uniform({2, 6}), uniform({2, 2})}, .attributes = slice_attributes(1, 4, 2, -2)},
                {.inputs = {uniform({2, 4, 3}), uniform({2, 2, 3})}, .attributes = slice_attributes(1, 1, 2, 2)},
                {.inputs = {integers({4}, 0, 9), integers({2}, 0, 9)}, .attributes = slice_attributes(0, 0, 2, 3)},
                {.inputs = {uniform({4}), uniform({0})}, .attributes = slice_attributes(0, 4, 0, 1)}},
});

// ---- iota

CHAINRULE_EARLY const BuiltinOp iota_op = register_op({
    .name = "iota",
    .doc = "0, 1, 2, ...",
    .attributes = {{"size", AttributeType::extent}, {"dtype", AttributeType::dtype}},
    .shape = [](const OpCall& call) -> Type {
      const auto& size = call.attribute<Shape>("size");
      if (size[0].is_inferred() || call.attribute<DType>("dtype") == boolean)
        call.fail("a size and a dtype of numbers", call.attributes().to_string());
      return {call.attribute<DType>("dtype"), size};
    },
    .forward =
        [] {
          Forward forward;
          forward.exact = true;
          forward.kernel = [](KernelCall& call) -> KernelRun {
            return visit_dtype(call.output.dtype, [&](auto t) -> KernelRun {
              using T = decltype(t);
              const std::int64_t size = count(call.output.shape);
              if (is_integer(call.output.dtype) && size > 0 && !detail::keeps_meaning<T>(size - 1))
                throw Error(
                    call.at, call.op,
                    fmt::format("requires numbers that {} can be, got a size of {}", name(call.output.dtype), size));
              return [n = size](const KernelBuffers& buffers) {
                auto* out = static_cast<T*>(buffers.output);
                for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(i);
              };
            });
          };
          return forward;
        }(),
    .samples = {{.attributes = {{"size", Shape{5}}, {"dtype", float64}}},
                {.attributes = {{"size", Shape{3}}, {"dtype", int64}}},
                {.attributes = {{"size", Shape{0}}, {"dtype", float64}}}},
});

// ---- what the functions have in common

Location defined(std::string_view op, Value x, Location at) {
  at = detail::scoped(at);
  if (!x.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  return at;
}

// All nodes of f at this line, or none.
template <class F>
auto built(const Values& of, Location at, F f) {
  return detail::attempt(of, [&] {
    const detail::LocationScope scope(at);
    return f();
  });
}

// Where a Slice of an axis begins, how much it takes and in which steps: as slice() has it.
struct Part {
  std::size_t axis;
  Dimension start;
  Dimension size;
  std::int64_t step;
};

Part part_of(Value x, std::size_t axis, const Index& index, std::string_view op, Location at) {
  const Dimension extent = x.shape()[axis];
  if (index.is_position()) {
    const std::int64_t p = index.position();
    if (extent.is_number() && (p >= extent.extent() || p < -extent.extent()))
      throw Error(at, op, fmt::format("requires a position within {} on axis {}, got {}", extent.to_string(), axis, p));
    // (Of the least number the opposite is not one: it is out of range of any extent.)
    if (p < 0 && p + 1 < -std::numeric_limits<std::int64_t>::max())
      throw Error(at, op, fmt::format("requires a position within {}, got {}", extent.to_string(), p));
    return {axis, p < 0 ? extent - Dimension(-p) : Dimension(p), 1, 1};
  }
  const Attributes a = detail::slice_attributes_of(x, axis, index.range(), op, at);
  return {axis, dimension_of(a, "start"), dimension_of(a, "size"), a.get<std::int64_t>("step")};
}

void require_few(Value x, const std::vector<Index>& indices, std::string_view op, Location at) {
  if (indices.size() > x.rank())
    throw Error(
        at, op,
        fmt::format("requires at most {} indices for {}, got {}", x.rank(), to_string(x.shape()), indices.size()));
}

bool takes_all(const Part& part, Value x) {
  return part.step == 1 && part.start.is(0) && part.size == x.shape()[part.axis];
}

// The shape without the axes of positions.
Shape without_positions(const Shape& shape, const std::vector<Index>& indices) {
  Shape out;
  for (std::size_t i = 0; i < shape.rank(); ++i)
    if (i >= indices.size() || !indices[i].is_position()) out.push_back(shape[i]);
  return out;
}

// x as {what comes before the axis, the axis, what comes after}.
struct Around {
  Dimension before = 1;
  Dimension after = 1;
  Around(const Shape& shape, std::size_t axis) {
    for (std::size_t i = 0; i < axis; ++i) before = before * shape[i];
    for (std::size_t i = axis + 1; i < shape.rank(); ++i) after = after * shape[i];
  }
};

std::size_t new_axis(std::int64_t axis, std::size_t rank, std::string_view op, Location at) {
  return normalize_axis(axis, rank + 1, op, at);
}

Shape with_one(const Shape& shape, std::size_t axis) {
  Shape out;
  for (std::size_t i = 0; i <= shape.rank(); ++i) {
    if (i == axis) out.push_back(1);
    if (i < shape.rank()) out.push_back(shape[i]);
  }
  return out;
}

Value reversed(Value x, std::size_t axis) {
  const Dimension n = x.shape()[axis];
  if (n.is(0)) return x;
  return slice_at(x, axis, n - Dimension(1), n, -1);
}

// What pad adds on one side of an axis.
Value padding(Value x, std::size_t axis, std::int64_t width, bool before, PadMode mode, Number value) {
  const Dimension n = x.shape()[axis];
  const Dimension w(width);
  Shape shape = x.shape();
  shape[axis] = w;
  switch (mode) {
    case PadMode::reflect:  // before: x[width], ..., x[1]; after: x[n - 2], x[n - 3], ...
      return before ? slice_at(x, axis, w, w, -1) : slice_at(x, axis, n - Dimension(2), w, -1);
    case PadMode::replicate: return broadcast_to(slice_at(x, axis, before ? Dimension(0) : n - Dimension(1), 1), shape);
    case PadMode::circular: return slice_at(x, axis, before ? n - w : Dimension(0), w);
    case PadMode::constant: break;
  }
  return broadcast_to(x.graph().constant(value, x.dtype()), shape);
}

void require_padding(Value x, std::size_t axis, std::int64_t width, PadMode mode, Location at) {
  const Dimension n = x.shape()[axis];
  if (width < 0) throw Error(at, "pad", fmt::format("requires widths of 0 or more, got {}", width));
  if (!n.is_number() || width == 0 || mode == PadMode::constant) return;
  const std::int64_t least = mode == PadMode::reflect ? width + 1 : mode == PadMode::replicate ? 1 : width;
  if (n.extent() < least)
    throw Error(at, "pad",
                fmt::format("requires an extent of at least {} on axis {}, got {}", least, axis, to_string(x.shape())));
}

// Of matrices in x's last two axes: the column less the row.
Value columns_less_rows(Value x) {
  const Shape& shape = x.shape();
  const Value column = iota(x.graph(), shape[shape.rank() - 1]);
  const Value row = reshape(iota(x.graph(), shape[shape.rank() - 2]), {shape[shape.rank() - 2], 1});
  return column - row;
}

void require_matrices(Value x, std::string_view op, Location at) {
  if (x.rank() < 2)
    throw Error(at, op, fmt::format("requires matrices in the last two axes, got {}", to_string(x.shape())));
}

Value triangle(std::string_view op, Value x, std::int64_t offset, Location at, Value (*keep)(Operand, Operand)) {
  at = defined(op, x, at);
  require_matrices(x, op, at);
  return built({x}, at, [&] {
    const Value zero = x.graph().constant(0, x.dtype());
    return where(keep(columns_less_rows(x), offset), x, zero);
  });
}

}  // namespace

Value slice(Value x, const std::vector<Index>& indices, Location at) {
  at = defined("slice", x, at);
  require_few(x, indices, "slice", at);
  return built({x}, at, [&] {
    Value out = x;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const Part part = part_of(out, i, indices[i], "slice", at);
      if (!takes_all(part, out)) out = slice_at(out, i, part.start, part.size, part.step);
    }
    const Shape shape = without_positions(out.shape(), indices);
    return shape == out.shape() ? out : reshape(out, shape);
  });
}

Value slice_update(Value x, const std::vector<Index>& indices, Value update, Location at) {
  at = defined("slice_update", x, at);
  if (!update.defined()) throw Error(at, "slice_update", "requires values of a graph, got an empty Value");
  require_few(x, indices, "slice_update", at);
  return built({x, update}, at, [&]() -> Value {
    if (update.dtype() != x.dtype())
      throw Error(at, "slice_update",
                  fmt::format("requires an update of {}, got {}", name(x.dtype()), name(update.dtype())));
    // The parts of x, each of the one before; then the innermost is the update, and each is put into the one around it.
    Values around{x};
    std::vector<Part> parts;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const Part part = part_of(around.back(), i, indices[i], "slice_update", at);
      if (takes_all(part, around.back())) continue;
      parts.push_back(part);
      around.push_back(slice_at(around.back(), i, part.start, part.size, part.step));
    }
    const Shape inner = around.back().shape();
    const Shape wanted = without_positions(inner, indices);
    Shape both;
    if (!broadcast(update.shape(), wanted, both) || !(both == wanted))
      throw Error(at, "slice_update",
                  fmt::format("requires an update that broadcasts to {}, got {}", to_string(wanted),
                              to_string(update.shape())));
    Value out = update.shape() == wanted ? update : broadcast_to(update, wanted);
    if (!(wanted == inner)) out = reshape(out, inner);
    for (std::size_t k = parts.size(); k-- > 0;)
      out = apply(slice_update_op, {around[k], out},
                  slice_attributes(parts[k].axis, parts[k].start, parts[k].size, parts[k].step));
    return out;
  });
}

Value pad(Value x, const PadWidths& widths, PadMode mode, Number value, Location at) {
  at = defined("pad", x, at);
  if (widths.size() != x.rank())
    throw Error(
        at, "pad",
        fmt::format("requires a pair of widths for each axis of {}, got {}", to_string(x.shape()), widths.size()));
  return built({x}, at, [&] {
    Value out = x;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      Values parts;
      for (const std::int64_t width : widths[i]) require_padding(out, i, width, mode, at);
      if (widths[i][0] > 0) parts.push_back(padding(out, i, widths[i][0], true, mode, value));
      parts.push_back(out);
      if (widths[i][1] > 0) parts.push_back(padding(out, i, widths[i][1], false, mode, value));
      if (parts.size() > 1) out = concat(parts, static_cast<std::int64_t>(i));
    }
    return out;
  });
}

Value stack(const Values& parts, std::int64_t axis, Location at) {
  at = detail::scoped(at);
  if (parts.empty()) throw Error(at, "stack", "requires at least one value, got none");
  for (const Value part : parts) {
    defined("stack", part, at);
    if (!(part.shape() == parts[0].shape()))
      throw Error(at, "stack",
                  fmt::format("requires values of one shape, got {} and {}", to_string(parts[0].shape()),
                              to_string(part.shape())));
  }
  const std::size_t a = new_axis(axis, parts[0].rank(), "stack", at);
  return built(parts, at, [&] {
    Values wide;
    for (const Value part : parts) wide.push_back(reshape(part, with_one(part.shape(), a)));
    return concat(wide, static_cast<std::int64_t>(a));
  });
}

Values unstack(Value x, std::int64_t axis, Location at) {
  at = defined("unstack", x, at);
  const std::size_t a = normalize_axis(axis, x.rank(), "unstack", at);
  const Dimension n = x.shape()[a];
  if (!n.is_number() || n.is(0))
    throw Error(at, "unstack", fmt::format("requires an extent that is a number above 0, got {}", n.to_string()));
  return built({x}, at, [&] {
    Values parts = split(x, n.extent(), static_cast<std::int64_t>(a));
    for (Value& part : parts) part = squeeze(part, {static_cast<std::int64_t>(a)});
    return parts;
  });
}

Values chunk(Value x, std::int64_t parts, std::int64_t axis, Location at) {
  at = defined("chunk", x, at);
  const std::size_t a = normalize_axis(axis, x.rank(), "chunk", at);
  const Dimension n = x.shape()[a];
  if (parts < 1) throw Error(at, "chunk", fmt::format("requires at least one part, got {}", parts));
  if (!n.is_number())
    throw Error(at, "chunk", fmt::format("requires an extent that is a number, got {}", n.to_string()));
  const std::int64_t size = n.is(0) ? 1 : (n.extent() - 1) / parts + 1;
  Axes extents;
  for (std::int64_t begin = 0; begin < n.extent() || extents.empty(); begin += size)
    extents.push_back(std::min(size, n.extent() - begin));
  return split(x, extents, static_cast<std::int64_t>(a), at);
}

Value squeeze(Value x, const Axes& axes, Location at) {
  at = defined("squeeze", x, at);
  std::vector<char> goes(x.rank(), 0);
  for (std::size_t i = 0; axes.empty() && i < x.rank(); ++i) goes[i] = x.shape()[i].is(1) ? 1 : 0;
  for (const std::int64_t axis : axes) {
    const std::size_t a = normalize_axis(axis, x.rank(), "squeeze", at);
    if (!x.shape()[a].is(1))
      throw Error(at, "squeeze", fmt::format("requires an extent of 1 on axis {}, got {}", a, to_string(x.shape())));
    goes[a] = 1;
  }
  Shape shape;
  for (std::size_t i = 0; i < x.rank(); ++i)
    if (!goes[i]) shape.push_back(x.shape()[i]);
  return reshape(x, shape, at);
}

Value expand_dims(Value x, std::int64_t axis, Location at) {
  at = defined("expand_dims", x, at);
  return reshape(x, with_one(x.shape(), new_axis(axis, x.rank(), "expand_dims", at)), at);
}

Value flatten(Value x, std::int64_t first, std::int64_t last, Location at) {
  at = defined("flatten", x, at);
  if (x.rank() == 0) return reshape(x, {1}, at);
  const std::size_t from = normalize_axis(first, x.rank(), "flatten", at);
  const std::size_t to = normalize_axis(last, x.rank(), "flatten", at);
  if (from > to) throw Error(at, "flatten", fmt::format("requires axes in their order, got {} and {}", first, last));
  Shape shape;
  for (std::size_t i = 0; i < x.rank(); ++i) {
    if (i > from && i <= to) {
      shape.back() = shape.back() * x.shape()[i];
    } else {
      shape.push_back(x.shape()[i]);
    }
  }
  return reshape(x, shape, at);
}

Value swapaxes(Value x, std::int64_t a, std::int64_t b, Location at) {
  at = defined("swapaxes", x, at);
  Axes permutation;
  for (std::size_t i = 0; i < x.rank(); ++i) permutation.push_back(static_cast<std::int64_t>(i));
  std::swap(permutation[normalize_axis(a, x.rank(), "swapaxes", at)],
            permutation[normalize_axis(b, x.rank(), "swapaxes", at)]);
  return permutation.empty() ? x : transpose(x, permutation, at);
}

Value tile(Value x, const Axes& times, Location at) {
  at = defined("tile", x, at);
  for (const std::int64_t n : times)
    if (n < 0) throw Error(at, "tile", fmt::format("requires 0 or more times, got {}", n));
  return built({x}, at, [&] {
    Value out = x;
    while (out.rank() < times.size()) out = expand_dims(out, 0);
    for (std::size_t i = 0; i < times.size(); ++i) {
      const std::size_t a = out.rank() - times.size() + i;
      const Dimension n(times[i]);
      if (n.is(1)) continue;
      Shape shape = out.shape();
      const Around around(shape, a);
      const Value one = reshape(out, {around.before, 1, shape[a], around.after});
      const Value many = broadcast_to(one, {around.before, n, shape[a], around.after});
      shape[a] = shape[a] * n;
      out = reshape(many, shape);
    }
    return out;
  });
}

Value repeat(Value x, std::int64_t times, std::int64_t axis, Location at) {
  at = defined("repeat", x, at);
  if (times < 0) throw Error(at, "repeat", fmt::format("requires 0 or more times, got {}", times));
  const std::size_t a = normalize_axis(axis, x.rank(), "repeat", at);
  return built({x}, at, [&] {
    Shape shape = x.shape();
    const Around around(shape, a);
    const Value one = reshape(x, {around.before, shape[a], 1, around.after});
    const Value many = broadcast_to(one, {around.before, shape[a], Dimension(times), around.after});
    shape[a] = shape[a] * Dimension(times);
    return reshape(many, shape);
  });
}

Value flip(Value x, const Axes& axes, Location at) {
  at = defined("flip", x, at);
  std::vector<char> turns(x.rank(), axes.empty() ? 1 : 0);
  for (const std::int64_t axis : axes) turns[normalize_axis(axis, x.rank(), "flip", at)] = 1;
  return built({x}, at, [&] {
    Value out = x;
    for (std::size_t i = 0; i < turns.size(); ++i)
      if (turns[i]) out = reversed(out, i);
    return out;
  });
}

Value roll(Value x, std::int64_t shift, std::int64_t axis, Location at) {
  at = defined("roll", x, at);
  const std::size_t a = normalize_axis(axis, x.rank(), "roll", at);
  const Dimension n = x.shape()[a];
  if (n.is_number()) shift = n.is(0) ? 0 : (shift % n.extent() + n.extent()) % n.extent();
  if (shift == 0) return x;
  return built({x}, at, [&] {
    const Dimension first = shift > 0 ? n - Dimension(shift) : Dimension(-shift);
    return concat({slice_at(x, a, first, n - first), slice_at(x, a, 0, first)}, static_cast<std::int64_t>(a));
  });
}

Value iota(Graph graph, Dimension size, DType dtype, Location at) {
  return apply(graph, iota_op, {}, {{"size", Shape{size}}, {"dtype", dtype}}, at);
}

Value eye(Graph graph, Dimension rows, Dimension columns, DType dtype, std::int64_t offset, Location at) {
  at = detail::scoped(at);
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(at);
  const Value row = reshape(iota(graph, rows), {rows, 1});
  const Value out = cast(equal(iota(graph, columns) - row, offset), dtype);
  attempt.succeed();
  return out;
}

Value tril(Value x, std::int64_t offset, Location at) { return triangle("tril", x, offset, at, less_equal); }
Value triu(Value x, std::int64_t offset, Location at) { return triangle("triu", x, offset, at, greater_equal); }

Value diagonal(Value x, std::int64_t offset, Location at) {
  at = defined("diagonal", x, at);
  require_matrices(x, "diagonal", at);
  const Dimension m = x.shape()[x.rank() - 2];
  const Dimension n = x.shape()[x.rank() - 1];
  if (!m.is_number() || !n.is_number())
    throw Error(at, "diagonal", fmt::format("requires matrices of known extents, got {}", to_string(x.shape())));
  return built({x}, at, [&] {
    const std::int64_t rows = m.extent();
    const std::int64_t columns = n.extent();
    const bool none = offset >= columns || offset <= -rows;
    const std::int64_t size =
        none ? 0 : std::min(offset < 0 ? rows + offset : rows, offset < 0 ? columns : columns - offset);
    const std::int64_t start = none ? 0 : offset < 0 ? -offset * columns : offset;
    const Value flat = flatten(x, -2, -1);
    return slice_at(flat, flat.rank() - 1, start, std::max<std::int64_t>(size, 0), columns + 1);
  });
}

}  // namespace chainrule
