// Exercise 6: overfitting on data.mat, against it L2, dropout, both at once (the notes' exercise 2), and L1.
//
// Without regularization, with L2 and with both, 30,000 iterations at this rate are chaotic: a last bit decides about a
// few points of the accuracy, here as in the notes.
#include "course.hpp"

namespace {

struct Regularization {
  double l2 = 0;  // lambda
  double l1 = 0;
  double keep_prob = 1;
};

// How many of the weights regularization has made nearly 0.
cr::Value small_weights(const std::vector<course::Layer>& layers) {
  cr::Values counts;
  for (const auto& layer : layers) counts.push_back(cr::sum(cr::cast(cr::abs(layer.w) < 1e-3, cr::float64)));
  return counts[0] + counts[1] + counts[2];
}

void model(const course::Options& options, const std::string& title, const cr::data::Dataset& train,
           const cr::data::Dataset& test, const Regularization& with) {
  course::heading(title);
  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  const auto layers = course::initialize_parameters(graph, {2, 20, 5, 1}, course::inv_sqrt);

  // Random numbers that are less than keep_prob where a unit is kept. In a graph of your own, dropout(a, {.keep = 0.8})
  // draws its masks; the notes draw the same ones in each iteration, after seed 4.
  const auto d1 = graph.input("D1", {20, m});
  const auto d2 = graph.input("D2", {5, m});
  cr::numpy::RandomState rng(4);
  const cr::Array d1_numbers = rng.rand(20, train.size());
  const cr::Array d2_numbers = rng.rand(5, train.size());

  auto a1 = cr::relu(cr::matmul(layers[0].w, x) + layers[0].b);
  if (with.keep_prob < 1) a1 = cr::dropout(a1, d1 < with.keep_prob, {.keep = with.keep_prob});
  auto a2 = cr::relu(cr::matmul(layers[1].w, a1) + layers[1].b);
  if (with.keep_prob < 1) a2 = cr::dropout(a2, d2 < with.keep_prob, {.keep = with.keep_prob});
  const auto z3 = cr::matmul(layers[2].w, a2) + layers[2].b;
  auto cost = cr::sigmoid_cross_entropy(z3, y);
  if (with.l2 > 0) cost = cost + cr::l2_penalty(course::weights(layers), with.l2, m);
  if (with.l1 > 0) cost = cost + cr::l1_penalty(course::weights(layers), with.l1, m);

  cr::State state(graph);
  const auto updates = cr::optim::GradientDescent{.learning_rate = 0.3}.minimize(cost);
  cr::Program step(state, {.outputs = {cost}, .updates = updates});
  cr::Program count(state, {.outputs = {small_weights(layers)}});
  cr::Program predict(state, {.outputs = {cr::sigmoid(z3)}, .mode = cr::Mode::inference});
  std::vector<cr::Feed> feeds{{x, train.x}, {y, train.y}};
  if (with.keep_prob < 1) feeds.insert(feeds.end(), {{d1, d1_numbers}, {d2, d2_numbers}});

  for (const int i : course::Iterations(title, options.quick ? 3000 : 30'000)) {
    const double now = step.run(feeds).scalar(cost);
    if (i % 1000 == 0) course::print("cost after iteration {}: {}\n", i, now);
  }
  fmt::print("on the train set:\nAccuracy: {}\n", cr::data::accuracy(predict.run({{x, train.x}})[0], train.y));
  fmt::print("on the test set:\nAccuracy: {}\n", cr::data::accuracy(predict.run({{x, test.x}})[0], test.y));
  fmt::print("weights below 0.001 in size: {} of 145\n", count.run().scalar());
  course::plot_decision_boundary(options, title, title, predict, x, train);
}

void exercise(const course::Options& options) {
  auto data = cr::data::load_mat(course::data_file(options, "data.mat"));
  const cr::data::Dataset train{.x = data["X"].transpose(), .y = data["y"].transpose().astype(cr::float64)};
  const cr::data::Dataset test{.x = data["Xval"].transpose(), .y = data["yval"].transpose().astype(cr::float64)};
  model(options, "No regularization", train, test, {});
  model(options, "L2, lambda 0.1", train, test, {.l2 = 0.1});
  model(options, "Dropout, keep 0.8", train, test, {.keep_prob = 0.8});
  model(options, "L2, lambda 0.1, and dropout, keep 0.9", train, test, {.l2 = 0.1, .keep_prob = 0.9});
  model(options, "L1, lambda 0.1", train, test, {.l1 = 0.1});
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "L2, L1 and dropout against overfitting.", exercise, {.data = true, .plot = true});
}
