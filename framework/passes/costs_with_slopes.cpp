// A cross-entropy by class and its slope on the same logits become one node, which reads each line of logits once and
// makes its exponentials' sum once.
//
// The slope waits for the gradient that it is multiplied by. Mostly that is a number of each example that does not
// depend on the costs, such as 1 / examples: what it is made of is moved before them. Where it depends on them (costs
// that are squared, say), both nodes stay.
#include <optional>
#include <vector>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

namespace {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

struct Pair {
  NodeId cost = detail::no_node;
  NodeId slope = detail::no_node;
  std::vector<NodeId> ahead;  // what lies between them and the slope needs, in order
};

class Pairs {
 public:
  explicit Pairs(const Computation& c) : graph_(*c.graph.data()), needed_(needed_nodes(c)), moved_(needed_.size(), 0) {}

  // In the order of their costs.
  [[nodiscard]] std::vector<Pair> find() {
    std::vector<Pair> out;
    const auto size = static_cast<NodeId>(needed_.size());
    for (NodeId cost = 0; cost < size; ++cost) {
      if (!needed_[cost] || moved_[cost] || graph_.node(cost).op != cost_) continue;
      for (NodeId slope = cost + 1; slope < size; ++slope)
        if (needed_[slope] && is_slope_of(slope, cost)) {
          if (auto ahead = between(cost, slope)) {
            out.push_back({cost, slope, std::move(*ahead)});
            for (const NodeId id : out.back().ahead) moved_[id] = 1;
            needed_[slope] = 0;
            break;
          }
        }
    }
    return out;
  }

 private:
  [[nodiscard]] bool is_slope_of(NodeId id, NodeId cost) const {
    const NodeData& a = graph_.node(id);
    const NodeData& b = graph_.node(cost);
    return a.op == slope_ && !a.further_output && a.inputs[0] == b.inputs[0] && a.inputs[1] == b.inputs[1] &&
           a.attributes == b.attributes;
  }

  // Nothing where the slope depends on the cost, or on what cannot be moved.
  [[nodiscard]] std::optional<std::vector<NodeId>> between(NodeId cost, NodeId slope) const {
    std::vector<char> wanted(slope - cost, 0);
    const auto want = [&](NodeId id) {
      if (id >= cost) wanted[id - cost] = 1;
    };
    want(graph_.node(slope).inputs[2]);
    std::vector<NodeId> out;
    for (NodeId id = slope; --id > cost;) {
      if (!wanted[id - cost] || moved_[id]) continue;
      const NodeData& node = graph_.node(id);
      if (!needed_[id] || node.further_output || node.op->has_several_outputs()) return {};
      for (const NodeId input : node.inputs) want(input);
      out.push_back(id);
    }
    if (wanted[0]) return {};
    return std::vector<NodeId>(out.rbegin(), out.rend());
  }

  const GraphData& graph_;
  std::vector<char> needed_;
  std::vector<char> moved_;  // before an earlier cost
  const Op* cost_ = find_op("class_cross_entropy");
  const Op* slope_ = find_op("class_cross_entropy_slope");
};

}  // namespace

Computation costs_with_slopes(const Computation& c) {
  if (!uses(c, find_op("class_cross_entropy_slope"))) return c;
  const std::vector<Pair> pairs = Pairs(c).find();
  if (pairs.empty()) return c;
  Rewriter rewriter(c);
  auto next = pairs.begin();
  std::vector<Value> made;
  return rewriter.run([&](Rewriter& r, const Node& node) {
    if (next != pairs.end() && node.id() == next->cost) {
      for (const NodeId id : next->ahead) r.copy_ahead(Value(node.graph_data(), id).node());
      const Node slope = Value(node.graph_data(), next->slope).node();
      ++next;
      made.push_back(apply(r.graph(), slope.op(), r.now_inputs(slope), slope.attributes(), node.location()));
      return made.back().node().output(1);
    }
    for (std::size_t i = 0; i < made.size(); ++i)
      if (pairs[i].slope == node.id()) return r.replace(node, made[i].node().outputs());
    return r.copy(node);
  });
}

}  // namespace chainrule::passes
