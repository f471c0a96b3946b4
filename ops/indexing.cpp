// Rows by their indices: take and its reverse, and what is made of them.
#include <chainrule/ops/indexing.hpp>

#include <algorithm>
#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/index_range.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/row_updates.hpp>

CHAINRULE_OP_FAMILY(indexing)

namespace chainrule {

namespace {

using kernels::axis_of;

// Elements that are worth another thread's while: moved one by one, or written in a row.
constexpr std::int64_t elements_of_part = 16'384;
constexpr std::int64_t zeros_of_part = 65'536;

std::int64_t parts_worth(std::int64_t elements_of_one) {
  return std::max<std::int64_t>(1, elements_of_part / std::max<std::int64_t>(1, elements_of_one));
}

Value zeros_like(Value x, const Shape& shape) { return broadcast_to(x.graph().constant(0.0, x.dtype()), shape); }

// x's shape with the axes of the indices in place of one.
Shape taken_shape(const Shape& x, const Shape& indices, std::size_t axis) {
  Shape out;
  for (std::size_t i = 0; i < axis; ++i) out.push_back(x[i]);
  for (const Dimension d : indices) out.push_back(d);
  for (std::size_t i = axis + 1; i < x.rank(); ++i) out.push_back(x[i]);
  return out;
}

// ---- take

// Rows of `inner` elements: of the array `extent` in each of `outer` blocks, of what is taken `n`, one for each index.
struct Rows {
  kernels::Lines lines;
  std::int64_t n;
  IndexRange range;

  Rows(const KernelCall& call, const Dims& array, std::size_t indices = 1)
      : lines(array, axis_of(call.attributes)),
        n(count(call.inputs[indices].shape)),
        range(call, call.inputs[indices].shape, lines.n) {}

  // Where row i of the array's block o begins.
  [[nodiscard]] std::int64_t place(std::int64_t o, std::int64_t index) const {
    return (o * lines.n + range.place(index)) * lines.inner;
  }

  template <class T>
  void take(const T* array, const std::int64_t* indices, T* taken) const {
    const std::int64_t inner = lines.inner;
    parallel_for(lines.outer * n, parts_worth(inner), [&](std::int64_t begin, std::int64_t end) {
      std::int64_t o = begin / n;
      std::int64_t i = begin % n;
      for (std::int64_t row = begin; row < end; ++row) {
        const T* from = array + place(o, indices[i]);
        if (inner == 1)
          taken[row] = *from;
        else
          std::copy_n(from, inner, taken + row * inner);
        if (++i < n) continue;
        i = 0;
        ++o;
      }
    });
  }

  // Each element is added to in the order of the indices, whichever thread it is of: they share blocks, or columns, by
  // whole lines of the cache.
  template <class T>
  void add(T* array, const std::int64_t* indices, const T* taken) const {
    const std::int64_t inner = lines.inner;
    if (lines.outer != 1) {
      parallel_for(lines.outer, parts_worth(n * inner), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t o = begin; o < end; ++o) add_columns(array, indices, taken, o, 0, inner);
      });
      return;
    }
    constexpr std::int64_t line = 64 / sizeof(T);
    const std::int64_t columns = (parts_worth(n) + line - 1) / line * line;
    parallel_for(inner, columns,
                 [&](std::int64_t begin, std::int64_t end) { add_columns(array, indices, taken, 0, begin, end); });
  }

 private:
  template <class T>
  void add_columns(T* array, const std::int64_t* indices, const T* taken, std::int64_t o, std::int64_t begin,
                   std::int64_t end) const {
    for (std::int64_t i = 0; i < n; ++i) {
      const T* from = taken + (o * n + i) * lines.inner;
      T* to = array + place(o, indices[i]);
      for (std::int64_t k = begin; k < end; ++k) to[k] += from[k];
    }
  }
};

Forward take_kernel() {
  Forward forward;
  forward.exact = true;
  forward.may_throw = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const Rows rows(call, call.inputs[0].shape);
    return visit_bits(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [rows](const KernelBuffers& buffers) {
        const auto* indices = static_cast<const std::int64_t*>(buffers.inputs[1]);
        rows.range.check(indices);
        rows.take(static_cast<const T*>(buffers.inputs[0]), indices, static_cast<T*>(buffers.output));
      };
    });
  };
  return forward;
}

