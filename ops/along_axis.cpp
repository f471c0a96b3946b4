// Elements along an axis by indices of their own: taken, put, added.
#include <algorithm>
#include <cstring>
#include <utility>

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
#include <chainrule/ops/indexing.hpp>
#include <chainrule/ops/layout.hpp>

CHAINRULE_OP_FAMILY(along_axis)

namespace chainrule {

namespace {

using kernels::axis_of;

// Indices that are worth another thread's while, and elements that are copied.
constexpr std::int64_t worth_a_part = 16'384;
constexpr std::int64_t copied_of_part = 65'536;

// The indices of an array along an axis, and the places in another one of the same shape, but for the axis, that they
// say. Both functions call f(element of the indices, element of the other array) for all of them, on several threads,
// and throw Error for an index beyond the other's extent, the first in row-major order.
class Places {
 public:
  Places(const KernelCall& call, const Dims& indices, std::int64_t extent)
      : lines_(indices, axis_of(call.attributes)),
        extent_(extent),
        range_(call, indices, extent, call.attributes.get<bool>("from_end")) {}

  // In any order.
  template <class F>
  void for_each(const std::int64_t* indices, F f) const {
    parallel_for(lines_.outer * lines_.n, grain(lines_.inner), [&](std::int64_t begin, std::int64_t end) {
      run(indices, {begin, end}, {0, lines_.inner}, f);
    });
  }

  // Along each line in the order of the indices: what two of them share is one thread's.
  template <class F>
  void for_each_in_order(const std::int64_t* indices, F f) const {
    if (lines_.outer != 1 || lines_.inner == 1) {
      parallel_for(lines_.outer, grain(lines_.n * lines_.inner), [&](std::int64_t begin, std::int64_t end) {
        run(indices, {begin * lines_.n, end * lines_.n}, {0, lines_.inner}, f);
      });
      return;
    }
    try {
      parallel_for(lines_.inner, grain(lines_.n), [&](std::int64_t begin, std::int64_t end) {
        run(indices, {0, lines_.n}, {begin, end}, f);
      });
    } catch (const Error&) {
      range_.check(indices);  // throws for the first
      throw;
    }
  }

 private:
  struct Range {
    std::int64_t begin;
    std::int64_t end;
  };

  [[nodiscard]] static std::int64_t grain(std::int64_t indices) {
    return std::max<std::int64_t>(1, worth_a_part / std::max<std::int64_t>(1, indices));
  }

  // Rows of `inner` indices, of which those in a range.
  template <class F>
  void run(const std::int64_t* indices, Range rows, Range within, const F& f) const {
    if (rows.begin == rows.end) return;
    std::int64_t o = rows.begin / lines_.n;
    std::int64_t i = rows.begin % lines_.n;
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      for (std::int64_t k = within.begin; k < within.end; ++k) {
        const std::int64_t from = row * lines_.inner + k;
        if (!range_.contains(indices[from])) range_.fail(indices[from], from);
        f(from, (o * extent_ + range_.place(indices[from])) * lines_.inner + k);
      }
      if (++i < lines_.n) continue;
      i = 0;
      ++o;
    }
  }

  kernels::Lines lines_;
  std::int64_t extent_;
  IndexRange range_;
};

// Whether negative indices count from the end, or are out of range.
CHAINRULE_EARLY const DeclaredAttributes along_declaration = {{"axis", AttributeType::axis}, {"from_end", true}};

// How elements are scattered.
constexpr std::string_view put_name = "put";
constexpr std::string_view add_name = "add";
constexpr std::string_view max_name = "max";
constexpr std::string_view min_name = "min";

// Indices as input 1 that fit input 0 but for the axis.
void require_along(const OpCall& call) {
  require_indices(call, 1);
  const std::size_t axis = axis_of(call.attributes());
  bool fits = call.shape(0).rank() == call.shape(1).rank();
  for (std::size_t i = 0; fits && i < call.shape(0).rank(); ++i)
    fits = i == axis || call.shape(0)[i] == call.shape(1)[i];
  if (!fits)
    call.fail(fmt::format("shapes that agree but for axis {}", axis),
              fmt::format("{} and {}", to_string(call.shape(0)), to_string(call.shape(1))));
}

// ---- take_along_axis

Forward take_kernel() {
  Forward forward;
  forward.exact = true;
  forward.may_throw = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const Places places(call, call.inputs[1].shape, call.inputs[0].shape[axis_of(call.attributes)]);
    return visit_bits(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [places](const KernelBuffers& buffers) {
        const auto* x = static_cast<const T*>(buffers.inputs[0]);
        auto* y = static_cast<T*>(buffers.output);
        places.for_each(static_cast<const std::int64_t*>(buffers.inputs[1]),
                        [=](std::int64_t i, std::int64_t at) { y[i] = x[at]; });
      };
    });
  };
  return forward;
}

