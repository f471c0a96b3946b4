#include <chainrule/ops/pooling.hpp>

#include <algorithm>
#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/convolutions/pooling.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/ops/window_options.hpp>

CHAINRULE_OP_FAMILY(pooling)

namespace chainrule {

namespace {

std::size_t spatial_rank(const OpCall& call, std::size_t i) {
  call.require_floating(i);
  if (call.shape(i).rank() < 3 || call.shape(i).rank() > 5)
    call.fail("one to three spatial axes", to_string(call.shape(i)));
  return call.shape(i).rank() - 2;
}

void require_window(const OpCall& call, std::size_t spatial) {
  detail::require_list(call, "window", spatial, 1);
  detail::require_window_attributes(call, spatial);
}

// Padding that no window is all of.
void require_little_padding(const OpCall& call, std::size_t spatial) {
  const auto& padding = call.attribute<Axes>("padding");
  for (std::size_t i = 0; i < spatial; ++i) {
    const std::int64_t reach = call.attribute<Axes>("dilation")[i] * (call.attribute<Axes>("window")[i] - 1) + 1;
    if (std::max(padding[i], padding[spatial + i]) >= reach)
      call.fail(fmt::format("padding below the reach of the window, {}", reach), Attribute(padding).to_string());
  }
}

// ---- maxima

// {N, C, outputs...}
Shape pooled(const OpCall& call) {
  const Shape& x = call.shape(0);
  const std::size_t spatial = spatial_rank(call, 0);
  const auto& outputs = call.attribute<Axes>("outputs");
  Shape y{x[0], x[1]};
  if (!outputs.empty()) {
    detail::require_list(call, "outputs", spatial, 1);
    for (const char* name : {"window", "stride", "padding", "dilation"}) detail::require_list(call, name, 0, 0);
    for (std::size_t i = 0; i < spatial; ++i) {
      if (x[i + 2].is(0)) call.fail("extents of 1 or more", to_string(x));
      y.push_back(outputs[i]);
    }
    return y;
  }
  require_window(call, spatial);
  require_little_padding(call, spatial);
  for (std::size_t i = 0; i < spatial; ++i)
    y.push_back(detail::outputs_of(call, x[i + 2], call.attribute<Axes>("window")[i], i));
  return y;
}

void require_like(const OpCall& call, const Shape& shape) {
  call.require_inputs(2);
  call.require_same_dtype();
  if (!(call.shape(1) == shape))
    call.fail(fmt::format("a second input of shape {}", to_string(shape)), to_string(call.shape(1)));
}

CHAINRULE_EARLY const DeclaredAttributes max_pool_attributes = {
    {"window", Axes{}}, {"stride", Axes{}}, {"padding", Axes{}}, {"dilation", Axes{}}, {"outputs", Axes{}}};

Attributes windows(const Axes& window, const Axes& stride, const Axes& padding, const Axes& dilation) {
  return {{"window", window}, {"stride", stride}, {"padding", padding}, {"dilation", dilation}};
}

// Windows to try: x's shape, y's, and attributes.
struct Tried {
  Shape x;
  Shape y;
  Attributes attributes;
};

std::vector<Tried> tried() {
  return {{{2, 2, 4, 6}, {2, 2, 2, 3}, windows({2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1})},
          {{1, 3, 7}, {1, 3, 7}, windows({3}, {1}, {1, 1}, {1})},
          {{2, 1, 5, 5}, {2, 1, 3, 2}, windows({3, 2}, {2, 3}, {1, 0, 1, 1}, {1, 2})},
          {{1, 2, 3, 2, 4}, {1, 2, 2, 1, 4}, windows({2, 2, 2}, {1, 1, 1}, {0, 0, 0, 0, 0, 1}, {1, 1, 1})},
          {{1, 1, 5, 4}, {1, 1, 3, 3}, {{"outputs", Axes{3, 3}}}},
          {{0, 1, 2}, {0, 1, 1}, windows({2}, {1}, {0, 0}, {1})}};
}

std::vector<Sample> samples_of(Sample (*one)(const Tried&)) {
  std::vector<Sample> out;
  for (const Tried& t : tried()) out.push_back(one(t));
  return out;
}

// Windows of 2 x 2 with equal elements, NaN and infinities.
Array with_ties_and_nan() {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  constexpr double inf = std::numeric_limits<double>::infinity();
  return Array{1.0, 1.0, nan, 2.0, 1.0, 0.0, 2.0, nan, -inf, -inf, inf, 3.0, -inf, -inf, 0.0, -0.0}.reshape(
      {1, 1, 4, 4});
}

std::vector<Sample> with(std::vector<Sample> samples, std::vector<Initial> inputs) {
  samples.push_back({.inputs = std::move(inputs), .attributes = samples[0].attributes, .differentiate = false});
  return samples;
}

CHAINRULE_EARLY const BuiltinOp max_pool_op = register_op({
    .name = "max_pool",
    .doc = "The greatest element of each window of {N, C, ...}, or of so many even windows.",
    .attributes = max_pool_attributes,
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      return {call.dtype(0), pooled(call)};
    },
    .forward = convolutions::max_windows(),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {apply(*find_op("max_pool_scatter"), {node.input(0), dy}, node.attributes())};
    },
    .samples = with(samples_of([](const Tried& t) -> Sample {
                      return {.inputs = {uniform(t.x, -1, 1)}, .attributes = t.attributes};
                    }),
                    {with_ties_and_nan()}),
});

