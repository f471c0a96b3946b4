#include <chainrule/framework/run/request.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include <fmt/core.h>

#include <chainrule/framework/core/printed.hpp>

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
      chains.push_back({it->second, {graph, attached.variable}, {}, {}});
    }
    passes::Chain& chain = chains[it->second - own];
    chain.owners.emplace_back(graph, attached.owner);
    chain.expressions.emplace_back(graph, attached.expression);
  }
  std::erase_if(chains, [](const passes::Chain& chain) { return chain.expressions.size() == 1; });
  return chains;
}

Values with_all_that_they_need(const Graph& graph, const Values& outputs, const Updates& updates) {
  passes::Computation asked{graph, outputs};
  for (const Update& update : updates) asked.results.push_back(update.expression);
  std::vector<char> missing = passes::needed_nodes(asked);
  for (const Value output : outputs) missing[output.id()] = 0;
  Values out = outputs;
  for (NodeId id = 0; id < missing.size(); ++id)
    if (missing[id] && graph.data()->node(id).op != &constant_op()) out.emplace_back(graph.data().get(), id);
  return out;
}

void require_finite(const Results& results, const Values& values, Location at) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a].id() < values[b].id(); });
  for (const std::size_t i : order) {
    if (constant_value(values[i])) continue;
    const Array& numbers = results.at(values[i]);
    for (std::int64_t k = 0; is_floating(numbers.dtype()) && k < numbers.size(); ++k) {
      if (std::isfinite(numbers[k])) continue;
      Dims index = numbers.shape();
      std::int64_t rest = k;
      for (std::size_t axis = index.rank(); axis-- > 0; rest /= numbers.shape()[axis])
        index[axis] = rest % numbers.shape()[axis];
      throw Error(at, "check_finite",
                  fmt::format("requires finite numbers, got {} as element {} of {}, of shape {}", printed(numbers[k]),
                              to_string(index), values[i].describe(), to_string(numbers.shape())));
    }
  }
}

}  // namespace chainrule::detail
