// A user's program: a graph, its gradient, a run. Also that registered ops survive the linking of an archive.
#include <chainrule/chainrule.hpp>

#include <dlfcn.h>
#include <fmt/core.h>

namespace cr = chainrule;

double result_before_main();

namespace {

double result_of_plugin() {
  void* const plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
  if (!plugin) {
    fmt::print("{}\n", dlerror());
    return -1;
  }
  return reinterpret_cast<double (*)()>(dlsym(plugin, "plugin_result"))();
}

}  // namespace

int main() {
  cr::Graph graph;
  const auto x = graph.input("x", {3});
  const auto y = cr::sum(cr::square(x));
  const auto dx = cr::gradients(y, {x})[0];

  cr::State state(graph);
  cr::Program program(state, {.outputs = {y, dx}});
  const auto results = program.run({{x, cr::Array({1.0, 2.0, 3.0})}});

  fmt::print("y = {}, {} ops\n", results.scalar(y), cr::registry().size());
#ifdef HAVE_FILES
  cr::data::save_npy("consumer.npy", results[1]);
  if (!cr::data::load_npy("consumer.npy").identical(results[1])) return 1;
#endif
  // 2 * (2 + 3); four sums of three ones.
  if (result_before_main() != 10 || result_of_plugin() != 12) return 1;
  return results.scalar(y) == 14 && cr::find_op("softmax") != nullptr ? 0 : 1;
}