// How the places of maxima depend on x is no slope: an empty Value contributes nothing.
CHAINRULE_EARLY const BuiltinOp max_pool_scatter_op = register_op({
    .name = "max_pool_scatter",
    .doc = "Zeros like x, with the second input's elements added where x's windows are greatest.",
    .attributes = max_pool_attributes,
    .shape = [](const OpCall& call) -> Type {
      require_like(call, pooled(call));
      return call.type(0);
    },
    .forward = convolutions::scatter_to_maxima(),
    .gradient = [](const Node& node, Value d) -> Values {
      return {{}, apply(*find_op("max_pool_gather"), {node.input(0), d}, node.attributes())};
    },
    .samples = with(samples_of([](const Tried& t) -> Sample {
                      return {.inputs = {uniform(t.x, -1, 1), uniform(t.y, -1, 1)}, .attributes = t.attributes};
                    }),
                    {with_ties_and_nan(), uniform({1, 1, 2, 2})}),
});

CHAINRULE_EARLY const BuiltinOp max_pool_gather_op = register_op({
    .name = "max_pool_gather",
    .doc = "The second input's elements where x's windows are greatest.",
    .attributes = max_pool_attributes,
    .shape = [](const OpCall& call) -> Type {
      require_like(call, call.shape(0));
      return {call.dtype(0), pooled(call)};
    },
    .forward = convolutions::gather_from_maxima(),
    .gradient = [](const Node& node, Value d) -> Values {
      return {{}, apply(max_pool_scatter_op, {node.input(0), d}, node.attributes())};
    },
    .samples = with(samples_of([](const Tried& t) -> Sample {
                      return {.inputs = {uniform(t.x, -1, 1), uniform(t.x, -1, 1)}, .attributes = t.attributes};
                    }),
                    {with_ties_and_nan(), uniform({1, 1, 4, 4})}),
});

// ---- weighted sums along an axis

constexpr std::string_view average = "average";  // "numbers": window, stride, padding before, behind, whether it counts
constexpr std::string_view even = "even";
constexpr std::string_view nearest = "nearest";
constexpr std::string_view linear = "linear";
constexpr std::string_view linear_aligned = "linear_aligned";

using convolutions::Term;
using convolutions::Terms;

std::vector<Term> mean_of(std::int64_t begin, std::int64_t end, std::int64_t count) {
  std::vector<Term> out;
  for (std::int64_t i = begin; i < end; ++i) out.push_back({i, 1 / static_cast<double>(count)});
  return out;
}

