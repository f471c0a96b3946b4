// Fashion-MNIST with a residual network on images that are moved and mirrored anew in each step, within the graph.
// needs: dataset-fashion-mnist
#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <numbers>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  std::string data = cr::data::fashion_mnist_folder();
  std::int64_t epochs = 25;
  std::int64_t blocks = 2;
  int threads = cr::num_threads();
  bool quick = false;
  std::string checkpoint;
};

constexpr std::int64_t batch_size = 128;

// In training each image is moved by up to `most` pixels, with black around, and mirrored or not: that is, each of its
// pixels is read from another row and column. In inference it is as it is.
cr::Value augmented(cr::Value x, std::int64_t most) {
  cr::Graph graph = x.graph();
  const auto size = x.shape()[2].extent();
  const auto draw = [&](std::int64_t count) { return cr::random_integers(graph, {x.shape()[0], 1, 1, 1}, 0, count); };
  const auto place = cr::iota(graph, size);
  const auto row = cr::reshape(place, {size, 1}) + draw(2 * most + 1);
  const auto column = cr::where(cr::equal(draw(2), 0), place, size - 1 - place) + draw(2 * most + 1);
  const auto padded = cr::pad(x, {{0, 0}, {0, 0}, {most, most}, {most, most}});
  return cr::by_mode(cr::take_along_axis(cr::take_along_axis(padded, row, 2), column, 3), x);
}

// A convolution and batch norm.
cr::Value convolution(cr::Value x, std::size_t features, std::int64_t taps, std::int64_t stride) {
  return cr::nn::batch_norm(cr::nn::conv(x, features, taps, {.stride = stride, .padding = taps / 2},
                                         {.initializer = cr::init::he_normal(), .bias = false}));
}

// What two convolutions add to the image, or to its projection where the size changes (He, Zhang, Ren and Sun 2016).
cr::Value residual(cr::Value x, std::size_t features, std::int64_t stride) {
  const auto two = [&](cr::Value h) {
    return convolution(cr::relu(convolution(h, features, 3, stride)), features, 3, 1);
  };
  const auto projection = [&](cr::Value h) { return convolution(h, features, 1, stride); };
  return cr::relu(stride == 1 ? cr::nn::residual(x, two) : cr::nn::residual(x, two, {.projection = projection}));
}

cr::optim::Schedule one_cycle(double highest, std::int64_t steps) {
  return [=](cr::Graph graph) {
    const auto progress = cr::cast(graph.step(), graph.dtype()) / static_cast<double>(steps);
    return highest * cr::minimum(5 * progress, 0.5 + 0.5 * cr::cos(std::numbers::pi * progress));
  };
}

// The first examples of a data set.
cr::data::Dataset first(const cr::data::Dataset& data, std::int64_t n) {
  return {.x = cr::Array::from(data.x.data<float>(), {n, data.x.shape()[1]}),
          .y = cr::Array::from(data.y.data<std::int64_t>(), {n}),
          .axis = 0};
}

void run(const Settings& settings) {
  cr::set_num_threads(settings.threads);
  auto data = cr::data::load_fashion_mnist(settings.data);  // one image a row, 0 to 1
  if (settings.quick) data = {.train = first(data.train, 1280), .test = first(data.test, 1000)};
  const std::int64_t epochs = settings.quick ? 1 : settings.epochs;
  const std::int64_t steps = epochs * ((data.train.size() + batch_size - 1) / batch_size);

  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 784});
  const auto labels = graph.input("labels", {batch}, cr::int64);
  auto h = augmented(cr::reshape(images, {batch, 1, 28, 28}), 2);
  h = cr::relu(convolution(h, 16, 3, 1));
  for (const std::size_t features : {16, 32, 64})
    for (std::int64_t block = 0; block < settings.blocks; ++block)
      h = residual(h, features, features > 16 && block == 0 ? 2 : 1);
  const auto logits = cr::nn::dense(cr::mean(h, {2, 3}), 10);
  const auto loss = cr::softmax_cross_entropy(logits, labels);
  const auto decay = 2.5e-4 * cr::l2(graph.parameters("*/weight"));  // not of biases and norms

  cr::State state(graph);
  const cr::optim::HeavyBall momentum{.learning_rate = one_cycle(0.1, steps)};
  cr::Program train(state, {.outputs = {loss}, .updates = momentum.minimize(loss + decay)});
  cr::Program predict(state, {.outputs = {cr::argmax(logits, 1)}, .mode = cr::Mode::inference});

  std::int64_t done = 0;
  if (!settings.checkpoint.empty() && std::filesystem::exists(settings.checkpoint)) {
    state.load(settings.checkpoint);
    done = state.epoch() + 1;
  }
  using Clock = std::chrono::steady_clock;
  auto begin = Clock::now();
  cr::fit(train, data.train,
          {.inputs = {images, labels},
           .batch = batch_size,
           .epochs = std::max<std::int64_t>(epochs - done, 0),
           .progress = true,
           .after_epoch = [&](const cr::EpochReport& report) {
             const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
             const double accuracy = cr::accuracy(predict, data.test, {.inputs = {images, labels}});
             fmt::print("epoch {:2}: cost {:.4f}, test accuracy {:.4f}, {:.1f} s\n", report.epoch + 1, report.cost,
                        accuracy, seconds);
             std::fflush(stdout);
             if (!settings.checkpoint.empty()) state.save(settings.checkpoint);
             begin = Clock::now();
           }});
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Fashion-MNIST: a residual network of 16, 32 and 64 features with batch norm; momentum, one cycle.");
  app.add_option("--data", settings.data, "the folder of the four IDX files")->capture_default_str();
  app.add_option("--epochs", settings.epochs, "passes over the 60,000 images")->check(CLI::PositiveNumber);
  app.add_option("--blocks", settings.blocks, "of two convolutions for each number of features")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", settings.threads, "results do not depend on it")->capture_default_str();
  app.add_flag("--quick", settings.quick, "one pass over 1,280 images");
  app.add_option("--checkpoint", settings.checkpoint,
                 "a .safetensors file, written after each epoch; where it exists, training goes on from it");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
