#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <fmt/core.h>

#include "catch.hpp"
#include "expected.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::numpy::RandomState;
using chainrule::test::error_of;

namespace {

// A parameter w of three numbers and the loss sum(g * w), whose gradient is the input g: the tests choose it.
struct OneParameter {
  explicit OneParameter(DType dtype = float64) : graph({.dtype = dtype}) {}
  Graph graph;
  Value w = graph.parameter("w", Array({1.0, -2.0, 0.5}));
  Value g = graph.input("g", {3});
  Value loss = sum(g * w);
};

const std::vector<Array> some_gradients = {Array({0.1, -3.0, 0.0}), Array({-0.4, 2.0, 1e-3}), Array({7.0, 0.25, 0.0}),
                                           Array({0.0, 0.0, -5.0})};

// Runs the updates for each of the gradients, and compares w with what `rule` makes of each element: a function of the
// element, its gradient and two slots of its own, which begin at 0.
template <class Rule>
void compare(OneParameter& net, const Updates& updates, const Rule& rule, double tolerance = 1e-15) {
  State state(net.graph);
  Program train(state, {.updates = updates});
  std::vector<double> w = {1.0, -2.0, 0.5};
  std::vector<double> first(3, 0.0);
  std::vector<double> second(3, 0.0);
  for (int t = 1; t <= 8; ++t) {
    const Array& g = some_gradients[static_cast<std::size_t>(t - 1) % some_gradients.size()];
    train.run({{net.g, g.astype(net.graph.dtype())}});
    for (std::size_t i = 0; i < 3; ++i) {
      rule(t, w[i], g[static_cast<std::int64_t>(i)], first[i], second[i]);
      INFO("element " << i << " after update " << t);
      REQUIRE(state[net.w][static_cast<std::int64_t>(i)] == Approx(w[i]).epsilon(tolerance).margin(tolerance));
    }
  }
}

}  // namespace

// ---- against loops

TEMPLATE_TEST_CASE("each optimizer against a plain loop", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const double tolerance = dtype == float32 ? 2e-6 : 1e-14;
  OneParameter net(dtype);
  const auto run = [&](const Updates& updates, const auto& rule) { compare(net, updates, rule, tolerance); };
  SECTION("gradient descent") {
    run(optim::GradientDescent{.learning_rate = 0.1}.minimize(net.loss),
        [](int, double& w, double g, double&, double&) { w -= 0.1 * g; });
  }
  SECTION("momentum, the course's average") {
    run(optim::Momentum{.learning_rate = 0.1, .beta = 0.8}.minimize(net.loss),
        [](int, double& w, double g, double& v, double&) {
          v = 0.8 * v + 0.2 * g;
          w -= 0.1 * v;
        });
  }
  SECTION("heavy ball") {
    run(optim::HeavyBall{.learning_rate = 0.1, .momentum = 0.8}.minimize(net.loss),
        [](int, double& w, double g, double& v, double&) {
          v = 0.8 * v + g;
          w -= 0.1 * v;
        });
  }
  SECTION("RMSProp, epsilon beside the root") {
    run(optim::RMSProp{.learning_rate = 0.05, .beta = 0.7, .epsilon = 1e-3}.minimize(net.loss),
        [](int, double& w, double g, double& s, double&) {
          s = 0.7 * s + 0.3 * g * g;
          w -= 0.05 * g / (std::sqrt(s) + 1e-3);
        });
  }
  SECTION("RMSProp, epsilon inside of it") {
    run(optim::RMSProp{.learning_rate = 0.05, .beta = 0.7, .epsilon = 1e-3, .epsilon_inside_root = true}.minimize(
            net.loss),
        [](int, double& w, double g, double& s, double&) {
          s = 0.7 * s + 0.3 * g * g;
          w -= 0.05 * g / std::sqrt(s + 1e-3);
        });
  }
  const auto adam = [](bool inside) {
    return [inside](int t, double& w, double g, double& v, double& s) {
      v = 0.8 * v + 0.2 * g;
      s = 0.9 * s + 0.1 * g * g;
      const double v_hat = v / (1 - std::pow(0.8, t));
      const double s_hat = s / (1 - std::pow(0.9, t));
      w -= 0.1 * v_hat / (inside ? std::sqrt(s_hat + 1e-2) : std::sqrt(s_hat) + 1e-2);
    };
  };
  SECTION("Adam, epsilon beside the root") {
    run(optim::Adam{.learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-2}.minimize(net.loss), adam(false));
  }
  SECTION("Adam, epsilon inside of it") {
    run(optim::Adam{.learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-2, .epsilon_inside_root = true}
            .minimize(net.loss),
        adam(true));
  }
}

