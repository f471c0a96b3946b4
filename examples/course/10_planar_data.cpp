// Exercise 10, planar data: a network with one hidden layer on the flower, with more and fewer hidden units, and one
// with two on the spirals.
#include "course.hpp"

namespace {

cr::Array small(const cr::Array& randn, double /*n_in*/, double /*n_out*/) { return randn * 0.01; }

// Trains by the whole set in each step, and gives the accuracy.
template <class Optimizer>
double model(const cr::data::Dataset& data, const std::vector<std::int64_t>& layers_dims,
             course::Initialization initialization, const Optimizer& optimizer, int num_iterations, bool print_cost) {
  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  const auto layers = course::initialize_parameters(graph, layers_dims, initialization, 2);
  const auto logits = course::forward_propagation(x, layers, [](cr::Value z) { return cr::tanh(z); });
  const auto cost = cr::sigmoid_cross_entropy(logits, y);
  cr::State state(graph);
  cr::Program step(state, {.outputs = {cost}, .updates = optimizer.minimize(cost)});
  cr::Program predict(state, {.outputs = {cr::sigmoid(logits)}, .mode = cr::Mode::inference});

  for (const int i : course::Iterations(fmt::format("{} hidden units", layers_dims[1]), num_iterations)) {
    const double now = step.run({{x, data.x}, {y, data.y}}).scalar(cost);
    if (print_cost && i % (num_iterations / 10) == 0) course::print("Cost after iteration {}: {:.6f}\n", i, now);
  }
  return cr::data::accuracy(predict.run({{x, data.x}})[0], data.y);
}

void exercise(const course::Options& options) {
  const cr::optim::GradientDescent descent{.learning_rate = 1.2};
  const auto flower = cr::data::make_flower({.samples = 400}, cr::numpy::RandomState(1));

  course::heading("Flower, 4 hidden units");
  const int iterations = options.quick ? 1000 : 10'000;
  fmt::print("Accuracy: {:.4g} %\n", 100 * model(flower, {2, 4, 1}, small, descent, iterations, true));

  course::heading("Flower, numbers of hidden units");
  for (const std::int64_t hidden : {1, 2, 3, 4, 5, 20, 50})
    fmt::print("Accuracy for {} hidden units: {:.4g} %\n", hidden,
               100 * model(flower, {2, hidden, 1}, small, descent, options.quick ? 500 : 5000, false));

  course::heading("Spirals, 20 and 5 hidden units");
  const auto spirals = cr::data::make_spirals({.samples = 50, .noise = 0.5}, cr::numpy::RandomState(1));
  const cr::optim::Adam adam{.learning_rate = 0.003};
  fmt::print("Accuracy: {:.4g} %\n", 100 * model(spirals, {2, 20, 5, 1}, course::xavier, adam, iterations, true));
}

}  // namespace

int main(int argc, char** argv) { return course::run(argc, argv, "The flower and the spirals.", exercise); }
