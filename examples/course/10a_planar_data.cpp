// Exercise 10: the flower, by networks with more and fewer hidden units, and the spirals.
#include "course.hpp"

namespace {

cr::Value tanh(cr::Value z) { return cr::tanh(z); }
cr::Value relu(cr::Value z) { return cr::relu(z); }
cr::Array small(const cr::Array& randn, double /*n_in*/, double /*n_out*/) { return randn * 0.01; }

// Trains by the whole set in each step, and gives the accuracy in percent. With a title it prints costs and draws.
template <class Optimizer>
double model(const course::Options& options, const std::string& title, const cr::data::Dataset& data,
             const std::vector<std::int64_t>& layers_dims, course::Initialization initialization,
             const course::Activation& activation, const Optimizer& optimizer, int num_iterations) {
  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  const auto layers = course::initialize_parameters(graph, layers_dims, initialization, 2);
  const auto logits = course::forward_propagation(x, layers, activation);
  const auto cost = cr::sigmoid_cross_entropy(logits, y);
  cr::State state(graph);
  cr::Program step(state, {.outputs = {cost}, .updates = optimizer.minimize(cost)});
  cr::Program predict(state, {.outputs = {cr::sigmoid(logits)}, .mode = cr::Mode::inference});

  for (const int i : course::Iterations(fmt::format("{} hidden units", layers_dims[1]), num_iterations)) {
    const double now = step.run({{x, data.x}, {y, data.y}}).scalar(cost);
    if (!title.empty() && i % (num_iterations / 10) == 0) course::print("Cost after iteration {}: {:.6f}\n", i, now);
  }
  if (!title.empty()) course::plot_decision_boundary(options, title, title, predict, x, data);
  return 100 * cr::data::accuracy(predict.run({{x, data.x}})[0], data.y);
}

void exercise(const course::Options& options) {
  const cr::optim::GradientDescent descent{.learning_rate = 1.2};
  const auto flower = cr::data::make_flower({.samples = 400}, cr::numpy::RandomState(1));

  course::heading("Flower, 4 hidden units");
  const int iterations = options.quick ? 1000 : 10'000;
  fmt::print("Accuracy: {:.4g} %\n", model(options, "Flower", flower, {2, 4, 1}, small, tanh, descent, iterations));

  course::heading("Flower, numbers of hidden units");
  for (const std::int64_t hidden : {1, 2, 3, 4, 5, 20, 50})
    fmt::print("Accuracy for {} hidden units: {:.4g} %\n", hidden,
               model(options, "", flower, {2, hidden, 1}, small, tanh, descent, iterations / 2));

  course::heading("Spirals, 40 and 20 hidden units");
  const auto wide = cr::data::make_spirals({.samples = 200, .noise = 0.1}, cr::numpy::RandomState(1));
  const auto spirals = cr::data::Standardizer(wide)(wide);
  const cr::optim::Adam adam{.learning_rate = 0.01};
  fmt::print("Accuracy: {:.4g} %\n",
             model(options, "Spirals", spirals, {2, 40, 20, 1}, course::he, relu, adam, iterations));
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "The flower and the spirals.", exercise, {.plot = true});
}
