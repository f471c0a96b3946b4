// Passes of your own: a graph can be walked, and rewritten before it is compiled.
#include <chainrule/chainrule.hpp>

#include <fmt/core.h>

namespace cr = chainrule;

namespace {

// Looks at every node that a program needs: how many multiplications with additions its products take, as a formula of
// the named sizes.
cr::Dimension multiply_adds(const cr::passes::Computation& c) {
  cr::Dimension total = 0;
  for (const cr::Node& node : c.graph.nodes())
    if (node.op().name == "matmul") {
      const cr::Shape& left = node.input(0).shape();
      const bool transposed = node.attribute<bool>("transpose_a");
      total = total + cr::count(node.shape()) * left[left.rank() - (transposed ? 2 : 1)];
    }
  return total;
}

// Builds another graph, with gelu wherever there was relu.
cr::passes::Computation relu_to_gelu(const cr::passes::Computation& c) {
  return cr::passes::Rewriter(c).run([](cr::passes::Rewriter& r, const cr::Node& node) {
    return node.op().name == "relu" ? cr::gelu(r.now(node.input(0))) : r.copy(node);
  });
}

}  // namespace

int main() {
  cr::Graph graph({.seed = 1});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 4});
  const auto y = cr::nn::dense(cr::relu(cr::nn::dense(x, 16)), 2);
  cr::State state(graph);

  cr::Dimension counted = 0;
  const cr::passes::Pass count{"multiply_adds", [&](const cr::passes::Computation& c) {
                                 counted = multiply_adds(c);
                                 return c;  // as it is
                               }};
  cr::Program with_relu(state, {.outputs = {y}, .mode = cr::Mode::inference, .passes = {count}});
  fmt::print("multiplications with additions: {}\n", counted.to_string());

  cr::Program with_gelu(state,
                        {.outputs = {y}, .mode = cr::Mode::inference, .passes = {{"relu_to_gelu", relu_to_gelu}}});
  const cr::Array numbers = cr::uniform({3, 4}, -1, 1);
  fmt::print("relu {}\ngelu {}\n", with_relu.run({{x, numbers}})[0], with_gelu.run({{x, numbers}})[0]);
  return 0;
}