TEST_CASE("the default numbers are the field's") {
  OneParameter net;
  SECTION("Adam") {
    compare(
        net, optim::Adam{}.minimize(net.loss),
        [](int t, double& w, double g, double& v, double& s) {
          v = 0.9 * v + (1 - 0.9) * g;
          s = 0.999 * s + (1 - 0.999) * g * g;
          w -= 1e-3 * (v / (1 - std::pow(0.9, t))) / (std::sqrt(s / (1 - std::pow(0.999, t))) + 1e-8);
        },
        1e-14);
  }
  SECTION("RMSProp") {
    compare(
        net, optim::RMSProp{}.minimize(net.loss),
        [](int, double& w, double g, double& s, double&) {
          s = 0.9 * s + (1 - 0.9) * g * g;
          w -= 1e-3 * g / (std::sqrt(s) + 1e-8);
        },
        1e-14);
  }
  SECTION("the others") {
    compare(net, optim::GradientDescent{}.minimize(net.loss),
            [](int, double& w, double g, double&, double&) { w -= 0.01 * g; });
    compare(net, optim::Momentum{}.minimize(net.loss),
            [](int, double& w, double g, double& v, double&) { w -= 0.01 * (v = 0.9 * v + (1 - 0.9) * g); });
    compare(net, optim::HeavyBall{}.minimize(net.loss),
            [](int, double& w, double g, double& v, double&) { w -= 0.01 * (v = 0.9 * v + g); });
  }
}

// ---- against the printed numbers of the notes

namespace {

// The course's parameters and gradients: W1, b1, W2, b2 and their gradients, drawn one after the other.
struct CourseStep {
  Graph graph;
  Values parameters;
  Values gradients;

  CourseStep() {
    RandomState rng(1);
    const Dims shapes[] = {{2, 3}, {2, 1}, {3, 3}, {3, 1}};
    const char* names[] = {"W1", "b1", "W2", "b2"};
    for (std::size_t i = 0; i < 4; ++i) parameters.push_back(graph.parameter(names[i], rng.standard_normal(shapes[i])));
    for (const Dims& shape : shapes) gradients.push_back(graph.constant(rng.standard_normal(shape)));
  }
};

// Compares with the full-precision values of a table, and to every digit with those that the notes print.
void check_array(const nlohmann::json& table, const std::string& key, const Array& got) {
  INFO(key);
  std::vector<double> values;
  for (const auto& row : table.at("values").at(key))
    for (const double v : row) values.push_back(v);
  REQUIRE(values.size() == static_cast<std::size_t>(got.size()));
  for (std::size_t i = 0; i < values.size(); ++i)
    CHECK(got[static_cast<std::int64_t>(i)] == Approx(values[i]).epsilon(1e-14).margin(1e-16));
  if (!table.at("printed").contains(key)) return;
  std::istringstream printed(table.at("printed").at(key).get<std::string>());
  std::size_t count = 0;
  for (std::string number; printed >> number; ++count) {
    // As many digits as the notes have: "1.63535156", "0." or "1.51020075e-05".
    const auto exponent = number.find('e');
    const auto point = number.find('.');
    const auto digits = static_cast<int>(std::min(exponent, number.size()) - point - 1);
    char text[64];
    static_cast<void>(std::snprintf(text, sizeof text, exponent == std::string::npos ? "%#.*f" : "%.*e", digits,
                                    got[static_cast<std::int64_t>(count)]));
    CHECK(std::string(text) == number);
  }
  CHECK(count == values.size());
}

// One update, after `prepare` of the State, against a table.
void check_step(const std::string& id, const std::function<Updates(CourseStep&, const nlohmann::json&)>& make,
                const std::string& v_slot = "", const std::string& s_slot = "",
                const std::function<void(State&, const nlohmann::json&)>& prepare = {}) {
  const auto* table = test::expected(id);
  if (table == nullptr) return;
  INFO(id);
  CourseStep step;
  const Updates updates = make(step, table->at("params"));
  State state(step.graph);
  Program program(state, {.updates = updates});
  if (prepare) prepare(state, table->at("params"));
  program.run();
  for (const Value p : step.parameters) {
    check_array(*table, p.name(), state[p]);
    if (!v_slot.empty()) check_array(*table, "vd" + p.name(), state[p.name() + v_slot]);
    if (!s_slot.empty()) check_array(*table, "sd" + p.name(), state[p.name() + s_slot]);
  }
}

double number(const nlohmann::json& params, const char* key) { return params.at(key).get<double>(); }

}  // namespace

TEST_CASE("gradient descent makes the step that the notes print") {
  for (const char* id : {"000.gd_update", "001.gd_update"})
    check_step(id, [](CourseStep& s, const nlohmann::json& p) {
      return optim::GradientDescent{.learning_rate = number(p, "lr")}.apply(s.parameters, s.gradients);
    });
}

TEST_CASE("momentum makes the step that the notes print") {
  for (const char* id : {"000.momentum_update", "001.momentum_update"})
    check_step(
        id,
        [](CourseStep& s, const nlohmann::json& p) {
          return optim::Momentum{.learning_rate = number(p, "lr"), .beta = number(p, "beta")}.apply(s.parameters,
                                                                                                    s.gradients);
        },
        "/momentum");
}

TEST_CASE("Adam makes the steps that the notes print, with both places of epsilon") {
  for (const char* id : {"000.adam_update", "001.adam_update", "001.adam_update_expected_block"}) {
    check_step(
        id,
        [](CourseStep& s, const nlohmann::json& p) {
          return optim::Adam{.learning_rate = number(p, "lr"),
                             .beta1 = number(p, "beta1"),
                             .beta2 = number(p, "beta2"),
                             .epsilon = number(p, "eps"),
                             .epsilon_inside_root = p.at("eps_placement") == "sqrt(s_corr+eps)"}
              .apply(s.parameters, s.gradients);
        },
        "/adam/v", "/adam/s",
        // Zero moments, and yet the second update.
        [](State& state, const nlohmann::json& p) { state.set("adam/t", Array(p.at("t").get<std::int64_t>() - 1)); });
  }
}

