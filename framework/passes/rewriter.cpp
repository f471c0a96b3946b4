#include <algorithm>

#include <fmt/core.h>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

std::string Computation::to_string() const {
  std::string out = graph.to_string() + "results:";
  for (const Value result : results) out += " " + result.name();
  return out + "\n";
}

bool uses(const Computation& c, const Op* op) {
  const auto& nodes = c.graph.data()->nodes;
  return std::any_of(nodes.begin(), nodes.end(), [op](const NodeData& node) { return node.op == op; });
}

std::vector<char> needed_nodes(const Computation& c) {
  const GraphData& graph = *c.graph.data();
  std::vector<char> needed(graph.nodes.size(), 0);
  for (const Value result : c.results) needed[result.id()] = 1;
  for (auto id = static_cast<NodeId>(needed.size()); id-- > 0;)
    if (needed[id])
      for (const NodeId input : graph.node(id).inputs) needed[input] = 1;
  return needed;
}

Rewriter::Rewriter(const Computation& from)
    : from_(from), to_(std::make_shared<GraphData>()), needed_(needed_nodes(from)) {
  const GraphData& old = *from.graph.data();
  to_.data()->options = old.options;
  to_.data()->leaves = old.leaves;
  now_.resize(old.nodes.size());
}

Computation Rewriter::run(const Visit& visit, bool new_graph) {
  const GraphData& old = *from_.graph.data();
  auto* data = from_.graph.data().get();
  bool same = true;
  for (NodeId id = 0; id < needed_.size(); ++id) {
    if (!needed_[id]) continue;
    const detail::LocationScope scope(old.node(id).at);
    const Value made = visit(*this, Node(data, id));
    invariant(made.data() == to_.data().get(), "a pass returned a value of another graph");
    if (!(to_.data()->node(made.id()).type == old.node(id).type))
      throw InternalError(fmt::format("a pass changed the type of {}", data->line(id)));
    now_[id] = made;
    same = same && made.id() == id;
  }
  if (!new_graph && same && copies_ == needed_.size() && to_.size() == needed_.size()) return from_;
  Computation out{to_, {}};
  for (const Value result : from_.results) out.results.push_back(now_[result.id()]);
  return out;
}

Value Rewriter::now(Value old) const { return now_[old.id()]; }

Values Rewriter::now_inputs(const Node& node) const {
  Values out;
  for (const NodeId input : node.graph_data()->node(node.id()).inputs) out.push_back(now_[input]);
  return out;
}

Value Rewriter::copy(const Node& node) {
  ++copies_;
  const NodeData& old = node.graph_data()->node(node.id());
  NodeData made;
  made.op = old.op;
  made.type = old.type;
  made.attributes = old.attributes;
  made.at = old.at;
  made.payload = old.payload;
  for (const NodeId input : old.inputs) made.inputs.push_back(now_[input].id());
  if (old.op == &detail::constant_op()) {
    made.payload = static_cast<std::uint32_t>(to_.data()->constants.size());
    to_.data()->constants.push_back(node.graph_data()->constants[old.payload]);
  }
  return to_.data()->append(std::move(made));
}

Value Rewriter::copy(const Node& node, const Values& inputs, const Attributes& attributes) {
  return apply(to_, node.op(), inputs, attributes, node.location());
}

}  // namespace chainrule::passes
