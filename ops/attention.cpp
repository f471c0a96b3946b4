#include <chainrule/ops/attention.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/framework/kernels/softmax.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/matmul.hpp>
#include <chainrule/ops/random.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/ops/softmax.hpp>

CHAINRULE_OP_FAMILY(attention)

namespace chainrule {

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr std::string_view attention = "scaled_dot_product_attention";

Forward weights_kernel() {
  Forward forward;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const Dims& shape = call.output.shape;
    const kernels::Lines lines(shape, shape.rank() - 1);
    const std::int64_t queries = shape[shape.rank() - 2];
    const bool causal = call.attributes.get<bool>("causal");
    return visit_floating(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [lines, queries, causal](const KernelBuffers& buffers) {
        kernels::attention_weights(lines, queries, causal, static_cast<const T*>(buffers.inputs[0]),
                                   static_cast<T*>(buffers.output));
      };
    });
  };
  forward.adds_to = 0;  // in the memory of the scores
  return forward;
}

// Where a row is all -inf, softmax's rule is NaN. The gradient is that of softmax, in which such a row's weights of 0
// make all of its gradients 0, and so do those of what comes later where it is causal.
CHAINRULE_EARLY const BuiltinOp attention_weights_op = register_op({
    .name = "attention_weights",
    .doc = "softmax along the last axis; 0 where all of a row is -inf. Causal: of the first i + 1 elements in row i.",
    .attributes = {{"causal", false}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      call.require_floating(0);
      if (call.shape(0).rank() < 2) call.fail("matrices", to_string(call.shape(0)));
      if (call.shape(0).back().is(0)) call.fail("at least one element along the last axis", to_string(call.shape(0)));
      return call.type(0);
    },
    .forward = weights_kernel(),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {apply(*find_op("softmax_gradient"), {node.output(), dy}, {{"axis", -1}})};
    },
    .samples = {{.inputs = {uniform({3, 4}, -3, 3)}},
                {.inputs = {uniform({2, 3, 5}, -3, 3)}},
                {.inputs = {uniform({4, 1}, -3, 3)}},
                {.inputs = {uniform({2, 4, 4}, -3, 3)}, .attributes = {{"causal", true}}},
                {.inputs = {uniform({2, 5, 3}, -3, 3)}, .attributes = {{"causal", true}}},
                {.inputs = {uniform({3, 200, 200}, -9, 9)}, .attributes = {{"causal", true}}, .differentiate = false},
                {.inputs = {Array({{-inf, -inf, -inf}, {-inf, 0.5, -0.25}, {1e4, -1e4, 0.0}})}, .differentiate = false},
                {.inputs = {Array({{-inf, 2.0, 1.0}, {-inf, 0.5, inf}, {-inf, -inf, -inf}})},
                 .attributes = {{"causal", true}},
                 .differentiate = false},
                {.inputs = {zeros({0, 3})}},
                {.inputs = {zeros({2, 0, 3})}, .attributes = {{"causal", true}}}},
});

[[noreturn]] void fail(std::string_view op, Location at, std::string_view required, std::string_view got) {
  throw Error(at, op, fmt::format("requires {}, got {}", required, got));
}

void require_floating_matrices(std::string_view op, Location at, Value x, std::string_view what) {
  if (!x.defined()) fail(op, at, "values of a graph", fmt::format("an empty Value as {}", what));
  if (!is_floating(x.dtype())) fail(op, at, fmt::format("a floating {}", what), name(x.dtype()));
  if (x.rank() < 2) fail(op, at, fmt::format("a {} of at least two axes", what), to_string(x.shape()));
}

// The sizes of one call.
struct Attended {
  Location at;
  Dimension heads = 1;
  Dimension groups = 1;
  Dimension queries;
  Dimension keys;
  Dimension width;
  Dimension features;
  Shape leading;  // what is before the heads

