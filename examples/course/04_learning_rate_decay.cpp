// Exercise 4: learning rates that decay, in four ways, with each optimizer.
//
// A schedule is an expression of the State's epoch, so it is part of the compiled step.
#include "course.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

using cr::optim::exponential_decay, cr::optim::interval_decay, cr::optim::inverse_root_decay,
    cr::optim::inverse_time_decay;

namespace {

// The schedule's rate at some epochs: a program of its own, of nothing but the epoch.
std::vector<double> rates(const cr::optim::Schedule& schedule, const std::vector<std::int64_t>& epochs) {
  cr::Graph graph;
  cr::State state(graph);
  cr::Program rate(state, {.outputs = {schedule(graph)}});
  std::vector<double> out;
  for (const std::int64_t epoch : epochs) {
    state.set_epoch(epoch);
    out.push_back(rate.run().scalar());
  }
  return out;
}

template <class Optimizer>
void model(course::CostPlot& costs, const std::string& schedule, const std::string& name, Optimizer optimizer,
           const cr::optim::Schedule& decay, int num_epochs, int print_every) {
  course::heading(fmt::format("{}, {}", schedule, name));
  const auto moons = cr::data::make_moons({.samples = 900, .noise = 0.2}, cr::numpy::RandomState(3));
  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  const auto parameters = course::initialize_parameters(graph, {2, 5, 2, 1}, course::he);
  const auto z3 = course::forward_propagation(x, parameters);
  const auto cost = cr::sigmoid_cross_entropy(z3, y);
  const auto learning_rate = decay(graph);
  optimizer.learning_rate = learning_rate;

  cr::State state(graph);
  cr::Program train(state, {.outputs = {cost}, .updates = optimizer.minimize(cost)});
  cr::Program rate(state, {.outputs = {learning_rate}});
  cr::Program predict(state, {.outputs = {cr::sigmoid(z3)}, .mode = cr::Mode::inference});

  for (const int epoch : course::Iterations(name, num_epochs)) {
    double cost_total = 0;
    for (const auto& batch : cr::data::mini_batches(moons, 64, cr::numpy::RandomState(11 + epoch)))
      cost_total += train.run({{x, batch.x}, {y, batch.y}}).scalar(cost) * static_cast<double>(batch.size());
    state.set_epoch(epoch);  // after the epoch, as in the notes: the next one uses this rate
    const double cost_average = cost_total / static_cast<double>(moons.size());
    if (epoch % (num_epochs / 50) == 0) costs.add(name, epoch, cost_average);
    if (epoch % print_every == 0) {
      course::print("Cost after epoch {}: {:.6f}\n", epoch, cost_average);
      course::print("learning rate after epoch {}: {:.6f}\n", epoch, rate.run().scalar());
    }
  }
  fmt::print("Accuracy: {}\n", cr::data::accuracy(predict.run({{x, moons.x}})[0], moons.y));
}

void schedules(const course::Options& options) {
  course::heading("Schedules");
  const auto every = rates(inverse_time_decay({.initial = 0.5, .decay = 1}), {0, 2});
  fmt::print("Original learning rate: {}\nUpdated learning rate: {}\n", every[0], every[1]);
  const auto fixed = rates(interval_decay({.initial = 0.5, .decay = 0.3, .interval = 100}), {0, 10, 100});
  fmt::print("Original learning rate: {}\nUpdated learning rate after 10 epochs: {}\n", fixed[0], fixed[1]);
  fmt::print("Updated learning rate after 100 epochs: {}\n", fixed[2]);

  const std::vector<std::int64_t> first{1, 2, 3, 4};
  const auto inverse = rates(inverse_time_decay({.initial = 0.2, .decay = 1}), first);
  const auto power = rates(exponential_decay({.initial = 0.2, .base = 0.95}), first);
  const auto root = rates(inverse_root_decay({.initial = 0.2, .k = 1}), {0, 1, 2, 3});  // counts epochs from 0
  const auto rounded = [](double rate) { return std::round(rate * 1000) / 1000; };
  fmt::print("epoch  0.2/(1+epoch)  0.95^epoch*0.2  0.2/sqrt(epoch)\n");
  for (std::size_t i = 0; i < first.size(); ++i)
    fmt::print("{:5}  {:13}  {:14}  {:15}\n", first[i], rounded(inverse[i]), rounded(power[i]), rounded(root[i]));

  std::vector<std::int64_t> epochs(50);
  std::iota(epochs.begin(), epochs.end(), 0);
  cr::plot::Figure figure({.title = "Schedules that begin with 0.2", .x_label = "epoch", .y_label = "learning rate"});
  figure.line("a0 / (1 + epoch)", rates(inverse_time_decay({.initial = 0.2}), epochs))
      .line("a0 / (1 + floor(epoch / 10))", rates(interval_decay({.initial = 0.2, .interval = 10}), epochs))
      .line("0.95^epoch a0", rates(exponential_decay({.initial = 0.2, .base = 0.95}), epochs))
      .line("a0 / sqrt(epoch + 1)", rates(inverse_root_decay({.initial = 0.2}), epochs));
  course::save(options, "rates", figure);
}

void exercise(const course::Options& options) {
  using cr::optim::Adam, cr::optim::GradientDescent, cr::optim::Momentum;
  schedules(options);

  // Each optimizer with a schedule of its initial rate; Adam's is a tenth of the others'.
  const auto train = [&](const std::string& name, double rate, int num_epochs, int print_every, const auto& decay) {
    course::CostPlot costs("Learning rate decayed " + name, "epoch");
    model(costs, name, "gradient descent", GradientDescent{}, decay(rate), num_epochs, print_every);
    num_epochs = std::min(num_epochs, 5000);
    model(costs, name, "momentum", Momentum{}, decay(rate), num_epochs, print_every);
    model(costs, name, "Adam", Adam{}, decay(rate / 10), num_epochs, print_every);
    costs.save(options, name);
  };
  const int long_time = options.quick ? 1001 : 10'000;
  const int time = options.quick ? 1001 : 5000;
  train("on every iteration", 0.5, time, 1000, [](double a0) { return inverse_time_decay({.initial = a0}); });
  train("at fixed intervals", 0.01, long_time, 1000, [](double a0) { return interval_decay({.initial = a0}); });
  // Soon too small to learn with.
  train("by 0.95^epoch", 0.5, 500, 100, [](double a0) { return exponential_decay({.initial = a0, .base = 0.95}); });
  train("by k/sqrt(epoch)", 0.1, time, 1000, [](double a0) { return inverse_root_decay({.initial = a0, .k = 1}); });
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "The moon classifier with four learning-rate schedules and three optimizers.",
                     exercise, {.plot = true});
}