CHAINRULE_EARLY const BuiltinOp take_op = register_op({
    .name = "take_along_axis",
    .doc = "Elements along an axis by their indices.",
    .attributes = along_declaration,
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(2);
      require_along(call);
      return {call.dtype(0), call.shape(1)};
    },
    .forward = take_kernel(),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value zero = broadcast_to(dy.graph().constant(0.0, dy.dtype()), node.input(0).shape());
      return {apply(*find_op("scatter_along_axis"), {zero, node.input(1), dy},
                    node.attributes().with("how", std::string(add_name))),
              {}};
    },
    .samples = {{.inputs = {uniform({3, 4}, -2, 2), integers({3, 2}, 0, 4)}, .attributes = {{"axis", 1}}},
                {.inputs = {uniform({3, 2, 2}, -2, 2), integers({5, 2, 2}, -3, 3)}, .attributes = {{"axis", 0}}},
                {.inputs = {integers({6}, 0, 9), integers({4}, -6, 6)}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({2, 0}), integers({2, 0}, 0, 1)}, .attributes = {{"axis", 1}}}},
});

// ---- scatter_along_axis

std::string_view name_of(Scatter how) {
  switch (how) {
    case Scatter::put: return put_name;
    case Scatter::add: return add_name;
    case Scatter::max: return max_name;
    case Scatter::min: return min_name;
  }
  throw Error("scatter_along_axis", "requires put, add, max or min");
}

// x is kept where it is NaN, and gives way to a NaN.
template <class T>
T greater_of(T x, T y) {
  return y > x || y != y ? y : x;
}
template <class T>
T lesser_of(T x, T y) {
  return y < x || y != y ? y : x;
}

template <class T, class F>
KernelRun scatter_run(const Places& places, std::int64_t size, F onto) {
  return [=](const KernelBuffers& buffers) {
    const auto* x = static_cast<const T*>(buffers.inputs[0]);
    const auto* updates = static_cast<const T*>(buffers.inputs[2]);
    auto* y = static_cast<T*>(buffers.output);
    if (x != y)
      parallel_for(size, copied_of_part,
                   [=](std::int64_t begin, std::int64_t end) { std::copy_n(x + begin, end - begin, y + begin); });
    places.for_each_in_order(static_cast<const std::int64_t*>(buffers.inputs[1]),
                             [=](std::int64_t i, std::int64_t at) { y[at] = onto(y[at], updates[i]); });
  };
}

Forward scatter_kernel() {
  Forward forward;
  forward.may_throw = true;
  forward.adds_to = 0;  // it leaves the rest as it is
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const Places places(call, call.inputs[1].shape, call.output.shape[axis_of(call.attributes)]);
    const std::int64_t size = count(call.output.shape);
    const auto& how = call.attributes.get<std::string>("how");
    return visit_dtype(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      if (how == put_name) return scatter_run<T>(places, size, [](T, T y) { return y; });
      if constexpr (!std::is_same_v<T, bool>) {
        if (how == max_name) return scatter_run<T>(places, size, greater_of<T>);
        if (how == min_name) return scatter_run<T>(places, size, lesser_of<T>);
        if constexpr (std::is_floating_point_v<T>)
          return scatter_run<T>(places, size, [](T x, T y) { return x + y; });
        else  // modulo 2^bits
          return scatter_run<T>(places, size, [](T x, T y) {
            return static_cast<T>(static_cast<std::uint64_t>(x) + static_cast<std::uint64_t>(y));
          });
      }
      throw InternalError("scatter_along_axis of bool");
    });
  };
  return forward;
}

