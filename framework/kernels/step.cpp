#include <chainrule/framework/kernels/step.hpp>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/node_facts.hpp>

namespace chainrule::detail {

KernelCall call_of(const GraphData& graph, NodeId id, const Sizes& sizes, const Attributes& attributes) {
  const NodeData& node = graph.node(id);
  KernelCall call{{}, {node.type.dtype, evaluate(node.type.shape, sizes)}, attributes, node.op->name, node.at};
  for (const NodeId input : node.inputs) {
    const NodeType& type = graph.node(input).type;
    call.inputs.push_back({type.dtype, evaluate(type.shape, sizes)});
  }
  for (NodeId output = id; output < id + graph.output_count(id); ++output) {
    const NodeType& type = graph.node(output).type;
    call.outputs.push_back({type.dtype, evaluate(type.shape, sizes)});
  }
  return call;
}

Step make_kernel_step(const GraphData& graph, NodeId id, const Sizes& sizes) {
  const Op& op = *graph.node(id).op;
  const Attributes attributes = evaluate_attributes(graph.node(id).attributes, sizes);
  KernelCall call = call_of(graph, id, sizes, attributes);
  if (op.forward.generator) {
    // Some 10 us; whole blocks of random bits.
    constexpr std::int64_t grain = 16'384;
    return {[run = op.forward.generator(call), size = count(call.output.shape),
             element = static_cast<std::int64_t>(size_of(call.output.dtype))](const StepBuffers& b) {
              if (size <= grain) return run(b.inputs, b.outputs[0], 0, size);
              chainrule::parallel_for(size, grain, [&](std::int64_t begin, std::int64_t end) {
                run(b.inputs, static_cast<char*>(b.outputs[0]) + begin * element, begin, end);
              });
            },
            0, 0};
  }
  invariant(bool(op.forward.kernel), fmt::format("op {} has no kernel", op.name));
  KernelRun run = op.forward.kernel(call);
  return {[run = std::move(run)](const StepBuffers& b) {
            run(KernelBuffers{b.inputs, b.outputs[0], b.workspace, b.outputs});
          },
          call.workspace, call.flops};
}

}  // namespace chainrule::detail
