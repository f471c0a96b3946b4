// Which of three irises a flower is, by four lengths: standardised, split, trained with early stopping, and kept in a
// file from which iris_predict tells.
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

const char* const names[] = {"setosa", "versicolor", "virginica"};

struct Settings {
  std::string data = "/usr/lib/python3/dist-packages/sklearn/datasets/data/iris.csv";
  std::string save = "iris.safetensors";
  std::string curve = "iris.svg";
  std::int64_t epochs = 400;
  bool quick = false;
};

// The table's last column is the class; its first row is no header of names only.
cr::data::Dataset load(const std::string& path) {
  if (!std::filesystem::exists(path))
    throw std::runtime_error(fmt::format("'{}' is not there: Debian's python3-sklearn has it", path));
  const cr::Array table = cr::data::load_csv(path, {.header = true}).values;
  const std::int64_t n = table.shape()[0];
  cr::data::Dataset out{.x = cr::Array(cr::float64, {n, 4}), .y = cr::Array(cr::int64, {n}), .axis = 0};
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < 4; ++k) out.x.set(4 * i + k, table(i, k));
    out.y.set(i, table(i, 4));
  }
  return out;
}

void run(const Settings& settings) {
  const auto parts =
      cr::data::split(load(settings.data), {.train = 0.6, .dev = 0.2, .test = 0.2}, cr::numpy::RandomState(1));
  const cr::data::Standardizer standardize(parts.train);

  cr::Graph graph({.seed = 1});
  const auto batch = graph.dimension("batch");
  const auto lengths = graph.input("lengths", {batch, 4});
  const auto labels = graph.input("labels", {batch}, cr::int64);
  // Variables, so that the file has them.
  const auto mean = graph.variable("mean", standardize.mean());
  const auto deviation = graph.variable("deviation", standardize.deviation());
  const auto logits = cr::nn::mlp((lengths - mean) / deviation, {16, 3}, {.activation = cr::tanh});
  const auto loss = cr::softmax_cross_entropy(logits, labels);
  const auto answer = cr::argmax(logits, 1);
  const auto right = cr::mean(cr::cast(cr::equal(answer, labels), cr::float64));

  cr::State state(graph);
  const cr::optim::AdamW adam{
      .learning_rate = cr::optim::warm_up(0.01, {.length = 10}),
      .weight_decay = 0.1,
      .groups = {{"*/bias", {.weight_decay = 0}}},
  };
  cr::Program train(state, {.outputs = {loss}, .updates = adam.minimize(loss)});
  cr::Program watch(state, {.outputs = {loss, right}, .mode = cr::Mode::inference});
  cr::Program predict(state, {.outputs = {answer}, .mode = cr::Mode::inference});
  const auto history = cr::fit(train, parts.train,
                               {.inputs = {lengths, labels},
                                .batch = 16,
                                .epochs = settings.quick ? 60 : settings.epochs,
                                .progress = true,
                                .validation = cr::Validation{.program = &watch, .dataset = &parts.dev},
                                .patience = 40,
                                .best_checkpoint = settings.save});
  state.load(settings.save);
  fmt::print("{} epochs, the best is {}: dev cost {:.4f}\n", history.costs.size(), *history.best_epoch,
             history.validation[static_cast<std::size_t>(*history.best_epoch)][0]);

  const cr::Array answers = cr::predict(predict, parts.test, {.inputs = {lengths}});
  const cr::Array confusion = cr::metrics::confusion_matrix(answers, parts.test.y, 3);
  const auto scores = cr::metrics::class_scores(confusion);
  fmt::print("\n{:12}{:>12}{:>12}{:>12}{:>12}{:>12}\n", "taken for", names[0], names[1], names[2], "precision",
             "recall");
  for (std::int64_t c = 0; c < 3; ++c) {
    fmt::print("{:12}", names[c]);
    for (std::int64_t other = 0; other < 3; ++other) fmt::print("{:>12}", confusion(c, other));
    const auto i = static_cast<std::size_t>(c);
    fmt::print("{:12.3f}{:12.3f}\n", scores.precision[i], scores.recall[i]);
  }
  fmt::print("\ntest accuracy {:.4f}; {} is what iris_predict reads\n", scores.accuracy, settings.save);

  if (settings.curve.empty()) return;
  std::vector<double> dev;
  for (const auto& numbers : history.validation) dev.push_back(numbers[0]);
  cr::plot::Figure({.title = "Iris", .x_label = "epoch", .y_label = "cost", .log_y = true})
      .line("training", history.costs)
      .line("dev", dev)
      .save(settings.curve);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app(
      "Irises by the lengths and widths of their leaves: a small network, early stopping, the best checkpoint.");
  app.add_option("--data", settings.data, "scikit-learn's iris.csv")->capture_default_str();
  app.add_option("--save", settings.save, "the best parameters")->capture_default_str();
  app.add_option("--curve", settings.curve, "a picture of the costs (.svg or .png); none where empty")
      ->capture_default_str();
  app.add_option("--epochs", settings.epochs, "at most")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_flag("--quick", settings.quick, "60 epochs at most, and no picture");
  CLI11_PARSE(app, argc, argv);
  if (settings.quick) settings.curve.clear();
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