Value like_indices(Value x, const Node& node) {  // x's elements at the indices
  return apply(take_op, {x, node.input(1)},
               {{"axis", node.attribute<std::int64_t>("axis")}, {"from_end", node.attribute<bool>("from_end")}});
}

Value scattered(Value x, const Node& node, Value updates, std::string_view how) {
  return apply(node.op(), {x, node.input(1), updates}, node.attributes().with("how", std::string(how)));
}

// Which updates are the last at their index.
Value is_last(const Node& node) {
  const Value x = node.input(0);
  const Shape indices = node.input(1).shape();
  const std::size_t axis = axis_of(node.attributes());
  Shape along = Shape::filled(indices.rank(), 1);
  along[axis] = indices[axis];
  const Value number = broadcast_to(reshape(iota(x.graph(), indices[axis]), along), indices);
  const Value nowhere = broadcast_to(x.graph().constant(Array(std::int64_t{-1})), x.shape());
  return equal(like_indices(scattered(nowhere, node, number, put_name), node), number);
}

Values put_gradient(const Node& node, Value dy) {
  const Value zero = dy.graph().constant(0.0, dy.dtype());
  return {node.wants(0) ? scattered(dy, node, broadcast_to(zero, node.input(1).shape()), put_name) : Value{},
          {},
          node.wants(2) ? where(is_last(node), like_indices(dy, node), 0.0) : Value{}};
}

// dy shared equally among those that are the extremum.
Values extremum_gradient(const Node& node, Value dy) {
  const Value y = node.output();
  const Value own = cast(equal(node.input(0), y), dy.dtype());
  const Value updates = cast(equal(node.input(2), like_indices(y, node)), dy.dtype());
  const Value share = dy / scattered(own, node, updates, add_name);
  return {own * share, {}, updates * like_indices(share, node)};
}

std::vector<Sample> scatter_samples() {
  std::vector<Sample> samples;
  for (const std::string_view how : {put_name, add_name, max_name, min_name}) {
    const auto with = [&](std::int64_t axis) -> Attributes { return {{"axis", axis}, {"how", std::string(how)}}; };
    samples.push_back(
        {.inputs = {uniform({3, 4}, -1, 1), integers({3, 6}, -4, 4), uniform({3, 6}, -2, 2)}, .attributes = with(1)});
    samples.push_back({.inputs = {uniform({3, 2, 2}, -1, 1), integers({5, 2, 2}, 0, 3), uniform({5, 2, 2}, -2, 2)},
                       .attributes = with(0)});
    samples.push_back(
        {.inputs = {integers({4}, 0, 9), integers({5}, -4, 4), integers({5}, 0, 9)}, .attributes = with(0)});
    samples.push_back({.inputs = {uniform({2, 3}), integers({2, 0}, 0, 1), uniform({2, 0})}, .attributes = with(1)});
    samples.push_back(
        {.inputs = {uniform({0, 3, 2}), integers({0, 2, 2}, 0, 3), uniform({0, 2, 2})}, .attributes = with(1)});
  }
  return samples;
}

CHAINRULE_EARLY const BuiltinOp scatter_op = register_op({
    .name = "scatter_along_axis",
    .doc = "The first input, with others put, added, or where they are greater or less, at indices along an axis.",
    .attributes = {{"axis", AttributeType::axis}, {"from_end", true}, {"how", AttributeType::text}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(3);
      require_along(call);
      if (call.dtype(2) != call.dtype(0) || !(call.shape(2) == call.shape(1)))
        call.fail(fmt::format("updates of {} and shape {}", name(call.dtype(0)), to_string(call.shape(1))),
                  fmt::format("{} {}", name(call.dtype(2)), to_string(call.shape(2))));
      const auto& how = call.attribute<std::string>("how");
      if (how != put_name && how != add_name && how != max_name && how != min_name)
        call.fail("put, add, max or min", how);
      if (how != put_name && call.dtype(0) == boolean) call.fail("numbers, or put", "bool");
      return call.type(0);
    },
    .forward = scatter_kernel(),
    .gradient = [](const Node& node, Value dy) -> Values {
      const auto& how = node.attribute<std::string>("how");
      if (how == add_name) return {dy, {}, node.wants(2) ? like_indices(dy, node) : Value{}};
      return how == put_name ? put_gradient(node, dy) : extremum_gradient(node, dy);
    },
    .samples = scatter_samples(),
});

