// fit() and accuracy(): the loop that they stand for, written out; resumption; Ctrl-C; what they refuse.
#include <chainrule/chainrule.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "files.hpp"

namespace cr = chainrule;
using Catch::Matchers::ContainsSubstring;
using chainrule::test::error_text;

namespace {

// A classifier of the course's moons, examples in columns.
struct Moons {
  explicit Moons(const cr::optim::LearningRate& rate = 0.1, double keep = 1)
      : data(cr::data::make_moons({.samples = 150, .noise = 0.2}, cr::numpy::RandomState(3))),
        x(graph.input("x", {2, graph.dimension("m")})),
        y(graph.input("y", {1, graph.dimension("m")})) {
    const auto w1 = graph.parameter("W1", cr::normal({5, 2}));
    const auto b1 = graph.parameter("b1", cr::zeros({5, 1}));
    const auto w2 = graph.parameter("W2", cr::normal({1, 5}));
    auto hidden = cr::relu(cr::matmul(w1, x) + b1);
    if (keep < 1) hidden = cr::dropout(hidden, {.keep = keep});
    const auto logits = cr::matmul(w2, hidden);
    loss = cr::sigmoid_cross_entropy(logits, y);
    probability = cr::sigmoid(logits);
    updates = cr::optim::Adam{.learning_rate = rate}.minimize(loss);
  }
  cr::Graph graph;
  cr::data::Dataset data;
  cr::Value x;
  cr::Value y;
  cr::Value loss;
  cr::Value probability;
  cr::Updates updates;
};

// The loop as a user would write it, with the course's order of batches and its schedule.
std::vector<double> by_hand(const Moons& moons, cr::State& state, int epochs, int seed, int batch) {
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  std::vector<double> out;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    double total = 0;
    for (const auto& b : cr::data::mini_batches(moons.data, batch, cr::numpy::RandomState(seed + epoch)))
      total += train.run({{moons.x, b.x}, {moons.y, b.y}}).scalar() * static_cast<double>(b.size());
    out.push_back(total / static_cast<double>(moons.data.size()));
    state.set_epoch(epoch);
  }
  return out;
}

const cr::optim::Schedule decay = cr::optim::inverse_time_decay({.initial = 0.1, .decay = 0.5});

// What a child process that runs f ends with: its wait status.
template <class F>
int status_of(F f) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGINT, SIG_DFL);  // not Catch's report
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("fit is the course's loop") {
  Moons moons(decay, 0.8);
  cr::State expected_state(moons.graph);
  const auto expected = by_hand(moons, expected_state, 6, 11, 64);

  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  std::vector<double> reported;
  const auto history = cr::fit(train, moons.data,
                               {.inputs = {moons.x, moons.y},
                                .batch = 64,
                                .epochs = 6,
                                .seed = 11,
                                .after_epoch = [&](const cr::EpochReport& report) {
                                  CHECK(report.epoch == static_cast<std::int64_t>(reported.size()));
                                  CHECK(state.epoch() == report.epoch);
                                  reported.push_back(report.cost);
                                }});
  CHECK(history.costs == expected);
  CHECK(reported == expected);
  CHECK(history.first_epoch == 0);
  CHECK(!history.interrupted);
  CHECK(state.step() == 18);  // 64, 64, 22
  CHECK(state.epoch() == 5);
  CHECK(state["W1"].identical(expected_state["W1"]));
}

TEST_CASE("The first two epochs of fit have the initial rate") {
  cr::Graph graph;
  const auto x = graph.input("x", {graph.dimension("m")});
  const auto w = graph.parameter("w", cr::zeros({1}));
  const auto loss = cr::mean(w * x);  // of slope 1: each step moves w by the rate
  cr::State state(graph);
  cr::Program train(state,
                    {.outputs = {loss}, .updates = cr::optim::GradientDescent{.learning_rate = decay}.minimize(loss)});
  const cr::data::Dataset data{cr::Array({1.0}), cr::Array({0.0})};
  std::vector<double> rates;
  double last = 0;
  cr::fit(train, data, {.inputs = {x}, .epochs = 4, .after_epoch = [&](const cr::EpochReport&) {
                          rates.push_back(last - state[w][0]);
                          last = state[w][0];
                        }});
  REQUIRE(rates.size() == 4);
  CHECK(rates[0] == Approx(0.1));
  CHECK(rates[1] == Approx(0.1));
  CHECK(rates[2] == Approx(0.1 / 1.5));
  CHECK(rates[3] == Approx(0.1 / 2));
}

