// Exercise 7: vanishing and exploding gradients layer by layer, and batch normalization against them.
#include "course.hpp"

namespace {

const std::vector<std::int64_t> ten_layers{2, 20, 20, 20, 20, 20, 20, 20, 20, 20, 1};

cr::Value sigmoid(cr::Value z) { return cr::sigmoid(z); }
cr::Value tanh(cr::Value z) { return cr::tanh(z); }
cr::Value relu(cr::Value z) { return cr::relu(z); }
cr::Value normalized_sigmoid(cr::Value z) { return cr::sigmoid(cr::nn::batch_norm(z, {.axis = 0})); }
cr::Value normalized_relu(cr::Value z) { return cr::relu(cr::nn::batch_norm(z, {.axis = 0})); }

cr::Array standard(const cr::Array& randn, double /*n_in*/, double /*n_out*/) { return randn; }
cr::Array small(const cr::Array& randn, double /*n_in*/, double /*n_out*/) { return randn * 0.1; }

// ||dZ|| of each layer before any training: the gradient on its way from the cost to the first layer.
std::vector<double> gradient_norms(const cr::data::Dataset& moons, const course::Activation& activation,
                                   course::Initialization initialization) {
  cr::Graph graph;
  const auto x = graph.input("X", {2, moons.size()});
  const auto y = graph.input("Y", {1, moons.size()});
  const auto layers = course::initialize_parameters(graph, ten_layers, initialization);
  cr::Values zs;
  zs.push_back(course::forward_propagation(x, layers, [&](cr::Value z) {
    zs.push_back(z);
    return activation(z);
  }));
  cr::Values norms;
  for (const auto dz : cr::gradients(cr::sigmoid_cross_entropy(zs.back(), y), zs))
    norms.push_back(cr::sqrt(cr::l2({dz})));
  cr::State state(graph);
  cr::Program program(state, {.outputs = norms});
  const auto results = program.run({{x, moons.x}, {y, moons.y}});
  std::vector<double> out;
  for (std::size_t l = 0; l < norms.size(); ++l) out.push_back(results.scalar(l));
  return out;
}

void vanishing_and_exploding(const course::Options& options, const cr::data::Dataset& moons) {
  course::heading("Norms of the gradient dZ in ten layers");
  struct Column {
    std::string activation;
    std::string initialization;
    std::vector<double> norms;
  };
  const std::vector<Column> columns{{"sigmoid", "xavier", gradient_norms(moons, sigmoid, course::xavier)},
                                    {"tanh", "0.1 randn", gradient_norms(moons, tanh, small)},
                                    {"tanh", "xavier", gradient_norms(moons, tanh, course::xavier)},
                                    {"relu", "randn", gradient_norms(moons, relu, standard)},
                                    {"relu", "he", gradient_norms(moons, relu, course::he)},
                                    {"BN sigmoid", "xavier", gradient_norms(moons, normalized_sigmoid, course::xavier)},
                                    {"BN relu", "randn", gradient_norms(moons, normalized_relu, standard)}};
  fmt::print("     ");
  for (const auto& column : columns) fmt::print("  {:>10}", column.activation);
  fmt::print("\nlayer");
  for (const auto& column : columns) fmt::print("  {:>10}", column.initialization);
  for (std::size_t l = 0; l + 1 < ten_layers.size(); ++l) {
    fmt::print("\n{:5}", l + 1);
    for (const auto& column : columns) fmt::print("  {:10.1e}", column.norms[l]);
  }
  fmt::print("\n");

  cr::plot::Figure figure(
      {.title = "The gradient on its way back", .x_label = "layer", .y_label = "||dZ||", .log_y = true});
  const cr::Array layer(std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  for (const auto& column : columns) figure.path(column.activation + ", " + column.initialization, layer, column.norms);
  course::save(options, "", figure);
}

// Mini-batch gradient descent of the ten layers.
void train(const char* title, const cr::data::Dataset& moons, const course::Activation& activation, int num_epochs) {
  course::heading(title);
  cr::Graph graph;
  const auto m = graph.dimension("m");
  const auto x = graph.input("X", {2, m});
  const auto y = graph.input("Y", {1, m});
  const auto layers = course::initialize_parameters(graph, ten_layers, course::xavier);
  const auto logits = course::forward_propagation(x, layers, activation);
  const auto cost = cr::sigmoid_cross_entropy(logits, y);
  const auto updates = cr::optim::GradientDescent{.learning_rate = 0.1}.minimize(cost);
  cr::State state(graph);
  cr::Program train(state, {.outputs = {cost}, .updates = updates});
  // In inference batch normalization uses the running averages that training left.
  cr::Program predict(state, {.outputs = {cr::sigmoid(logits)}, .mode = cr::Mode::inference});

  for (const int epoch : course::Iterations(title, num_epochs)) {
    double cost_total = 0;
    for (const auto& batch : cr::data::mini_batches(moons, 64, cr::numpy::RandomState(11 + epoch)))
      cost_total += train.run({{x, batch.x}, {y, batch.y}}).scalar(cost) * static_cast<double>(batch.size());
    if (epoch % 50 == 0)
      course::print("Cost after epoch {}: {:.6f}\n", epoch, cost_total / static_cast<double>(moons.size()));
  }
  fmt::print("Accuracy: {}\n", cr::data::accuracy(predict.run({{x, moons.x}})[0], moons.y));
}

void exercise(const course::Options& options) {
  const auto moons = cr::data::make_moons({.samples = 300, .noise = 0.2}, cr::numpy::RandomState(3));
  vanishing_and_exploding(options, moons);

  const int epochs = options.quick ? 51 : 301;
  train("Ten layers of sigmoids", moons, sigmoid, epochs);
  train("Ten layers of sigmoids with batch normalization", moons, normalized_sigmoid, epochs);
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "Vanishing and exploding gradients, and batch normalization.", exercise,
                     {.plot = true});
}