// Of the place numerator / denominator, at or behind an element and before the next.
std::vector<Term> between(std::int64_t numerator, std::int64_t denominator, std::int64_t in) {
  const auto whole = static_cast<double>(denominator);
  const std::int64_t below = std::min(numerator / denominator, in - 1);
  const std::int64_t part = numerator % denominator;
  if (below + 1 >= in || part == 0) return {{below, 1}};
  return {{below, static_cast<double>(denominator - part) / whole}, {below + 1, static_cast<double>(part) / whole}};
}

std::vector<Term> terms_of_output(const Attributes& attributes, std::int64_t in, std::int64_t out, std::int64_t i) {
  const auto& kind = attributes.get<std::string>("kind");
  if (kind == average) {
    const auto& numbers = attributes.get<Axes>("numbers");
    const std::int64_t first = i * numbers[1] - numbers[2];
    const std::int64_t begin = std::max<std::int64_t>(first, 0);
    const std::int64_t end = std::min(first + numbers[0], in);
    return mean_of(begin, end, numbers[4] != 0 ? numbers[0] : end - begin);
  }
  if (kind == even) {
    const std::int64_t begin = i * in / out;
    const std::int64_t end = ((i + 1) * in + out - 1) / out;
    return mean_of(begin, end, end - begin);
  }
  if (kind == nearest) return {{i * in / out, 1}};
  // (i + 1/2) in / out - 1/2
  if (kind == linear) return between(std::max<std::int64_t>(0, (2 * i + 1) * in - out), 2 * out, in);
  return between(out == 1 ? 0 : i * (in - 1), std::max<std::int64_t>(1, out - 1), in);
}

Terms terms_of(const Attributes& attributes, std::int64_t in, std::int64_t out) {
  Terms terms;
  for (std::int64_t i = 0; i < out; ++i)
    terms.push_back(in == 0 ? std::vector<Term>{} : terms_of_output(attributes, in, out, i));
  return terms;
}

// Between an axis of so many inputs and one of so many outputs.
void require_resampling(const OpCall& call, Dimension in, Dimension out) {
  const auto& kind = call.attribute<std::string>("kind");
  if (kind == average) {
    const auto& numbers = call.attribute<Axes>("numbers");
    if (numbers.size() != 5 || numbers[0] < 1 || numbers[1] < 1 || numbers[2] < 0 || numbers[3] < 0 ||
        std::max(numbers[2], numbers[3]) >= numbers[0])
      call.fail("a window, a stride, and padding before and behind below the window", Attribute(numbers).to_string());
    if (in.is_number() && in.extent() + numbers[2] + numbers[3] < numbers[0])
      call.fail(fmt::format("an extent of {} or more, padding included, as the window has", numbers[0]),
                fmt::format("{} + {} + {}", in.to_string(), numbers[2], numbers[3]));
    const Dimension expected =
        floor_divide(in + Dimension(numbers[2] + numbers[3]) - Dimension(numbers[0]), Dimension(numbers[1])) +
        Dimension(1);
    if (!(out == expected)) call.fail(fmt::format("an extent of {}", expected.to_string()), out.to_string());
  } else if (kind != even && kind != nearest && kind != linear && kind != linear_aligned) {
    call.fail("average, even, nearest, linear or linear_aligned", kind);
  } else if (in.is(0) || out.is(0)) {
    call.fail("extents of 1 or more", fmt::format("{} to {}", in.to_string(), out.to_string()));
  }
}

CHAINRULE_EARLY const DeclaredAttributes resample_attributes = {
    {"axis", AttributeType::axis}, {"kind", AttributeType::text}, {"numbers", Axes{}}, {"size", AttributeType::extent}};

Type resampled(const OpCall& call, bool transposed) {
  call.require_inputs(1);
  call.require_floating(0);
  Type out = call.type(0);
  Dimension& extent = out.shape[kernels::axis_of(call.attributes())];
  const Dimension size = call.attribute<Shape>("size")[0];
  require_resampling(call, transposed ? size : extent, transposed ? extent : size);
  extent = size;
  return out;
}

// The op or its adjoint, to the extent that the node's input has.
Values resampled_back(const Node& node, Value d, std::string_view op) {
  const Dimension extent = node.input(0).shape()[kernels::axis_of(node.attributes())];
  return {apply(*find_op(op), {d}, node.attributes().with("size", Shape{extent}))};
}

