// An op of your own: its forward, its gradient, its samples - and its proof, alone and inside a network.
#include <chainrule/chainrule.hpp>

#include <fmt/core.h>

namespace cr = chainrule;

namespace {

// softsign(x) = x / (1 + |x|).  Written once: the library runs it in float and in double, with the vector instructions
// of the machine, and fused with its neighbours in the graph.
struct Softsign {
  auto operator()(auto x) const { return x / (1 + cr::simd::abs(x)); }
};

const cr::Op& softsign_op = cr::register_op({
    .name = "softsign",
    .doc = "x / (1 + |x|), elementwise.",
    .shape = cr::same_shape,
    .forward = cr::elementwise<Softsign>(),
    // In graph ops, so that it has a gradient itself.
    .gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values {
      return {dy / cr::square(1.0 + cr::abs(node.input(0)))};
    },
    .samples = {{.inputs = {cr::uniform({3, 4}, -4, 4)}}, {.inputs = {cr::uniform({2}, -1e6, 1e6)}}},
});

cr::Value softsign(cr::Value x, cr::Location at = cr::Location::here()) { return cr::apply(softsign_op, {x}, {}, at); }

// The same op with a mistake in its gradient: the square is forgotten.
const cr::Op& mistaken_op = cr::register_op({
    .name = "mistaken_softsign",
    .doc = "softsign with a wrong gradient.",
    .shape = cr::same_shape,
    .forward = cr::elementwise<Softsign>(),
    .gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values { return {dy / (1.0 + cr::abs(node.input(0)))}; },
    .samples = softsign_op.samples,
});

}  // namespace

int main() {
  const auto report = cr::check_gradients(softsign_op);  // every sample, float32 and float64, orders 1 and 2
  fmt::print("{}\n", report);

  cr::Graph graph;
  const auto x = graph.input("x", {3, 4});
  const auto w = graph.parameter("w", cr::ones({3, 1}));
  const auto loss = cr::mean(cr::square(softsign(w * x)));
  cr::State state(graph);
  const auto network = cr::check_gradients(loss, {w, x}, state, {{x, cr::numpy::RandomState(1).randn(3, 4)}});
  fmt::print("{}\n", network);

  fmt::print("And with a mistake:\n{}", cr::check_gradients(mistaken_op));
  return report.passed() && network.passed() ? 0 : 1;
}
