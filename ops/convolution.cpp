#include <chainrule/ops/convolution.hpp>

#include <algorithm>

#include <fmt/core.h>

#include <chainrule/framework/convolutions/convolution.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/window_options.hpp>

CHAINRULE_OP_FAMILY(convolution)

namespace chainrule {

namespace {

using detail::outputs_of;

// ---- shapes

// What all three have in common: the shapes of x, w and y, of which one is made from the other two.
struct Shapes {
  Shape x;
  Shape w;
  Shape y;
};

std::size_t spatial_rank(const OpCall& call) {
  call.require_inputs(2);
  for (std::size_t i = 0; i < 2; ++i) {
    call.require_floating(i);
    if (call.shape(i).rank() < 3 || call.shape(i).rank() > 5)
      call.fail("arrays with one to three spatial axes", to_string(call.shape(i)));
  }
  call.require_same_dtype();
  if (call.shape(0).rank() != call.shape(1).rank())
    call.fail("as many spatial axes in both operands",
              fmt::format("{} and {}", to_string(call.shape(0)), to_string(call.shape(1))));
  const std::size_t spatial = call.shape(0).rank() - 2;
  detail::require_window_attributes(call, spatial);
  if (call.attribute<std::int64_t>("groups") < 1)
    call.fail("a number of groups of 1 or more", fmt::format("{}", call.attribute<std::int64_t>("groups")));
  return spatial;
}

std::int64_t number(const OpCall& call, Dimension extent, std::string_view what) {
  if (!extent.is_number()) call.fail(fmt::format("{} that are numbers", what), extent.to_string());
  return extent.extent();
}

// Channels and features, those of y, that suit weights {features, channels / groups, ...}.
void require_channels(const OpCall& call, const Shape& w, Dimension channels, Dimension features) {
  const auto groups = call.attribute<std::int64_t>("groups");
  const std::int64_t in_group = number(call, w[1], "channels of the weights");
  if (number(call, w[0], "features") % groups != 0)
    call.fail(fmt::format("features that {} groups divide", groups), w[0].to_string());
  if (!channels.is(in_group * groups))
    call.fail(fmt::format("{} channels, {} times those of the weights {}", in_group * groups, groups, to_string(w)),
              channels.to_string());
  if (!(features == w[0]))
    call.fail(fmt::format("{} features, as the weights {} have", w[0].to_string(), to_string(w)), features.to_string());
}

Axes taps_of(const OpCall& call, const Shape& w) {
  Axes taps;
  for (std::size_t i = 2; i < w.rank(); ++i) taps.push_back(number(call, w[i], "taps"));
  return taps;
}

// The spatial extents of y.
void append_outputs(const OpCall& call, const Shape& x, const Axes& taps, Shape& y) {
  for (std::size_t i = 0; i < taps.size(); ++i) y.push_back(outputs_of(call, x[i + 2], taps[i], i));
}

void require_outputs(const OpCall& call, const Shape& x, const Axes& taps, const Shape& dy) {
  Shape expected{dy[0], dy[1]};
  append_outputs(call, x, taps, expected);
  if (!(expected == dy)) call.fail(fmt::format("a gradient of shape {}", to_string(expected)), to_string(dy));
}

Type conv_shape(const OpCall& call) {
  spatial_rank(call);
  const Shape& x = call.shape(0);
  const Shape& w = call.shape(1);
  require_channels(call, w, x[1], w[0]);
  Shape y{x[0], w[0]};
  append_outputs(call, x, taps_of(call, w), y);
  return {call.dtype(0), y};
}

Type input_gradient_shape(const OpCall& call) {
  const std::size_t spatial = spatial_rank(call);
  const Shape& dy = call.shape(0);
  const Shape& w = call.shape(1);
  const auto& extents = call.attribute<Shape>("extents");
  if (extents.rank() != spatial) call.fail(fmt::format("{} spatial extents", spatial), to_string(extents));
  const Dimension channels =
      Dimension(number(call, w[1], "channels of the weights")) * Dimension(call.attribute<std::int64_t>("groups"));
  require_channels(call, w, channels, dy[1]);
  Shape x{dy[0], channels};
  for (const Dimension extent : extents) x.push_back(extent);
  require_outputs(call, x, taps_of(call, w), dy);
  return {call.dtype(0), x};
}

Type weight_gradient_shape(const OpCall& call) {
  const std::size_t spatial = spatial_rank(call);
  const Shape& x = call.shape(0);
  const Shape& dy = call.shape(1);
  const auto& kernel = call.attribute<Axes>("kernel");
  const auto groups = call.attribute<std::int64_t>("groups");
  if (kernel.size() != spatial || std::any_of(kernel.begin(), kernel.end(), [](std::int64_t n) { return n < 1; }))
    call.fail(fmt::format("{} numbers of taps of 1 or more", spatial), Attribute(kernel).to_string());
  if (!(x[0] == dy[0]))
    call.fail("as many examples in both operands", fmt::format("{} and {}", to_string(x), to_string(dy)));
  const std::int64_t channels = number(call, x[1], "channels");
  if (channels % groups != 0) call.fail(fmt::format("channels that {} groups divide", groups), x[1].to_string());
  Shape w{dy[1], channels / groups};
  for (const std::int64_t taps : kernel) w.push_back(taps);
  require_channels(call, w, x[1], dy[1]);
  require_outputs(call, x, kernel, dy);
  return {call.dtype(0), w};
}

// ---- the ops, each the gradient of the other two

Attributes common(const Node& node) {
  return {{"stride", node.attribute<Axes>("stride")},
          {"padding", node.attribute<Axes>("padding")},
          {"dilation", node.attribute<Axes>("dilation")},
          {"groups", node.attribute<std::int64_t>("groups")}};
}

Shape spatial_of(Value x) {
  Shape out;
  for (std::size_t i = 2; i < x.rank(); ++i) out.push_back(x.shape()[i]);
  return out;
}

Value convolved(const Node& node, Value x, Value w) { return apply(*find_op("conv"), {x, w}, common(node)); }

Value input_gradient(const Node& node, Value dy, Value w, const Shape& extents) {
  return apply(*find_op("conv_input_gradient"), {dy, w}, common(node).with("extents", extents));
}

Value weight_gradient(const Node& node, Value x, Value dy, Value w) {
  Axes kernel;
  for (const Dimension extent : spatial_of(w)) kernel.push_back(extent.extent());
  return apply(*find_op("conv_weight_gradient"), {x, dy}, common(node).with("kernel", kernel));
}

CHAINRULE_EARLY const DeclaredAttributes conv_attributes = {{"stride", AttributeType::list},
                                                            {"padding", AttributeType::list},
                                                            {"dilation", AttributeType::list},
                                                            {"groups", std::int64_t{1}}};

DeclaredAttributes and_also(AttributeDeclaration further) {
  DeclaredAttributes out = conv_attributes;
  out.add(std::move(further));
  return out;
}

// A convolution to try: the shapes of x, w and y, and its attributes.
struct Tried {
  Shape x;
  Shape w;
  Shape y;
  Attributes attributes;
};

Attributes attributes_of(Axes stride, Axes padding, Axes dilation, std::int64_t groups = 1) {
  return {{"stride", std::move(stride)},
          {"padding", std::move(padding)},
          {"dilation", std::move(dilation)},
          {"groups", groups}};
}

std::vector<Tried> tried() {
  return {
      {{2, 2, 5, 4}, {3, 2, 3, 2}, {2, 3, 3, 3}, attributes_of({1, 1}, {0, 0, 0, 0}, {1, 1})},
      {{2, 3, 7}, {2, 3, 3}, {2, 2, 4}, attributes_of({2}, {1, 1}, {1})},
      {{1, 4, 5, 6}, {6, 2, 3, 3}, {1, 6, 3, 2}, attributes_of({2, 3}, {2, 1, 1, 2}, {1, 2}, 2)},
      {{1, 3, 4, 3}, {3, 1, 2, 3}, {1, 3, 5, 3}, attributes_of({1, 1}, {1, 1, 1, 1}, {1, 1}, 3)},
      {{1, 2, 3, 4, 3}, {2, 2, 2, 1, 2}, {1, 2, 4, 2, 2}, attributes_of({1, 2, 1}, {1, 0, 0, 1, 0, 0}, {1, 1, 1})},
      {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, attributes_of({1, 1}, {0, 0, 0, 0}, {1, 1})},
      {{0, 2, 3}, {1, 2, 2}, {0, 1, 2}, attributes_of({1}, {0, 0}, {1})},
      {{1, 0, 3}, {1, 0, 2}, {1, 1, 2}, attributes_of({1}, {0, 0}, {1})},
  };
}

std::vector<Sample> samples_of(Sample (*one)(const Tried&)) {
  std::vector<Sample> out;
  for (const Tried& t : tried()) out.push_back(one(t));
  return out;
}

Initial numbers(const Shape& shape) { return uniform(shape, -1, 1); }

CHAINRULE_EARLY const BuiltinOp conv_op = register_op({
    .name = "conv",
    .doc = "Convolution (cross-correlation) of {N, C, ...} with weights {K, C / groups, ...}.",
    .attributes = conv_attributes,
    .shape = conv_shape,
    .forward = convolutions::convolve(),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value x = node.input(0);
      const Value w = node.input(1);
      return {node.wants(0) ? input_gradient(node, dy, w, spatial_of(x)) : Value{},
              node.wants(1) ? weight_gradient(node, x, dy, w) : Value{}};
    },
    .samples = samples_of([](const Tried& t) -> Sample {
      return {.inputs = {numbers(t.x), numbers(t.w)}, .attributes = t.attributes};
    }),
});

CHAINRULE_EARLY const BuiltinOp conv_input_gradient_op = register_op({
    .name = "conv_input_gradient",
    .doc = "What a convolution's output gradient and weights make of its input's: the transposed convolution.",
    .attributes = and_also({"extents", AttributeType::shape}),
    .shape = input_gradient_shape,
    .forward = convolutions::input_gradient(),
    .gradient = [](const Node& node, Value dx) -> Values {
      const Value dy = node.input(0);
      const Value w = node.input(1);
      return {node.wants(0) ? convolved(node, dx, w) : Value{},
              node.wants(1) ? weight_gradient(node, dx, dy, w) : Value{}};
    },
    .samples = samples_of([](const Tried& t) -> Sample {
      Shape extents;
      for (std::size_t i = 2; i < t.x.rank(); ++i) extents.push_back(t.x[i]);
      return {.inputs = {numbers(t.y), numbers(t.w)}, .attributes = t.attributes.with("extents", extents)};
    }),
});

CHAINRULE_EARLY const BuiltinOp conv_weight_gradient_op = register_op({
    .name = "conv_weight_gradient",
    .doc = "What a convolution's input and output gradient make of its weights'.",
    .attributes = and_also({"kernel", AttributeType::list}),
    .shape = weight_gradient_shape,
    .forward = convolutions::weight_gradient(),
    .gradient = [](const Node& node, Value dw) -> Values {
      const Value x = node.input(0);
      const Value dy = node.input(1);
      return {node.wants(0) ? input_gradient(node, dy, dw, spatial_of(x)) : Value{},
              node.wants(1) ? convolved(node, x, dw) : Value{}};
    },
    .samples = samples_of([](const Tried& t) -> Sample {
      Axes kernel;
      for (std::size_t i = 2; i < t.w.rank(); ++i) kernel.push_back(t.w[i].extent());
      return {.inputs = {numbers(t.x), numbers(t.y)}, .attributes = t.attributes.with("kernel", kernel)};
    }),
});

// ---- options

// The spatial extents of weights; Error where the operands do not suit even these questions.
Axes taps_of(Value x, Value w, std::string_view op, Location at) {
  if (!x.defined() || !w.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  if (x.rank() < 3 || x.rank() > 5 || w.rank() != x.rank())
    throw Error(at, op,
                fmt::format("requires {{N, C, ...}} and {{K, C, ...}} with one to three spatial axes, got {} and {}",
                            to_string(x.shape()), to_string(w.shape())));
  Axes taps;
  for (std::size_t i = 2; i < w.rank(); ++i) {
    if (!w.shape()[i].is_number())
      throw Error(at, op, fmt::format("requires taps that are numbers, got {}", to_string(w.shape())));
    taps.push_back(w.shape()[i].extent());
  }
  return taps;
}

}  // namespace

Value conv(Value x, Value w, const ConvOptions& options, Location at) {
  at = detail::scoped(at);
  const Axes taps = taps_of(x, w, conv_op->name, at);
  const detail::WindowOptions window(x.shape(), taps, options.stride, options.padding, options.dilation, conv_op->name,
                                     at);
  return apply(conv_op, {x, w}, window.attributes().with("groups", options.groups), at);
}

Value conv_transpose(Value x, Value w, const ConvTransposeOptions& options, Location at) {
  constexpr std::string_view name = "conv_transpose";
  at = detail::scoped(at);
  const Axes taps = taps_of(x, w, name, at);
  if (options.padding.name() == "same") throw Error(at, name, "requires padding by numbers or \"valid\", got \"same\"");
  const detail::WindowOptions window(x.shape(), taps, options.stride, options.padding, options.dilation, name, at);
  const Axes further = detail::for_each_axis(options.output_padding, taps.size(), "output_padding", 0, name, at);
  Shape extents;
  for (std::size_t i = 0; i < taps.size(); ++i) {
    if (further[i] >= std::max(window.stride()[i], window.dilation()[i]))
      throw Error(at, name,
                  fmt::format("requires an output_padding below the stride {} or dilation {}, got {}",
                              window.stride()[i], window.dilation()[i], further[i]));
    const Dimension in = x.shape()[i + 2];
    const std::int64_t reach = window.dilation()[i] * (taps[i] - 1) + 1 + further[i];
    const std::int64_t padding = window.before()[i] + window.behind()[i];
    if (in.is(0) || (in.is_number() && (in.extent() - 1) * window.stride()[i] + reach < padding))
      throw Error(at, name,
                  fmt::format("requires outputs beyond the padding {}, got {} inputs along axis {}", padding,
                              in.to_string(), i + 2));
    const Dimension stride = window.stride()[i];
    const std::int64_t rest = reach - window.stride()[i] - padding;
    extents.push_back(rest >= 0 ? in * stride + Dimension(rest) : in * stride - Dimension(-rest));
  }
  return apply(conv_input_gradient_op, {x, w},
               window.attributes().with("groups", options.groups).with("extents", extents), at);
}

}  // namespace chainrule
