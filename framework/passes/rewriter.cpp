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
  for (auto id = static_cast<NodeId>(needed.size()); id-- > 0;) {
    if (!needed[id]) continue;
    for (const NodeId input : graph.node(id).inputs) needed[input] = 1;
    if (graph.node(id).op->has_several_outputs())
      std::fill_n(needed.begin() + id, graph.output_count(id), 1);  // as long as one of them is
  }
  return needed;
}

std::vector<std::uint32_t> count_readers(const Computation& c, const std::vector<char>& needed) {
  const GraphData& graph = *c.graph.data();
  std::vector<std::uint32_t> readers(graph.nodes.size(), 0);
  for (NodeId id = 0; id < needed.size(); ++id)
    if (needed[id])
      for (const NodeId input : graph.node(id).inputs) ++readers[input];
  for (const Value result : c.results) ++readers[result.id()];
  return readers;
}

Rewriter::Rewriter(const Computation& from)
    : from_(from), to_(std::make_shared<GraphData>()), needed_(needed_nodes(from)) {
  const GraphData& old = *from.graph.data();
  to_.data()->options = old.options;
  to_.data()->leaves = old.leaves;
  to_.data()->shares_leaves = true;
  now_.resize(old.nodes.size());
}

Computation Rewriter::run(const Visit& visit, bool new_graph) {
  const GraphData& old = *from_.graph.data();
  auto* data = from_.graph.data().get();
  bool same = true;
  for (NodeId id = 0; id < needed_.size(); ++id) {
    if (!needed_[id] || old.node(id).further_output) continue;
    const detail::LocationScope scope(old.node(id).at);
    set(id, visit(*this, Node(data, id)));
    same = same && now_[id].id() == id;
    if (!old.node(id).op->has_several_outputs()) continue;
    const NodeId count = old.output_count(id);
    for (NodeId i = 1; i < count; ++i) {
      if (!now_[id + i].defined()) set(id + i, now_[id].node().output(i));
      same = same && now_[id + i].id() == id + i;
    }
  }
  if (!new_graph && same && copies_ == needed_.size() && to_.size() == needed_.size()) return from_;
  Computation out{to_, {}};
  for (const Value result : from_.results) out.results.push_back(now_[result.id()]);
  return out;
}

void Rewriter::set(NodeId old, Value made) {
  invariant(made.data() == to_.data().get(), "a pass returned a value of another graph");
  const GraphData& from = *from_.graph.data();
  if (!(to_.data()->node(made.id()).type == from.node(old).type))
    throw InternalError(fmt::format("a pass changed the type of {}", from.line(old)));
  now_[old] = made;
}

Value Rewriter::replace(const Node& node, const Values& outputs) {
  invariant(outputs.size() == node.output_count(), "a pass replaced some outputs of a node");
  for (std::size_t i = 1; i < outputs.size(); ++i) set(node.id() + static_cast<NodeId>(i), outputs[i]);
  return outputs[0];
}

Value Rewriter::now(Value old) const { return now_[old.id()]; }

Values Rewriter::now_inputs(const Node& node) const {
  Values out;
  for (const NodeId input : node.graph_data()->node(node.id()).inputs) out.push_back(now_[input]);
  return out;
}

Value Rewriter::copy(const Node& node) {
  copies_ += node.output_count();
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
  return to_.data()->append_like(*node.graph_data(), node.id(), std::move(made));
}

Value Rewriter::copy(const Node& node, const Values& inputs, const Attributes& attributes) {
  return apply(to_, node.op(), inputs, attributes, node.location());
}

Value Rewriter::copy_ahead(const Node& node) {
  leave_out(node.id());
  set(node.id(), copy(node));
  return now_[node.id()];
}

}  // namespace chainrule::passes
