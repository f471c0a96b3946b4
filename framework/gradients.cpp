#include <chainrule/framework/gradients.hpp>

#include <fmt/core.h>

#include <chainrule/framework/attempt.hpp>
#include <chainrule/framework/graph_data.hpp>
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
  if (!v.defined()) throw Error(at, "gradients", fmt::format("requires {} of a graph, got an empty Value", what));
  if (v.data() != graph)
    throw Error(at, "gradients", fmt::format("requires values of one graph, got {} of another", v.name()));
  if (!is_floating(v.dtype()))
    throw Error(at, "gradients",
                fmt::format("requires {} of dtype float32 or float64, got {} of {}", what, v.name(), name(v.dtype())));
}

// Which nodes of [first, y] depend on some x through floating values: only there do gradients flow.
std::vector<char> active_nodes(const GraphData& graph, NodeId first, NodeId y, const Values& xs) {
  std::vector<char> active(y - first + 1, 0);
  for (const Value x : xs)
    if (x.id() <= y) active[x.id() - first] = 1;
  for (NodeId id = first; id <= y; ++id) {
    const auto& node = graph.node(id);
    if (active[id - first] || !is_floating(node.type.dtype)) continue;
    for (const NodeId input : node.inputs)
      if (input >= first && active[input - first]) active[id - first] = 1;
  }
  return active;
}

// What a node's gradient rule returns, one value for each input. Those not in `wanted` may be null. It is y that is
// differentiated.
Values contributions_of(Value y, NodeId id, std::uint64_t wanted, Value dy) {
  GraphData* graph = y.data();
  const Op& op = *graph->node(id).op;
  if (!op.gradient)
    throw Error(graph->node(id).at, op.name,
                fmt::format("requires a gradient rule, which this op has not: {} depends on it", y.name()));
  Values out = op.gradient(Node(graph, id, wanted), dy);
  const std::size_t inputs = graph->node(id).inputs.size();
  if (out.size() != inputs)
    throw Error(
        graph->node(id).at, op.name,
        fmt::format("requires a gradient rule that returns {} values, one for each input, got {}", inputs, out.size()));
  return out;
}

// A contribution to the gradient of input i of a node, in the input's shape.
Value fitted(GraphData* graph, NodeId id, std::size_t i, Value contribution) {
  const NodeId input = graph->node(id).inputs[i];
  const std::string& op = graph->node(id).op->name;
  const Value out = to_shape_of(contribution, {graph, input});
  if (!out.defined())
    throw Error(graph->node(id).at, op,
                fmt::format("requires a gradient of a shape that fits input {}, {}, got {}", i,
                            to_string(graph->node(input).type.shape), to_string(contribution.shape())));
  if (out.dtype() != graph->node(input).type.dtype)
    throw Error(graph->node(id).at, op,
                fmt::format("requires a gradient of the dtype of input {}, {}, got {}", i,
                            name(graph->node(input).type.dtype), name(out.dtype())));
  return out;
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
  Values out = gradients(y, xs, one, at);
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
  NodeId first = y.id();
  for (const Value x : xs) first = std::min(first, x.id());
  const std::vector<char> active = active_nodes(*graph, first, y.id(), xs);
  const auto input_is_passive = [&](NodeId input) { return input < first || !active[input - first]; };

  std::vector<Value> gradient(active.size());
  if (active[y.id() - first]) gradient[y.id() - first] = cotangent;
  for (NodeId id = y.id() + 1; id-- > first;) {
    const Value dy = gradient[id - first];
    if (!dy.defined()) continue;
    const auto inputs = graph->node(id).inputs;
    std::uint64_t wanted = 0;
    bool any = false;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (input_is_passive(inputs[i])) continue;
      any = true;
      if (i < 64) wanted |= std::uint64_t{1} << i;
    }
    if (!any) continue;  // an x itself, with nothing below it
    const detail::LocationScope scope(graph->node(id).at);
    const Values contributions = contributions_of(y, id, wanted, dy);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!contributions[i].defined() || input_is_passive(inputs[i])) continue;
      const Value contribution = fitted(graph, id, i, contributions[i]);
      Value& sum = gradient[inputs[i] - first];
      sum = sum.defined() ? detail::add_contributions(sum, contribution) : contribution;
    }
  }

  Values out;
  const detail::LocationScope scope(detail::scoped(at));
  for (const Value x : xs) {
    Value d = x.id() <= y.id() ? gradient[x.id() - first] : Value{};
    if (!d.defined()) d = broadcast_to(y.graph().constant(0.0, x.dtype()), x.shape());
    out.push_back(d);
  }
  attempt.succeed();
  return out;
}

}  // namespace chainrule
