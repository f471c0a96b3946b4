// Fashion-MNIST with batch norm, dropout, L2 and Adam at a decaying rate; Ctrl-C ends it, a checkpoint goes on.
// needs: dataset-fashion-mnist
#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <iterator>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  std::string data = cr::data::fashion_mnist_folder();
  std::int64_t epochs = 10;
  bool quick = false;
  std::string checkpoint;
  std::string picture;
};

void run(const Settings& settings) {
  const auto data = cr::data::load_fashion_mnist(settings.data);  // one image a row, 0 to 1

  cr::Graph graph({.dtype = cr::float32, .seed = 7});
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 784});
  const auto labels = graph.input("labels", {batch}, cr::int64);

  auto h = images;
  cr::Values weights;
  for (const std::size_t units : {512, 512}) {
    const auto layer = cr::nn::dense(h, units, cr::init::he_normal());
    weights.push_back(layer.weight);
    h = cr::dropout(cr::relu(cr::nn::batch_norm(layer)), {.keep = 0.8});
  }
  const auto logits = cr::nn::dense(h, 10, cr::init::glorot_normal());
  const auto loss = cr::softmax_cross_entropy(logits, labels) + 1e-4 * cr::l2(weights);

  cr::State state(graph);
  const auto rate = cr::optim::inverse_time_decay({.initial = 1e-3, .decay = 0.5});  // of the epoch
  cr::Program train(state, {.outputs = {loss}, .updates = cr::optim::Adam{.learning_rate = rate}.minimize(loss)});
  cr::Program predict(state, {.outputs = {cr::argmax(logits, 1)}, .mode = cr::Mode::inference});

  std::int64_t done = 0;
  if (!settings.checkpoint.empty() && std::filesystem::exists(settings.checkpoint)) {
    state.load(settings.checkpoint);
    done = state.epoch() + 1;
  }
  const std::int64_t epochs = settings.quick ? 1 : settings.epochs;
  const auto history = cr::fit(train, data.train,
                               {.inputs = {images, labels},
                                .batch = 128,
                                .epochs = std::max<std::int64_t>(epochs - done, 0),
                                .progress = true,
                                .after_epoch = [&](const cr::EpochReport&) {
                                  if (!settings.checkpoint.empty()) state.save(settings.checkpoint);
                                }});
  if (history.interrupted) fmt::print("stopped by Ctrl-C after {} epochs\n", done + std::ssize(history.costs));
  fmt::print("test accuracy {:.4f}\n", cr::accuracy(predict, data.test, {.inputs = {images, labels}}));

  if (!settings.picture.empty() && !history.costs.empty())
    cr::plot::Figure({.title = "Fashion-MNIST", .x_label = "epoch", .y_label = "mean cost"})
        .line("training", history.costs)
        .save(settings.picture);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Fashion-MNIST: a 784-512-512-10 network with batch norm, dropout, L2, and Adam at a decaying rate.");
  app.add_option("--data", settings.data, "the folder of the four IDX files")->capture_default_str();
  app.add_option("--epochs", settings.epochs, "passes over the 60,000 images")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--quick", settings.quick, "one epoch only");
  app.add_option("--checkpoint", settings.checkpoint,
                 "a .safetensors file, written after each epoch; where it exists, training goes on from it");
  app.add_option("--plot", settings.picture, "a .png or .svg file for the cost curve");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
