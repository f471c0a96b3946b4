#include <chainrule/framework/run/request.hpp>

#include <unordered_map>
#include <unordered_set>

#include <fmt/core.h>

namespace chainrule::detail {

void check(const Graph& of, const Values& outputs, const Updates& updates, Location at) {
  GraphData* graph = of.data().get();
  const auto require = [&](Value v, std::string_view what) {
    if (!v.defined())
      throw Error(at, "program", fmt::format("requires {} of the State's graph, got an empty Value", what));
    if (v.data() != graph)
      throw Error(at, "program",
                  fmt::format("requires {} of the State's graph, got {} of another graph", what, v.describe()));
  };
  for (const Value output : outputs) require(output, "outputs");
  std::unordered_set<NodeId> seen;
  for (const Update& update : updates) {
    require(update.variable, "variables");
    require(update.expression, "update expressions");
    const NodeData& variable = graph->node(update.variable.id());
    const NodeData& expression = graph->node(update.expression.id());
    if (variable.op != &variable_op())
      throw Error(
          at, "program",
          fmt::format("requires updates of parameters and variables, got one of {}", update.variable.describe()));
    if (update.variable.id() == graph->step || update.variable.id() == graph->epoch)
      throw Error(at, "program",
                  fmt::format("requires updates of variables that the State does not count itself, got one of '{}'",
                              update.variable.name()));
    if (!seen.insert(update.variable.id()).second)
      throw Error(at, "program",
                  fmt::format("requires one update of each variable, got two of '{}'", update.variable.name()));
    if (!(variable.type == expression.type))
      throw Error(
          at, "program",
          fmt::format("requires {} {} for '{}', got {} {}", name(variable.type.dtype), to_string(variable.type.shape),
                      update.variable.name(), name(expression.type.dtype), to_string(expression.type.shape)));
  }
  if (outputs.empty() && updates.empty()) throw Error(at, "program", "requires an output or an update, got neither");
}

std::vector<passes::Chain> add_attached(const Graph& of, const Values& outputs, Updates& updates) {
  GraphData* graph = of.data().get();
  if (graph->attached.empty()) return {};
  std::vector<char> computed(graph->nodes.size(), 0);
  for (const Value output : outputs) computed[output.id()] = 1;
  for (const Update& update : updates) computed[update.expression.id()] = 1;
  for (auto id = static_cast<NodeId>(computed.size()); id-- > 0;)
    if (computed[id])
      for (const NodeId input : graph->node(id).inputs) computed[input] = 1;
  const std::size_t own = updates.size();
  std::vector<passes::Chain> chains;  // one for each update that is added
  std::unordered_map<NodeId, std::size_t> update_of;
  for (std::size_t i = 0; i < own; ++i) update_of.emplace(updates[i].variable.id(), i);
  for (const AttachedUpdate& attached : graph->attached) {
    if (!computed[attached.owner]) continue;
    const auto [it, first] = update_of.try_emplace(attached.variable, updates.size());
    if (it->second < own) continue;
    if (first) {
      updates.push_back({{graph, attached.variable}, {graph, attached.expression}});
      chains.push_back({outputs.size() + it->second, {graph, attached.variable}, {}, {}});
    }
    passes::Chain& chain = chains[it->second - own];
    chain.owners.emplace_back(graph, attached.owner);
    chain.expressions.emplace_back(graph, attached.expression);
  }
  std::erase_if(chains, [](const passes::Chain& chain) { return chain.expressions.size() == 1; });
  return chains;
}

}  // namespace chainrule::detail
