// The course's training tables on the moons: every printed cost to its six decimals, every learning rate, the accuracy,
// and the parameters after 10,000 epochs.
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <string>
#include <vector>

#include <fmt/core.h>

#include "catch.hpp"
#include "expected.hpp"

namespace cr = chainrule;

namespace {

struct Outcome {
  std::vector<double> costs;  // of every epoch
  std::vector<double> rates;  // after every epoch
  double accuracy = 0;
  std::vector<std::pair<std::string, cr::Array>> parameters;
  cr::Program::Memory memory;
};

cr::optim::LearningRate rate_of(const nlohmann::json& parameters) {
  const double rate = parameters.at("lr");
  if (!parameters.contains("schedule")) return rate;
  const auto& schedule = parameters.at("schedule");
  const double decay = schedule.at("decay_rate");
  if (schedule.at("kind") == "inverse") return cr::optim::inverse_time_decay({.initial = rate, .decay = decay});
  return cr::optim::interval_decay({.initial = rate, .decay = decay, .interval = schedule.at("time_interval")});
}

cr::Updates updates_of(const nlohmann::json& parameters, const cr::optim::LearningRate& rate, cr::Value loss) {
  const std::string name = parameters.at("opt");
  const auto& options = parameters.at("opt_args");
  if (name == "momentum") return cr::optim::Momentum{.learning_rate = rate, .beta = options.at("beta")}.minimize(loss);
  if (name == "adam")
    return cr::optim::Adam{
        .learning_rate = rate, .beta1 = options.at("beta1"), .beta2 = options.at("beta2"), .epsilon = options.at("eps")}
        .minimize(loss);
  return cr::optim::GradientDescent{.learning_rate = rate}.minimize(loss);
}

Outcome train(const nlohmann::json& table) {
  const auto& parameters = table.at("params");
  cr::numpy::RandomState data_rng(3);
  const auto moons = cr::data::make_moons(
      {.samples = table.at("dataset").at("n_samples"), .noise = table.at("dataset").at("noise").get<double>()},
      data_rng);

  cr::Graph graph;
  const auto examples = graph.dimension("examples");
  const auto x = graph.input("x", {2, examples});
  const auto y = graph.input("y", {1, examples});
  cr::numpy::RandomState init_rng(3);
  cr::Value a = x;
  const std::vector<std::int64_t> units = parameters.at("dims");
  for (std::size_t l = 1; l < units.size(); ++l) {
    const double scale = std::sqrt(2.0 / static_cast<double>(units[l - 1]));
    const auto w = graph.parameter(fmt::format("W{}", l), init_rng.randn(units[l], units[l - 1]) * scale);
    const auto z = cr::matmul(w, a) + graph.parameter(fmt::format("b{}", l), cr::zeros({units[l], 1}));
    a = l + 1 < units.size() ? cr::relu(z) : z;
  }
  const auto loss = cr::sigmoid_cross_entropy(a, y);
  const auto rate = rate_of(parameters);
  cr::State state(graph);
  cr::Program step(state, {.outputs = {loss}, .updates = updates_of(parameters, rate, loss)});
  cr::Program predict(state, {.outputs = {cr::sigmoid(a)}, .mode = cr::Mode::inference});
  cr::Program rate_now(state, {.outputs = {rate.in(graph, cr::float64, cr::Location::here())}});

  Outcome out;
  const int epochs = parameters.at("epochs");
  for (int epoch = 0; epoch < epochs; ++epoch) {
    double total = 0;
    for (const auto& batch : cr::data::mini_batches(moons, parameters.at("batch"), cr::numpy::RandomState(11 + epoch)))
      total += step.run({{x, batch.x}, {y, batch.y}}).scalar(loss) * static_cast<double>(batch.size());
    out.costs.push_back(total / static_cast<double>(moons.size()));
    // The notes compute the rate after epoch e, from e, for the next epoch on: the first two have the initial one.
    state.set_epoch(epoch);
    out.rates.push_back(rate_now.run().scalar());
  }
  out.accuracy = cr::data::accuracy(predict.run({{x, moons.x}})[0], moons.y);
  for (const auto parameter : graph.parameters()) out.parameters.emplace_back(parameter.name(), state[parameter]);
  out.memory = step.memory();
  return out;
}

void compare(const std::string& id) {
  const auto* table = cr::test::expected(id);
  if (table == nullptr) return;
  INFO(id);
  const Outcome got = train(*table);
  for (const auto& row : table->at("rows")) {
    const std::size_t epoch = row.at("epoch");
    INFO("epoch " << epoch);
    CHECK(fmt::format("{:.6f}", got.costs.at(epoch)) == row.at("printed").get<std::string>());
    CHECK(std::abs(got.costs.at(epoch) - row.at("value").get<double>()) < 1e-9);
    if (row.contains("lr_printed"))
      CHECK(fmt::format("{:.6f}", got.rates.at(epoch)) == row.at("lr_printed").get<std::string>());
  }
  CHECK(fmt::format("{}", got.accuracy) == fmt::format("{}", table->at("accuracy").at("value").get<double>()));
  for (const auto& [name, values] : got.parameters) {
    INFO(name);
    const auto& expected = table->at("final_parameters").at(name);
    for (std::int64_t i = 0; i < values.shape()[0]; ++i)
      for (std::int64_t j = 0; j < values.shape()[1]; ++j)
        CHECK(std::abs(values(i, j) -
                       expected.at(static_cast<std::size_t>(i)).at(static_cast<std::size_t>(j)).get<double>()) < 1e-8);
  }
  CHECK(static_cast<double>(got.memory.arena_bytes) <= 1.1 * static_cast<double>(got.memory.lower_bound));
}

}  // namespace

TEST_CASE("moons of 900 by gradient descent", "[moons]") { compare("000.moons900.gd"); }
TEST_CASE("moons of 900 by momentum", "[moons]") { compare("000.moons900.momentum"); }
TEST_CASE("moons of 900 by Adam", "[moons]") { compare("000.moons900.adam"); }
TEST_CASE("moons of 900 with inverse decay", "[moons]") { compare("000.moons900.gd_inverse"); }
TEST_CASE("moons of 900 with interval decay", "[moons]") {
  compare("000.moons900.gd_fixed");
  compare("000.moons900.momentum_fixed");
  compare("000.moons900.adam_fixed");
}
TEST_CASE("moons of 300", "[moons]") {
  compare("001.moons300.gd");
  compare("001.moons300.momentum");
  compare("001.moons300.adam");
}