Attributes resampling(std::int64_t axis, std::string_view kind, Dimension size, const Axes& numbers = {}) {
  return {{"axis", axis}, {"kind", std::string(kind)}, {"numbers", numbers}, {"size", Shape{size}}};
}

// An axis to try: the shapes on both sides.
struct Along {
  Shape x;
  Shape y;
  std::int64_t axis;
  std::string_view kind;
  Axes numbers = {};
};

std::vector<Along> axes_to_try() {
  return {{{2, 7}, {2, 4}, 1, average, {3, 2, 1, 1, 1}},
          {{2, 6, 3}, {2, 6, 3}, 1, average, {2, 1, 0, 1, 0}},
          {{5, 2}, {3, 2}, 0, even},
          {{2, 3}, {2, 7}, 1, nearest},
          {{2, 4, 2}, {2, 7, 2}, 1, linear},
          {{3, 7}, {3, 4}, 1, linear},
          {{2, 3}, {2, 6}, 1, linear_aligned},
          {{2, 3}, {2, 1}, 1, linear_aligned},
          {{0, 3}, {0, 6}, 1, nearest}};
}

CHAINRULE_EARLY const BuiltinOp resample_op = register_op({
    .name = "resample",
    .doc = "Averages of windows, or nearest or linearly interpolated elements, along an axis.",
    .attributes = resample_attributes,
    .shape = [](const OpCall& call) { return resampled(call, false); },
    .forward = convolutions::weighted_sums(terms_of),
    .gradient = [](const Node& node, Value dy) { return resampled_back(node, dy, "resample_gradient"); },
    .samples =
        [] {
          std::vector<Sample> out;
          for (const Along& a : axes_to_try())
            out.push_back({.inputs = {uniform(a.x, -1, 1)},
                           .attributes = resampling(a.axis, a.kind, a.y[static_cast<std::size_t>(a.axis)], a.numbers)});
          return out;
        }(),
});

CHAINRULE_EARLY const BuiltinOp resample_gradient_op = register_op({
    .name = "resample_gradient",
    .doc = "What an output gradient of resample makes of its input's: its adjoint.",
    .attributes = resample_attributes,
    .shape = [](const OpCall& call) { return resampled(call, true); },
    .forward = convolutions::transposed_weighted_sums(terms_of),
    .gradient = [](const Node& node, Value dx) { return resampled_back(node, dx, "resample"); },
    .samples =
        [] {
          std::vector<Sample> out;
          for (const Along& a : axes_to_try())
            out.push_back({.inputs = {uniform(a.y, -1, 1)},
                           .attributes = resampling(a.axis, a.kind, a.x[static_cast<std::size_t>(a.axis)], a.numbers)});
          return out;
        }(),
});

// ---- windows as columns

std::int64_t taps_of(const OpCall& call) {
  std::int64_t taps = 1;
  for (const std::int64_t n : call.attribute<Axes>("window")) taps *= n;
  return taps;
}

// {N, C taps, outputs} of x.
Shape unfolded(const OpCall& call, const Shape& x) {
  require_window(call, x.rank() - 2);
  Dimension outputs = 1;
  for (std::size_t i = 2; i < x.rank(); ++i)
    outputs = outputs * detail::outputs_of(call, x[i], call.attribute<Axes>("window")[i - 2], i - 2);
  return {x[0], x[1] * Dimension(taps_of(call)), outputs};
}

CHAINRULE_EARLY const DeclaredAttributes unfold_attributes = {{"window", AttributeType::list},
                                                              {"stride", AttributeType::list},
                                                              {"padding", AttributeType::list},
                                                              {"dilation", AttributeType::list}};

CHAINRULE_EARLY const DeclaredAttributes fold_attributes = {{"window", AttributeType::list},
                                                            {"stride", AttributeType::list},
                                                            {"padding", AttributeType::list},
                                                            {"dilation", AttributeType::list},
                                                            {"extents", AttributeType::shape}};

struct Columns {
  Shape x;
  Shape columns;
  Attributes attributes;
};