TEST_CASE("Adam's first steps are right in float32 however slowly its averages forget") {
  // With one gradient g all along both corrected averages are g and g^2 to the last: each step is rate * g / (|g| +
  // eps).
  for (const double beta : {0.0, 0.9, 0.999, 0.9999, 0.999999, 0.9999999}) {
    OneParameter net(float32);
    const Updates updates =
        optim::Adam{.learning_rate = 0.5, .beta1 = beta, .beta2 = beta, .epsilon = 1e-8}.minimize(net.loss);
    State state(net.graph);
    Program train(state, {.updates = updates});
    const Array g = Array({3.0, -0.5, 1e-3}).astype(float32);
    const double before[] = {1, -2, 0.5};
    train.run({{net.g, g}});
    for (std::int64_t i = 0; i < 3; ++i) {
      INFO("beta " << beta << ", element " << i);
      const double step = 0.5 * (g[i] > 0 ? 1 : -1) / (1 + 1e-8 / std::abs(g[i]));
      CHECK(state[net.w][i] - before[i] == Approx(-step).epsilon(1e-6));
    }
  }
}

TEST_CASE("slots begin as zeros of the parameter's shape") {
  const auto* momentum = test::expected("001.velocity_zeros");
  const auto* adam = test::expected("001.adam_zeros");
  if (momentum == nullptr || adam == nullptr) return;
  CourseStep step;
  static_cast<void>(optim::Momentum{}.apply(step.parameters, step.gradients));
  static_cast<void>(optim::Adam{}.apply(step.parameters, step.gradients));
  const State state(step.graph);
  for (const Value p : step.parameters) {
    check_array(*momentum, "vd" + p.name(), state[p.name() + "/momentum"]);
    check_array(*adam, "vd" + p.name(), state[p.name() + "/adam/v"]);
    check_array(*adam, "sd" + p.name(), state[p.name() + "/adam/s"]);
    CHECK(state[p.name() + "/adam/s"].shape() == state[p].shape());
  }
  CHECK(state["adam/t"].item() == 0);
}

// ---- schedules

namespace {

// The rate of a schedule in an epoch.
double rate_in(const optim::Schedule& schedule, std::int64_t epoch, DType dtype = float64) {
  Graph graph({.dtype = dtype});
  const auto rate = optim::LearningRate(schedule).in(graph, dtype, Location::here());
  State state(graph);
  state.set_epoch(epoch);
  return Program(state, {.outputs = {rate}}).run().scalar();
}

}  // namespace

TEST_CASE("schedules give the rates that the notes print") {
  const auto* update = test::expected("000.update_lr");
  const auto* interval = test::expected("000.schedule_lr");
  const auto* decay = test::expected("004.lr_table");
  if (update == nullptr || interval == nullptr || decay == nullptr) return;

  const auto& u = update->at("params");
  const double once = rate_in(
      optim::inverse_time_decay({.initial = number(u, "lr0"), .decay = number(u, "decay_rate")}), u.at("epoch"));
  CHECK(once == update->at("values").at("lr").get<double>());

  const auto& s = interval->at("params");
  const auto scheduled = optim::interval_decay(
      {.initial = number(s, "lr0"), .decay = number(s, "decay_rate"), .interval = number(s, "time_interval")});
  CHECK(rate_in(scheduled, s.at("epochs")[0]) == interval->at("values").at("lr10").get<double>());
  CHECK(rate_in(scheduled, s.at("epochs")[1]) == interval->at("values").at("lr100").get<double>());

  const auto& d = decay->at("params");
  const auto hyperbola = optim::inverse_time_decay({.initial = number(d, "lr0"), .decay = number(d, "decay_rate")});
  for (std::size_t i = 0; i < d.at("epochs").size(); ++i) {
    const double rate = rate_in(hyperbola, d.at("epochs")[i]);
    CHECK(rate == Approx(decay->at("values").at("lr")[i].get<double>()).epsilon(2e-16));
    const auto printed = decay->at("printed").at("lr")[i].get<std::string>();
    CHECK(std::round(rate * 1000) / 1000 == std::stod(printed));
  }
}

TEST_CASE("schedules by their formulas") {
  for (const std::int64_t epoch : {0, 1, 2, 9, 99, 100, 101, 1000, 12345}) {
    const auto e = static_cast<double>(epoch);
    CHECK(rate_in(optim::inverse_time_decay({.initial = 0.3, .decay = 0.2}), epoch) ==
          Approx(0.3 / (1 + 0.2 * e)).epsilon(1e-15));
    CHECK(rate_in(optim::interval_decay({.initial = 0.3, .decay = 0.2, .interval = 100}), epoch) ==
          Approx(0.3 / (1 + 0.2 * std::floor(e / 100))).epsilon(1e-15));
    CHECK(rate_in(optim::exponential_decay({.initial = 0.3, .base = 0.99}), epoch) ==
          Approx(0.3 * std::pow(0.99, e)).epsilon(1e-13));
    CHECK(rate_in(optim::inverse_root_decay({.initial = 0.3, .k = 2}), epoch) ==
          Approx(0.6 / std::sqrt(e + 1)).epsilon(1e-15));
    CHECK(rate_in(optim::inverse_time_decay({.initial = 0.3, .decay = 0.2}), epoch, float32) ==
          Approx(0.3 / (1 + 0.2 * e)).epsilon(1e-6));
  }
  CHECK_THROWS_WITH(optim::interval_decay({.interval = 0}),
                    ContainsSubstring("interval_decay: requires a finite interval > 0, got 0"));
}

