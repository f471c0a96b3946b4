// Two networks against each other on points of the plane: two optimizers over one graph, each with parameters of its
// own.
//
// Goodfellow and others 2014: a generator makes points of random numbers; a discriminator says how likely a point is
// one of the data. Each is trained to make the other's task harder.
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <exception>
#include <numbers>
#include <set>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  int steps = 10'000;
  std::string picture;
};

constexpr std::int64_t batch = 256;
constexpr std::int64_t places = 8;  // evenly spread over the unit circle
constexpr double deviation = 0.05;  // around each of them

// How many of the places are made, and how many of the points lie within three deviations of one.
void report(int step, double d_loss, double g_loss, const cr::Array& points) {
  const double turn = 2 * std::numbers::pi / places;
  std::set<std::int64_t> made;
  int near = 0;
  for (std::int64_t i = 0; i < batch; ++i) {
    const double x = points(i, 0);
    const double y = points(i, 1);
    const std::int64_t place = std::lround(std::atan2(y, x) / turn);
    if (std::hypot(x - std::cos(turn * place), y - std::sin(turn * place)) > 3 * deviation) continue;
    made.insert((place + places) % places);
    ++near;
  }
  fmt::print("step {:5}: discriminator {:.3f}, generator {:.3f}, {} of {} places, {:.0f} % of the points at one\n",
             step, d_loss, g_loss, made.size(), places, 100.0 * near / batch);
}

void run(const Settings& settings) {
  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  // The data: a place on the circle, drawn in each step, and some noise.
  const auto angle =
      cr::cast(cr::random_integers(graph, {batch, 1}, 0, places), cr::float32) * (2 * std::numbers::pi / places);
  const auto real =
      cr::concat({cr::cos(angle), cr::sin(angle)}, 1) + cr::random_normal(graph, {batch, 2}, 0, deviation);

  // The discriminator is applied once, to the data and below them to what the generator makes.
  const auto network = [](cr::Value x, const std::vector<std::size_t>& units, const std::string& name) {
    return cr::nn::mlp(x, units, {.activation = cr::relu, .name = name, .initializer = cr::init::he_normal()}).output;
  };
  const auto fake = network(cr::random_normal(graph, {batch, 16}), {128, 128, 2}, "generator");
  const auto judged = cr::split(network(cr::concat({real, fake}, 0), {128, 128, 1}, "discriminator"), 2);
  const auto of_real = judged[0];
  const auto of_fake = judged[1];

  // How far the discriminator takes data for data and the other points for none; and its steepness at the data, which
  // keeps the two from going round in circles (Mescheder, Geiger and Nowozin 2018): a gradient that has one itself.
  const auto ones = cr::broadcast_to(graph.constant(1.0, cr::float32), {batch, 1});
  const auto slope = cr::gradients(cr::sum(of_real), {real})[0];
  const auto d_loss = cr::sigmoid_cross_entropy(of_real, ones) + cr::sigmoid_cross_entropy(of_fake, 0 * ones) +
                      0.1 * cr::mean(cr::sum(cr::square(slope), 1));
  const auto g_loss = cr::sigmoid_cross_entropy(of_fake, ones);

  // An optimizer moves the parameters that it is given, whatever else its loss depends on.
  cr::State state(graph);
  const cr::optim::Adam adam{.learning_rate = 1e-3, .beta1 = 0.5};
  cr::Program teach(state,
                    {.outputs = {d_loss}, .updates = adam.minimize(d_loss, graph.parameters("discriminator/*"))});
  cr::Program deceive(state, {.outputs = {g_loss}, .updates = adam.minimize(g_loss, graph.parameters("generator/*"))});
  cr::Program look(state, {.outputs = {real, fake}});

  const cr::Interrupt interrupt;  // Ctrl-C ends the training, not the program
  cr::Progress progress("gan", settings.steps);
  for (int step = 1; step <= settings.steps && !interrupt.requested(); ++step) {
    const double d = teach.run().scalar();
    const double g = deceive.run().scalar();
    progress.update(step);
    if (step % (settings.steps / 10) != 0) continue;
    progress.clear();
    report(step, d, g, look.run()[1]);
  }
  progress.clear();
  if (settings.picture.empty()) return;
  const auto points = look.run();
  const auto coordinate = [&](std::size_t of, std::int64_t axis) {
    std::vector<double> out;
    for (std::int64_t i = 0; i < batch; ++i) out.push_back(points[of](i, axis));
    return out;
  };
  cr::plot::Figure({.title = "A generator's points", .equal_scale = true})
      .points("data", coordinate(0, 0), coordinate(0, 1))
      .points("generator", coordinate(1, 0), coordinate(1, 1))
      .save(settings.picture);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("A generative adversarial network on eight places of a circle.");
  app.add_option("--steps", settings.steps, "of each network")->check(CLI::Range(10, 1'000'000))->capture_default_str();
  app.add_flag_callback(
      "--quick", [&settings] { settings.steps = 3'000; }, "3,000 steps");
  app.add_option("--plot", settings.picture, "a .png or .svg file for the points at the end");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
