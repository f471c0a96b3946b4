// Handwritten digits of 8 x 8 pixels: a convolutional network with what a training usually has around it.
// needs: python3-sklearn
#include <chainrule/chainrule.hpp>

#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  std::string data = "/usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz";
  std::string save = "digits.safetensors";
  std::string log = "digits.csv";
  std::int64_t epochs = 60;
};

// A row is an image, 64 numbers from 0 to 16, and its digit.
cr::data::Dataset load(const std::string& path) {
  if (!std::filesystem::exists(path))
    throw std::runtime_error(fmt::format("'{}' is not there: Debian's python3-sklearn has it", path));
  const cr::Array table = cr::data::load_csv(path).values;
  const std::int64_t n = table.shape()[0];
  cr::data::Dataset out{.x = cr::Array(cr::uint8, {n, 64}), .y = cr::Array(cr::int64, {n}), .axis = 0};
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < 64; ++k) out.x.set(64 * i + k, table(i, k));
    out.y.set(i, table(i, 64));
  }
  return out;
}

void run(const Settings& settings) {
  const auto parts =
      cr::data::split(load(settings.data), {.train = 0.7, .dev = 0.1, .test = 0.2}, cr::numpy::RandomState(1));
  constexpr std::int64_t batch_size = 32;
  const double steps = static_cast<double>(settings.epochs * (parts.train.size() / batch_size));

  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 64}, cr::uint8);
  const auto labels = graph.input("labels", {batch}, cr::int64);
  auto h = cr::reshape(cr::cast(images, cr::float32) / 16.0, {batch, 1, 8, 8});
  h = cr::relu(cr::nn::batch_norm(cr::nn::conv(h, 16, 3, {.padding = "same"})));
  h = cr::max_pool(cr::relu(cr::nn::batch_norm(cr::nn::conv(h, 32, 3, {.padding = "same"}))), 2);
  const auto logits = cr::nn::dense(cr::dropout(cr::flatten(h, 1), {.keep = 0.5}), 10);
  const auto loss = cr::softmax_cross_entropy(logits, labels, {.label_smoothing = 0.05});
  const auto right = cr::mean(cr::cast(cr::equal(cr::argmax(logits, 1), labels), cr::float32));

  // Gradients are clipped; the rate rises and falls.
  const auto parameters = graph.parameters();
  const auto gradients = cr::optim::clip_by_global_norm(cr::gradients(loss, parameters), 1);
  const cr::optim::AdamW adam{.learning_rate = cr::optim::one_cycle({.highest = 5e-3, .length = steps}),
                              .weight_decay = 0.01,
                              .groups = {{{"*/bias", "*/gamma", "*/beta"}, {.weight_decay = 0}}}};
  const auto updates = adam.apply(parameters, gradients);
  cr::State state(graph);
  cr::Program train(state, {.outputs = {loss}, .updates = updates});
  cr::Program watch(state, {.outputs = {loss, right}, .mode = cr::Mode::inference});
  cr::Program predict(state, {.outputs = {cr::softmax(logits)}, .mode = cr::Mode::inference});
  const auto history = cr::fit(train, parts.train,
                               {.inputs = {images, labels},
                                .batch = batch_size,
                                .epochs = settings.epochs,
                                .progress = true,
                                .validation = cr::Validation{.program = &watch, .dataset = &parts.dev},
                                .patience = 30,
                                .best_checkpoint = settings.save,
                                .log = settings.log});
  state.load(settings.save);
  const auto best = static_cast<std::size_t>(*history.best_epoch);
  fmt::print("{} epochs, the best is {}: dev accuracy {:.4f}\n", history.costs.size(), best,
             history.validation[best][1]);
  const cr::Array scores = cr::predict(predict, parts.test, {.inputs = {images}});
  fmt::print("test accuracy {:.4f}, among the first two {:.4f}\n", cr::metrics::top_k_accuracy(scores, parts.test.y, 1),
             cr::metrics::top_k_accuracy(scores, parts.test.y, 2));
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  bool quick = false;
  CLI::App app("Handwritten digits by a small convolutional network, with all that a training has around it.");
  app.add_option("--data", settings.data, "scikit-learn's digits.csv.gz")->capture_default_str();
  app.add_option("--save", settings.save, "the best parameters")->capture_default_str();
  app.add_option("--log", settings.log, "a line for each epoch (.csv or .jsonl)")->capture_default_str();
  app.add_option("--epochs", settings.epochs, "at most")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_flag("--quick", quick, "3 epochs");
  CLI11_PARSE(app, argc, argv);
  if (quick) settings.epochs = 3;
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