std::vector<Columns> columns_to_try() {
  return {{{2, 2, 3, 4}, {2, 8, 6}, windows({2, 2}, {1, 1}, {0, 0, 0, 0}, {1, 1})},
          {{1, 2, 7}, {1, 6, 5}, windows({3}, {2}, {2, 2}, {1})},
          {{2, 1, 5, 4}, {2, 6, 6}, windows({3, 2}, {2, 1}, {1, 0, 0, 1}, {1, 2})},
          {{1, 1, 2, 3, 3}, {1, 4, 12}, windows({2, 1, 2}, {1, 1, 1}, {1, 0, 0, 0, 0, 0}, {1, 1, 1})},
          {{0, 1, 3}, {0, 2, 2}, windows({2}, {1}, {0, 0}, {1})}};
}

Shape spatial_of(const Shape& x) {
  Shape out;
  for (std::size_t i = 2; i < x.rank(); ++i) out.push_back(x[i]);
  return out;
}

CHAINRULE_EARLY const BuiltinOp unfold_op = register_op({
    .name = "unfold",
    .doc = "The windows of {N, C, ...} as columns: {N, C taps, outputs}.",
    .attributes = unfold_attributes,
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      spatial_rank(call, 0);
      return {call.dtype(0), unfolded(call, call.shape(0))};
    },
    .forward = convolutions::unfold(),
    .gradient = [](const Node& node, Value d) -> Values {
      return {apply(*find_op("fold"), {d}, node.attributes().with("extents", spatial_of(node.input(0).shape())))};
    },
    .samples =
        [] {
          std::vector<Sample> out;
          for (const Columns& c : columns_to_try())
            out.push_back({.inputs = {uniform(c.x, -1, 1)}, .attributes = c.attributes});
          return out;
        }(),
});

CHAINRULE_EARLY const BuiltinOp fold_op = register_op({
    .name = "fold",
    .doc = "Windows as columns, {N, C taps, outputs}, added up where they lie in {N, C, ...}.",
    .attributes = fold_attributes,
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(1);
      call.require_floating(0);
      const Shape& columns = call.shape(0);
      if (columns.rank() != 3) call.fail("columns {N, C taps, outputs}", to_string(columns));
      const auto& extents = call.attribute<Shape>("extents");
      if (extents.rank() < 1 || extents.rank() > 3) call.fail("one to three spatial extents", to_string(extents));
      require_window(call, extents.rank());
      Shape x{columns[0], floor_divide(columns[1], Dimension(taps_of(call)))};
      for (const Dimension extent : extents) x.push_back(extent);
      const Shape expected = unfolded(call, x);
      if (!(columns == expected))
        call.fail(fmt::format("columns of {} taps and {} outputs", taps_of(call), expected[2].to_string()),
                  to_string(columns));
      return {call.dtype(0), x};
    },
    .forward = convolutions::fold(),
    .gradient = [](const Node& node, Value dx) -> Values {
      const Attributes& a = node.attributes();
      return {apply(
          unfold_op, {dx},
          windows(a.get<Axes>("window"), a.get<Axes>("stride"), a.get<Axes>("padding"), a.get<Axes>("dilation")))};
    },
    .samples =
        [] {
          std::vector<Sample> out;
          for (const Columns& c : columns_to_try())
            out.push_back(
                {.inputs = {uniform(c.columns, -1, 1)}, .attributes = c.attributes.with("extents", spatial_of(c.x))});
          return out;
        }(),
});

// ---- what users say

// Spatial axes of x; Error where it is none.
std::size_t spatial_of(Value x, std::string_view op, Location at) {
  if (!x.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  if (x.rank() < 3 || x.rank() > 5)
    throw Error(at, op,
                fmt::format("requires {{N, C, ...}} with one to three spatial axes, got {}", to_string(x.shape())));
  return x.rank() - 2;
}

// The stride, or the window where none is given.
PerAxis stride_of(const PerAxis& stride, const Axes& window) {
  return stride.numbers().empty() ? PerAxis(window) : stride;
}

// x with each spatial axis mapped by along(x, axis, i).
template <class F>
Value by_axes(Value x, F along) {
  return detail::attempt(x, [&] {
    // From the last one on: it becomes the shortest there is.
    for (std::size_t axis = x.rank(); axis-- > 2;) x = along(x, static_cast<std::int64_t>(axis), axis - 2);
    return x;
  });
}

std::string_view kind_of(const InterpolationOptions& options) {
  if (options.mode == Interpolation::nearest) return nearest;
  return options.align_corners ? linear_aligned : linear;
}

}  // namespace

