#include <chainrule/ops/sorting.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/ops/indexing.hpp>

CHAINRULE_OP_FAMILY(sorting)

namespace chainrule {

namespace {

using kernels::axis_of;
using kernels::Lines;

template <class T>
struct Place {
  T value;
  std::int64_t index;
};

// No two places are equal, so any way of sorting is stable.
template <bool descending>
struct Before {
  template <class T>
  bool operator()(const Place<T>& a, const Place<T>& b) const {
    if constexpr (std::is_floating_point_v<T>) {
      const bool a_is_nan = std::isnan(a.value);
      const bool b_is_nan = std::isnan(b.value);
      if (a_is_nan || b_is_nan) return a_is_nan == b_is_nan ? a.index < b.index : b_is_nan;
    }
    if (a.value != b.value) return descending ? a.value > b.value : a.value < b.value;
    return a.index < b.index;
  }
};

// The first k of each line in order: their values, and their indices, each where somebody reads them.
template <class T, bool descending>
struct FirstInOrder {
  Lines lines;
  std::int64_t k;

  // Lines of a part: each part has places of its own in the workspace.
  [[nodiscard]] std::int64_t grain() const {
    constexpr std::int64_t part_elements = 8192;
    constexpr std::int64_t most_parts = 64;
    const std::int64_t count = lines.outer * lines.inner;
    return std::max(
        {std::int64_t{1}, part_elements / std::max<std::int64_t>(1, lines.n), (count + most_parts - 1) / most_parts});
  }
  [[nodiscard]] std::size_t workspace() const {
    const std::int64_t parts = (lines.outer * lines.inner + grain() - 1) / grain();
    return static_cast<std::size_t>(parts * lines.n) * sizeof(Place<T>);
  }

  void operator()(const KernelBuffers& buffers) const {
    const auto* x = static_cast<const T*>(buffers.inputs[0]);
    parallel_for(lines.outer * lines.inner, grain(), [&](std::int64_t begin, std::int64_t end) {
      auto* places = static_cast<Place<T>*>(buffers.workspace) + begin / grain() * lines.n;
      for (std::int64_t line = begin; line < end; ++line) {
        const std::int64_t o = line / lines.inner;
        const std::int64_t i = line % lines.inner;
        order(x + o * lines.n * lines.inner + i, places, (o * k) * lines.inner + i, static_cast<T*>(buffers.outputs[0]),
              static_cast<std::int64_t*>(buffers.outputs[1]));
      }
    });
  }