TEST_CASE("schedules keep their digits in float32") {
  const auto schedule = optim::exponential_decay({.initial = 1, .base = 0.9999});
  CHECK(rate_in(schedule, 50'000, float32) == Approx(std::pow(0.9999, 50'000)).epsilon(1e-7));
  // Beyond 2^24 epochs too.
  CHECK(rate_in(optim::inverse_time_decay({.initial = 1, .decay = 1}), (1 << 24) + 2, float32) ==
        Approx(1.0 / ((1 << 24) + 3)).epsilon(1e-7));
}

TEST_CASE("rates: a number, a value, a schedule") {
  OneParameter net;
  const Array g({1.0, 2.0, 4.0});
  const auto moved = [&](const Updates& updates, const std::vector<Feed>& feeds, std::int64_t epoch) {
    State state(net.graph);
    state.set_epoch(epoch);
    Program train(state, {.updates = updates});
    train.run(feeds);
    return Array({1.0, -2.0, 0.5}) - state[net.w];
  };
  using optim::GradientDescent;
  CHECK(allclose(moved(GradientDescent{.learning_rate = 2}.minimize(net.loss), {{net.g, g}}, 0), g * 2.0));
  const auto fed = net.graph.input("rate", {});
  CHECK(allclose(moved(GradientDescent{.learning_rate = fed}.minimize(net.loss), {{net.g, g}, {fed, 0.25}}, 0),
                 g * 0.25));
  const auto schedule = optim::inverse_time_decay({.initial = 0.5, .decay = 1});
  CHECK(allclose(moved(GradientDescent{.learning_rate = schedule}.minimize(net.loss), {{net.g, g}}, 3), g * 0.125));
  // A schedule of one's own, of the step.
  const optim::Schedule own = [](Graph graph) { return 1.0 / (cast(graph.step(), graph.dtype()) + 2.0); };
  CHECK(allclose(moved(GradientDescent{.learning_rate = own}.minimize(net.loss), {{net.g, g}}, 3), g * 0.5));
  // A rate in another dtype takes the parameter's.
  const auto single = net.graph.input("single", {}, float32);
  CHECK(allclose(moved(GradientDescent{.learning_rate = single}.minimize(net.loss), {{net.g, g}, {single, 0.25}}, 0),
                 g * 0.25));
}

TEST_CASE("a rate that is fed may change from run to run") {
  OneParameter net;
  const auto rate = net.graph.input("rate", {});
  State state(net.graph);
  Program train(state, {.updates = optim::GradientDescent{.learning_rate = rate}.minimize(net.loss)});
  const Array g({1.0, 0.0, 0.0});
  double w = 1;
  for (const double r : {0.5, 0.25, 0.0, -1.0}) {
    train.run({{net.g, g}, {rate, r}});
    w -= r;
    CHECK(state[net.w][0] == w);
  }
}

// ---- what is updated

TEST_CASE("minimize updates the parameters below the loss, or those that are named") {
  Graph graph;
  const auto a = graph.parameter("a", Array({1.0, 2.0}));
  const auto b = graph.parameter("b", Array({3.0, 4.0}));
  const auto unused = graph.parameter("unused", Array({5.0}));
  const auto fixed = graph.variable("fixed", Array({6.0, 7.0}));
  const auto loss = sum(a * b * fixed);
  const auto of = [](const Updates& updates) {
    Values out;
    for (const Update& update : updates) out.push_back(update.variable);
    return out;
  };
  CHECK(of(optim::GradientDescent{}.minimize(loss)) == Values{a, b});
  CHECK(of(optim::GradientDescent{}.minimize(loss, {b})) == Values{b});
  CHECK(of(optim::GradientDescent{}.minimize(loss, {fixed})) == Values{fixed});
  // Of one that the loss does not depend on the gradient is zero.
  State state(graph);
  Program train(state, {.updates = optim::GradientDescent{.learning_rate = 1}.minimize(loss, {a, unused})});
  train.run();
  CHECK(state[unused].item() == 5);
  CHECK(state[a].identical(Array({1.0 - 18, 2.0 - 28})));
  CHECK(state[b].identical(Array({3.0, 4.0})));
}

TEST_CASE("all updates of a step see the numbers from before it") {
  // d(ab)/da = b and d(ab)/db = a: with the new a in b's gradient the numbers would be others.
  Graph graph;
  const auto a = graph.parameter("a", Array(2.0));
  const auto b = graph.parameter("b", Array(3.0));
  State state(graph);
  Program train(state, {.outputs = {a * b}, .updates = optim::GradientDescent{.learning_rate = 0.1}.minimize(a * b)});
  CHECK(train.run().scalar() == 6);
  CHECK(state[a].item() == Approx(1.7).epsilon(1e-15));
  CHECK(state[b].item() == Approx(2.8).epsilon(1e-15));
}

