// A variational autoencoder of Fashion-MNIST: prints the evidence lower bound, draws images that no one has made.
// needs: dataset-fashion-mnist
//
// Kingma and Welling 2014: an encoder says for each image how likely codes are, a normal distribution for each number
// of a code; a decoder says for a code how likely each pixel is white. Both learn to make the bound large.
#include <chainrule/chainrule.hpp>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  std::string data = cr::data::fashion_mnist_folder();
  std::int64_t epochs = 20;
  std::int64_t code = 20;
  bool quick = false;
  std::string samples;
};

// The same network with the same parameters, of another x.
cr::Value again(const cr::nn::Mlp& network, cr::Value x) {
  for (std::size_t l = 0; l < network.layers.size(); ++l)
    x = cr::matmul(l == 0 ? x : cr::relu(x), network.layers[l].weight) + network.layers[l].bias;
  return x;
}

void run(const Settings& settings) {
  auto data = cr::data::load_fashion_mnist(settings.data);  // one image a row, 0 to 1
  data.train.y = cr::Array();

  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 784});
  const auto units = static_cast<std::size_t>(settings.code);
  const auto encoded = cr::nn::mlp(images, {400, 2 * units}, {.activation = cr::relu, .name = "encoder"});

  // The code of an image is drawn from what the encoder says: by normal numbers that are new in each step and that no
  // gradient asks about (the reparametrization).
  const auto moments = cr::split(encoded, 2, 1);
  const auto& mean = moments[0];
  const auto& log_variance = moments[1];
  const auto code = mean + cr::exp(log_variance / 2) * cr::random_normal(graph, {batch, settings.code});
  const auto decoded = cr::nn::mlp(code, {400, 784}, {.activation = cr::relu, .name = "decoder"});
  const auto surprise = cr::sigmoid_cross_entropy(decoded, images, {.reduction = cr::Reduction::none});
  const auto divergence = (cr::square(mean) + cr::exp(log_variance) - log_variance - 1) / 2;  // from a normal code
  const auto cost = cr::mean(cr::sum(surprise, 1) + cr::sum(divergence, 1));                  // the bound is -cost

  // Codes that are drawn become images, others for each number that is fed.
  const auto draw = graph.input("draw", {}, cr::int64);
  const auto drawn =
      cr::sigmoid(again(decoded, cr::random_normal(graph, {64, settings.code}, 0, 1, {.counter = draw})));

  cr::State state(graph);
  cr::Program train(state, {.outputs = {cost}, .updates = cr::optim::Adam{.learning_rate = 1e-3}.minimize(cost)});
  cr::Program evaluate(state, {.outputs = {cost, cr::mean(cr::sum(divergence, 1))}});
  cr::Program sample(state, {.outputs = {cr::reshape(drawn, {64, 28, 28})}});

  if (settings.quick) data.train = cr::data::split(data.train, {0.1, 0, 0.9}, cr::numpy::RandomState(1)).train;
  cr::fit(train, data.train,
          {.inputs = {images},
           .batch = 128,
           .epochs = settings.quick ? 1 : settings.epochs,
           .progress = true,
           .after_epoch = [&](const cr::EpochReport& report) {
             const auto test = evaluate.run({{images, data.test.x}});
             fmt::print("epoch {:2}: evidence lower bound {:.2f} nats in training, {:.2f} of the test images: ",
                        report.epoch + 1, -report.cost, -test.scalar(0));
             fmt::print("{:.2f} for the pixels, {:.2f} for the code\n", test.scalar(1) - test.scalar(0),
                        -test.scalar(1));
             std::fflush(stdout);
           }});
  if (!settings.samples.empty())
    cr::plot::save_images(settings.samples, sample.run({{draw, 1}})[0], {.scale = 2, .range = cr::plot::Range{0, 1}});
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("A variational autoencoder of Fashion-MNIST, 784-400-20-400-784.");
  app.add_option("--data", settings.data, "the folder of the four IDX files")->capture_default_str();
  app.add_option("--epochs", settings.epochs, "passes over the 60,000 images")->check(CLI::PositiveNumber);
  app.add_option("--code", settings.code, "numbers of a code")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_flag("--quick", settings.quick, "one pass over 6,000 images");
  app.add_option("--samples", settings.samples, "a .png file for images of codes that are drawn");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
