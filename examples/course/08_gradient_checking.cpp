// Exercise 8: gradient checking - a function of one number, networks, and what mistakes look like.
//
// A program that takes its gradients from the library has none of its own to check; the rules of the ops, of yours too,
// are checked by this. gradient_check_n is the notes' relative distance; check_gradients judges it element by element.
#include "course.hpp"

#include <cmath>

namespace {

// The notes' relative distance, over all parameters at their initial values, and their verdict; then the library's.
void check(cr::Value loss, std::initializer_list<cr::Feed> feeds) {
  const cr::Values parameters = loss.graph().parameters();
  const cr::State state(loss.graph());
  const double distance = cr::gradient_check_n(loss, parameters, state, feeds, 1e-7);
  fmt::print("relative distance {:.3e}: {}\n", distance, distance < 1e-7 ? "right" : "there is a mistake");
  cr::print(cr::check_gradients(loss, parameters, state, feeds, {.orders = 1}));
}

// x, with a gradient that is `factor` times too large: a mistake for the checker to find.
const cr::Op& mistaken_op = cr::register_op({
    .name = "mistaken",
    .doc = "x, with a gradient that is wrong by a factor.",
    .shape = cr::same_shape,
    .forward = cr::elementwise([](auto x, auto /*factor*/) { return x; }, {"factor"}),
    .gradient = [](const cr::Node& node, cr::Value dy) { return cr::Values{node.attributes().number("factor") * dy}; },
    .samples = {{.inputs = {cr::uniform({3})}, .attributes = {{"factor", 2.0}}}},
});
cr::Value mistaken(cr::Value x, double factor) { return cr::apply(mistaken_op, {x}, {{"factor", factor}}); }

void one_dimension() {
  course::heading("J(theta) = theta^3 at theta = 4");
  cr::Graph graph;
  const auto theta = graph.input("theta", {});
  const auto j = theta * theta * theta;
  const auto derivative = cr::gradients(j, {theta})[0];
  cr::State state(graph);
  cr::Program program(state, {.outputs = {j, derivative}});
  const double g = program.run({{theta, 4}}).scalar(derivative);
  fmt::print("gradient {}\nepsilon  approximation        relative distance\n", g);
  for (const double epsilon : {1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8}) {
    const auto at = [&](double t) { return program.run({{theta, t}}).scalar(j); };
    const double approximation = (at(4 + epsilon) - at(4 - epsilon)) / (2 * epsilon);
    const double distance = std::abs(approximation - g) / (std::abs(approximation) + std::abs(g));
    fmt::print("{:7.0e}  {:<19.17g}  {:.3e}\n", epsilon, approximation, distance);
  }
}

// The course's tiny network, 4-5-3-1, with three examples, all numbers random after seed 1; right, and with mistakes.
void three_layers() {
  cr::numpy::RandomState rng(1);
  const cr::Array x_numbers = rng.randn(4, 3);
  const cr::Array y_numbers{{1.0, 1.0, 0.0}};
  cr::Graph graph;
  const auto x = graph.input("X", {4, 3});
  const auto y = graph.input("Y", {1, 3});
  const auto random = [&](const char* name, int m, int n) { return graph.parameter(name, rng.randn(m, n)); };
  std::vector<course::Layer> layers{{random("W1", 5, 4), random("b1", 5, 1)},
                                    {random("W2", 3, 5), random("b2", 3, 1)},
                                    {random("W3", 1, 3), random("b3", 1, 1)}};
  const auto cost = [&] { return cr::sigmoid_cross_entropy(course::forward_propagation(x, layers), y); };

  course::heading("The three-layer network");
  check(cost(), {{x, x_numbers}, {y, y_numbers}});

  course::heading("A mistake: a penalty that is in the cost and not in the gradient");
  const cr::Value penalty = cr::l2_penalty(course::weights(layers), 0.1, 3);
  check(cost() + cr::stop_gradient(penalty), {{x, x_numbers}, {y, y_numbers}});

  course::heading("A mistake: dW2 twice, db1 four times what they are");
  layers[1].w = mistaken(layers[1].w, 2);
  layers[0].b = mistaken(layers[0].b, 4);
  check(cost(), {{x, x_numbers}, {y, y_numbers}});
}

// Exercise 3 of the notes' last chapter: the network 2-20-5-1 with L2 regularization. And with what the notes say not
// to check, dropout: the checker holds its masks fixed.
void regularized() {
  const auto moons = cr::data::make_moons({.samples = 200, .noise = 0.2}, cr::numpy::RandomState(3));
  cr::Graph graph;
  const auto x = graph.input("X", {2, 200});
  const auto y = graph.input("Y", {1, 200});
  const auto layers = course::initialize_parameters(graph, {2, 20, 5, 1}, course::inv_sqrt);
  const auto penalty = cr::l2_penalty(course::weights(layers), 0.1, 200);

  course::heading("The network 2-20-5-1 with L2 regularization");
  check(cr::sigmoid_cross_entropy(course::forward_propagation(x, layers), y) + penalty, {{x, moons.x}, {y, moons.y}});

  course::heading("The same with dropout");
  const auto a1 = cr::dropout(cr::relu(cr::matmul(layers[0].w, x) + layers[0].b), {.keep = 0.8});
  const auto a2 = cr::dropout(cr::relu(cr::matmul(layers[1].w, a1) + layers[1].b), {.keep = 0.8});
  const auto z3 = cr::matmul(layers[2].w, a2) + layers[2].b;
  check(cr::sigmoid_cross_entropy(z3, y) + penalty, {{x, moons.x}, {y, moons.y}});
}

// With biases of zero, an example whose first hidden layer is all zeros stands on the kink of the second layer's
// relu. The difference quotient there is the mean of both slopes, and no slope at all.
void kinks() {
  course::heading("No mistake: the moon classifier at a kink");
  const auto moons = cr::data::make_moons({.samples = 300, .noise = 0.2}, cr::numpy::RandomState(3));
  cr::Graph graph;
  const auto x = graph.input("X", {2, 300});
  const auto y = graph.input("Y", {1, 300});
  const auto layers = course::initialize_parameters(graph, {2, 5, 2, 1}, course::he);
  const auto cost = cr::sigmoid_cross_entropy(course::forward_propagation(x, layers), y);
  check(cost, {{x, moons.x}, {y, moons.y}});
}

void exercise(const course::Options& /*options*/) {
  one_dimension();
  three_layers();
  regularized();
  kinks();
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "Gradient checking, of right and of wrong gradients.", exercise);
}