TEST_CASE("fit without a shuffle takes the examples as they stand") {
  Moons moons;
  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  const auto history =
      cr::fit(train, moons.data, {.inputs = {moons.x, moons.y}, .batch = 100, .epochs = 2, .shuffle = false});
  cr::State other(moons.graph);
  cr::Program again(other, {.outputs = {moons.loss}, .updates = moons.updates});
  for (const double cost : history.costs) {
    double total = 0;
    for (const auto& b : cr::data::batches(moons.data, 100))
      total += again.run({{moons.x, b.x}, {moons.y, b.y}}).scalar() * static_cast<double>(b.size());
    CHECK(cost == total / 150);
  }
}

TEST_CASE("fit goes on where it was, in calls, programs and checkpoints") {
  const cr::test::TemporaryFolder folder;
  Moons moons(decay, 0.8);
  const auto options = [&](const Moons& m, std::int64_t epochs) {
    return cr::FitOptions{.inputs = {m.x, m.y}, .batch = 32, .epochs = epochs, .seed = 4};
  };
  cr::State whole(moons.graph);
  cr::Program train(whole, {.outputs = {moons.loss}, .updates = moons.updates});
  const auto expected = cr::fit(train, moons.data, options(moons, 7)).costs;

  for (const std::int64_t first : {0, 1, 3}) {
    cr::State state(moons.graph);
    cr::Program program(state, {.outputs = {moons.loss}, .updates = moons.updates});
    auto costs = cr::fit(program, moons.data, options(moons, first)).costs;
    state.save(folder / "x");

    Moons later(decay, 0.8);
    cr::State loaded(later.graph);
    loaded.load(folder / "x");
    cr::Program rest(loaded, {.outputs = {later.loss}, .updates = later.updates});
    const auto history = cr::fit(rest, later.data, options(later, 7 - first));
    CHECK(history.first_epoch == first);
    costs.insert(costs.end(), history.costs.begin(), history.costs.end());
    CHECK(costs == expected);
    CHECK(loaded["W1"].identical(whole["W1"]));
  }
  // Or where it is told to.
  auto from = options(moons, 1);
  from.first_epoch = 0;
  CHECK(cr::fit(train, moons.data, from).first_epoch == 0);
  CHECK(whole.epoch() == 0);
}

TEST_CASE("A callback ends fit") {
  Moons moons;
  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  const auto history = cr::fit(
      train, moons.data,
      {.inputs = {moons.x, moons.y}, .epochs = 100, .after_epoch = [](cr::EpochReport& r) { r.stop = r.epoch == 2; }});
  CHECK(history.costs.size() == 3);
  CHECK(!history.interrupted);
}

TEST_CASE("Ctrl-C ends fit after the batch") {
  Moons moons;
  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  struct sigaction before {};
  sigaction(SIGINT, nullptr, &before);
  cr::FitOptions options{
      .inputs = {moons.x, moons.y}, .batch = 50, .epochs = 100, .after_epoch = [](const cr::EpochReport& report) {
        if (report.epoch == 4) raise(SIGINT);
      }};
  const auto history = cr::fit(train, moons.data, options);
  CHECK(history.interrupted);
  CHECK(history.costs.size() == 5);
  CHECK(state.step() == 15);
  CHECK(state.epoch() == 4);
  struct sigaction after {};
  sigaction(SIGINT, nullptr, &after);
  CHECK(after.sa_handler == before.sa_handler);
  // And the next call goes on.
  options.after_epoch = {};
  options.epochs = 1;
  CHECK(cr::fit(train, moons.data, options).first_epoch == 5);
  CHECK(!cr::fit(train, moons.data, options).interrupted);
}

