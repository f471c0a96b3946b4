// An op of your own: its forward, its gradient, its samples - and its proof, alone and inside a network.
#include <chainrule/chainrule.hpp>

#include <cmath>

#include <fmt/core.h>

namespace cr = chainrule;

namespace {

// squash(x) = x / (1 + |x|).  Written once: the library runs it in float and in double, with the vector instructions
// of the machine, and fused with its neighbours in the graph.
struct Squash {
  auto operator()(auto x) const { return x / (1 + cr::simd::abs(x)); }
};

const cr::Op& squash_op = cr::register_op({
    .name = "squash",
    .doc = "x / (1 + |x|), elementwise.",
    .shape = cr::same_shape,
    .forward = cr::elementwise<Squash>(),
    // In graph ops, so that it has a gradient itself.
    .gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values {
      return {dy / cr::square(1.0 + cr::abs(node.input(0)))};
    },
    .samples = {{.inputs = {cr::uniform({3, 4}, -4, 4)}}, {.inputs = {cr::uniform({2}, -1e6, 1e6)}}},
});

cr::Value squash(cr::Value x, cr::Location at = cr::Location::here()) { return cr::apply(squash_op, {x}, {}, at); }

// An op with two outputs: a shape rule that returns Types, a kernel with a parameter for each input and then each
// output (compiled for float and double), and a gradient rule that is given one gradient for each output; those on
// which nothing depends are not defined().
const cr::Op& polar_op = cr::register_op({
    .name = "polar",
    .doc = "Length and angle of the vectors (x, y).",
    .shape = [](const cr::OpCall& call) -> cr::Types {
      call.require_inputs(2);
      if (!(call.shape(0) == call.shape(1)))
        call.fail("x and y of one shape", cr::to_string(call.shape(0)) + " and " + cr::to_string(call.shape(1)));
      return {call.type(0), call.type(0)};
    },
    .forward = cr::kernel(
        []<class T>(cr::Tensor<const T> x, cr::Tensor<const T> y, cr::Tensor<T> length, cr::Tensor<T> angle) {
          for (std::int64_t i = 0; i < x.size(); ++i) {
            length[i] = std::hypot(x[i], y[i]);
            angle[i] = std::atan2(y[i], x[i]);
          }
        }),
    .gradient = [](const cr::Node& node, const cr::Values& d) -> cr::Values {
      const cr::Value x = node.input(0);
      const cr::Value y = node.input(1);
      const cr::Value length = node.output(0);
      cr::Value dx;
      cr::Value dy;
      if (d[0].defined()) {
        dx = d[0] * x / length;
        dy = d[0] * y / length;
      }
      if (d[1].defined()) {
        const cr::Value turn = d[1] / cr::square(length);
        dx = dx.defined() ? dx - turn * y : -turn * y;
        dy = dy.defined() ? dy + turn * x : turn * x;
      }
      return {dx, dy};
    },
    .samples = {{.inputs = {cr::uniform({5}, 0.5, 2), cr::uniform({5}, -2, 2)}}},
});

struct Polar {
  cr::Value length;
  cr::Value angle;
};
Polar polar(cr::Value x, cr::Value y, cr::Location at = cr::Location::here()) {
  const cr::Values outputs = cr::apply_all(polar_op, {x, y}, {}, at);
  return {outputs[0], outputs[1]};
}

// The same op with a mistake in its gradient: the square is forgotten.
const cr::Op& mistaken_op = cr::register_op({
    .name = "mistaken_squash",
    .doc = "squash with a wrong gradient.",
    .shape = cr::same_shape,
    .forward = cr::elementwise<Squash>(),
    .gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values { return {dy / (1.0 + cr::abs(node.input(0)))}; },
    .samples = squash_op.samples,
});

}  // namespace

int main() {
  const auto report = cr::check_gradients(squash_op);  // every sample, float32 and float64, orders 1 and 2
  fmt::print("{}\n", report);

  cr::Graph graph;
  const auto x = graph.input("x", {3, 4});
  const auto w = graph.parameter("w", cr::ones({3, 1}));
  const auto loss = cr::mean(cr::square(squash(w * x)));
  cr::State state(graph);
  const auto network = cr::check_gradients(loss, {w, x}, state, {{x, cr::numpy::RandomState(1).randn(3, 4)}});
  fmt::print("{}\n", network);

  const auto two_outputs = cr::check_gradients(polar_op);  // every output
  fmt::print("{}\n", two_outputs);
  cr::Graph plane;
  const auto a = plane.input("a", {2});
  const auto [length, angle] = polar(a, 2.0 * a);
  cr::State nothing(plane);
  cr::Program program(nothing, {.outputs = {length, angle, cr::gradients(cr::sum(length), {a})[0]}});
  const auto results = program.run({{a, cr::Array({3.0, -1.0})}});
  fmt::print("lengths {}, angles {}, slopes {}\n\n", results[0], results[1], results[2]);

  fmt::print("And with a mistake:\n{}", cr::check_gradients(mistaken_op));
  return report.passed() && network.passed() && two_outputs.passed() ? 0 : 1;
}