Value max_pool(Value x, const PerAxis& window, const MaxPoolOptions& options, Location at) {
  at = detail::scoped(at);
  const std::size_t spatial = spatial_of(x, max_pool_op->name, at);
  const Axes sizes = detail::for_each_axis(window, spatial, "window", 1, max_pool_op->name, at);
  const detail::WindowOptions w(x.shape(), sizes, stride_of(options.stride, sizes), options.padding, options.dilation,
                                max_pool_op->name, at);
  return apply(max_pool_op, {x}, w.attributes().with("window", sizes), at);
}

Value adaptive_max_pool(Value x, const PerAxis& outputs, Location at) {
  at = detail::scoped(at);
  const std::size_t spatial = spatial_of(x, "adaptive_max_pool", at);
  return apply(max_pool_op, {x},
               {{"outputs", detail::for_each_axis(outputs, spatial, "outputs", 1, "adaptive_max_pool", at)}}, at);
}

Value avg_pool(Value x, const PerAxis& window, const AvgPoolOptions& options, Location at) {
  constexpr std::string_view name = "avg_pool";
  at = detail::scoped(at);
  const std::size_t spatial = spatial_of(x, name, at);
  const Axes sizes = detail::for_each_axis(window, spatial, "window", 1, name, at);
  const detail::WindowOptions w(x.shape(), sizes, stride_of(options.stride, sizes), options.padding, 1, name, at);
  return by_axes(x, [&](Value y, std::int64_t axis, std::size_t i) {
    const Axes numbers{sizes[i], w.stride()[i], w.before()[i], w.behind()[i], options.count_include_pad ? 1 : 0};
    const Dimension in = y.shape()[static_cast<std::size_t>(axis)];
    if (in.is_number() && in.extent() + numbers[2] + numbers[3] < numbers[0])
      throw Error(at, name,
                  fmt::format("requires an extent of {} or more, padding included, as the window has, got {} along "
                              "axis {}",
                              numbers[0], in.to_string(), axis));
    const Dimension size =
        floor_divide(in + Dimension(numbers[2] + numbers[3]) - Dimension(numbers[0]), Dimension(numbers[1])) +
        Dimension(1);
    return apply(resample_op, {y}, resampling(axis, average, size, numbers), at);
  });
}

Value adaptive_avg_pool(Value x, const PerAxis& outputs, Location at) {
  constexpr std::string_view name = "adaptive_avg_pool";
  at = detail::scoped(at);
  const std::size_t spatial = spatial_of(x, name, at);
  const Axes sizes = detail::for_each_axis(outputs, spatial, "outputs", 1, name, at);
  return by_axes(x, [&](Value y, std::int64_t axis, std::size_t i) {
    return apply(resample_op, {y}, resampling(axis, even, sizes[i]), at);
  });
}

Value global_avg_pool(Value x, Location at) {
  at = detail::scoped(at);
  const std::size_t spatial = spatial_of(x, "global_avg_pool", at);
  AxisList axes;
  for (std::size_t i = 0; i < spatial; ++i) axes.push_back(static_cast<std::int64_t>(i) + 2);
  return mean(x, axes, true, at);
}

Value global_max_pool(Value x, Location at) { return adaptive_max_pool(x, 1, detail::scoped(at)); }

Value interpolate(Value x, const PerAxis& size, const InterpolationOptions& options, Location at) {
  constexpr std::string_view name = "interpolate";
  at = detail::scoped(at);
  const std::size_t spatial = spatial_of(x, name, at);
  const Axes sizes = detail::for_each_axis(size, spatial, "size", 1, name, at);
  return by_axes(x, [&](Value y, std::int64_t axis, std::size_t i) {
    return apply(resample_op, {y}, resampling(axis, kind_of(options), sizes[i]), at);
  });
}

