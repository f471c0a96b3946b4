// Exercise 3: the moon classifier by gradient descent, momentum and Adam, on 900 and on 300 examples.
//
// The three models differ in one word, the optimizer: the network's gradients are the library's work.
#include "course.hpp"

namespace {

template <class Optimizer>
void model(const course::Options& options, course::CostPlot& costs, const std::string& name,
           const cr::data::Dataset& moons, const Optimizer& optimizer) {
  course::heading(fmt::format("{} examples, {}", moons.size(), name));
  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  const auto parameters = course::initialize_parameters(graph, {2, 5, 2, 1}, course::he);
  const auto z3 = course::forward_propagation(x, parameters);
  const auto cost = cr::sigmoid_cross_entropy(z3, y);  // mean over the batch

  cr::State state(graph);
  cr::Program train(state, {.outputs = {cost}, .updates = optimizer.minimize(cost)});
  cr::Program predict(state, {.outputs = {cr::sigmoid(z3)}, .mode = cr::Mode::inference});

  const int num_epochs = options.quick ? 1001 : 10'000;
  int seed = 10;
  for (const int epoch : course::Iterations(name, num_epochs)) {
    seed = seed + 1;  // another order in each epoch
    double cost_total = 0;
    for (const auto& batch : cr::data::mini_batches(moons, 64, cr::numpy::RandomState(seed)))
      cost_total += train.run({{x, batch.x}, {y, batch.y}}).scalar(cost) * static_cast<double>(batch.size());
    const double cost_average = cost_total / static_cast<double>(moons.size());
    if (epoch % 1000 == 0) course::print("Cost after epoch {}: {:.6f}\n", epoch, cost_average);
    if (epoch % 100 == 0) costs.add(name, epoch, cost_average);
  }
  fmt::print("Accuracy: {}\n", cr::data::accuracy(predict.run({{x, moons.x}})[0], moons.y));
  course::plot_decision_boundary(options, fmt::format("{}-{}", moons.size(), name), "Model with " + name, predict, x,
                                 moons);
}

void exercise(const course::Options& options) {
  using cr::optim::Adam, cr::optim::GradientDescent, cr::optim::Momentum;

  const auto large = cr::data::make_moons({.samples = 900, .noise = 0.2}, cr::numpy::RandomState(3));
  course::CostPlot costs_900("Cost of the moon classifier, 900 examples", "epoch");
  model(options, costs_900, "gradient descent", large, GradientDescent{.learning_rate = 1e-4});
  model(options, costs_900, "momentum", large, Momentum{.learning_rate = 1e-3, .beta = 0.9});
  model(options, costs_900, "Adam", large, Adam{.learning_rate = 1e-4});
  costs_900.save(options, "900-costs");

  const auto small = cr::data::make_moons({.samples = 300, .noise = 0.2}, cr::numpy::RandomState(3));
  course::CostPlot costs_300("Cost of the moon classifier, 300 examples", "epoch");
  model(options, costs_300, "gradient descent", small, GradientDescent{.learning_rate = 7e-4});
  model(options, costs_300, "momentum", small, Momentum{.learning_rate = 7e-4, .beta = 0.9});
  model(options, costs_300, "Adam", small, Adam{.learning_rate = 7e-4});
  costs_300.save(options, "300-costs");
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "The moon classifier, a 2-5-2-1 network, by gradient descent, momentum and Adam.",
                     exercise, {.plot = true});
}