TEST_CASE("two optimizers of one kind have slots of their own") {
  OneParameter net;
  const Updates first = optim::Adam{.learning_rate = 0.1}.minimize(net.loss);
  const Updates second = optim::Adam{.learning_rate = 0.1}.minimize(net.loss);
  State state(net.graph);
  Program one(state, {.updates = first});
  Program two(state, {.updates = second});
  const Array g({1.0, 1.0, 1.0});
  one.run({{net.g, g}});
  one.run({{net.g, g}});
  CHECK(state["adam/t"].item() == 2);
  CHECK(state["adam/t_2"].item() == 0);
  two.run({{net.g, g}});
  CHECK(state["adam/t_2"].item() == 1);
  CHECK(state["w/adam/v_2"][0] == Approx(0.1).epsilon(1e-15));
  CHECK(state["w/adam/v"][0] == Approx(0.19).epsilon(1e-15));
}

TEST_CASE("of two optimizers over one graph neither moves what is the other's") {
  // A generator and a discriminator: the loss of each depends on the parameters of both.
  Graph graph({.dtype = float32, .seed = 3});
  const auto real = random_normal(graph, {16, 2}, 2);
  const auto layer = [&](const char* name, std::int64_t in, std::int64_t out) {
    return graph.parameter(name, normal({in, out}));
  };
  const Values generator{layer("g1", 4, 8), layer("g2", 8, 2)};
  const Values discriminator{layer("d1", 2, 8), layer("d2", 8, 1)};
  const auto network = [](Value x, const Values& weights) { return matmul(tanh(matmul(x, weights[0])), weights[1]); };
  const auto believed = network(network(random_normal(graph, {16, 4}), generator), discriminator);
  const auto d_loss = mean(softplus(-network(real, discriminator)) + softplus(believed));
  const auto g_loss = mean(softplus(-believed));
  CHECK(optim::Adam{}.minimize(d_loss).size() > optim::Adam{}.minimize(d_loss, discriminator).size());

  const optim::Adam adam{.learning_rate = 0.01};
  State state(graph);
  Program teach(state, {.outputs = {d_loss}, .updates = adam.minimize(d_loss, discriminator)});
  Program deceive(state, {.outputs = {g_loss}, .updates = adam.minimize(g_loss, generator)});
  const auto numbers = [&](const Values& parameters) {
    std::vector<Array> out;
    for (const Value parameter : parameters) out.push_back(state.snapshot(parameter));
    return out;
  };
  for (int step = 0; step < 5; ++step) {
    for (const bool first : {true, false}) {
      const Values& moved = first ? discriminator : generator;
      const Values& kept = first ? generator : discriminator;
      const auto before = numbers(kept);
      const auto old = numbers(moved);
      (first ? teach : deceive).run();
      for (std::size_t i = 0; i < 2; ++i) {
        CHECK(state[kept[i]].identical(before[i]));
        CHECK_FALSE(state[moved[i]].identical(old[i]));
      }
    }
  }
}

TEST_CASE("apply takes gradients that were made elsewhere") {
  OneParameter net;
  const auto clipped = maximum(minimum(gradients(net.loss, {net.w})[0], 1.0), -1.0);
  State state(net.graph);
  Program train(state, {.updates = optim::GradientDescent{.learning_rate = 0.5}.apply({net.w}, {clipped})});
  train.run({{net.g, Array({10.0, -0.5, -10.0})}});
  CHECK(allclose(state[net.w], Array({0.5, -1.75, 1.0}), 1e-15));
}

// ---- errors