// What a kernel adds to.
template <class T>
void copy_unless_there(const T* x, T* y, std::int64_t size) {
  if (x == y) return;
  parallel_for(size, zeros_of_part,
               [=](std::int64_t begin, std::int64_t end) { std::copy_n(x + begin, end - begin, y + begin); });
}

Forward scatter_add_kernel() {
  Forward forward;
  forward.may_throw = true;
  forward.dtypes = Forward::Dtypes::floating;
  forward.adds_to = 0;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const Rows rows(call, call.output.shape);
    call.flops = static_cast<double>(count(call.inputs[2].shape));
    return visit_floating(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [rows, size = count(call.output.shape)](const KernelBuffers& buffers) {
        const auto* indices = static_cast<const std::int64_t*>(buffers.inputs[1]);
        rows.range.check(indices);
        const auto* x = static_cast<const T*>(buffers.inputs[0]);
        auto* y = static_cast<T*>(buffers.output);
        copy_unless_there(x, y, size);
        rows.add(y, indices, static_cast<const T*>(buffers.inputs[2]));
      };
    });
  };
  return forward;
}

CHAINRULE_EARLY const BuiltinOp take_op = register_op({
    .name = "take",
    .doc = "The parts at some indices of an axis.",
    .attributes = {{"axis", AttributeType::axis}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(2);
      require_indices(call, 1);
      return {call.dtype(0), taken_shape(call.shape(0), call.shape(1), axis_of(call.attributes()))};
    },
    .forward = take_kernel(),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value zero = zeros_like(dy, node.input(0).shape());
      return {apply(*find_op("scatter_add"), {zero, node.input(1), dy}, node.attributes()), {}};
    },
    .samples = {{.inputs = {uniform({5, 3}, -2, 2), integers({4}, -5, 5)}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({2, 3, 2}, -2, 2), integers({2, 4}, 0, 3)}, .attributes = {{"axis", 1}}},
                {.inputs = {uniform({2, 3}, -2, 2), integers({}, -3, 3)}, .attributes = {{"axis", 1}}},
                {.inputs = {uniform({6}, -2, 2), integers({3, 3}, -6, 6)}, .attributes = {{"axis", 0}}},
                {.inputs = {integers({6}, 0, 9), integers({4}, -6, 6)}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({3, 0}), integers({2}, 0, 3)}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({0, 3}), integers({0}, 0, 1)}, .attributes = {{"axis", 0}}}},
});

CHAINRULE_EARLY const BuiltinOp scatter_add_op = register_op({
    .name = "scatter_add",
    .doc = "The first input, with parts added at some indices of an axis: the adjoint of take.",
    .attributes = {{"axis", AttributeType::axis}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(3);
      call.require_floating(0);
      require_indices(call, 1);
      const Shape parts = taken_shape(call.shape(0), call.shape(1), axis_of(call.attributes()));
      if (call.dtype(2) != call.dtype(0) || !(call.shape(2) == parts))
        call.fail(fmt::format("updates of {} and shape {}", name(call.dtype(0)), to_string(parts)),
                  fmt::format("{} {}", name(call.dtype(2)), to_string(call.shape(2))));
      return call.type(0);
    },
    .forward = scatter_add_kernel(),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {dy, {}, node.wants(2) ? apply(take_op, {dy, node.input(1)}, node.attributes()) : Value{}};
    },
    .samples = {{.inputs = {uniform({5, 3}, -2, 2), integers({4}, -5, 5), uniform({4, 3}, -2, 2)},
                 .attributes = {{"axis", 0}}},
                {.inputs = {uniform({2, 3, 2}, -2, 2), integers({2, 4}, 0, 3), uniform({2, 2, 4, 2}, -2, 2)},
                 .attributes = {{"axis", 1}}},
                {.inputs = {uniform({2, 3}, -2, 2), integers({}, -3, 3), uniform({2}, -2, 2)},
                 .attributes = {{"axis", 1}}},
                {.inputs = {uniform({4}, -2, 2), integers({9}, -4, 4), uniform({9}, -2, 2)},
                 .attributes = {{"axis", 0}}},
                {.inputs = {uniform({3, 2}), integers({0}, 0, 1), uniform({0, 2})}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({0, 3}), integers({2}, 0, 3), uniform({0, 2})}, .attributes = {{"axis", 1}}}},
});

// ---- updates of rows