Value upsample(Value x, const PerAxis& scale, const InterpolationOptions& options, Location at) {
  constexpr std::string_view name = "upsample";
  at = detail::scoped(at);
  const std::size_t spatial = spatial_of(x, name, at);
  const Axes scales = detail::for_each_axis(scale, spatial, "scale", 1, name, at);
  return by_axes(x, [&](Value y, std::int64_t axis, std::size_t i) {
    const Dimension size = y.shape()[static_cast<std::size_t>(axis)] * Dimension(scales[i]);
    return apply(resample_op, {y}, resampling(axis, kind_of(options), size), at);
  });
}

namespace {

void require_images(Value x, std::int64_t factor, std::string_view op, Location at) {
  if (!x.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  if (x.rank() != 4) throw Error(at, op, fmt::format("requires {{N, C, H, W}}, got {}", to_string(x.shape())));
  if (factor < 1) throw Error(at, op, fmt::format("requires a factor of 1 or more, got {}", factor));
}

// extent / divisor, which must be whole.
Dimension quotient(Value x, std::size_t axis, std::int64_t divisor, std::string_view op, Location at) {
  const Dimension extent = x.shape()[axis];
  const Dimension out = floor_divide(extent, Dimension(divisor));
  if (!(out * Dimension(divisor) == extent))
    throw Error(at, op,
                fmt::format("requires an axis {} that {} divides, got {}", axis, divisor, to_string(x.shape())));
  return out;
}

}  // namespace

Value pixel_shuffle(Value x, std::int64_t factor, Location at) {
  at = detail::scoped(at);
  require_images(x, factor, "pixel_shuffle", at);
  const Shape& s = x.shape();
  const Dimension channels = quotient(x, 1, factor * factor, "pixel_shuffle", at);
  const Dimension r = factor;
  return detail::attempt(x, [&] {
    const Value apart = reshape(x, {s[0], channels, r, r, s[2], s[3]}, at);
    return reshape(transpose(apart, {0, 1, 4, 2, 5, 3}, at), {s[0], channels, s[2] * r, s[3] * r}, at);
  });
}

Value pixel_unshuffle(Value x, std::int64_t factor, Location at) {
  at = detail::scoped(at);
  require_images(x, factor, "pixel_unshuffle", at);
  const Shape& s = x.shape();
  const Dimension rows = quotient(x, 2, factor, "pixel_unshuffle", at);
  const Dimension columns = quotient(x, 3, factor, "pixel_unshuffle", at);
  const Dimension r = factor;
  return detail::attempt(x, [&] {
    const Value apart = reshape(x, {s[0], s[1], rows, r, columns, r}, at);
    return reshape(transpose(apart, {0, 1, 3, 5, 2, 4}, at), {s[0], s[1] * r * r, rows, columns}, at);
  });
}

Value unfold(Value x, const PerAxis& window, const UnfoldOptions& options, Location at) {
  at = detail::scoped(at);
  const std::size_t spatial = spatial_of(x, unfold_op->name, at);
  const Axes sizes = detail::for_each_axis(window, spatial, "window", 1, unfold_op->name, at);
  const detail::WindowOptions w(x.shape(), sizes, options.stride, options.padding, options.dilation, unfold_op->name,
                                at);
  return apply(unfold_op, {x}, w.attributes().with("window", sizes), at);
}

Value fold(Value columns, const Shape& extents, const PerAxis& window, const UnfoldOptions& options, Location at) {
  at = detail::scoped(at);
  const Axes sizes = detail::for_each_axis(window, extents.rank(), "window", 1, fold_op->name, at);
  Shape x{1, 1};
  for (const Dimension extent : extents) x.push_back(extent);
  const detail::WindowOptions w(x, sizes, options.stride, options.padding, options.dilation, fold_op->name, at);
  return apply(fold_op, {columns}, w.attributes().with("window", sizes).with("extents", extents), at);
}

}  // namespace chainrule
