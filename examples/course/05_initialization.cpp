// Exercise 5: how the weights begin - zeros, random numbers, He's, Xavier's - and why zeros fail.
#include "course.hpp"

#include <set>

namespace {

cr::Array zeros(const cr::Array& randn, double /*n_in*/, double /*n_out*/) { return randn * 0; }
cr::Array random(const cr::Array& randn, double /*n_in*/, double /*n_out*/) { return randn; }

// How many of the first layer's units differ from all others in their weights.
std::size_t different_units(const cr::Array& w1) {
  std::set<std::pair<double, double>> units;
  for (std::int64_t unit = 0; unit < w1.shape()[0]; ++unit) units.emplace(w1(unit, 0), w1(unit, 1));
  return units.size();
}

void model(const course::Options& options, course::CostPlot& costs, const std::string& title,
           course::Initialization initialization) {
  course::heading(title);
  const auto train = cr::data::make_circles({.samples = 300, .noise = 0.05}, cr::numpy::RandomState(1));
  const auto test = cr::data::make_circles({.samples = 100, .noise = 0.05}, cr::numpy::RandomState(2));

  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  const auto layers = course::initialize_parameters(graph, {2, 10, 5, 1}, initialization);
  const auto z3 = course::forward_propagation(x, layers);
  const auto cost = cr::sigmoid_cross_entropy(z3, y);
  cr::Values norms;
  for (const auto gradient : cr::gradients(cost, graph.parameters())) norms.push_back(cr::sqrt(cr::l2({gradient})));

  cr::State state(graph);
  const auto updates = cr::optim::GradientDescent{.learning_rate = 0.01}.minimize(cost);
  cr::Program step(state, {.outputs = {cost}, .updates = updates});
  cr::Program look(state, {.outputs = norms});
  cr::Program predict(state, {.outputs = {cr::sigmoid(z3)}, .mode = cr::Mode::inference});

  const auto first = look.run({{x, train.x}, {y, train.y}});
  fmt::print("norms of the first gradient:");
  for (std::size_t i = 0; i < norms.size(); ++i) fmt::print("  {} {:.1e}", graph.parameters()[i], first.scalar(i));
  fmt::print("\n");

  for (const int i : course::Iterations(title, options.quick ? 2000 : 15'000)) {
    const double now = step.run({{x, train.x}, {y, train.y}}).scalar(cost);
    if (i % 100 == 0) costs.add(title, i, now);
    if (i % 1000 == 0) course::print("Cost after iteration {}: {}\n", i, now);
  }
  fmt::print("different units in the first layer: {} of 10\n", different_units(state[layers[0].w]));
  fmt::print("on the train set:\nAccuracy: {}\n", cr::data::accuracy(predict.run({{x, train.x}})[0], train.y));
  fmt::print("on the test set:\nAccuracy: {}\n", cr::data::accuracy(predict.run({{x, test.x}})[0], test.y));
  course::plot_decision_boundary(options, title, "Initialization: " + title, predict, x, train);
}

void exercise(const course::Options& options) {
  course::CostPlot costs("Cost by initialization", "iteration");
  // relu(0) is 0 and so is its slope: no weight has a gradient, and only the output's bias could move. All units of a
  // layer would be the same for ever, too, had they begun with the same numbers other than 0.
  model(options, costs, "Zeros", zeros);
  model(options, costs, "Random", random);
  model(options, costs, "He, 2/n", course::he);
  model(options, costs, "Xavier, 1/n", course::xavier);
  model(options, costs, "Xavier, 2/(n+m)", course::glorot);
  costs.save(options, "costs");
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "Zeros, random numbers, He and Xavier initialization.", exercise, {.plot = true});
}
