// A plug-in that has the library, archive or not, linked into it.
#include <chainrule/chainrule.hpp>

namespace cr = chainrule;

extern "C" double plugin_result();
extern "C" double plugin_result() {
  cr::Graph graph;
  const auto x = graph.input("x", {2, 3});
  cr::State state(graph);
  cr::Program program(state, {.outputs = {cr::sum(cr::matmul(x, cr::transpose(x)))}});
  return program.run({{x, cr::ones({2, 3})}}).scalar(0);
}
