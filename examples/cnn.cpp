// Fashion-MNIST with a convolutional network, one learning-rate cycle; draws its first filters and its worst mistakes.
// needs: dataset-fashion-mnist
#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <numbers>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  std::string data = cr::data::fashion_mnist_folder();
  std::int64_t epochs = 10;
  int threads = cr::num_threads();
  bool quick = false;
  std::string filters;
  std::string mistakes;
};

constexpr std::int64_t batch_size = 128;
constexpr std::array names{"T-shirt", "trousers", "pullover", "dress", "coat",
                           "sandal",  "shirt",    "sneaker",  "bag",   "ankle boot"};

// A layer is a function: a 3 x 3 convolution that keeps the image's size, batch norm, relu.
cr::Value convolution(cr::Value x, std::size_t features) {
  const auto z =
      cr::nn::conv(x, features, 3, {.padding = "same"}, {.initializer = cr::init::he_normal(), .bias = false});
  return cr::relu(cr::nn::batch_norm(z));
}

// A learning rate is an expression, here of the step: it rises for a fifth of the training and then falls to 0.
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

// The test images whose labels the network finds least likely, worst first: a picture, and what it takes them for.
void draw_mistakes(cr::Program& look, const cr::data::Dataset& test, const Settings& settings, cr::Value images,
                   cr::Value labels) {
  struct Mistake {
    double loss;
    std::int64_t example;
    std::int64_t answer;
  };
  std::vector<Mistake> mistakes;
  std::int64_t begin = 0;
  for (const auto& batch : cr::data::batches(test, 1000)) {
    const auto results = look.run({{images, batch.x}, {labels, batch.y}});
    for (std::int64_t i = 0; i < batch.size(); ++i)
      if (const auto answer = results[0].at<std::int64_t>(i); answer != batch.y.at<std::int64_t>(i))
        mistakes.push_back({results[1][i], begin + i, answer});
    begin += batch.size();
  }
  std::sort(mistakes.begin(), mistakes.end(), [](const auto& a, const auto& b) { return a.loss > b.loss; });
  mistakes.resize(std::min<std::size_t>(mistakes.size(), 24));
  cr::Array picture(cr::float32, {std::ssize(mistakes), 28, 28});
  auto* to = picture.data<float>();
  for (const auto& [loss, example, answer] : mistakes) {
    fmt::print("{:>10} taken for {:10} loss {:.2f}\n", names[test.y.at<std::size_t>(example)], names[answer], loss);
    to = std::copy_n(test.x.data<float>() + 784 * example, 784, to);
  }
  cr::plot::save_images(settings.mistakes, picture, {.columns = 8, .scale = 3});
}

void run(const Settings& settings) {
  cr::set_num_threads(settings.threads);
  auto data = cr::data::load_fashion_mnist(settings.data);  // one image a row, 0 to 1
  if (settings.quick) data = {.train = first(data.train, 3000), .test = first(data.test, 1000)};
  const std::int64_t epochs = settings.quick ? 1 : settings.epochs;

  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 784});
  const auto labels = graph.input("labels", {batch}, cr::int64);
  auto h = cr::reshape(images, {batch, 1, 28, 28});
  h = cr::max_pool(convolution(convolution(h, 32), 32), 2);
  h = cr::max_pool(convolution(convolution(h, 64), 64), 2);
  h = cr::dropout(cr::flatten(h, 1), {.keep = 0.75});
  h = cr::dropout(cr::relu(cr::nn::batch_norm(cr::nn::dense(h, 128, cr::init::he_normal()))), {.keep = 0.5});
  const auto logits = cr::nn::dense(h, 10);
  const auto loss = cr::softmax_cross_entropy(logits, labels);
  const auto losses = cr::softmax_cross_entropy(logits, labels, {.reduction = cr::Reduction::none});

  const std::int64_t steps = epochs * ((data.train.size() + batch_size - 1) / batch_size);
  const cr::optim::Adam adam{.learning_rate = one_cycle(5e-3, steps)};
  cr::State state(graph);
  cr::Program train(state, {.outputs = {loss}, .updates = adam.minimize(loss)});
  cr::Program predict(state, {.outputs = {cr::argmax(logits, 1)}, .mode = cr::Mode::inference});
  cr::Program look(state, {.outputs = {cr::argmax(logits, 1), losses}, .mode = cr::Mode::inference});

  using Clock = std::chrono::steady_clock;
  auto begin = Clock::now();
  cr::fit(train, data.train,
          {.inputs = {images, labels},
           .batch = batch_size,
           .epochs = epochs,
           .progress = true,
           .after_epoch = [&](const cr::EpochReport& report) {
             const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
             const double accuracy = cr::accuracy(predict, data.test, {.inputs = {images, labels}});
             fmt::print("epoch {:2}: cost {:.4f}, test accuracy {:.4f}, {:.1f} s\n", report.epoch + 1, report.cost,
                        accuracy, seconds);
             std::fflush(stdout);
             begin = Clock::now();
           }});
  if (!settings.filters.empty())
    cr::plot::save_images(settings.filters, state["conv/weight"], {.columns = 8, .scale = 12});
  if (!settings.mistakes.empty()) draw_mistakes(look, data.test, settings, images, labels);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Fashion-MNIST: four 3 x 3 convolutions with batch norm, two poolings, dropout; Adam, one cycle.");
  app.add_option("--data", settings.data, "the folder of the four IDX files")->capture_default_str();
  app.add_option("--epochs", settings.epochs, "passes over the 60,000 images")->check(CLI::PositiveNumber);
  app.add_option("--threads", settings.threads, "results do not depend on it")->capture_default_str();
  app.add_flag("--quick", settings.quick, "one pass over 3,000 images");
  app.add_option("--filters", settings.filters, "a .png file for the filters of the first layer");
  app.add_option("--mistakes", settings.mistakes, "a .png file for the test images that are worst mistaken");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