Forward checked_indices_kernel() {
  Forward forward;
  forward.may_throw = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    KernelCall named = call;
    named.op = "scatter_add";
    const std::int64_t extent = call.attributes.get<Shape>("extent")[0].extent();
    const IndexRange range(named, call.inputs[0].shape, extent);
    return [range, n = count(call.inputs[0].shape)](const KernelBuffers& buffers) {
      const auto* indices = static_cast<const std::int64_t*>(buffers.inputs[0]);
      auto* places = static_cast<std::int64_t*>(buffers.output);
      range.check(indices);
      for (std::int64_t i = 0; i < n; ++i) places[i] = range.place(indices[i]);
    };
  };
  return forward;
}

Forward add_rows_kernel() {
  Forward forward;
  forward.dtypes = Forward::Dtypes::floating;
  forward.adds_to = 0;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    std::vector<Rows> pairs;
    for (std::size_t i = 1; i < call.inputs.size(); i += 2) {
      pairs.emplace_back(call, call.output.shape, i);
      call.flops += static_cast<double>(count(call.inputs[i + 1].shape));
    }
    return visit_floating(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [pairs, size = count(call.output.shape)](const KernelBuffers& buffers) {
        auto* y = static_cast<T*>(buffers.output);
        copy_unless_there(static_cast<const T*>(buffers.inputs[0]), y, size);
        for (std::size_t i = 0; i < pairs.size(); ++i)
          pairs[i].add(y, static_cast<const std::int64_t*>(buffers.inputs[2 * i + 1]),
                       static_cast<const T*>(buffers.inputs[2 * i + 2]));
      };
    });
  };
  return forward;
}

// ---- one_hot

Forward one_hot_kernel() {
  Forward forward;
  forward.exact = true;
  forward.may_throw = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const kernels::Lines lines(call.output.shape, static_cast<std::size_t>(call.attributes.get<std::int64_t>("axis")));
    const IndexRange range(call, call.inputs[0].shape, lines.n, false);
    const std::int64_t grain =
        std::max<std::int64_t>(1, zeros_of_part / std::max<std::int64_t>(1, lines.n * lines.inner));
    return visit_dtype(call.output.dtype, [&]<class T>(T) -> KernelRun {
      return [lines, range, grain](const KernelBuffers& buffers) {
        const auto* index = static_cast<const std::int64_t*>(buffers.inputs[0]);
        auto* out = static_cast<T*>(buffers.output);
        range.check(index);
        parallel_for(lines.outer, grain, [&](std::int64_t begin, std::int64_t end) {
          const std::int64_t block = lines.n * lines.inner;
          std::fill(out + begin * block, out + end * block, T{0});
          for (std::int64_t o = begin; o < end; ++o)
            for (std::int64_t i = 0; i < lines.inner; ++i)
              out[(o * lines.n + index[o * lines.inner + i]) * lines.inner + i] = T{1};
        });
      };
    });
  };
  return forward;
}

CHAINRULE_EARLY const BuiltinOp one_hot_op = register_op({
    .name = "one_hot",
    .doc = "1 at the class index along a new axis, 0 elsewhere.",
    .attributes = {{"classes", AttributeType::extent},
                   {"dtype", AttributeType::dtype},
                   {"axis", AttributeType::new_axis, -1}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      require_indices(call, 0);
      const Dimension classes = call.attribute<Shape>("classes")[0];
      const auto axis = static_cast<std::size_t>(call.attribute<std::int64_t>("axis"));
      Type out{call.attribute<DType>("dtype"), {}};
      for (std::size_t i = 0; i <= call.shape(0).rank(); ++i) {
        if (i == axis) out.shape.push_back(classes);
        if (i < call.shape(0).rank()) out.shape.push_back(call.shape(0)[i]);
      }
      return out;
    },
    .forward = one_hot_kernel(),
    .samples = {{.inputs = {integers({4}, 0, 3)},
                 .attributes = {{"classes", Shape{3}}, {"dtype", float64}, {"axis", 1}}},
                {.inputs = {integers({2, 3}, 0, 5)},
                 .attributes = {{"classes", Shape{5}}, {"dtype", float64}, {"axis", 0}}}},
});

void require_defined(std::string_view op, Location at, const Values& values) {
  for (const Value value : values)
    if (!value.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
}

// The number of rows as a value of int64.
Value number_of(Value of, Dimension rows) {
  if (rows.is_number()) return of.graph().constant(Array(rows.extent()));
  return cast(extent(of.graph(), {rows}, float64), int64);
}

}  // namespace

