// A graph of static storage, in a file that a linker is given before the library.
#include <chainrule/chainrule.hpp>

namespace cr = chainrule;

namespace {

cr::Graph graph;
const auto x = graph.input("x", {3});
const auto y = cr::sum(cr::relu(x) * 2.0);
cr::State state(graph);
cr::Program program(state, {.outputs = {y, cr::gradients(y, {x})[0]}});
const double result = program.run({{x, cr::Array({-1.0, 2.0, 3.0})}}).scalar(0);

}  // namespace

double result_before_main();
double result_before_main() { return result; }
