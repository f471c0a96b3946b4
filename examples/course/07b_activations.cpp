// Exercise 7: ReLU, whose units may die, beside its relatives, whose units do not.
#include "course.hpp"

namespace {

// The number of units whose row of dW is 0: nothing in the training set can move them.
cr::Value dead_units(cr::Value dw) { return cr::sum(cr::cast(cr::equal(cr::max(cr::abs(dw), 1), 0.0), cr::float64)); }

// Batch gradient descent of the network 2-20-20-1 on inputs that are not centred. They are positive, so a unit with
// negative weights has a negative sum for every example.
void activate(const char* name, const cr::data::Dataset& moons, int iterations, const course::Activation& activation) {
  cr::Graph graph;
  const auto x = graph.input("X", {2, moons.size()});
  const auto y = graph.input("Y", {1, moons.size()});
  const auto layers = course::initialize_parameters(graph, {2, 20, 20, 1}, course::he);
  const auto logits = course::forward_propagation(x + 2, layers, activation);
  const auto cost = cr::sigmoid_cross_entropy(logits, y);
  const auto dw = cr::gradients(cost, {layers[0].w, layers[1].w});
  const auto dead = dead_units(dw[0]) + dead_units(dw[1]);
  const auto updates = cr::optim::GradientDescent{.learning_rate = 0.1}.minimize(cost);
  cr::State state(graph);
  cr::Program train(state, {.updates = updates});
  cr::Program look(state, {.outputs = {cost, dead}});
  cr::Program predict(state, {.outputs = {cr::sigmoid(logits)}, .mode = cr::Mode::inference});

  const double dead_at_first = look.run({{x, moons.x}, {y, moons.y}}).scalar(dead);
  for ([[maybe_unused]] const int i : course::Iterations(name, iterations)) train.run({{x, moons.x}, {y, moons.y}});
  const auto now = look.run({{x, moons.x}, {y, moons.y}});
  fmt::print("{:10}  {:8.6f}  {:8.4f}  {:13}  {:10}\n", name, now.scalar(cost),
             cr::data::accuracy(predict.run({{x, moons.x}})[0], moons.y), dead_at_first, now.scalar(dead));
}

// The slope of a PReLU is a parameter like any other: one for each layer here.
cr::Value prelu(cr::Value z) {
  cr::Graph graph = z.graph();
  return cr::prelu(z, graph.parameter(graph.unique_name("slope"), cr::Array(0.25)));
}

// The functions themselves, in inference, where RReLU's slope is the mean.
void draw(const course::Options& options) {
  cr::Graph graph;
  const auto z = graph.input("z", {201});
  std::vector<double> numbers;
  for (int i = 0; i <= 200; ++i) numbers.push_back(-4 + 0.03 * i);
  cr::State state(graph);
  cr::Program program(state, {.outputs = {cr::relu(z), cr::leaky_relu(z, 0.01), cr::prelu(z, 0.25), cr::rrelu(z),
                                          cr::elu(z), cr::selu(z)},
                              .mode = cr::Mode::inference});
  const auto results = program.run({{z, numbers}});
  cr::plot::Figure figure({.title = "ReLU and its relatives", .x_label = "z", .y_label = "a"});
  const std::vector<std::string> names{"ReLU", "leaky ReLU", "PReLU, slope 0.25", "RReLU", "ELU", "SELU"};
  for (std::size_t i = 0; i < names.size(); ++i) figure.line(names[i], numbers, results[i]);
  course::save(options, "", figure);
}

void exercise(const course::Options& options) {
  draw(options);
  const auto moons = cr::data::make_moons({.samples = 300, .noise = 0.2}, cr::numpy::RandomState(3));
  course::heading("Activations, and their dead units of 40");
  fmt::print("activation      cost  accuracy  dead at first  dead later\n");
  const int iterations = options.quick ? 200 : 2000;
  activate("ReLU", moons, iterations, [](cr::Value z) { return cr::relu(z); });
  activate("leaky ReLU", moons, iterations, [](cr::Value z) { return cr::leaky_relu(z, 0.01); });
  activate("PReLU", moons, iterations, prelu);
  activate("RReLU", moons, iterations, [](cr::Value z) { return cr::rrelu(z); });
  activate("ELU", moons, iterations, [](cr::Value z) { return cr::elu(z); });
  activate("SELU", moons, iterations, [](cr::Value z) { return cr::selu(z); });
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "ReLU and its relatives, with the count of dead units.", exercise, {.plot = true});
}