TEST_CASE("wrong uses of an optimizer are clear errors at the user's line, and leave the graph alone") {
  OneParameter net;
  Graph other;
  const auto stranger = other.parameter("v", Array({1.0, 2.0, 3.0}));
  const auto foreign_rate = other.input("rate", {});
  const auto vector_rate = net.graph.input("rates", {3});
  const auto data_only = sum(net.g);
  const auto vector = net.g * net.w;
  const auto scalar = sum(net.w);
  const auto single = cast(net.g, float32);
  const auto require = [&](const std::function<void()>& f, int line, const std::string& message) {
    INFO(message);
    const std::size_t parameters = net.graph.data()->leaves->variables.size();
    const std::size_t nodes = net.graph.size();
    const std::string before = net.graph.to_string();
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
    CHECK(net.graph.data()->leaves->variables.size() == parameters);
    CHECK(net.graph.size() == nodes);
    CHECK(net.graph.to_string() == before);
  };
  using optim::Adam;
  using optim::GradientDescent;
  using optim::Momentum;
  using optim::RMSProp;
  require([&] { static_cast<void>(Adam{}.minimize(data_only)); }, __LINE__,
          "adam: requires a loss that depends on a parameter, got one that does not");
  require([&] { static_cast<void>(Momentum{}.minimize(Value{})); }, __LINE__,
          "momentum: requires a loss, got an empty Value");
  require([&] { static_cast<void>(Adam{}.minimize(vector)); }, __LINE__, "gradients: requires a scalar y");
  require([&] { static_cast<void>(Adam{}.minimize(net.loss, {stranger})); }, __LINE__,
          "gradients: requires values of one graph, got v of another");
  require([&] { static_cast<void>(RMSProp{}.minimize(net.loss, Values{})); }, __LINE__,
          "rmsprop: requires at least one parameter, got none");
  require([&] { static_cast<void>(RMSProp{}.minimize(net.loss, {})); }, __LINE__,
          "rmsprop: requires at least one parameter, got none");
  require([&] { static_cast<void>(RMSProp{}.apply({}, {})); }, __LINE__,
          "rmsprop: requires at least one parameter, got none");
  const Values doubled = {net.w, net.w};
  require([&] { static_cast<void>(RMSProp{}.minimize(net.loss, doubled)); }, __LINE__,
          "rmsprop: requires each parameter once, got w twice");
  const Values itself = {net.w, net.loss};
  require([&] { static_cast<void>(Adam{}.minimize(net.loss, itself)); }, __LINE__,
          "adam: requires parameters or variables, got sum at test_optimizers.cpp:");
  require([&] { static_cast<void>(Adam{}.minimize(data_only, {net.w})); }, __LINE__,
          "adam: requires a loss that depends on a parameter, got one that does not");
  require([&] { static_cast<void>(RMSProp{}.minimize(net.loss, {net.g})); }, __LINE__,
          "rmsprop: requires parameters or variables, got g");
  require([&] { static_cast<void>(Adam{}.apply({net.w}, {})); }, __LINE__,
          "adam: requires a gradient for each parameter, got 0 gradients for 1 parameters");
  require([&] { static_cast<void>(Adam{}.apply({net.w}, {scalar})); }, __LINE__,
          "adam: requires a gradient of shape {3} for 'w', got {}");
  require([&] { static_cast<void>(Adam{}.apply({net.w}, {Value{}})); }, __LINE__,
          "adam: requires values, got an empty Value");
  require([&] { static_cast<void>(Adam{}.apply({net.w}, {stranger})); }, __LINE__,
          "adam: requires values of one graph, got v of another");
  const Values mixed = {net.w, stranger};
  const Values twice = {net.g, net.g};
  require([&] { static_cast<void>(Adam{}.apply(mixed, twice)); }, __LINE__,
          "adam: requires values of one graph, got v of another");
  require([&] { static_cast<void>(Adam{}.apply({net.w}, {single})); }, __LINE__,
          "adam: requires a gradient of dtype float64 for 'w', got float32");
  require([&] { static_cast<void>(Adam{.learning_rate = foreign_rate}.minimize(net.loss)); }, __LINE__,
          "adam: requires a learning_rate of the loss's graph, got rate of another");
  require([&] { static_cast<void>(Adam{.learning_rate = vector_rate}.minimize(net.loss)); }, __LINE__,
          "adam: requires a learning_rate that is a scalar, got float64 {3}");
  require([&] { static_cast<void>(Momentum{.learning_rate = foreign_rate}.minimize(net.loss)); }, __LINE__,
          "momentum: requires a learning_rate of the loss's graph, got rate of another");
  // A schedule that fails when nodes are there already.
  const optim::Schedule failing = [&](Graph graph) { return exp(cast(graph.epoch(), float64)) * vector_rate; };
  require([&] { static_cast<void>(Adam{.learning_rate = failing}.minimize(net.loss)); }, __LINE__,
          "adam: requires a learning_rate that is a scalar, got float64 {3}");
}

TEST_CASE("options that are no numbers of their range are refused by optimizer and name") {
  OneParameter net;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinite = std::numeric_limits<double>::infinity();
  const auto refuse = [&](const auto& optimizer, const std::string& message) {
    const std::size_t nodes = net.graph.size();
    const auto slopes = gradients(net.loss, {net.w});
    const std::size_t with_slopes = net.graph.size();
    const int line = __LINE__ + 1;
    for (const auto& error : {error_of([&] { static_cast<void>(optimizer.minimize(net.loss)); }),
                              error_of([&] { static_cast<void>(optimizer.minimize(net.loss, {net.w})); }),
                              error_of([&] { static_cast<void>(optimizer.apply({net.w}, slopes)); })}) {
      CHECK_THAT(error.what(), ContainsSubstring(message));
      CHECK(error.location().line >= line);
      CHECK(error.location().line <= line + 2);
    }
    CHECK(net.graph.size() == with_slopes);
    CHECK(with_slopes > nodes);
  };
  using namespace optim;
  for (const double wrong : {nan, -0.1, infinite, -infinite}) {
    const std::string got = fmt::format(", got {}", wrong);
    const std::string rate = ": requires a learning_rate that is finite and not negative" + got;
    refuse(GradientDescent{.learning_rate = wrong}, "gradient_descent" + rate);
    refuse(Momentum{.learning_rate = wrong}, "momentum" + rate);
    refuse(HeavyBall{.learning_rate = wrong}, "heavy_ball" + rate);
    refuse(RMSProp{.learning_rate = wrong}, "rmsprop" + rate);
    refuse(Adam{.learning_rate = wrong}, "adam" + rate);
    refuse(Adam{.learning_rate = net.graph.constant(wrong, float64)}, "adam" + rate);
    refuse(RMSProp{.epsilon = wrong}, "rmsprop: requires an epsilon that is finite and not negative" + got);
    refuse(Adam{.epsilon = wrong}, "adam: requires an epsilon that is finite and not negative" + got);
  }
  for (const double wrong : {nan, -0.1, 1.0, 1.5, infinite}) {
    const std::string range = fmt::format(" that is 0 or more and below 1, got {}", wrong);
    refuse(Momentum{.beta = wrong}, "momentum: requires a beta" + range);
    refuse(HeavyBall{.momentum = wrong}, "heavy_ball: requires a momentum" + range);
    refuse(RMSProp{.beta = wrong}, "rmsprop: requires a beta" + range);
    refuse(Adam{.beta1 = wrong}, "adam: requires a beta1" + range);
    refuse(Adam{.beta2 = wrong}, "adam: requires a beta2" + range);
  }
  refuse(GradientDescent{.learning_rate = Value()},
         "gradient_descent: requires a learning_rate that is a number, value or schedule, got an empty Value");
  refuse(GradientDescent{.learning_rate = Schedule()},
         "gradient_descent: requires a learning_rate that is a number, value or schedule, got an empty schedule");
  refuse(GradientDescent{.learning_rate = Schedule([](Graph) { return Value{}; })},
         "gradient_descent: requires a learning_rate that is a number, value or schedule, got an empty Value");
  // What is at the edge of its range is taken.
  CHECK(Adam{.learning_rate = 0, .beta1 = 0, .beta2 = 0, .epsilon = 0}.minimize(net.loss).size() == 4);
}