 private:
  void order(const T* x, Place<T>* places, std::int64_t first, T* values, std::int64_t* indices) const {
    for (std::int64_t i = 0; i < lines.n; ++i) places[i] = {x[i * lines.inner], i};
    Place<T>* const end = places + lines.n;
    // A few of many: without putting the others in order.
    if (k < lines.n) std::nth_element(places, places + k, end, Before<descending>());
    std::sort(places, places + k, Before<descending>());
    for (std::int64_t i = 0; values && i < k; ++i) values[first + i * lines.inner] = places[i].value;
    for (std::int64_t i = 0; indices && i < k; ++i) indices[first + i * lines.inner] = places[i].index;
  }
};

// `descending`: the name of the attribute that says so. An op without "k" takes all.
Forward first_in_order(std::string descending) {
  Forward forward;
  forward.exact = true;
  forward.skips_unread = true;
  forward.kernel = [descending = std::move(descending)](KernelCall& call) -> KernelRun {
    const Lines lines(call.inputs[0].shape, axis_of(call.attributes));
    const std::int64_t k = call.attributes.has("k") ? call.attributes.get<std::int64_t>("k") : lines.n;
    if (k > lines.n)
      throw Error(call.at, call.op, fmt::format("requires a k of at most the extent, got {} of {}", k, lines.n));
    return visit_dtype(call.inputs[0].dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      call.workspace = FirstInOrder<T, true>{lines, k}.workspace();
      if (call.attributes.get<bool>(descending)) return FirstInOrder<T, true>{lines, k};
      return FirstInOrder<T, false>{lines, k};
    });
  };
  return forward;
}

Types values_and_indices(const OpCall& call, std::optional<std::int64_t> k) {
  call.require_inputs(1);
  if (call.dtype(0) == boolean) call.fail("float32, float64 or an integer", name(boolean));
  const std::size_t axis = axis_of(call.attributes());
  Shape shape = call.shape(0);
  if (k) {
    if (*k < 0) call.fail("a k of 0 or more", fmt::format("{}", *k));
    if (shape[axis].is_number() && *k > shape[axis].extent())
      call.fail("a k of at most the extent", fmt::format("{} of {}", *k, shape[axis].to_string()));
    shape[axis] = *k;
  }
  return {{call.dtype(0), shape}, {int64, shape}};
}

// Each element of the values goes back to where it came from.
Values to_their_places(const Node& node, const Values& dys) {
  if (!dys[0].defined()) return {{}};
  const auto axis = node.attribute<std::int64_t>("axis");
  const Dimension extent = node.input(0).shape()[static_cast<std::size_t>(axis)];
  return {scatter_add_along_axis(dys[0], node.output(1), extent, axis)};
}

Array with_ties_and_nan() {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  return Array(
      {{2.0, nan, -1.0, 2.0}, {-0.0, 0.0, nan, nan}, {std::numeric_limits<double>::infinity(), 1.0, 1.0, 0.5}});
}

CHAINRULE_EARLY const BuiltinOp sort_op = register_op({
    .name = "sort",
    .doc = "The elements along an axis in order, and their indices.",
    .attributes = {{"axis", AttributeType::axis}, {"descending", false}},
    .shape = [](const OpCall& call) { return values_and_indices(call, {}); },
    .forward = first_in_order("descending"),
    .gradient = to_their_places,
    .samples = {{.inputs = {uniform({3, 5}, -2, 2)}, .attributes = {{"axis", 1}, {"descending", false}}},
                {.inputs = {uniform({2, 4, 3}, -2, 2)}, .attributes = {{"axis", 1}, {"descending", true}}},
                {.inputs = {integers({40}, 0, 7)}, .attributes = {{"axis", 0}, {"descending", true}}},
                {.inputs = {with_ties_and_nan()},
                 .attributes = {{"axis", -1}, {"descending", false}},
                 .differentiate = false},
                {.inputs = {uniform({0, 3})}, .attributes = {{"axis", 0}, {"descending", false}}}},
});

CHAINRULE_EARLY const BuiltinOp topk_op = register_op({
    .name = "topk",
    .doc = "The k greatest or smallest elements along an axis in order, and their indices.",
    .attributes = {{"k", AttributeType::whole}, {"axis", AttributeType::axis}, {"largest", true}},
    .shape = [](const OpCall& call) { return values_and_indices(call, call.attribute<std::int64_t>("k")); },
    .forward = first_in_order("largest"),
    .gradient = to_their_places,
    .samples = {{.inputs = {uniform({3, 5}, -2, 2)}, .attributes = {{"k", 2}, {"axis", 1}, {"largest", true}}},
                {.inputs = {uniform({4, 2, 3}, -2, 2)}, .attributes = {{"k", 3}, {"axis", 0}, {"largest", false}}},
                {.inputs = {uniform({4}, -2, 2)}, .attributes = {{"k", 4}, {"axis", 0}, {"largest", true}}},
                {.inputs = {with_ties_and_nan()},
                 .attributes = {{"k", 3}, {"axis", -1}, {"largest", true}},
                 .differentiate = false},
                {.inputs = {uniform({2, 3})}, .attributes = {{"k", 0}, {"axis", 1}, {"largest", true}}}},
});

Sorted sorted(const Value& first) {
  const Node node = first.node();
  return {node.output(0), node.output(1)};
}

}  // namespace

Sorted sort(Value x, std::int64_t axis, bool descending, Location at) {
  return sorted(apply(sort_op, {x}, {{"axis", axis}, {"descending", descending}}, at));
}

Value argsort(Value x, std::int64_t axis, bool descending, Location at) {
  return sort(x, axis, descending, at).indices;
}

Sorted topk(Value x, std::int64_t k, std::int64_t axis, bool largest, Location at) {
  return sorted(apply(topk_op, {x}, {{"k", k}, {"axis", axis}, {"largest", largest}}, at));
}

}  // namespace chainrule
