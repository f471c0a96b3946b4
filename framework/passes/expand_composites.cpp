// Composites: an op that is defined by other ops is replaced by them. Its name, its gradient rule and its errors have
// served their purpose when a program is compiled; its parts can now fuse and be shared with its gradient's.
#include <algorithm>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

Computation expand_composites(const Computation& c) {
  const auto is_composite = [](const detail::NodeData& node) { return bool(node.op->forward.expansion); };
  const auto& nodes = c.graph.data()->nodes;
  bool again = std::any_of(nodes.begin(), nodes.end(), is_composite);
  Computation out = c;
  // An expansion may hold composites itself; each round opens one level of them.
  for (int level = 0; again; ++level) {
    if (level == 100) throw Error("expand", "requires expansions that end, got one that expands into itself");
    again = false;
    out = Rewriter(out).run([&](Rewriter& r, const Node& node) {
      const Value same = r.copy(node);
      if (!node.op().forward.expansion) return same;
      const Value expanded = node.op().forward.expansion(same.node());
      const auto& made = r.graph().data()->nodes;
      again = again || std::any_of(made.begin() + same.id() + 1, made.end(), is_composite);
      return expanded;
    });
  }
  return out;
}

}  // namespace chainrule::passes