TEST_CASE("schedules refuse options that are no numbers of their range") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinite = std::numeric_limits<double>::infinity();
  const auto refuse = [](const std::function<void()>& f, int line, const std::string& message) {
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
  };
  using namespace optim;
  for (const double wrong : {nan, infinite, -1.0}) {
    const std::string got = fmt::format(", got {}", wrong);
    refuse([&] { inverse_time_decay({.initial = wrong}); }, __LINE__,
           "inverse_time_decay: requires a finite initial >= 0" + got);
    refuse([&] { inverse_time_decay({.decay = wrong}); }, __LINE__,
           "inverse_time_decay: requires a finite decay >= 0" + got);
    refuse([&] { interval_decay({.initial = wrong}); }, __LINE__,
           "interval_decay: requires a finite initial >= 0" + got);
    refuse([&] { interval_decay({.decay = wrong}); }, __LINE__, "interval_decay: requires a finite decay >= 0" + got);
    refuse([&] { interval_decay({.interval = wrong}); }, __LINE__,
           "interval_decay: requires a finite interval > 0" + got);
    refuse([&] { exponential_decay({.initial = wrong}); }, __LINE__,
           "exponential_decay: requires a finite initial >= 0" + got);
    refuse([&] { exponential_decay({.base = wrong}); }, __LINE__,
           "exponential_decay: requires a finite base > 0" + got);
    refuse([&] { inverse_root_decay({.initial = wrong}); }, __LINE__,
           "inverse_root_decay: requires a finite initial >= 0" + got);
    refuse([&] { inverse_root_decay({.k = wrong}); }, __LINE__, "inverse_root_decay: requires a finite k >= 0" + got);
  }
  refuse([&] { exponential_decay({.base = 0}); }, __LINE__, "exponential_decay: requires a finite base > 0, got 0");
}

TEST_CASE("a loss that no parameter can lower is refused by the op that is in the way") {
  Graph graph;
  const auto x = graph.input("x", {3});
  const auto w = graph.parameter("w", Array({1.0, 2.0, 3.0}));
  const auto v = graph.parameter("v", Array({1.0, 2.0, 3.0}));
  const int line = __LINE__ + 1;
  const auto steps = mean(cast(w > 0.0, float64));
  const auto chosen = sum(cast(argmax(v * w, 0), float64) * x);
  const auto rounded = mean(square(floor(w)));
  const auto mixed = steps + sum(v);
  const auto frozen = sum(stop_gradient(w));
  const auto refuse = [&](const std::function<void()>& f, int at, const std::string& op, int made, const char* why) {
    const std::string before = graph.to_string();
    const std::size_t nodes = graph.size();
    const Error error = error_of(f);
    CHECK_THAT(error.what(),
               ContainsSubstring(
                   fmt::format("adam: requires a loss with a derivative, got one that depends on w only through {} at "
                               "test_optimizers.cpp:{}, which {}",
                               op, made, why)));
    CHECK(error.location().line == at);
    CHECK(graph.size() == nodes);
    CHECK(graph.to_string() == before);
  };
  const optim::Adam adam{.learning_rate = 0.5};
  refuse([&] { static_cast<void>(adam.minimize(steps)); }, __LINE__, "greater", line, "has no derivative");
  refuse([&] { static_cast<void>(adam.minimize(steps, {w})); }, __LINE__, "greater", line, "has no derivative");
  refuse([&] { static_cast<void>(adam.minimize(chosen)); }, __LINE__, "argmax", line + 1, "has no derivative");
  refuse([&] { static_cast<void>(adam.minimize(rounded)); }, __LINE__, "floor", line + 2, "is flat");
  // One parameter that moves is enough; of the others the gradient is zero.
  State state(graph);
  Program train(state, {.updates = optim::GradientDescent{.learning_rate = 0.5}.minimize(mixed)});
  train.run();
  CHECK(state[w].identical(Array({1.0, 2.0, 3.0})));
  CHECK(state[v].identical(Array({0.5, 1.5, 2.5})));
  // What is stopped is meant to be.
  CHECK(adam.minimize(frozen).size() == 4);
}

