// The course's moon classifier without one hand-written derivative: the notes' cost table, digit for digit.
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  std::string optimizer = "gd";
  int epochs = 10'000;
  double learning_rate = 0;  // 0: the one that the notes use with the optimizer
};

cr::Updates updates(const Settings& settings, cr::Value loss) {
  const auto rate = [&](double usual) { return settings.learning_rate > 0 ? settings.learning_rate : usual; };
  if (settings.optimizer == "momentum") return cr::optim::Momentum{.learning_rate = rate(1e-3)}.minimize(loss);
  if (settings.optimizer == "adam") return cr::optim::Adam{.learning_rate = rate(1e-4)}.minimize(loss);
  return cr::optim::GradientDescent{.learning_rate = rate(1e-4)}.minimize(loss);
}

void run(const Settings& settings) {
  cr::numpy::RandomState data_rng(3);  // NumPy's legacy generator, bit for bit
  const auto moons = cr::data::make_moons({.samples = 900, .noise = 0.2}, data_rng);

  cr::Graph graph;
  const auto examples = graph.dimension("examples");
  const auto x = graph.input("x", {2, examples});  // one example a column, as the course writes it
  const auto y = graph.input("y", {1, examples});

  cr::numpy::RandomState init_rng(3);
  const auto layer = [&](const std::string& number, cr::Value in, std::size_t units) {
    const auto fan_in = in.shape()[0].extent();
    const double scale = std::sqrt(2.0 / static_cast<double>(fan_in));
    const auto w = graph.parameter("W" + number, init_rng.randn(units, fan_in) * scale);
    const auto b = graph.parameter("b" + number, cr::zeros({units, 1}));
    return cr::matmul(w, in) + b;
  };
  const auto a1 = cr::relu(layer("1", x, 5));
  const auto a2 = cr::relu(layer("2", a1, 2));
  const auto logits = layer("3", a2, 1);
  const auto loss = cr::sigmoid_cross_entropy(logits, y);  // mean over the examples

  cr::State state(graph);
  cr::Program train(state, {.outputs = {loss}, .updates = updates(settings, loss)});
  cr::Program predict(state, {.outputs = {cr::sigmoid(logits)}, .mode = cr::Mode::inference});

  const cr::Interrupt interrupt;  // Ctrl-C ends the training, not the program
  cr::Progress progress(settings.optimizer, settings.epochs);
  for (int epoch = 0; epoch < settings.epochs && !interrupt.requested(); ++epoch) {
    double total = 0;
    for (const auto& batch : cr::data::mini_batches(moons, 64, cr::numpy::RandomState(11 + epoch)))
      total += train.run({{x, batch.x}, {y, batch.y}}).scalar(loss) * static_cast<double>(batch.size());
    if (epoch % 1000 == 0) {
      progress.clear();
      fmt::print("Cost after epoch {}: {:.6f}\n", epoch, total / static_cast<double>(moons.size()));
    }
    progress.update(epoch + 1);
  }
  progress.clear();
  fmt::print("Accuracy: {}\n", cr::data::accuracy(predict.run({{x, moons.x}})[0], moons.y));
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("The course's moon classifier: a 2-5-2-1 network on two interleaved half circles.");
  app.add_option("--optimizer", settings.optimizer, "gd, momentum or adam")
      ->check(CLI::IsMember({"gd", "momentum", "adam"}))
      ->capture_default_str();
  app.add_option("--epochs", settings.epochs, "passes over the 900 examples")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--learning-rate", settings.learning_rate, "another than the notes' 1e-4 (momentum: 1e-3)")
      ->check(CLI::PositiveNumber);
  app.add_flag_callback(
      "--quick", [&settings] { settings.epochs = 1'000; }, "1,000 epochs");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
