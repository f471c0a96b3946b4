// Constants: an op whose inputs are all constants is computed now, by the kernel that a run would use.
#include <algorithm>

#include <chainrule/framework/fused/fused_step.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

namespace {

bool foldable(const Node& node, std::int64_t input_elements) {
  const Op& op = node.op();
  if (!op.forward.micro && !op.forward.kernel) return false;
  if (op.forward.may_throw) return false;  // an error belongs to a run
  // What is larger than its inputs costs more to keep than to make.
  std::int64_t output_elements = 0;
  for (const Value output : node.outputs()) {
    // What hangs on the size of a symbol is known only in a run.
    if (detail::has_symbols(node.graph_data()->node(output.id()))) return false;
    output_elements += count(output.shape()).extent();
  }
  return output_elements <= static_cast<std::int64_t>(node.output_count()) * std::max<std::int64_t>(1, input_elements);
}

// Whether no node is on constants only: of those that are made while folding, some node is the first.
bool nothing_to_fold(const detail::GraphData& graph) {
  std::vector<char> constant;
  constant.reserve(graph.nodes.size());
  for (const detail::NodeData& node : graph.nodes) {
    const bool is_constant = node.op == &detail::constant_op();
    constant.push_back(is_constant ? 1 : 0);
    if (is_constant || node.op == &detail::input_op() || node.op == &detail::variable_op()) continue;
    if (std::all_of(node.inputs.begin(), node.inputs.end(), [&](detail::NodeId input) { return constant[input] != 0; }))
      return false;
  }
  return true;
}

}  // namespace

Computation fold_constants(const Computation& c) {
  if (nothing_to_fold(*c.graph.data())) return c;
  return Rewriter(c).run([](Rewriter& r, const Node& node) {
    if (&node.op() == &detail::constant_op() || &node.op() == &detail::input_op() ||
        &node.op() == &detail::variable_op())
      return r.copy(node);
    std::vector<const Array*> inputs;
    std::int64_t elements = 0;
    for (const Value input : r.now_inputs(node)) {
      inputs.push_back(detail::constant_value(input));
      if (!inputs.back()) return r.copy(node);
      elements += inputs.back()->size();
    }
    if (!foldable(node, elements)) return r.copy(node);
    Values outputs;
    for (const Array& output : detail::evaluate_all(node, inputs))
      outputs.push_back(r.graph().constant(output, node.location()));
    return r.replace(node, outputs);
  });
}

}  // namespace chainrule::passes