// The shape that an array and its indices have but for the axis, where 1 broadcasts.
struct AlongShapes {
  Shape x;
  Shape indices;

  AlongShapes(const Shape& x_shape, const Shape& indices_shape, std::size_t axis) : x(x_shape), indices(indices_shape) {
    for (std::size_t i = 0; i < x.rank(); ++i) {
      if (i == axis) continue;
      if (x[i].is(1)) x[i] = indices[i];
      if (indices[i].is(1)) indices[i] = x[i];
    }
  }
};

Value broadcast_if_other(Value x, const Shape& shape) { return x.shape() == shape ? x : broadcast_to(x, shape); }

}  // namespace

namespace {

Value take_by_int64(Value x, Value indices, std::int64_t axis, Location at) {
  if (!x.defined() || !indices.defined() || x.rank() != indices.rank() || x.rank() == 0)
    return apply(take_op, {x, indices}, {{"axis", axis}}, at);  // which says what is wrong
  const AlongShapes wide(x.shape(), indices.shape(), normalize_axis(axis, x.rank(), take_op->name, detail::scoped(at)));
  return detail::attempt({x, indices}, [&] {
    const detail::LocationScope scope(detail::scoped(at));
    return apply(take_op, {broadcast_if_other(x, wide.x), broadcast_if_other(indices, wide.indices)}, {{"axis", axis}});
  });
}

Value scatter_by_int64(Value x, Value indices, Operand updates, std::int64_t axis, Scatter how, Location at) {
  const std::string& op = scatter_op->name;
  if (!x.defined() || !indices.defined() || (updates.is_value() && !updates.value().defined()))
    throw Error(at, op, "requires values of a graph, got an empty Value");
  const Attributes attributes = {{"axis", axis}, {"how", std::string(name_of(how))}};
  return detail::attempt({x, indices, updates.value()}, [&] {
    const detail::LocationScope scope(at);
    const Value added = updates.resolve(x);
    if (x.rank() != indices.rank() || x.rank() == 0) return apply(scatter_op, {x, indices, added}, attributes);
    const std::size_t along = normalize_axis(axis, x.rank(), op, at);
    Shape shape = x.shape();
    shape[along] = indices.shape()[along];
    const std::size_t lead = x.rank() - std::min(x.rank(), added.rank());
    if (shape[along].is(1) && along >= lead) shape[along] = added.shape()[along - lead];
    return apply(scatter_op, {x, broadcast_if_other(indices, shape), broadcast_if_other(added, shape)}, attributes);
  });
}

Value scatter_add_by_int64(Value x, Value indices, Dimension extent, std::int64_t axis, Location at) {
  const std::string& op = scatter_op->name;
  if (!x.defined() || !indices.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  const std::size_t along = normalize_axis(axis, x.rank(), op, at);
  return detail::attempt({x, indices}, [&] {
    const detail::LocationScope scope(at);
    Shape shape = x.shape();
    shape[along] = extent;
    const Value zero = broadcast_to(x.graph().constant(0.0, x.dtype()), shape);
    return apply(scatter_op, {zero, indices, x}, {{"axis", axis}, {"how", std::string(add_name)}});
  });
}

}  // namespace

Value take_along_axis(Value x, Value indices, std::int64_t axis, Location at) {
  return with_int64(indices, at, [&](Value i) { return take_by_int64(x, i, axis, at); });
}

Value scatter_along_axis(Value x, Value indices, Operand updates, std::int64_t axis, Scatter how, Location at) {
  at = detail::scoped(at);
  return with_int64(indices, at, [&](Value i) { return scatter_by_int64(x, i, updates, axis, how, at); });
}

Value scatter_add_along_axis(Value x, Value indices, Dimension extent, std::int64_t axis, Location at) {
  at = detail::scoped(at);
  return with_int64(indices, at, [&](Value i) { return scatter_add_by_int64(x, i, extent, axis, at); });
}

}  // namespace chainrule