// ---- groups

TEST_CASE("weight decay goes beside the gradient, whatever the optimizer keeps of it") {
  OneParameter net;
  const double rate = 0.1;
  const double decay = 0.3;
  SECTION("gradient descent") {
    compare(net, optim::GradientDescent{.learning_rate = rate, .weight_decay = decay}.minimize(net.loss),
            [=](int, double& w, double g, double&, double&) { w -= rate * (g + decay * w); });
  }
  SECTION("momentum") {
    compare(net, optim::Momentum{.learning_rate = rate, .beta = 0.8, .weight_decay = decay}.minimize(net.loss),
            [=](int, double& w, double g, double& v, double&) {
              v = 0.8 * v + 0.2 * g;
              w -= rate * (v + decay * w);
            });
  }
  SECTION("heavy ball") {
    compare(net, optim::HeavyBall{.learning_rate = rate, .momentum = 0.8, .weight_decay = decay}.minimize(net.loss),
            [=](int, double& w, double g, double& v, double&) {
              v = 0.8 * v + g;
              w -= rate * (v + decay * w);
            });
  }
  SECTION("RMSProp") {
    compare(
        net, optim::RMSProp{.learning_rate = rate, .beta = 0.8, .weight_decay = decay}.minimize(net.loss),
        [=](int, double& w, double g, double& s, double&) {
          s = 0.8 * s + 0.2 * g * g;
          w -= rate * (g / (std::sqrt(s) + 1e-8) + decay * w);
        },
        1e-13);
  }
  SECTION("AdamW") {
    // Loshchilov and Hutter's algorithm 2, with the schedule's rate on both.
    compare(
        net, optim::Adam{.learning_rate = rate, .weight_decay = decay}.minimize(net.loss),
        [=](int t, double& w, double g, double& v, double& s) {
          v = 0.9 * v + 0.1 * g;
          s = 0.999 * s + 0.001 * g * g;
          const double step = v / (1 - std::pow(0.9, t)) / (std::sqrt(s / (1 - std::pow(0.999, t))) + 1e-8);
          w -= rate * (step + decay * w);
        },
        1e-12);
  }
}

TEST_CASE("groups of parameters have rates and decays of their own") {
  Graph graph;
  const Values all = {graph.parameter("a/weight", ones({})), graph.parameter("a/bias", ones({})),
                      graph.parameter("b/weight", ones({})), graph.parameter("b/bias", ones({})),
                      graph.parameter("b/gamma", ones({}))};
  Value loss = 0.0 * all[0];
  for (const Value p : all) loss = loss + p;  // every gradient is 1
  const optim::GradientDescent optimizer{
      .learning_rate = 0.5,
      .weight_decay = 0.25,
      .groups = {{{"*/bias", "*/gamma"}, {.weight_decay = 0}}, {"b/*", {.rate = 0.5}}, {"*", {}}}};
  State state(graph);
  Program train(state, {.updates = optimizer.minimize(loss)});
  train.run({});
  // 1 - 0.5 (1 + 0.25); 1 - 0.5; 1 - 0.5 0.5 (1 + 0.25); the first group that matches counts, so b/bias is of no other.
  const std::vector<double> expected = {0.375, 0.5, 0.6875, 0.5, 0.5};
  for (std::size_t i = 0; i < all.size(); ++i) CHECK(state[all[i]][0] == expected[i]);

  // A rate of 0 freezes.
  State frozen(graph);
  Program rest(frozen, {.updates = optim::Adam{.groups = {{"a/*", {.rate = 0, .weight_decay = 1}}}}.minimize(loss)});
  for (int i = 0; i < 3; ++i) rest.run({});
  CHECK(frozen[all[0]][0] == 1);
  CHECK(frozen[all[1]][0] == 1);
  CHECK(frozen[all[2]][0] < 1);
}

TEST_CASE("groups and decays that are refused") {
  Graph graph;
  const auto w = graph.parameter("body/weight", ones({2}));
  const auto loss = sum(w);
  const std::string before = graph.to_string();
  const auto refuse = [&](const optim::GradientDescent& optimizer, Location at, const std::string& message) {
    const Error error = error_of([&] { static_cast<void>(optimizer.minimize(loss, at)); });
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == at.line);
    CHECK(graph.to_string() == before);
  };
  refuse({.weight_decay = -1}, Location::here(),
         "gradient_descent: requires a weight_decay that is finite and not negative, got -1");
  refuse({.weight_decay = std::nan("")}, Location::here(), "got nan");
  refuse({.groups = {{"*", {.rate = -1}}}}, Location::here(),
         "gradient_descent: requires a group's rate that is finite and not negative, got -1");
  refuse({.groups = {{"*", {.weight_decay = -1}}}}, Location::here(), "requires a weight_decay that is finite");
  refuse({.groups = {{"bdy/*", {}}}}, Location::here(),
         "gradient_descent: requires a pattern that a parameter's name matches, got 'bdy/*'; the nearest: body/weight");
}
