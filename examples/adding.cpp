// The adding problem: a recurrent network remembers two numbers that are marked among a hundred, and adds them.
//
// Hochreiter and Schmidhuber 1997. Each place of a sequence has a number of [0, 1) and a mark; one place of the first
// half is marked, and one of the second. Who always says 1 is wrong by 1/6 in the mean square, the variance of such a
// sum.
#include <chainrule/chainrule.hpp>

#include <cstdio>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  std::int64_t places = 100;
  std::int64_t batch = 64;
  std::size_t units = 64;
  int steps = 3'000;
  std::string cell = "gru";
  double rate = 5e-3;
};

constexpr double guessing = 1.0 / 6;

cr::nn::Recurrent network(const std::string& cell, cr::Value x, std::size_t units) {
  if (cell == "gru") return cr::nn::gru(x, units, {.hidden_initializer = cr::init::orthogonal()});
  if (cell == "rnn") return cr::nn::rnn(x, units, {.hidden_initializer = cr::init::orthogonal()});
  return cr::nn::lstm(x, units, {.forget_bias = 1});
}

void run(const Settings& settings) {
  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  // The examples, new ones in each step.
  const auto numbers = cr::random_uniform(graph, {settings.batch, settings.places});
  const auto mark = [&](std::int64_t from, std::int64_t to) {
    return cr::one_hot(cr::random_integers(graph, {settings.batch}, from, to), settings.places, cr::float32);
  };
  const auto marks = mark(0, settings.places / 2) + mark(settings.places / 2, settings.places);
  const auto sum = cr::sum(numbers * marks, 1, true);

  // What is left of a sequence is the state behind its last place.
  const auto made = network(settings.cell, cr::stack({numbers, marks}, 2), settings.units);
  const auto answer = cr::nn::dense(made.hidden.back(), 1);
  const auto cost = cr::mean_squared_error(answer, sum);

  cr::State state(graph);
  const auto parameters = graph.parameters();
  const auto rate = cr::optim::cosine_decay({.initial = settings.rate, .length = static_cast<double>(settings.steps)});
  const auto slopes = cr::optim::clip_by_global_norm(cr::gradients(cost, parameters), 1);
  cr::Program train(state,
                    {.outputs = {cost}, .updates = cr::optim::Adam{.learning_rate = rate}.apply(parameters, slopes)});
  cr::Program show(state, {.outputs = {sum, answer}});

  // Nothing is seen twice, so the mean cost of some steps is that of unseen examples.
  const cr::Interrupt interrupt;
  cr::Progress progress("adding", settings.steps);
  double total = 0;
  const int every = settings.steps / 10;
  for (int step = 1; step <= settings.steps && !interrupt.requested(); ++step) {
    total += train.run().scalar();
    progress.update(step);
    if (step % every != 0) continue;
    progress.clear();
    fmt::print("step {:5}: mean squared error {:.6f}, {:.4f} of guessing's\n", step, total / every,
               total / every / guessing);
    std::fflush(stdout);
    total = 0;
  }
  progress.clear();
  const auto last = show.run();
  for (std::int64_t i = 0; i < 3; ++i) fmt::print("{:.4f} for {:.4f}\n", last[1](i, 0), last[0](i, 0));
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("The adding problem: a recurrent network that remembers.");
  app.add_option("--places", settings.places, "of a sequence")->check(CLI::Range(2, 10'000))->capture_default_str();
  app.add_option("--cell", settings.cell, "of the network")
      ->check(CLI::IsMember({"rnn", "lstm", "gru"}))
      ->capture_default_str();
  app.add_option("--units", settings.units, "of the network")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--steps", settings.steps, "of 64 sequences")->check(CLI::Range(10, 1'000'000))->capture_default_str();
  app.add_option("--rate", settings.rate, "the learning rate")->capture_default_str();
  app.add_flag_callback(
      "--quick",
      [&settings] {
        settings.places = 20;
        settings.steps = 1'500;
      },
      "1,500 steps of 20 places");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
