#include <chainrule/ops/indexing.hpp>

#include <algorithm>
#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>

CHAINRULE_OP_FAMILY(indexing)

namespace chainrule {

namespace {

using kernels::axis_of;

// Indices that are worth another thread's while, and zeros.
constexpr std::int64_t worth_a_part = 16'384;
constexpr std::int64_t zeros_of_part = 65'536;

// The indices of an array along an axis, and the places in another one of the same shape, but for the axis, that they
// say. Both functions call f(element of the indices, element of the other array) for all of them, on several threads,
// and throw Error for an index beyond the other's extent, the first in row-major order.
class Places {
 public:
  Places(const KernelCall& call, const Dims& indices, std::int64_t extent)
      : lines_(indices, axis_of(call.attributes)), extent_(extent), at_(call.at), op_(call.op) {}

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
    if (lines_.outer > 1 || lines_.inner == 1) {
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
      run(indices, {0, lines_.n}, {0, lines_.inner}, [](std::int64_t, std::int64_t) {});  // throws for the first
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
        f(from, (o * extent_ + in_range(indices[from])) * lines_.inner + k);
      }
      if (++i < lines_.n) continue;
      i = 0;
      ++o;
    }
  }

  [[nodiscard]] std::int64_t in_range(std::int64_t index) const {
    if (index < -extent_ || index >= extent_)
      throw Error(at_, op_, fmt::format("requires indices from {} to {}, got {}", -extent_, extent_ - 1, index));
    return index < 0 ? index + extent_ : index;
  }

  kernels::Lines lines_;
  std::int64_t extent_;
  Location at_;
  std::string op_;
};

Type take_shape(const OpCall& call) {
  call.require_inputs(2);
  if (call.dtype(1) != int64) call.fail("indices of int64", name(call.dtype(1)));
  const std::size_t axis = axis_of(call.attributes());
  bool fits = call.shape(0).rank() == call.shape(1).rank();
  for (std::size_t i = 0; fits && i < call.shape(0).rank(); ++i)
    fits = i == axis || call.shape(0)[i] == call.shape(1)[i];
  if (!fits)
    call.fail(fmt::format("shapes that agree but for axis {}", axis),
              fmt::format("{} and {}", to_string(call.shape(0)), to_string(call.shape(1))));
  return {call.dtype(0), call.shape(1)};
}

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

Type scatter_add_shape(const OpCall& call) {
  call.require_inputs(2);
  call.require_floating(0);
  if (call.dtype(1) != int64) call.fail("indices of int64", name(call.dtype(1)));
  if (!(call.shape(0) == call.shape(1)))
    call.fail("values and indices of one shape",
              fmt::format("{} and {}", to_string(call.shape(0)), to_string(call.shape(1))));
  Type out = call.type(0);
  out.shape[axis_of(call.attributes())] = call.attribute<Shape>("extent")[0];
  return out;
}

Forward scatter_add_kernel() {
  Forward forward;
  forward.may_throw = true;
  forward.dtypes = Forward::Dtypes::floating;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const Places places(call, call.inputs[1].shape, call.output.shape[axis_of(call.attributes)]);
    return visit_floating(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [places, size = count(call.output.shape)](const KernelBuffers& buffers) {
        const auto* x = static_cast<const T*>(buffers.inputs[0]);
        auto* y = static_cast<T*>(buffers.output);
        parallel_for(size, zeros_of_part,
                     [y](std::int64_t begin, std::int64_t end) { std::fill(y + begin, y + end, T{0}); });
        places.for_each_in_order(static_cast<const std::int64_t*>(buffers.inputs[1]),
                                 [=](std::int64_t i, std::int64_t at) { y[at] += x[i]; });
      };
    });
  };
  return forward;
}

CHAINRULE_EARLY const BuiltinOp take_op = register_op({
    .name = "take_along_axis",
    .doc = "Elements along an axis by their indices.",
    .attributes = {{"axis", AttributeType::axis}},
    .shape = take_shape,
    .forward = take_kernel(),
    .gradient = [](const Node& node, Value dy) -> Values {
      const auto axis = node.attribute<std::int64_t>("axis");
      const Dimension extent = node.input(0).shape()[static_cast<std::size_t>(axis)];
      return {scatter_add_along_axis(dy, node.input(1), extent, axis), {}};
    },
    .samples = {{.inputs = {uniform({3, 4}, -2, 2), integers({3, 2}, 0, 4)}, .attributes = {{"axis", 1}}},
                {.inputs = {uniform({3, 2, 2}, -2, 2), integers({5, 2, 2}, -3, 3)}, .attributes = {{"axis", 0}}},
                {.inputs = {integers({6}, 0, 9), integers({4}, -6, 6)}, .attributes = {{"axis", 0}}},
                {.inputs = {uniform({2, 0}), integers({2, 0}, 0, 1)}, .attributes = {{"axis", 1}}}},
});

CHAINRULE_EARLY const BuiltinOp scatter_add_op = register_op({
    .name = "scatter_add_along_axis",
    .doc = "Zeros, to which elements are added along an axis at their indices.",
    .attributes = {{"axis", AttributeType::axis}, {"extent", AttributeType::extent}},
    .shape = scatter_add_shape,
    .forward = scatter_add_kernel(),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {take_along_axis(dy, node.input(1), node.attribute<std::int64_t>("axis")), {}};
    },
    .samples = {{.inputs = {uniform({3, 2}, -2, 2), integers({3, 2}, 0, 4)},
                 .attributes = {{"axis", 1}, {"extent", Shape{4}}}},
                {.inputs = {uniform({5, 2, 2}, -2, 2), integers({5, 2, 2}, -3, 3)},
                 .attributes = {{"axis", 0}, {"extent", Shape{3}}}},
                {.inputs = {uniform({0}), integers({0}, 0, 1)}, .attributes = {{"axis", 0}, {"extent", Shape{2}}}}},
});

}  // namespace

Value take_along_axis(Value x, Value indices, std::int64_t axis, Location at) {
  if (indices.defined() && is_integer(indices.dtype()) && indices.dtype() != int64)
    return detail::attempt(indices, [&] { return take_along_axis(x, cast(indices, int64, at), axis, at); });
  if (!x.defined() || !indices.defined() || x.rank() != indices.rank() || x.rank() == 0)
    return apply(take_op, {x, indices}, {{"axis", axis}}, at);  // which says what is wrong
  const std::size_t along = normalize_axis(axis, x.rank(), take_op->name, detail::scoped(at));
  Shape from = x.shape();
  Shape by = indices.shape();
  for (std::size_t i = 0; i < from.rank(); ++i) {
    if (i == along) continue;
    if (from[i].is(1)) from[i] = by[i];
    if (by[i].is(1)) by[i] = from[i];
  }
  return detail::attempt({x, indices}, [&] {
    const Value wide = from == x.shape() ? x : broadcast_to(x, from, at);
    const Value places = by == indices.shape() ? indices : broadcast_to(indices, by, at);
    return apply(take_op, {wide, places}, {{"axis", axis}}, at);
  });
}

Value scatter_add_along_axis(Value x, Value indices, Dimension extent, std::int64_t axis, Location at) {
  if (indices.defined() && is_integer(indices.dtype()) && indices.dtype() != int64)
    return detail::attempt(indices,
                           [&] { return scatter_add_along_axis(x, cast(indices, int64, at), extent, axis, at); });
  return apply(scatter_add_op, {x, indices}, {{"axis", axis}, {"extent", Shape{extent}}}, at);
}

}  // namespace chainrule
