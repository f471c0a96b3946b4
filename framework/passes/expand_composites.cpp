// Composites: an op that is defined by other ops is replaced by them. Its name, its gradient rule and its errors have
// served their purpose when a program is compiled; its parts can now fuse and be shared with its gradient's.
#include <algorithm>
#include <unordered_map>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

namespace {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

bool is_composite(const NodeData& node) { return bool(node.op->forward.expansion); }

// What the outputs of a composite stand for; composites in that are opened too, one level after the other.
Values open(Value composite) {
  GraphData& graph = *composite.data();
  const auto first = static_cast<NodeId>(graph.nodes.size());
  Values made = detail::expand(composite);
  const auto end = static_cast<NodeId>(graph.nodes.size());
  if (std::none_of(graph.nodes.begin() + first, graph.nodes.end(), is_composite)) return made;

  std::unordered_map<NodeId, Value> opened;
  const auto now = [&](NodeId id) {
    const auto it = opened.find(id);
    return it == opened.end() ? Value(&graph, id) : it->second;
  };
  for (NodeId id = first; id < end; ++id) {
    const NodeData& node = graph.node(id);
    if (node.further_output) continue;
    Value value(&graph, id);
    if (std::any_of(node.inputs.begin(), node.inputs.end(), [&](NodeId input) { return opened.contains(input); })) {
      NodeData again = node;
      again.inputs = {};
      for (const NodeId input : node.inputs) again.inputs.push_back(now(input).id());
      value = graph.append_like(graph, id, std::move(again));
    }
    const Values outputs = is_composite(node) ? open(value) : value.node().outputs();
    for (NodeId i = 0; i < outputs.size(); ++i)
      if (outputs[i].id() != id + i) opened.emplace(id + i, outputs[i]);
  }
  for (Value& value : made) value = now(value.id());
  return made;
}

}  // namespace

Computation expand_composites(const Computation& c) {
  const auto& nodes = c.graph.data()->nodes;
  if (std::none_of(nodes.begin(), nodes.end(), is_composite)) return c;
  return Rewriter(c).run([](Rewriter& r, const Node& node) {
    const Value same = r.copy(node);
    return node.op().forward.expansion ? r.replace(node, open(same)) : same;
  });
}

}  // namespace chainrule::passes
