// Random numbers that are new in each run, for a program that asks for them: ops that draw (those with the attributes
// "seed" and "stream") read a number of the program's own where they would read the State's step. Who else reads the
// step, a schedule say, goes on reading it.
//
// The number is an input of the new graph alone, with which its leaves are a copy: the user's graph has no such input.
#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

namespace {

bool draws(const Node& node) { return node.attributes().has("seed") && node.attributes().has("stream"); }

Value append_draw(GraphData& graph) {
  auto leaves = std::make_shared<detail::LeafTable>(*graph.leaves);
  NodeData draw;
  draw.op = &detail::input_op();
  draw.type = {int64, Shape{}};
  draw.payload = static_cast<std::uint32_t>(leaves->inputs.size());
  leaves->inputs.push_back({"draw", static_cast<NodeId>(graph.nodes.size())});
  graph.leaves = std::move(leaves);
  return graph.append(std::move(draw));
}

}  // namespace

Computation draw_each_run(const Computation& c, NodeId step) {
  Value draw;
  return Rewriter(c).run([&](Rewriter& r, const Node& node) {
    Values inputs = r.now_inputs(node);
    bool any = false;
    for (std::size_t i = 0; draws(node) && i < inputs.size(); ++i) {
      const NodeData& input = r.graph().data()->node(inputs[i].id());
      if (input.op != &detail::variable_op() || r.graph().data()->leaves->variables[input.payload].node != step)
        continue;
      if (!draw.defined()) draw = append_draw(*r.graph().data());
      inputs[i] = draw;
      any = true;
    }
    return any ? r.copy(node, inputs, node.attributes()) : r.copy(node);
  });
}

}  // namespace chainrule::passes