  Attended(Value query, Value key, Value value, Location location) : at(location) {
    require_floating_matrices(attention, at, query, "query");
    require_floating_matrices(attention, at, key, "key");
    require_floating_matrices(attention, at, value, "value");
    const std::size_t rank = query.rank();
    if (key.dtype() != query.dtype() || value.dtype() != query.dtype())
      fail(attention, at, "query, key and value of one dtype",
           fmt::format("{}, {} and {}", name(query.dtype()), name(key.dtype()), name(value.dtype())));
    const auto shapes = [&] {
      return fmt::format("query {}, key {}, value {}", to_string(query.shape()), to_string(key.shape()),
                         to_string(value.shape()));
    };
    if (key.rank() != rank || value.rank() != rank) fail(attention, at, "query, key and value of one rank", shapes());
    queries = query.shape()[rank - 2];
    width = query.shape()[rank - 1];
    keys = key.shape()[rank - 2];
    features = value.shape()[rank - 1];
    if (!(key.shape()[rank - 1] == width)) fail(attention, at, "keys as wide as queries", shapes());
    if (!(value.shape()[rank - 2] == keys)) fail(attention, at, "as many values as keys", shapes());
    if (keys.is(0)) fail(attention, at, "at least one key", shapes());
    for (std::size_t i = 0; i + 2 < rank; ++i) {
      if (!(value.shape()[i] == key.shape()[i])) fail(attention, at, "as many values as keys", shapes());
      if (i + 3 == rank) break;
      if (!(key.shape()[i] == query.shape()[i])) fail(attention, at, "the same extents before the heads", shapes());
      leading.push_back(query.shape()[i]);
    }
    if (rank == 2) return;
    heads = query.shape()[rank - 3];
    groups = key.shape()[rank - 3];
    if (heads == groups) return;
    if (!heads.is_number() || !groups.is_number() || groups.is(0) || heads.extent() % groups.extent() != 0)
      fail(attention, at, "a number of heads that is a multiple of the groups of keys", shapes());
  }

  [[nodiscard]] bool grouped() const { return !(heads == groups); }
  [[nodiscard]] Shape shape(Dimension of_heads, Dimension rows, Dimension columns) const {
    Shape out = leading;
    for (const Dimension d : {of_heads, rows, columns}) out.push_back(d);
    return out;
  }
  // The rows of all heads of a group one below the other, so that they are one product with its keys.
  [[nodiscard]] Value stacked(Value x, Dimension columns) const {
    return grouped() ? reshape(x, shape(groups, heads.extent() / groups.extent() * queries, columns)) : x;
  }
  [[nodiscard]] Value apart(Value x, Dimension columns) const {
    return grouped() ? reshape(x, shape(heads, queries, columns)) : x;
  }
};

Value masked(Value scores, const Value& mask, Location at) {
  if (!mask.defined()) fail(attention, at, "a mask of the graph", "an empty Value");
  Shape both;
  if (!broadcast(scores.shape(), mask.shape(), both) || !(both == scores.shape()))
    fail(attention, at, fmt::format("a mask that broadcasts to {}", to_string(scores.shape())),
         to_string(mask.shape()));
  if (mask.dtype() == boolean) return where(mask, scores, -inf);
  if (mask.dtype() != scores.dtype())
    fail(attention, at, fmt::format("a mask of dtype bool or {}", name(scores.dtype())), name(mask.dtype()));
  return scores + mask;
}

// base^(-2 i / width) for i = 0, 1, ..., width / 2 - 1.
Array frequencies(std::int64_t width, double base) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < width / 2; ++i)
    out.push_back(std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(width)));
  return Array(out);
}

void require_even(std::string_view op, Location at, Dimension width) {
  if (!width.is_number() || width.extent() % 2 != 0) fail(op, at, "an even number of features", width.to_string());
}

}  // namespace

Value scaled_dot_product_attention(Value query, Value key, Value value, const AttentionOptions& options, Location at) {
  at = detail::scoped(at);
  const Attended sizes(query, key, value, at);
  if (options.causal && !(sizes.queries == sizes.keys))
    fail(attention, at, "as many queries as keys where causal (a mask says what else is meant)",
         fmt::format("{} and {}", sizes.queries.to_string(), sizes.keys.to_string()));
  if (options.scale && !std::isfinite(*options.scale))
    fail(attention, at, "a finite scale", fmt::format("{}", *options.scale));
  if (!options.scale && sizes.width.is(0)) fail(attention, at, "a scale where the width is 0", "none");
  return detail::attempt({query, key, value}, [&] {
    const detail::LocationScope scope(at);
    Graph graph = query.graph();
    const Value scale = options.scale ? graph.constant(*options.scale, query.dtype())
                                      : 1.0 / sqrt(extent(graph, {sizes.width}, query.dtype()));
    // Of the queries rather than of the scores, which are more.
    const Value rows = sizes.stacked(query * scale, sizes.width);
    Value scores = sizes.apart(matmul(rows, swapaxes(key, -1, -2)), sizes.keys);
    if (options.mask) scores = masked(scores, *options.mask, at);
    Value weights = apply(attention_weights_op, {scores}, {{"causal", options.causal}});
    if (options.keep != 1) weights = dropout(weights, {.keep = options.keep});
    return sizes.apart(matmul(sizes.stacked(weights, sizes.keys), value), sizes.features);
  });
}

