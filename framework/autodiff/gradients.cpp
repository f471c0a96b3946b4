#include <chainrule/framework/autodiff/gradients.hpp>

#include <algorithm>
#include <span>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
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
    throw Error(at, "gradients", fmt::format("requires values of one graph, got {} of another", v.describe()));
  if (!is_floating(v.dtype()))
    throw Error(
        at, "gradients",
        fmt::format("requires {} of dtype float32 or float64, got {} of {}", what, v.describe(), name(v.dtype())));
}

// Which nodes of [first, y] depend on some x through floating values: only there do gradients flow.
std::vector<char> active_nodes(const GraphData& graph, NodeId first, NodeId y, const Values& xs) {
  std::vector<char> active(y - first + 1, 0);
  for (const Value x : xs)
    if (x.id() <= y) active[x.id() - first] = 1;
  for (NodeId id = first; id <= y; ++id) {
    if (active[id - first] || !is_floating(graph.node(id).type.dtype)) continue;
    for (const NodeId input : graph.inputs_of(id))
      if (input >= first && active[input - first]) active[id - first] = 1;
  }
  return active;
}

// What a node's gradient rule returns, one value for each input. Those not in `wanted` may be null. It is y that is
// differentiated; `gradient` are those of the node's outputs.
Values contributions_of(Value y, NodeId id, std::uint64_t wanted, std::span<const Value> gradient) {
  GraphData* graph = y.data();
  const Op& op = *graph->node(id).op;
  if (!op.gradient)
    throw Error(graph->node(id).at, op.name,
                fmt::format("requires a gradient rule, which this op has not: {} depends on it", y.describe()));
  const Node node(graph, id, wanted);
  Values out = op.has_several_outputs() ? op.gradient.all(node, Values(gradient.begin(), gradient.end()))
                                        : op.gradient(node, gradient[0]);
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
  if (contribution.data() != graph)
    throw Error(graph->node(id).at, op,
                fmt::format("requires a gradient of its own graph, got {} of another", contribution.describe()));
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

// The gradients of a node's outputs; none where it is itself a further output, which waits for its node. `all` are
// those of the nodes from `first` on.
std::span<const Value> gradients_of_outputs(const GraphData& graph, NodeId id, NodeId first, const Values& all) {
  const auto& node = graph.node(id);
  if (node.further_output) return {};
  return std::span(all).subspan(id - first, node.op->has_several_outputs() ? graph.output_count(id) : 1);
}

// What the reverse pass finds.
struct Reverse {
  Values gradients;        // of each x; an empty Value where none comes to it
  std::vector<char> flat;  // by node: its rule gave nothing for an input that has a gradient
};

Reverse reverse(Value y, const Values& xs, Value cotangent, NoDerivative without_rule) {
  GraphData* graph = y.data();
  Reverse out{{}, std::vector<char>(y.id() + 1, 0)};
  NodeId first = y.id();
  for (const Value x : xs) first = std::min(first, x.id());
  const std::vector<char> active = active_nodes(*graph, first, y.id(), xs);
  const auto input_is_passive = [&](NodeId input) { return input < first || !active[input - first]; };

  // By node; beyond y as many empty ones as its node may have outputs.
  std::vector<Value> gradient(active.size() + graph->output_count(y.id()) - 1);
  if (active[y.id() - first]) gradient[y.id() - first] = cotangent;
  for (NodeId id = y.id() + 1; id-- > first;) {
    const std::span<const Value> of_outputs = gradients_of_outputs(*graph, id, first, gradient);
    if (std::none_of(of_outputs.begin(), of_outputs.end(), [](Value dy) { return dy.defined(); })) continue;
    const auto inputs = graph->node(id).inputs;
    std::uint64_t wanted = 0;
    bool any = false;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (input_is_passive(inputs[i])) continue;
      any = true;
      if (i < 64) wanted |= std::uint64_t{1} << i;
    }
    if (!any) continue;  // an x itself, with nothing below it
    if (!graph->node(id).op->gradient && without_rule == NoDerivative::zeros) continue;
    const detail::LocationScope scope(graph->node(id).at);
    const Values contributions = contributions_of(y, id, wanted, of_outputs);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (input_is_passive(inputs[i])) continue;
      if (!contributions[i].defined()) {
        out.flat[id] = 1;
        continue;
      }
      const Value contribution = fitted(graph, id, i, contributions[i]);
      Value& sum = gradient[inputs[i] - first];
      sum = sum.defined() ? detail::add_contributions(sum, contribution) : contribution;
    }
  }
  for (const Value x : xs) out.gradients.push_back(x.id() <= y.id() ? gradient[x.id() - first] : Value{});
  return out;
}

// ---- dependence without a gradient

// Whether y is made of each node of [0, y]. With `written`, without going through what gradient rules made: their
// comparisons choose between slopes, and are no dependence that somebody wrote.
std::vector<char> nodes_below(Value y, bool written) {
  const GraphData& graph = *y.data();
  std::vector<char> below(y.id() + 1, 0);
  below[y.id()] = 1;
  for (NodeId id = y.id() + 1; id-- > 0;) {
    if (written && graph.node(id).of_gradient) below[id] = 0;
    if (below[id])
      for (const NodeId input : graph.inputs_of(id)) below[input] = 1;
  }
  return below;
}

// An x on which y depends through ops without a derivative only, and the first of these.
struct Obstacle {
  Value x;
  Value op;
  bool flat = false;
};

