#include <chainrule/framework/check/disturb.hpp>

#include <algorithm>
#include <vector>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/ops/arithmetic.hpp>

namespace chainrule::check {

namespace {

Value off_by(Value y, double by, std::int64_t seed) {
  const Value numbers = apply(y.graph(), *find_op("random_uniform"), {y.graph().constant(Array(std::int64_t{0}))},
                              {{"shape", y.shape()},
                               {"dtype", y.dtype()},
                               {"low", 1 - by},
                               {"high", 1 + by},
                               {"seed", seed},
                               {"stream", static_cast<std::int64_t>(y.id())}});
  return y * numbers;
}

// What the values are computed from, themselves included, by id.
std::vector<char> ancestors(const Values& values) {
  std::uint32_t count = 0;
  for (const Value v : values) count = std::max(count, v.id() + 1);
  std::vector<char> out(count, 0);
  for (const Value v : values) out[v.id()] = 1;
  const detail::GraphData& graph = *values[0].data();
  for (std::uint32_t id = count; id-- > 0;)
    if (out[id])
      for (const detail::NodeId input : graph.node(id).inputs) out[input] = 1;
  return out;
}

}  // namespace

Values disturbed(const Values& values, double by, std::int64_t seed) {
  if (values.empty()) return {};
  detail::GraphData& graph = *values[0].data();
  const std::vector<char> used = ancestors(values);
  Values made(used.size());
  for (std::uint32_t id = 0; id < used.size(); ++id) {
    if (!used[id]) continue;
    const detail::NodeData node = graph.node(id);
    if (node.further_output) continue;  // made with the first
    made[id] = Value(&graph, id);
    if (!node.op->shape) continue;  // a leaf
    Values inputs;
    for (const detail::NodeId input : node.inputs) inputs.push_back(made[input]);
    const Values outputs =
        apply(made[id].graph(), *node.op, inputs, node.attributes, node.at).node().outputs();  // it may have no inputs
    const bool as_they_are = detail::rounds_nothing(graph, node);
    for (std::size_t i = 0; i < outputs.size() && id + i < used.size(); ++i)
      if (used[id + i])
        made[id + i] = as_they_are || !is_floating(outputs[i].dtype()) ? outputs[i] : off_by(outputs[i], by, seed);
  }
  Values out;
  for (const Value v : values) out.push_back(made[v.id()]);
  return out;
}

}  // namespace chainrule::check
