// Updates of one variable that follow each other: of f1(v) and f2(v) are made f1(v) and f2(f1(v)).
//
// A later expression is copied, from the variable up, with the earlier result in the variable's place. The copy stops
// below the owners of these updates: a batch norm that normalizes the result of another with the same statistics
// follows what was computed, and does not compute it anew.
#include <algorithm>
#include <unordered_map>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

namespace {

Value substitute(GraphData& graph, NodeId expression, NodeId variable, NodeId by, const std::vector<NodeId>& owners) {
  std::vector<char> below(expression + 1, 0);
  below[expression] = 1;
  for (NodeId id = expression + 1; id-- > 0;)
    if (below[id])
      for (const NodeId input : graph.node(id).inputs) below[input] = 1;
  std::unordered_map<NodeId, NodeId> now{{variable, by}};
  for (NodeId id = variable + 1; id <= expression; ++id) {
    if (!below[id] || now.contains(id)) continue;
    if (id != expression && std::find(owners.begin(), owners.end(), id) != owners.end()) continue;
    NodeData made = graph.node(id);
    detail::InputList inputs;
    for (const NodeId input : made.inputs) {
      const auto it = now.find(input);
      inputs.push_back(it == now.end() ? input : it->second);
    }
    if (inputs == made.inputs) continue;
    made.inputs = std::move(inputs);
    const NodeId again = graph.append_like(graph, id, std::move(made)).id();
    for (NodeId i = 0; i < graph.output_count(again); ++i) now[id + i] = again + i;
  }
  const auto made = now.find(expression);
  return {&graph, made == now.end() ? expression : made->second};
}

}  // namespace

Computation chain_updates(const Computation& c, const std::vector<Chain>& chains) {
  if (chains.empty()) return c;
  Computation all = c;
  for (const Chain& chain : chains)
    all.results.insert(all.results.end(), chain.expressions.begin(), chain.expressions.end());
  Rewriter rewriter(all);
  Computation made = rewriter.run([](Rewriter& r, const Node& node) { return r.copy(node); }, true);
  made.results.resize(c.results.size());
  for (const Chain& chain : chains) {
    const Value variable = rewriter.now(chain.variable);
    std::vector<NodeId> owners;
    for (const Value owner : chain.owners) owners.push_back(rewriter.now(owner).id());
    Value last = rewriter.now(chain.expressions[0]);
    for (std::size_t i = 1; i < chain.expressions.size(); ++i) {
      const Value next = rewriter.now(chain.expressions[i]);
      last = variable.defined() ? substitute(*made.graph.data(), next.id(), variable.id(), last.id(), owners) : next;
    }
    made.results[chain.result] = last;
  }
  return made;
}

}  // namespace chainrule::passes
