// Exercise 10: the L-layer classifier [12288, 20, 7, 5, 1] of photographs of cats and other things.
#include "course.hpp"

namespace {

// Photographs {examples, 64, 64, 3} of bytes as columns of numbers from 0 to 1, and their labels as a row.
cr::data::Dataset load(const course::Options& options, const std::string& file, const std::string& set) {
  const auto data = cr::data::load_hdf5(course::data_file(options, file));
  const cr::Array& x = data.at(set + "_x");
  const cr::Array& y = data.at(set + "_y");
  const std::int64_t m = x.shape()[0];
  return {.x = x.reshape({m, x.size() / m}).transpose() / 255.0, .y = y.reshape({1, m}).astype(cr::float64)};
}

void exercise(const course::Options& options) {
  const auto train = load(options, "train_catvnoncat.h5", "train_set");
  const auto test = load(options, "test_catvnoncat.h5", "test_set");
  const std::vector<std::int64_t> layers_dims{12288, 20, 7, 5, 1};
  const int num_iterations = options.quick ? 100 : 2500;

  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {12288, m});
  const auto y = graph.input("Y", {1, m});
  const auto layers = course::initialize_parameters(graph, layers_dims, course::inv_sqrt, 1);
  const auto logits = course::forward_propagation(x, layers);
  const auto cost = cr::sigmoid_cross_entropy(logits, y);

  cr::State state(graph);
  const auto updates = cr::optim::GradientDescent{.learning_rate = 0.0075}.minimize(cost);
  cr::Program step(state, {.outputs = {cost}, .updates = updates});
  cr::Program predict(state, {.outputs = {cr::sigmoid(logits)}, .mode = cr::Mode::inference});

  course::CostPlot costs("Cost of the cat classifier", "iteration");
  for (const int i : course::Iterations("cats", num_iterations)) {
    const double now = step.run({{x, train.x}, {y, train.y}}).scalar(cost);
    if (i % 100 == 0) costs.add("", i, now);
    if (i % 100 == 0) course::print("Cost after iteration {}: {:.6f}\n", i, now);
  }
  fmt::print("on the train set:\nAccuracy: {}\n", cr::data::accuracy(predict.run({{x, train.x}})[0], train.y));
  fmt::print("on the test set:\nAccuracy: {}\n", cr::data::accuracy(predict.run({{x, test.x}})[0], test.y));
  costs.save(options, "");
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "A classifier of cats and other things.", exercise, {.data = true, .plot = true});
}
