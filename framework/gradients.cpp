#include <chainrule/framework/gradients.hpp>

#include <fmt/core.h>

#include <chainrule/framework/attempt.hpp>
#include <chainrule/framework/graph_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule {

using detail::GraphData;
using detail::NodeId;

Value detail::sum_to_shape(Value value, const Shape& shape) {
  if (value.shape() == shape) return value;
  const Shape from = value.shape();
  const std::size_t lead = from.rank() - shape.rank();
  AxisList axes;
  for (std::size_t i = 0; i < from.rank(); ++i)
    if (i < lead || (shape[i - lead].is(1) && !from[i].is(1))) axes.push_back(static_cast<std::int64_t>(i));
  const Value summed = axes.empty() ? value : sum(value, axes);
  return summed.shape() == shape ? summed : reshape(summed, shape);
}

namespace {

// Contributions to an input may be broadcast against it either way: a rule such as d(sum) returns what it has. An empty
// Value where they do not fit.
Value to_shape_of(Value contribution, Value input) {
  const Shape& shape = input.shape();
  if (contribution.shape() == shape) return contribution;
  Shape both;
  if (!broadcast(contribution.shape(), shape, both)) return {};
  return detail::sum_to_shape(contribution.shape() == both ? contribution : broadcast_to(contribution, both), shape);
}

void check(Value v, GraphData* graph, std::string_view what, Location at) {
  if (!v) throw Error(at, "gradients", fmt::format("requires {} of a graph, got an empty Value", what));
  if (v.data() != graph)
    throw Error(at, "gradients", fmt::format("requires values of one graph, got {} of another", v.name()));
  if (!is_floating(v.dtype()))
    throw Error(at, "gradients",
                fmt::format("requires {} of dtype float32 or float64, got {} of {}", what, v.name(), name(v.dtype())));
}

}  // namespace

Values gradients(Value y, const Values& xs, Location at) {
  check(y, y.data(), "y", at);
  if (!count(y.shape()).is(1))
    throw Error(
        at, "gradients",
        fmt::format("requires a scalar y, or a cotangent of y's shape, got y of shape {}", to_string(y.shape())));
  const detail::LocationScope scope(detail::scoped(at));
  detail::Attempt attempt(y.data());
  Value one = y.graph().constant(1.0, y.dtype());
  if (y.rank() > 0) one = reshape(one, y.shape());
  const Values out = gradients(y, xs, one, at);
  attempt.succeed();
  return out;
}

Values gradients(Value y, const Values& xs, Value cotangent, Location at) {
  GraphData* graph = y.data();
  check(y, graph, "y", at);
  check(cotangent, graph, "a cotangent", at);
  for (const Value x : xs) check(x, graph, "an x", at);
  if (!(cotangent.shape() == y.shape()) || cotangent.dtype() != y.dtype())
    throw Error(at, "gradients",
                fmt::format("requires a cotangent like y, {} {}, got {} {}", name(y.dtype()), to_string(y.shape()),
                            name(cotangent.dtype()), to_string(cotangent.shape())));
  detail::Attempt attempt(graph);
  // A node is active when it depends on some x through floating values: only there do gradients flow.
  NodeId first = y.id();
  for (const Value x : xs) first = std::min(first, x.id());
  std::vector<char> active(y.id() - first + 1, 0);
  for (const Value x : xs)
    if (x.id() <= y.id()) active[x.id() - first] = 1;
  for (NodeId id = first; id <= y.id(); ++id) {
    const auto& node = graph->node(id);
    if (active[id - first] || !is_floating(node.type.dtype)) continue;
    for (const NodeId input : node.inputs)
      if (input >= first && active[input - first]) active[id - first] = 1;
  }

  const auto input_is_passive = [&](NodeId input) { return input < first || !active[input - first]; };

  std::vector<Value> gradient(active.size());
  if (active[y.id() - first]) gradient[y.id() - first] = cotangent;
  for (NodeId id = y.id() + 1; id-- > first;) {
    const Value dy = gradient[id - first];
    if (!dy || graph->node(id).inputs.size() == 0) continue;
    const auto inputs = graph->node(id).inputs;
    std::uint64_t wanted = 0;
    bool any = false;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (input_is_passive(inputs[i])) continue;
      any = true;
      if (i < 64) wanted |= std::uint64_t{1} << i;
    }
    if (!any) continue;  // an x itself, with nothing below it
    const Op& op = *graph->node(id).op;
    const detail::LocationScope scope(graph->node(id).at);
    if (!op.gradient)
      throw Error(graph->node(id).at, op.name,
                  fmt::format("requires a gradient rule, which this op has not: {} depends on it", y.name()));
    const Values contributions = op.gradient(Node(graph, id, wanted), dy);
    if (contributions.size() != inputs.size())
      throw Error(graph->node(id).at, op.name,
                  fmt::format("requires a gradient rule that returns {} values, one for each input, got {}",
                              inputs.size(), contributions.size()));
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const NodeId input = inputs[i];
      if (!contributions[i] || input_is_passive(input)) continue;
      const Value contribution = to_shape_of(contributions[i], {graph, input});
      if (!contribution)
        throw Error(graph->node(id).at, op.name,
                    fmt::format("requires a gradient of a shape that fits input {}, {}, got {}", i,
                                to_string(graph->node(input).type.shape), to_string(contributions[i].shape())));
      if (contribution.dtype() != graph->node(input).type.dtype)
        throw Error(graph->node(id).at, op.name,
                    fmt::format("requires a gradient of the dtype of input {}, {}, got {}", i,
                                name(graph->node(input).type.dtype), name(contribution.dtype())));
      Value& sum = gradient[input - first];
      sum = sum ? add(sum, contribution) : contribution;
    }
  }

  Values out;
  const detail::LocationScope scope(detail::scoped(at));
  for (const Value x : xs) {
    Value d = x.id() <= y.id() ? gradient[x.id() - first] : Value{};
    if (!d) d = broadcast_to(y.graph().constant(0.0, x.dtype()), x.shape());
    out.push_back(d);
  }
  attempt.succeed();
  return out;
}

}  // namespace chainrule
