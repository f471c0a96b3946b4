// A first program: fits a line to four points by gradient descent.
//
// The four nouns are all here. The graph says what is computed; the state holds what persists from run to run; a
// program is a compiled request; and ops (matmul, +, mean_squared_error) are what graphs are made of.
#include <chainrule/chainrule.hpp>

#include <fmt/core.h>

namespace cr = chainrule;

int main() {
  cr::Graph graph;
  const auto points = graph.dimension("points");  // a size that is known only when numbers are fed
  const auto x = graph.input("x", {points, 1});
  const auto y = graph.input("y", {points, 1});
  const auto slope = graph.parameter("slope", cr::zeros({1, 1}));
  const auto offset = graph.parameter("offset", cr::zeros({1}));
  const auto loss = cr::mean_squared_error(cr::matmul(x, slope) + offset, y);

  cr::State state(graph);
  cr::Program train(state,
                    {.outputs = {loss}, .updates = cr::optim::GradientDescent{.learning_rate = 0.1}.minimize(loss)});

  const cr::Array xs{{0.0}, {1.0}, {2.0}, {3.0}};
  const cr::Array ys{{1.0}, {3.0}, {5.0}, {7.0}};
  for (int step = 0; step <= 200; ++step) {
    const double cost = train.run({{x, xs}, {y, ys}}).scalar(loss);
    if (step % 50 == 0) fmt::print("step {:3}: cost {:.6f}\n", step, cost);
  }
  fmt::print("y = {:.3f} x + {:.3f}\n", state[slope].item(), state[offset].item());
}