const Op& detail::checked_indices_op() {
  static const Op op = [] {
    Op made;
    made.name = "checked_indices";
    made.doc = "Indices within an extent, counted from the start.";
    made.attributes = {{"extent", AttributeType::extent}};
    made.shape = [](const OpCall& call) { return call.type(0); };
    made.forward = checked_indices_kernel();
    return made;
  }();
  return op;
}

const Op& detail::add_rows_op() {
  static const Op op = [] {
    Op made;
    made.name = "add_rows";
    made.doc = "The first input, with parts added at indices of an axis that are within its extent.";
    made.attributes = {{"axis", AttributeType::axis}};
    made.shape = [](const OpCall& call) { return call.type(0); };
    made.forward = add_rows_kernel();
    return made;
  }();
  return op;
}

Value take(Value x, Value indices, std::int64_t axis, Location at) {
  return with_int64(indices, at, [&](Value i) { return apply(take_op, {x, i}, {{"axis", axis}}, at); });
}

Value scatter_add(Value x, Value indices, Value updates, std::int64_t axis, Location at) {
  return with_int64(indices, at, [&](Value i) { return apply(scatter_add_op, {x, i, updates}, {{"axis", axis}}, at); });
}

Value embedding(Value table, Value indices, const EmbeddingOptions& options, Location at) {
  constexpr std::string_view op = "embedding";
  at = detail::scoped(at);
  require_defined(op, at, {table, indices});
  if (table.rank() == 0) throw Error(at, op, "requires a table of rows, got a scalar");
  const Dimension rows = table.shape()[0];
  const std::int64_t padding = options.padding_idx.value_or(0);
  if (options.padding_idx && rows.is_number() && (padding < -rows.extent() || padding >= rows.extent()))
    throw Error(at, op, fmt::format("requires a padding_idx within {} rows, got {}", rows.extent(), padding));
  return detail::attempt({table, indices}, [&] {
    const detail::LocationScope scope(at);
    const Value taken = take(table, indices, 0);
    if (!options.padding_idx) return taken;
    const Value whole = number_of(table, rows);
    const Value places = as_int64(indices, at);
    const Value from_start = where(places < 0, places + whole, places);
    Shape of_row = indices.shape();
    while (of_row.rank() < taken.rank()) of_row.push_back(1);
    const Value is_padding = reshape(equal(from_start, padding < 0 ? whole + padding : Operand(padding)), of_row);
    return where(is_padding, stop_gradient(taken), taken);
  });
}

Value segment_sum(Value x, Value segments, Dimension count, Location at) {
  constexpr std::string_view op = "segment_sum";
  at = detail::scoped(at);
  require_defined(op, at, {x, segments});
  if (x.rank() == 0 || count.is_inferred() || !(segments.shape() == Shape{x.shape()[0]}))
    throw Error(at, op,
                fmt::format("requires an index for each row and a number of segments, got {} rows, {} indices and {}",
                            to_string(x.shape()), to_string(segments.shape()), count.to_string()));
  if (!is_floating(x.dtype())) throw Error(at, op, fmt::format("requires float32 or float64, got {}", name(x.dtype())));
  return detail::attempt({x, segments}, [&] {
    const detail::LocationScope scope(at);
    Shape out = x.shape();
    out[0] = count;
    return scatter_add(zeros_like(x, out), segments, x, 0);
  });
}

Value one_hot(Value indices, Dimension classes, DType dtype, std::int64_t axis, Location at) {
  return with_int64(indices, at, [&](Value i) {
    return apply(one_hot_op, {i}, {{"classes", Shape{classes}}, {"dtype", dtype}, {"axis", axis}}, at);
  });
}

Value masked_fill(Value x, Value mask, Operand value, Location at) {
  constexpr std::string_view op = "masked_fill";
  at = detail::scoped(at);
  require_defined(op, at, {x, mask});
  Shape both;
  if (mask.dtype() != boolean || !broadcast(mask.shape(), x.shape(), both) || !(both == x.shape()))
    throw Error(at, op,
                fmt::format("requires a mask of bool that broadcasts to {}, got {} {}", to_string(x.shape()),
                            name(mask.dtype()), to_string(mask.shape())));
  return detail::attempt({x, mask}, [&] {
    const detail::LocationScope scope(at);
    const Value filled = where(mask, value, x);
    if (!(filled.shape() == x.shape()))
      throw Error(
          at, op,
          fmt::format("requires a value that broadcasts to {}, got {}", to_string(x.shape()), value.describe()));
    return filled;
  });
}

}  // namespace chainrule
