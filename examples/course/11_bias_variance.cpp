// Exercise 11: train, dev and test set, input normalization, and what errors say of bias and variance.
#include "course.hpp"

namespace {

struct Trained {
  double cost = 0;                  // on the training set, at the end
  std::vector<double> errors = {};  // the shares of wrong answers on the sets
};

template <class Optimizer>
Trained model(const course::Options& options, const std::string& title, const std::vector<cr::data::Dataset>& sets,
              const std::vector<std::int64_t>& layers_dims, double lambda, const Optimizer& optimizer) {
  const int num_iterations = options.quick ? 300 : 3000;
  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  const auto layers = course::initialize_parameters(graph, layers_dims, course::he);
  const auto logits = course::forward_propagation(x, layers);
  const auto cross_entropy = cr::sigmoid_cross_entropy(logits, y);
  const auto cost = cross_entropy + cr::l2_penalty(course::weights(layers), lambda, m);
  cr::State state(graph);
  cr::Program train(state, {.outputs = {cost}, .updates = optimizer.minimize(cost)});
  cr::Program look(state, {.outputs = {cross_entropy}});
  cr::Program predict(state, {.outputs = {cr::sigmoid(logits)}, .mode = cr::Mode::inference});

  // One batch of the whole training set: an epoch is an iteration.
  cr::fit(train, sets[0], {.inputs = {x, y}, .batch = sets[0].size(), .epochs = num_iterations, .shuffle = false});
  Trained out{.cost = look.run({{x, sets[0].x}, {y, sets[0].y}}).scalar()};
  for (const auto& set : sets) out.errors.push_back(1 - cr::accuracy(predict, set, {.inputs = {x}}));
  if (!title.empty()) course::plot_decision_boundary(options, title, "Training set and " + title, predict, x, sets[0]);
  return out;
}

void exercise(const course::Options& options) {
  // The moons as someone might have measured them: one feature in the hundreds, one around 1.
  auto moons = cr::data::make_moons({.samples = 500, .noise = 0.25}, cr::numpy::RandomState(3));
  moons.x = moons.x * cr::Array{{300.0}, {0.3}} + cr::Array{{500.0}, {0.5}};

  course::heading("Split");
  const auto parts = cr::data::split(moons, {.train = 0.6, .dev = 0.2, .test = 0.2}, cr::numpy::RandomState(1));
  const cr::data::Standardizer normalize(parts.train);
  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  cr::State state(graph);
  cr::Program means(state, {.outputs = {cr::mean(x, 1), 100 * cr::mean(y)}});
  fmt::print("set    examples  of class 1  means of the features  after normalization\n");
  const auto print = [&](const char* name, const cr::data::Dataset& set) {
    const auto raw = means.run({{x, set.x}, {y, set.y}});
    fmt::print("{:5}  {:8}  {:9.1f}%  {:12.2f} {:8.4f}", name, set.size(), raw.scalar(1), raw[0][0], raw[0][1]);
    const auto normalized = means.run({{x, normalize(set.x)}, {y, set.y}});
    fmt::print("  {:9.4f} {:9.4f}\n", normalized[0][0], normalized[0][1]);
  };
  print("train", parts.train);
  print("dev", parts.dev);
  print("test", parts.test);

  // The mean and deviation of the training set normalize all three.
  const std::vector<cr::data::Dataset> raw{parts.train, parts.dev, parts.test};
  const std::vector<cr::data::Dataset> sets{normalize(parts.train), normalize(parts.dev), normalize(parts.test)};

  course::heading("Gradient descent with and without normalization");
  fmt::print("learning rate  cost of raw inputs  cost of normalized inputs\n");
  for (const double learning_rate : {1e-1, 1e-2, 1e-3, 1e-4, 1e-5}) {
    const cr::optim::GradientDescent descent{.learning_rate = learning_rate};
    fmt::print("{:13}  {:18.6f}  {:25.6f}\n", learning_rate, model(options, "", raw, {2, 20, 5, 1}, 0, descent).cost,
               model(options, "", sets, {2, 20, 5, 1}, 0, descent).cost);
  }

  course::heading("Bias and variance");
  fmt::print("model                   train error  dev error  test error  bias   variance\n");
  const auto report = [&](const std::string& name, const std::vector<std::int64_t>& layers_dims, double lambda) {
    const auto errors = model(options, name, sets, layers_dims, lambda, cr::optim::Adam{.learning_rate = 0.01}).errors;
    const double bias = 100 * errors[0];
    const double variance = 100 * (errors[1] - errors[0]);
    const char* verdict = bias > 8       ? "high bias: a bigger network"
                          : variance > 5 ? "high variance: regularization, or more data"
                                         : "balanced";
    fmt::print("{:22}  {:10.1f}%  {:8.1f}%  {:9.1f}%  {:4.1f}%  {:7.1f}%  {}\n", name, bias, 100 * errors[1],
               100 * errors[2], bias, variance, verdict);
  };
  report("logistic regression", {2, 1}, 0);
  report("2-50-50-1", {2, 50, 50, 1}, 0);
  report("2-50-50-1, L2 of 1", {2, 50, 50, 1}, 1);
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "Train, dev and test sets, input normalization, bias and variance.", exercise,
                     {.plot = true});
}