TEST_CASE("An epoch that Ctrl-C cut short is begun anew") {
  // The signal comes from a thread of the kernel's, in the midst of an epoch of a thousand batches.
  Moons moons;
  moons.data = cr::data::make_moons({.samples = 100'000, .noise = 0.2}, cr::numpy::RandomState(3));
  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  const cr::FitOptions options{.inputs = {moons.x, moons.y}, .batch = 1, .epochs = 1000};
  const cr::Interrupt outer;
  int epochs = 0;
  timer_t timer{};
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGINT;
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  // Long enough for the first batches to have run on a busy machine.
  const itimerspec soon{{0, 0}, {0, 500'000'000}};
  REQUIRE(timer_settime(timer, 0, &soon, nullptr) == 0);
  auto counted = options;
  counted.after_epoch = [&](const cr::EpochReport&) { ++epochs; };
  const auto history = cr::fit(train, moons.data, counted);
  timer_delete(timer);
  CHECK(history.interrupted);
  CHECK(outer.requested());  // which the loop around it hears of, too
  CHECK(static_cast<int>(history.costs.size()) == epochs);
  CHECK(state.step() > 0);
  if (epochs == 0) CHECK(state.step() < 100'000);
}

TEST_CASE("The second Ctrl-C ends the program") {
  const int status = status_of([] {
    const cr::Interrupt interrupt;
    raise(SIGINT);
    if (!interrupt.requested()) _exit(1);
    raise(SIGINT);
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
  // Not asked to be, fit does not touch it.
  const int plain = status_of([] {
    Moons moons;
    cr::State state(moons.graph);
    cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
    cr::fit(train, moons.data,
            {.inputs = {moons.x, moons.y},
             .epochs = 10,
             .after_epoch = [](const cr::EpochReport&) { raise(SIGINT); },
             .interruptible = false});
  });
  CHECK(WIFSIGNALED(plain));
}

TEST_CASE("Interrupt leaves an ignored SIGINT and a handler of the program's as they were") {
  std::signal(SIGINT, SIG_IGN);
  {
    const cr::Interrupt interrupt;
    raise(SIGINT);
    CHECK(!interrupt.requested());
  }
  static volatile std::sig_atomic_t heard = 0;
  std::signal(SIGINT, [](int) { heard = 1; });
  {
    const cr::Interrupt outer;
    { const cr::Interrupt inner; }
    raise(SIGINT);
    CHECK(outer.requested());
    CHECK(heard == 0);
  }
  raise(SIGINT);
  CHECK(heard == 1);
  std::signal(SIGINT, SIG_DFL);
  const cr::Interrupt later;
  CHECK(!later.requested());
}

TEST_CASE("accuracy of probabilities and of classes") {
  Moons moons;
  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  cr::Program predict(state, {.outputs = {moons.probability}, .mode = cr::Mode::inference});
  cr::fit(train, moons.data, {.inputs = {moons.x, moons.y}, .epochs = 30});
  const double expected = cr::data::accuracy(predict.run({{moons.x, moons.data.x}})[0], moons.data.y);
  CHECK(expected > 0.8);
  for (const std::int64_t batch : {1, 7, 150, 1024})
    CHECK(cr::accuracy(predict, moons.data, {.inputs = {moons.x}, .batch = batch}) == Approx(expected));

  cr::Graph graph({.dtype = cr::float32});
  const auto scores = graph.input("scores", {graph.dimension("m"), 3});
  const auto labels = graph.input("labels", {graph.dimension("m")}, cr::int64);
  cr::State none(graph);
  cr::Program classes(none, {.outputs = {cr::argmax(scores, 1)}});
  const cr::data::Dataset data{cr::Array({{0.1, 0.7, 0.2}, {0.5, 0.1, 0.4}, {0, 0, 1}, {1, 0, 0}}).astype(cr::float32),
                               cr::Array({1, 0, 2, 2}).astype(cr::int64), 0};
  CHECK(cr::accuracy(classes, data, {.inputs = {scores, labels}, .batch = 3}) == 0.75);
  cr::Program itself(none, {.outputs = {scores * 1.0}});
  CHECK_THAT(error_text([&] { cr::accuracy(itself, data, {.inputs = {scores}}); }),
             ContainsSubstring("accuracy: requires an output in the shape of the labels, {4}, got {4, 3} (an argmax") &&
                 ContainsSubstring("test_fit.cpp:"));
  CHECK_THAT(error_text([&] { cr::accuracy(classes, data, {.inputs = {scores}, .batch = 0}); }),
             ContainsSubstring("requires a batch size of 1 or more"));
}

TEST_CASE("What fit refuses changes nothing") {
  Moons moons;
  cr::State state(moons.graph);
  state.set_epoch(7);
  state.set_step(1000);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  cr::Program predict(state, {.outputs = {moons.probability, moons.loss}});
  cr::Program watch(state, {.outputs = {moons.loss}});
  cr::Program silent(state, {.updates = moons.updates});
  const auto fit_error = [&](cr::Program& program, const cr::FitOptions& options, const cr::data::Dataset& data) {
    return error_text([&] { cr::fit(program, data, options); });
  };
  const cr::DatasetInputs inputs{moons.x, moons.y};
  CHECK_THAT(fit_error(predict, {.inputs = inputs}, moons.data),
             ContainsSubstring("fit: requires a program whose first output is the cost, a scalar, got {1, m}") &&
                 ContainsSubstring("test_fit.cpp:"));
  CHECK_THAT(fit_error(silent, {.inputs = inputs}, moons.data), ContainsSubstring("a scalar, got none"));
  CHECK_THAT(fit_error(watch, {.inputs = inputs}, moons.data), ContainsSubstring("requires a program with updates"));
  CHECK_THAT(fit_error(train, {.inputs = inputs, .epochs = -1}, moons.data),
             ContainsSubstring("requires 0 epochs or more"));
  CHECK_THAT(fit_error(train, {.inputs = inputs, .seed = -1}, moons.data), ContainsSubstring("requires a seed within"));
  CHECK_THAT(fit_error(train, {.inputs = inputs, .first_epoch = -1}, moons.data),
             ContainsSubstring("requires a first epoch"));
  CHECK_THAT(fit_error(train, {.inputs = inputs, .batch = 0}, moons.data), ContainsSubstring("requires a batch size"));
  CHECK_THAT(fit_error(train, {.inputs = {moons.x}}, moons.data), ContainsSubstring("requires a feed for input 'y'"));
  CHECK_THAT(fit_error(train, {.inputs = {moons.y, moons.x}}, moons.data),
             ContainsSubstring("requires float64 {1, m} for input 'y'"));
  CHECK(state.epoch() == 7);
  CHECK(state.step() == 1000);
  const auto nothing = cr::fit(train, moons.data, {.inputs = inputs, .epochs = 0});
  CHECK(nothing.costs.empty());
  CHECK(nothing.first_epoch == 8);
  CHECK(state.epoch() == 7);
}

TEST_CASE("fit() of a data set without y feeds x alone") {
  cr::Graph graph;
  const auto x = graph.input("x", {graph.dimension("batch"), 3});
  const auto w = graph.parameter("w", cr::zeros({3}));
  const auto cost = cr::mean(cr::square(x - w));
  cr::State state(graph);
  cr::Program train(state,
                    {.outputs = {cost}, .updates = cr::optim::GradientDescent{.learning_rate = 0.1}.minimize(cost)});
  const cr::data::Dataset all{.x = cr::uniform({20, 3}, 1, 2), .axis = 0};
  CHECK(!all.has_y());
  const auto parts = cr::data::split(all, {.train = 0.5, .dev = 0.25, .test = 0.25}, cr::numpy::RandomState(1));
  CHECK(parts.train.size() + parts.dev.size() + parts.test.size() == 20);
  const auto history = cr::fit(train, parts.train, {.inputs = {x}, .batch = 4, .epochs = 5});
  CHECK(history.costs.back() < history.costs.front());
  CHECK(parts.train.size() == 10);
  CHECK(state.step() == 5 * 3);
}

namespace {

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> out;
  for (std::string line; std::getline(file, line);) out.push_back(line);
  return out;
}

}  // namespace

TEST_CASE("fit validates after each epoch: means over the examples, whatever the batches") {
  Moons moons;
  const auto dev = cr::data::make_moons({.samples = 33, .noise = 0.2}, cr::numpy::RandomState(4));
  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  const auto right =
      cr::mean(cr::cast(cr::equal(cr::greater(moons.probability, 0.5), cr::greater(moons.y, 0.5)), cr::float64));
  cr::Program watch(state, {.outputs = {moons.loss, right}, .mode = cr::Mode::inference});
  cr::Program predict(state, {.outputs = {moons.probability}, .mode = cr::Mode::inference});
  std::vector<double> accuracies;
  std::vector<double> losses;
  const auto history = cr::fit(train, moons.data,
                               {.inputs = {moons.x, moons.y},
                                .epochs = 4,
                                .after_epoch =
                                    [&](const cr::EpochReport& report) {
                                      accuracies.push_back(cr::accuracy(predict, dev, {.inputs = {moons.x}}));
                                      losses.push_back(watch.run({{moons.x, dev.x}, {moons.y, dev.y}}).scalar());
                                      REQUIRE(report.validation.size() == 2);
                                      CHECK(report.validation[0] == Approx(losses.back()).epsilon(1e-13));
                                      CHECK(report.validation[1] == Approx(accuracies.back()).epsilon(1e-13));
                                      CHECK(report.seconds > 0);
                                    },
                                .validation = cr::Validation{.program = &watch, .dataset = &dev, .batch = 7}});
  REQUIRE(history.validation.size() == 4);
  CHECK(history.validation[3][0] == Approx(losses[3]).epsilon(1e-13));
  // Validation changes nothing of the training.
  cr::State other(moons.graph);
  cr::Program alone(other, {.outputs = {moons.loss}, .updates = moons.updates});
  CHECK(cr::fit(alone, moons.data, {.inputs = {moons.x, moons.y}, .epochs = 4}).costs == history.costs);
}

TEST_CASE("fit keeps the best and the last checkpoint, and ends when its patience does") {
  const cr::test::TemporaryFolder folder;
  // The cost of epoch e is what the table says: the input is the parameter's step.
  const std::vector<double> costs = {5, 4, 4.5, 3.9, 3.95, 4, 3.9, 1};
  cr::Graph graph;
  const auto x = graph.input("x", {graph.dimension("m")});
  const auto w = graph.parameter("w", cr::zeros({}));
  const auto table = graph.constant(cr::Array(costs));
  const auto cost = cr::reshape(cr::take(table, cr::reshape(cr::cast(w, cr::int64), {1}), 0), {}) + 0.0 * cr::sum(x);
  const cr::Updates updates = {{w, w + 1.0}};
  const cr::data::Dataset one{.x = cr::Array({1.0}), .axis = 0};
  const auto train = [&](const cr::FitOptions& options) {
    cr::State state(graph);
    cr::Program program(state, {.outputs = {cost}, .updates = updates});
    return cr::fit(program, one, options);
  };
  const auto stored = [&](const std::string& path) {
    cr::State state(graph);
    state.load(path);
    return std::pair{state[w].item(), state.epoch()};
  };
  const std::string best = folder / "best.safetensors";
  const std::string last = folder / "last.safetensors";
  std::vector<bool> improved;
  const auto history = train({.inputs = {x},
                              .epochs = 8,
                              .after_epoch = [&](const cr::EpochReport& r) { improved.push_back(r.improved); },
                              .patience = 3,
                              .last_checkpoint = last,
                              .best_checkpoint = best});
  CHECK(history.costs == std::vector<double>{5, 4, 4.5, 3.9, 3.95, 4, 3.9});
  CHECK(history.ran_out_of_patience);
  CHECK(history.best_epoch == 3);
  CHECK(improved == std::vector<bool>{true, true, false, true, false, false, false});
  CHECK(stored(best) == std::pair<double, std::int64_t>{4, 3});
  CHECK(stored(last) == std::pair<double, std::int64_t>{7, 6});

  // 3.9 is not better than 4 by 0.2.
  const auto coarse = train({.inputs = {x}, .epochs = 8, .monitor = {.least = 0.2}, .patience = 3});
  CHECK(coarse.costs.size() == 5);
  CHECK(coarse.best_epoch == 1);
  const auto higher = train({.inputs = {x}, .epochs = 8, .monitor = {.higher_is_better = true}, .patience = 2});
  CHECK(higher.costs.size() == 3);
  CHECK(higher.best_epoch == 0);
  const auto patient = train({.inputs = {x}, .epochs = 8, .patience = 4});
  CHECK(patient.costs.size() == 8);
  CHECK(!patient.ran_out_of_patience);
  CHECK(patient.best_epoch == 7);
}

TEST_CASE("fit tells of each batch, which may end the training") {
  Moons moons;
  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  std::vector<std::int64_t> seen;
  double total = 0;
  const auto history =
      cr::fit(train, moons.data,
              {.inputs = {moons.x, moons.y}, .batch = 64, .epochs = 3, .after_batch = [&](cr::BatchReport& report) {
                 seen.push_back(report.batch);
                 CHECK(report.batches == 3);
                 if (report.epoch == 0) total += report.cost * (report.batch < 2 ? 64 : 22);
                 report.stop = report.epoch == 1 && report.batch == 1;
               }});
  CHECK(seen == std::vector<std::int64_t>{0, 1, 2, 0, 1});
  REQUIRE(history.costs.size() == 1);
  CHECK(history.costs[0] == Approx(total / 150));
  CHECK(!history.interrupted);
  CHECK(state.epoch() == 0);
  CHECK(state.step() == 5);
  // At the end of an epoch, that epoch is whole.
  const auto whole = cr::fit(train, moons.data,
                             {.inputs = {moons.x, moons.y}, .batch = 64, .epochs = 3, .after_batch = [](auto& report) {
                                report.stop = report.batch == 2;
                              }});
  CHECK(whole.costs.size() == 1);
  CHECK(state.epoch() == whole.first_epoch);
}

TEST_CASE("fit writes a log of lines, which goes on where the training does") {
  const cr::test::TemporaryFolder folder;
  Moons moons;
  cr::State state(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  cr::Program watch(state, {.outputs = {moons.loss}, .mode = cr::Mode::inference});
  const std::string csv = folder / "log.csv";
  const std::string json = folder / "log.jsonl";
  cr::FitOptions options{.inputs = {moons.x, moons.y},
                         .epochs = 2,
                         .validation = cr::Validation{.program = &watch, .dataset = &moons.data},
                         .log = csv};
  const auto first = cr::fit(train, moons.data, options);
  options.epochs = 1;
  const auto second = cr::fit(train, moons.data, options);
  const auto lines = lines_of(csv);
  REQUIRE(lines.size() == 4);
  CHECK(lines[0] == "epoch,seconds,cost,validation_0");
  CHECK(lines[1].starts_with("0,"));
  CHECK(lines[3].starts_with("2,"));
  CHECK(lines[3].ends_with(fmt::format(",{},{}", second.costs[0], second.validation[0][0])));
  options.log = json;
  options.validation.reset();
  const auto third = cr::fit(train, moons.data, options);
  REQUIRE(lines_of(json).size() == 1);
  CHECK_THAT(lines_of(json)[0], Catch::Matchers::StartsWith(R"({"epoch": 3, "seconds": )") &&
                                    Catch::Matchers::EndsWith(fmt::format(R"(, "cost": {}}})", third.costs[0])));
  // A training from the beginning has a log of its own.
  options.first_epoch = 0;
  options.log = csv;
  cr::fit(train, moons.data, options);
  CHECK(lines_of(csv).size() == 2);
  CHECK(lines_of(csv)[0] == "epoch,seconds,cost");
}

TEST_CASE("What fit refuses of a validation and of files") {
  Moons moons;
  cr::State state(moons.graph);
  cr::State another(moons.graph);
  cr::Program train(state, {.outputs = {moons.loss}, .updates = moons.updates});
  cr::Program watch(state, {.outputs = {moons.loss}});
  cr::Program predict(state, {.outputs = {moons.loss, moons.probability}});
  cr::Program foreign(another, {.outputs = {moons.loss}});
  const cr::DatasetInputs inputs{moons.x, moons.y};
  const auto message = [&](const cr::FitOptions& options) {
    const std::string text = error_text([&] { cr::fit(train, moons.data, options); });
    CHECK_THAT(text, ContainsSubstring("test_fit.cpp:"));
    return text;
  };
  const auto with = [&](cr::Program* program) {
    return cr::FitOptions{.inputs = inputs, .validation = cr::Validation{.program = program, .dataset = &moons.data}};
  };
  CHECK_THAT(message(with(nullptr)), ContainsSubstring("fit: requires a validation of a program and a data set"));
  CHECK_THAT(message({.inputs = inputs, .validation = cr::Validation{.program = &watch}}),
             ContainsSubstring("got no data set"));
  CHECK_THAT(message(with(&foreign)), ContainsSubstring("of the State that is trained, got one of another"));
  CHECK_THAT(message(with(&train)), ContainsSubstring("a validation program without updates, got one with"));
  CHECK_THAT(message(with(&predict)), ContainsSubstring("whose outputs are scalars, got {1, m}"));
  auto beyond = with(&watch);
  beyond.monitor.output = 1;
  CHECK_THAT(message(beyond), ContainsSubstring("a monitor of one of the validation's 1 outputs, got number 1"));
  CHECK_THAT(message({.inputs = inputs, .monitor = {.least = -1}}), ContainsSubstring("monitor.least of 0 or more"));
  CHECK_THAT(message({.inputs = inputs, .patience = 0}), ContainsSubstring("a patience of 1 epoch or more, got 0"));
  CHECK_THAT(message({.inputs = inputs, .log = "/no/such/folder/log.csv"}),
             ContainsSubstring("fit: cannot write the log '/no/such/folder/log.csv'"));
  CHECK(state.step() == 0);
  CHECK_THAT(message({.inputs = inputs, .last_checkpoint = "/no/such/folder/x.safetensors"}),
             ContainsSubstring("fit: "));
}
