// Exercise 2: mini-batches, and batch, mini-batch and stochastic gradient descent as one program.
//
// The program is compiled once; only the size of the batches that it is fed differs.
#include "course.hpp"

namespace {

// The notes' test case: 148 images of 12288 numbers in batches of 64, so that the last one has 20.
void random_mini_batches() {
  course::heading("Random mini-batches");
  cr::numpy::RandomState rng(1);
  const cr::Array x = rng.randn(12288, 148);
  std::vector<bool> y(148);
  for (auto&& label : y) label = rng.randn() < 0.5;
  const cr::data::Dataset data{.x = x, .y = cr::Array(y).reshape({1, 148})};

  std::vector<cr::data::Dataset> batches;
  for (const auto& batch : cr::data::mini_batches(data, 64, cr::numpy::RandomState(0))) batches.push_back(batch);
  const std::vector<std::string> which{"1st", "2nd", "3rd"};
  const auto print = [](const std::string& name, const cr::Array& array) {
    fmt::print("shape of the {}: ({}, {})\n", name, array.shape()[0], array.shape()[1]);
  };
  for (std::size_t i = 0; i < batches.size(); ++i) print(which[i] + " mini_batch_X", batches[i].x);
  for (std::size_t i = 0; i < batches.size(); ++i) print(which[i] + " mini_batch_Y", batches[i].y);
  const cr::Array& first = batches[0].x;
  fmt::print("mini batch sanity check: {}\n", course::str(cr::Array{first(0, 0), first(0, 1), first(0, 2)}));
}

// A line through 128 points. Its two parameters are a place in the plane, so that a descent is a path.
void three_descents(const course::Options& options) {
  const int epochs = options.quick ? 10 : 100;
  constexpr std::int64_t m = 128;
  cr::numpy::RandomState rng(1);
  const cr::Array x_numbers = rng.randn(1, m) + 1;
  const cr::Array y_numbers = x_numbers * 2 - 1 + rng.randn(1, m);
  const cr::data::Dataset points{.x = x_numbers, .y = y_numbers};

  cr::Graph graph;
  const auto examples = graph.dimension("examples");  // the whole set, a mini-batch, one: the program does not mind
  const auto x = graph.input("x", {1, examples});
  const auto y = graph.input("y", {1, examples});
  const auto w = graph.parameter("w", cr::Array(-1.0));
  const auto b = graph.parameter("b", cr::Array(2.5));
  const auto cost = cr::mean_squared_error(w * x + b, y);
  cr::State state(graph);
  cr::Program train(state, {.updates = cr::optim::GradientDescent{.learning_rate = 0.05}.minimize(cost)});
  cr::Program whole(state, {.outputs = {cost}});

  cr::plot::Figure figure({.title = "The first 100 steps of three descents", .x_label = "w", .y_label = "b"});
  const auto cost_at = [&](double w_now, double b_now) {
    state.set(w, w_now);
    state.set(b, b_now);
    return whole.run({{x, points.x}, {y, points.y}}).scalar(cost);
  };
  figure.contours(cost_at, {-1.5, 3}, {-2, 3});
  const auto descend = [&](const char* title, std::int64_t mini_batch_size) {
    course::heading(fmt::format("{}: batches of {}", title, mini_batch_size));
    state.reset();
    std::vector<double> ws{state[w].item()};
    std::vector<double> bs{state[b].item()};
    int seed = 10;
    for (int epoch = 1; epoch <= epochs; ++epoch) {
      for (const auto& batch : cr::data::mini_batches(points, mini_batch_size, cr::numpy::RandomState(++seed))) {
        train.run({{x, batch.x}, {y, batch.y}});
        if (ws.size() > 100) continue;
        ws.push_back(state[w].item());
        bs.push_back(state[b].item());
      }
      if (epoch > 3 && epoch % 20 != 0) continue;
      const double now = whole.run({{x, points.x}, {y, points.y}}).scalar(cost);
      fmt::print("Cost after epoch {}, {} updates: {:.6f}\n", epoch, state.step(), now);
    }
    figure.path(title, ws, bs);
  };
  descend("Batch gradient descent", m);
  descend("Mini-batch gradient descent", 16);
  descend("Stochastic gradient descent", 1);
  course::save(options, "", figure);
}

void exercise(const course::Options& options) {
  random_mini_batches();
  three_descents(options);
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "Mini-batches, and batch, mini-batch and stochastic gradient descent.", exercise,
                     {.plot = true});
}