// The first obstacle on the ways from those xs to which no gradient comes; without an op where nothing is in the way.
// stop_gradient is none, as it is there to give none; flat ops are, where an optimizer asks.
Obstacle find_obstacle(Value y, const Values& xs, const Reverse& found, bool flat_too) {
  const GraphData& graph = *y.data();
  static const Op* const stop = find_op("stop_gradient");
  std::vector<char> reached(y.id() + 1, 0);
  bool any = false;
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (!found.gradients[i].defined() && xs[i].id() <= y.id()) {
      reached[xs[i].id()] = 1;
      any = true;
    }
  if (!any) return {};
  const std::vector<char> written = nodes_below(y, true);
  for (NodeId id = 0; id <= y.id(); ++id) {
    const NodeId owner = graph.owner(id);
    const auto& node = graph.node(owner);
    const auto is_reached = [&](NodeId input) { return reached[input] != 0; };
    if (node.op == stop || std::none_of(node.inputs.begin(), node.inputs.end(), is_reached)) continue;
    const bool none = !is_floating(graph.node(id).type.dtype) || !node.op->gradient;
    if (!none && !found.flat[owner]) {
      reached[id] = 1;
    } else if (written[id] && (none || flat_too)) {
      Obstacle out{{}, {y.data(), id}, !none};
      std::vector<char> below(id + 1, 0);
      below[id] = 1;
      for (NodeId k = id + 1; k-- > 0;)
        if (below[k])
          for (const NodeId input : graph.inputs_of(k)) below[input] = reached[input];
      for (std::size_t i = 0; i < xs.size() && !out.x.defined(); ++i)
        if (xs[i].id() < id && below[xs[i].id()] && !found.gradients[i].defined()) out.x = xs[i];
      return out;
    }
  }
  return {};
}

[[noreturn]] void refuse(const Obstacle& obstacle, std::string_view op, std::string_view required, Location at) {
  throw Error(
      at, op,
      fmt::format("requires {}, got one that depends on {} only through {}, which {}", required, obstacle.x.describe(),
                  obstacle.op.describe(), obstacle.flat ? "is flat" : "has no derivative"));
}

// ---- what is returned

void check(Value y, const Values& xs, Value cotangent, Location at) {
  GraphData* graph = y.data();
  check(y, graph, "y", at);
  check(cotangent, graph, "a cotangent", at);
  for (const Value x : xs) check(x, graph, "an x", at);
  if (!(cotangent.shape() == y.shape()) || cotangent.dtype() != y.dtype())
    throw Error(at, "gradients",
                fmt::format("requires a cotangent like y, {} {}, got {} {}", name(y.dtype()), to_string(y.shape()),
                            name(cotangent.dtype()), to_string(cotangent.shape())));
}

// The gradient of a scalar with respect to itself.
Value one_like(Value y, Location at) {
  check(y, y.data(), "y", at);
  if (!count(y.shape()).is(1))
    throw Error(
        at, "gradients",
        fmt::format("requires a scalar y, or a cotangent of y's shape, got y of shape {}", to_string(y.shape())));
  const Value one = y.graph().constant(1.0, y.dtype());
  return y.rank() > 0 ? reshape(one, y.shape()) : one;
}

// What was found, with zeros for the rest. All nodes from `begin` on are marked as the gradient's.
Values completed(const Values& xs, const Reverse& found, NodeId begin) {
  Values out = found.gradients;
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (!out[i].defined()) out[i] = broadcast_to(xs[i].graph().constant(0.0, xs[i].dtype()), xs[i].shape());
  if (xs.empty()) return out;
  auto& nodes = xs[0].data()->nodes;
  for (std::size_t id = begin; id < nodes.size(); ++id) nodes[id].of_gradient = true;
  return out;
}

NodeId end_of(const GraphData& graph) { return static_cast<NodeId>(graph.nodes.size()); }

}  // namespace

Values gradients(Value y, const Values& xs, Location at) { return gradients(y, xs, NoDerivative::error, at); }

Values gradients(Value y, const Values& xs, NoDerivative otherwise, Location at) {
  check(y, y.data(), "y", at);
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(y, [&] { return gradients(y, xs, one_like(y, at), otherwise, at); });
}

Values gradients(Value y, const Values& xs, Value cotangent, Location at) {
  return gradients(y, xs, cotangent, NoDerivative::error, at);
}

Values gradients(Value y, const Values& xs, Value cotangent, NoDerivative otherwise, Location at) {
  check(y, xs, cotangent, at);
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(y, [&] {
    const NodeId begin = end_of(*y.data());
    const Reverse found = reverse(y, xs, cotangent, otherwise);
    if (otherwise == NoDerivative::error)
      if (const Obstacle obstacle = find_obstacle(y, xs, found, false); obstacle.op.defined())
        refuse(obstacle, "gradients", "a y with a derivative for each x (NoDerivative::zeros takes 0)", at);
    return completed(xs, found, begin);
  });
}

Values detail::training_gradients(Value loss, const Values& parameters, std::string_view optimizer, Location at) {
  check(loss, loss.data(), "y", at);
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(loss, [&] {
    const NodeId begin = end_of(*loss.data());
    const Value one = one_like(loss, at);
    check(loss, parameters, one, at);
    const Reverse found = reverse(loss, parameters, one, NoDerivative::error);
    if (std::none_of(found.gradients.begin(), found.gradients.end(), [](Value d) { return d.defined(); })) {
      const std::vector<char> below = nodes_below(loss, false);
      if (std::none_of(parameters.begin(), parameters.end(),
                       [&](Value w) { return w.id() <= loss.id() && below[w.id()]; }))
        throw Error(at, optimizer, "requires a loss that depends on a parameter, got one that does not");
      if (const Obstacle obstacle = find_obstacle(loss, parameters, found, true); obstacle.op.defined())
        refuse(obstacle, optimizer, "a loss with a derivative", at);
    }
    return completed(parameters, found, begin);
  });
}

}  // namespace chainrule