Value length_mask(Value lengths, Dimension places, Location at) {
  constexpr std::string_view op = "length_mask";
  at = detail::scoped(at);
  if (!lengths.defined()) fail(op, at, "values of a graph", "an empty Value");
  if (lengths.dtype() != int64) fail(op, at, "lengths of int64", name(lengths.dtype()));
  return detail::attempt(lengths, [&] {
    const detail::LocationScope scope(at);
    return iota(lengths.graph(), places) < expand_dims(lengths, -1);
  });
}

Value rotary(Value x, const RotaryOptions& options, Location at) {
  constexpr std::string_view op = "rotary";
  at = detail::scoped(at);
  require_floating_matrices(op, at, x, "x");
  const Dimension width = x.shape().back();
  require_even(op, at, width);
  if (!(options.base > 0 && std::isfinite(options.base))) fail(op, at, "base > 0", fmt::format("{}", options.base));
  return detail::attempt(x, [&] {
    const detail::LocationScope scope(at);
    Graph graph = x.graph();
    const Dimension places = x.shape()[x.rank() - 2];
    const Value positions = options.positions ? *options.positions : iota(graph, places);
    Shape both;
    const Shape rows(std::vector<Dimension>(x.shape().begin(), x.shape().end() - 1));
    if (!positions.defined() || !broadcast(rows, positions.shape(), both) || !(both == rows))
      fail(op, at, fmt::format("positions that broadcast to {}", to_string(rows)),
           positions.defined() ? to_string(positions.shape()) : "an empty Value");
    if (positions.dtype() == boolean) fail(op, at, "positions that are numbers", name(positions.dtype()));
    const std::int64_t pairs = width.extent() / 2;
    const Value angles =
        expand_dims(cast(positions, float64), -1) * graph.constant(frequencies(width.extent(), options.base));
    const Value cosine = cast(cos(angles), x.dtype());
    const Value sine = cast(sin(angles), x.dtype());
    Shape in_pairs = rows;
    for (const std::int64_t extent :
         options.interleaved ? std::vector{pairs, std::int64_t{2}} : std::vector{std::int64_t{2}, pairs})
      in_pairs.push_back(extent);
    const std::int64_t axis = options.interleaved ? -1 : -2;
    const Values parts = unstack(reshape(x, in_pairs), axis);
    return reshape(stack({parts[0] * cosine - parts[1] * sine, parts[1] * cosine + parts[0] * sine}, axis), x.shape());
  });
}

Value sinusoidal_positions(Graph graph, Dimension places, std::int64_t width, DType dtype, Location at) {
  constexpr std::string_view op = "sinusoidal_positions";
  at = detail::scoped(at);
  require_even(op, at, width);
  if (!is_floating(dtype)) fail(op, at, "a floating dtype", name(dtype));
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(at);
  const Value angles =
      cast(reshape(iota(graph, places), {places, 1}), float64) * graph.constant(frequencies(width, 10'000));
  const Value out = cast(reshape(stack({sin(angles), cos(angles)}, -1), {places, width}), dtype);
  attempt.succeed();
  return out;
}

Value alibi_bias(Graph graph, std::int64_t heads, Dimension queries, Dimension keys, DType dtype, Location at) {
  constexpr std::string_view op = "alibi_bias";
  at = detail::scoped(at);
  constexpr std::int64_t most = 1 << 20;
  if (heads < 1 || heads > most) fail(op, at, fmt::format("1 to {} heads", most), fmt::format("{}", heads));
  if (!is_floating(dtype)) fail(op, at, "a floating dtype", name(dtype));
  std::vector<double> slopes;
  for (std::int64_t h = 1; h <= heads; ++h)
    slopes.push_back(std::exp2(-8.0 * static_cast<double>(h) / static_cast<double>(heads)));
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(at);
  const Value distance = abs(cast(reshape(iota(graph, queries), {queries, 1}) - iota(graph, keys), dtype));
  const Value out = reshape(graph.constant(Array(slopes).astype(dtype)), {heads, 1, 1}) * -distance;
  attempt.succeed();
  return out;
}

}  // namespace chainrule
