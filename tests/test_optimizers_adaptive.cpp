// The optimizers beyond the course's, and schedules of steps, against plain loops over their published formulas.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numbers>
#include <numeric>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <fmt/core.h>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;

namespace {

using Numbers = std::vector<double>;

// The gradients that step t, from 1, gets: of both signs, with a zero and sizes that differ by thousands.
Numbers gradients_at(int t, std::size_t n) {
  Numbers g(n);
  for (std::size_t i = 0; i < n; ++i)
    g[i] = std::sin(1.3 * t + 2.1 * static_cast<double>(i)) * (i % 3 == 1 ? 1e-3 : i % 3 == 2 ? 5 : 1);
  if (t % 7 == 0) g[0] = 0;
  return g;
}

Array array(const Numbers& numbers, const Dims& shape, DType dtype) {
  Array out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, numbers[static_cast<std::size_t>(i)]);
  return out;
}

// A parameter w and the loss sum(g w), whose gradient is the input g.
struct Net {
  Net(const Dims& dims, DType dtype) : graph({.dtype = dtype}), shape(dims) {
    const Array ones_like(dtype, dims);
    for (std::int64_t i = 0; i < ones_like.size(); ++i)
      begin.push_back(0.5 + 0.25 * static_cast<double>(i % 5) - i % 2);
    w = graph.parameter("w", array(begin, dims, dtype));
    g = graph.input("g", w.shape());
    loss = sum(g * w);
  }
  Graph graph;
  Dims shape;
  Numbers begin;
  Value w;
  Value g;
  Value loss;
};

// Runs 100 updates, and `rule` on plain numbers: w after 1, 2 and 100 of them.
using Rule = std::function<void(int t, Numbers& w, const Numbers& g)>;
void compare(Net& net, const Updates& updates, const Rule& rule) {
  const DType dtype = net.graph.dtype();
  State state(net.graph);
  Program train(state, {.updates = updates});
  Numbers w = net.begin;
  for (int t = 1; t <= 100; ++t) {
    const Array given = array(gradients_at(t, w.size()), net.shape, dtype);
    Numbers g(w.size());
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = given[static_cast<std::int64_t>(i)];
    train.run({{net.g, given}});
    rule(t, w, g);
    if (t != 1 && t != 2 && t != 100) continue;
    for (std::size_t i = 0; i < w.size(); ++i) {
      INFO("element " << i << " after update " << t);
      const double tolerance = (dtype == float32 ? 2e-6 : 1e-13) * (t > 2 ? 30 : 1);
      CHECK(state[net.w][static_cast<std::int64_t>(i)] == Approx(w[i]).epsilon(tolerance).margin(tolerance));
    }
  }
}

double norm(const Numbers& x) { return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0)); }

// Element by element: rule(t, w, g, slots), the slots of an element beginning at 0.
template <class F>
Rule each(F rule) {
  std::vector<std::vector<double>> slots;
  return [=](int t, Numbers& w, const Numbers& g) mutable {
    slots.resize(w.size(), std::vector<double>(4, 0.0));
    for (std::size_t i = 0; i < w.size(); ++i) rule(t, w[i], g[i], slots[i]);
  };
}

}  // namespace

TEMPLATE_TEST_CASE("each adaptive optimizer against a plain loop", "", float, double) {
  Net net({4}, dtype_of<TestType>());
  const auto run = [&](const Updates& updates, const Rule& rule) { compare(net, updates, rule); };
  using Slots = std::vector<double>;
  SECTION("heavy ball, dampened") {
    run(optim::HeavyBall{.learning_rate = 0.1, .momentum = 0.8, .dampening = 0.3}.minimize(net.loss),
        each([](int, double& w, double g, Slots& s) {
          s[0] = 0.8 * s[0] + 0.7 * g;
          w -= 0.1 * s[0];
        }));
  }
  SECTION("heavy ball of Nesterov") {
    run(optim::HeavyBall{.learning_rate = 0.1, .momentum = 0.8, .nesterov = true}.minimize(net.loss),
        each([](int, double& w, double g, Slots& s) {
          s[0] = 0.8 * s[0] + g;
          w -= 0.1 * (g + 0.8 * s[0]);
        }));
  }
  SECTION("coupled decay goes into the averages") {
    run(optim::HeavyBall{.learning_rate = 0.1, .momentum = 0.8, .weight_decay = 0.05, .coupled_weight_decay = true}
            .minimize(net.loss),
        each([](int, double& w, double g, Slots& s) {
          s[0] = 0.8 * s[0] + (g + 0.05 * w);
          w -= 0.1 * s[0];
        }));
  }
  SECTION("RMSProp, centered, with momentum") {
    run(optim::RMSProp{.learning_rate = 0.01, .beta = 0.9, .epsilon = 1e-2, .centered = true, .momentum = 0.7}.minimize(
            net.loss),
        each([](int, double& w, double g, Slots& s) {
          s[0] = 0.9 * s[0] + 0.1 * g * g;
          s[1] = 0.9 * s[1] + 0.1 * g;
          s[2] = 0.7 * s[2] + g / (std::sqrt(s[0] - s[1] * s[1]) + 1e-2);
          w -= 0.01 * s[2];
        }));
  }
  const auto adam = [](bool amsgrad, double decay) {
    return each([=](int t, double& w, double g, Slots& s) {
      s[0] = 0.8 * s[0] + 0.2 * g;
      s[1] = 0.9 * s[1] + 0.1 * g * g;
      s[2] = std::max(s[2], s[1]);
      const double size = (amsgrad ? s[2] : s[1]) / (1 - std::pow(0.9, t));
      w = w - 0.1 * decay * w - 0.1 * s[0] / (1 - std::pow(0.8, t)) / (std::sqrt(size) + 1e-3);
    });
  };
  SECTION("AMSGrad") {
    run(optim::Adam{.learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3, .amsgrad = true}.minimize(
            net.loss),
        adam(true, 0));
  }
  SECTION("AdamW") {
    run(optim::AdamW{.learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3}.minimize(net.loss),
        adam(false, 0.01));
  }
  SECTION("Adagrad") {
    run(optim::Adagrad{.learning_rate = 0.1, .initial = 0.5, .epsilon = 1e-3}.minimize(net.loss),
        each([](int t, double& w, double g, Slots& s) {
          if (t == 1) s[0] = 0.5;
          s[0] += g * g;
          w -= 0.1 * g / (std::sqrt(s[0]) + 1e-3);
        }));
  }
  SECTION("Adadelta") {
    run(optim::Adadelta{.learning_rate = 0.5, .beta = 0.8, .epsilon = 1e-3}.minimize(net.loss),
        each([](int, double& w, double g, Slots& s) {
          s[0] = 0.8 * s[0] + 0.2 * g * g;
          const double d = g * std::sqrt(s[1] + 1e-3) / std::sqrt(s[0] + 1e-3);
          s[1] = 0.8 * s[1] + 0.2 * d * d;
          w -= 0.5 * d;
        }));
  }
  SECTION("Adamax") {
    run(optim::Adamax{.learning_rate = 0.05, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3}.minimize(net.loss),
        each([](int t, double& w, double g, Slots& s) {
          s[0] = 0.8 * s[0] + 0.2 * g;
          s[1] = std::max(0.9 * s[1], std::abs(g) + 1e-3);
          w -= 0.05 / (1 - std::pow(0.8, t)) * s[0] / s[1];
        }));
  }
  SECTION("NAdam") {
    run(optim::NAdam{.learning_rate = 0.05, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3}.minimize(net.loss),
        each([](int t, double& w, double g, Slots& s) {
          const auto momentum = [](int when) { return 0.8 * (1 - 0.5 * std::pow(0.96, 0.004 * when)); };
          if (t == 1) s[2] = 1;
          s[2] *= momentum(t);
          s[0] = 0.8 * s[0] + 0.2 * g;
          s[1] = 0.9 * s[1] + 0.1 * g * g;
          const double way = (1 - momentum(t)) * g / (1 - s[2]) + momentum(t + 1) * s[0] / (1 - s[2] * momentum(t + 1));
          w -= 0.05 * way / (std::sqrt(s[1] / (1 - std::pow(0.9, t))) + 1e-3);
        }));
  }
  SECTION("RAdam") {
    // With 0.99 the variance is known from the sixth step on.
    run(optim::RAdam{.learning_rate = 0.05, .beta1 = 0.8, .beta2 = 0.99, .epsilon = 1e-3}.minimize(net.loss),
        each([](int t, double& w, double g, Slots& s) {
          s[0] = 0.8 * s[0] + 0.2 * g;
          s[1] = 0.99 * s[1] + 0.01 * g * g;
          const double v = s[0] / (1 - std::pow(0.8, t));
          const double power = std::pow(0.99, t);
          const double p = 2 / 0.01 - 1;
          const double p_t = p - 2 * t * power / (1 - power);
          if (p_t > 5) {
            const double r = std::sqrt((p_t - 4) * (p_t - 2) * p / ((p - 4) * (p - 2) * p_t));
            w -= 0.05 * r * v / (std::sqrt(s[1] / (1 - power)) + 1e-3);
          } else {
            w -= 0.05 * v;
          }
        }));
  }
  SECTION("Lion") {
    run(optim::Lion{.learning_rate = 0.01, .weight_decay = 0.1}.minimize(net.loss),
        each([](int, double& w, double g, Slots& s) {
          const double c = 0.9 * s[0] + 0.1 * g;
          w = w - 0.01 * 0.1 * w - 0.01 * (c > 0 ? 1 : c < 0 ? -1 : 0);
          s[0] = 0.99 * s[0] + 0.01 * g;
        }));
  }
}

TEMPLATE_TEST_CASE("each optimizer of whole parameters against a plain loop", "", float, double) {
  const DType dtype = dtype_of<TestType>();
  SECTION("LARS") {
    Net net({4}, dtype);
    compare(net, optim::LARS{.learning_rate = 0.5, .trust = 0.02, .weight_decay = 0.1}.minimize(net.loss),
            [v = Numbers(4, 0.0)](int, Numbers& w, const Numbers& g) mutable {
              const double q = 0.02 * norm(w) / (norm(g) + 0.1 * norm(w) + 1e-8);
              for (std::size_t i = 0; i < w.size(); ++i) {
                v[i] = 0.9 * v[i] + 0.5 * q * (g[i] + 0.1 * w[i]);
                w[i] -= v[i];
              }
            });
  }
  SECTION("LAMB") {
    Net net({4}, dtype);
    compare(net, optim::LAMB{.learning_rate = 0.01, .epsilon = 1e-3, .weight_decay = 0.1}.minimize(net.loss),
            [v = Numbers(4, 0.0), s = Numbers(4, 0.0)](int t, Numbers& w, const Numbers& g) mutable {
              Numbers d(4);
              for (std::size_t i = 0; i < 4; ++i) {
                v[i] = 0.9 * v[i] + 0.1 * g[i];
                s[i] = 0.999 * s[i] + 0.001 * g[i] * g[i];
                d[i] = v[i] / (1 - std::pow(0.9, t)) / (std::sqrt(s[i] / (1 - std::pow(0.999, t))) + 1e-3) + 0.1 * w[i];
              }
              const double q = norm(w) / norm(d);
              for (std::size_t i = 0; i < 4; ++i) w[i] -= 0.01 * q * d[i];
            });
  }
  SECTION("Adafactor of a matrix") {
    Net net({2, 3}, dtype);
    compare(net, optim::Adafactor{.learning_rate = 0.05}.minimize(net.loss),
            [r = Numbers(2, 0.0), c = Numbers(3, 0.0)](int t, Numbers& w, const Numbers& g) mutable {
              const double fresh = std::pow(t, -0.8);
              Numbers row(2, 0.0);
              Numbers column(3, 0.0);
              for (std::size_t i = 0; i < 2; ++i)
                for (std::size_t j = 0; j < 3; ++j) {
                  row[i] += (g[3 * i + j] * g[3 * i + j] + 1e-30) / 3;
                  column[j] += (g[3 * i + j] * g[3 * i + j] + 1e-30) / 2;
                }
              for (std::size_t i = 0; i < 2; ++i) r[i] += fresh * (row[i] - r[i]);
              for (std::size_t j = 0; j < 3; ++j) c[j] += fresh * (column[j] - c[j]);
              Numbers u(6);
              for (std::size_t i = 0; i < 2; ++i)
                for (std::size_t j = 0; j < 3; ++j)
                  u[3 * i + j] = g[3 * i + j] / std::sqrt(r[i] * c[j] / ((r[0] + r[1]) / 2));
              const double rate = std::min(0.05, 1 / std::sqrt(t)) * std::max(1e-3, norm(w) / std::sqrt(6));
              const double clip = std::max(1.0, norm(u) / std::sqrt(6));
              for (std::size_t i = 0; i < 6; ++i) w[i] -= rate * u[i] / clip;
            });
  }
  SECTION("Adafactor of a vector") {
    Net net({4}, dtype);
    compare(net, optim::Adafactor{.learning_rate = 0.05, .relative_step = false}.minimize(net.loss),
            [s = Numbers(4, 0.0)](int t, Numbers& w, const Numbers& g) mutable {
              Numbers u(4);
              for (std::size_t i = 0; i < 4; ++i) {
                s[i] += std::pow(t, -0.8) * (g[i] * g[i] + 1e-30 - s[i]);
                u[i] = g[i] / std::sqrt(s[i]);
              }
              const double rate = 0.05 * std::max(1e-3, norm(w) / 2) / std::max(1.0, norm(u) / 2);
              for (std::size_t i = 0; i < 4; ++i) w[i] -= rate * u[i];
            });
  }
  for (const bool tall : {false, true}) {
    DYNAMIC_SECTION("Muon of a " << (tall ? "tall" : "wide") << " matrix") {
      const std::int64_t rows = tall ? 3 : 2;
      const std::int64_t columns = tall ? 2 : 3;
      Net net({rows, columns}, dtype);
      compare(net, optim::Muon{.learning_rate = 0.02, .weight_decay = 0.1}.minimize(net.loss),
              [=, v = Numbers(6, 0.0)](int, Numbers& w, const Numbers& g) mutable {
                using Matrix = std::vector<Numbers>;
                const auto product = [](const Matrix& a, const Matrix& b) {
                  Matrix out(a.size(), Numbers(b[0].size(), 0.0));
                  for (std::size_t i = 0; i < a.size(); ++i)
                    for (std::size_t j = 0; j < b[0].size(); ++j)
                      for (std::size_t k = 0; k < b.size(); ++k) out[i][j] += a[i][k] * b[k][j];
                  return out;
                };
                Numbers u(6);
                for (std::size_t i = 0; i < 6; ++i) {
                  v[i] = 0.95 * v[i] + g[i];
                  u[i] = g[i] + 0.95 * v[i];
                }
                const double length = norm(u) + 1e-7;
                const auto nr = static_cast<std::size_t>(rows);
                const auto nc = static_cast<std::size_t>(columns);
                // The steps on the matrix as it stands: (x x^T) x = x (x^T x).
                Matrix x(nr, Numbers(nc));
                for (std::size_t i = 0; i < 6; ++i) x[i / nc][i % nc] = u[i] / length;
                for (int step = 0; step < 5; ++step) {
                  Matrix turned(nc, Numbers(nr));
                  for (std::size_t i = 0; i < 6; ++i) turned[i % nc][i / nc] = x[i / nc][i % nc];
                  const Matrix once = product(product(x, turned), x);
                  const Matrix twice = product(product(x, turned), once);
                  for (std::size_t i = 0; i < 6; ++i)
                    x[i / nc][i % nc] =
                        3.4445 * x[i / nc][i % nc] - 4.7750 * once[i / nc][i % nc] + 2.0315 * twice[i / nc][i % nc];
                }
                const double scale = tall ? std::sqrt(1.5) : 1;
                for (std::size_t i = 0; i < 6; ++i) w[i] = w[i] - 0.02 * 0.1 * w[i] - 0.02 * scale * x[i / nc][i % nc];
              });
    }
  }
}

namespace {

// All optimizers, with their defaults.
template <class F>
void for_each_optimizer(F f) {
  f(optim::GradientDescent{}, "gradient_descent");
  f(optim::Momentum{}, "momentum");
  f(optim::HeavyBall{.nesterov = true}, "heavy_ball");
  f(optim::RMSProp{.centered = true, .momentum = 0.9}, "rmsprop");
  f(optim::Adam{.amsgrad = true}, "adam");
  f(optim::AdamW{}, "adamw");
  f(optim::Adagrad{}, "adagrad");
  f(optim::Adadelta{}, "adadelta");
  f(optim::Adamax{}, "adamax");
  f(optim::NAdam{}, "nadam");
  f(optim::RAdam{}, "radam");
  f(optim::Lion{}, "lion");
  f(optim::LARS{}, "lars");
  f(optim::LAMB{}, "lamb");
  f(optim::Adafactor{}, "adafactor");
  f(optim::Muon{}, "muon");
}

}  // namespace

TEMPLATE_TEST_CASE("gradients of zero, tiny and huge ones leave finite parameters", "", float, double) {
  const DType dtype = dtype_of<TestType>();
  // Squares of tiny ones are 0 in float32, or below its normal numbers; those of huge ones near its end.
  for (const double size : {0.0, 1e-30, 1e-18, 1e15}) {
    for_each_optimizer([&](const auto& optimizer, const char* name) {
      INFO(name << " with gradients of " << size);
      Net net({2, 3}, dtype);
      State state(net.graph);
      Program train(state, {.updates = optimizer.minimize(net.loss)});
      for (int t = 1; t <= 3; ++t) {
        Numbers g = gradients_at(t, 6);
        for (double& x : g) x *= size;
        train.run({{net.g, array(g, {2, 3}, dtype)}});
      }
      for (std::int64_t i = 0; i < 6; ++i) CHECK(std::isfinite(state[net.w][i]));
      if (size > 0) return;
      for (std::int64_t i = 0; i < 6; ++i)
        CHECK(state[net.w][i] == Approx(net.begin[static_cast<std::size_t>(i)]).epsilon(1e-4));
    });
  }
}

TEST_CASE("a parameter of zeros is moved by the optimizers of whole parameters") {
  const auto moved = [](const auto& optimizer) {
    Graph graph;
    const Value w = graph.parameter("w", zeros({2, 2}));
    const Value loss = sum(w);
    State state(graph);
    Program(state, {.updates = optimizer.minimize(loss)}).run();
    return state[w][3];
  };
  CHECK(moved(optim::LARS{.learning_rate = 0.5}) == -0.5);
  CHECK(moved(optim::LAMB{.learning_rate = 0.5}) == Approx(-0.5).epsilon(1e-5));
  CHECK(moved(optim::Adafactor{.learning_rate = 0.5}) == Approx(-0.5e-3));
}

TEST_CASE("what adaptive optimizers refuse") {
  Net net({3}, float64);
  const auto refuse = [](const std::function<void()>& f, int line, const std::string& message) {
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
  };
  using namespace optim;
  const Value loss = net.loss;
  const std::size_t before = net.graph.to_string().size();
  refuse([&] { (void)Muon{}.minimize(loss); }, __LINE__, "muon: requires parameters of rank 2 or more, got ");
  refuse([&] { (void)Adafactor{.decay_power = 0}.minimize(loss); }, __LINE__,
         "adafactor: requires a finite decay_power below 0, got 0");
  refuse([&] { (void)Adafactor{.threshold = 0}.minimize(loss); }, __LINE__,
         "adafactor: requires a finite threshold above 0, got 0");
  refuse([&] { (void)HeavyBall{.dampening = -1}.minimize(loss); }, __LINE__,
         "heavy_ball: requires a dampening that is finite and not negative, got -1");
  refuse([&] { (void)RMSProp{.momentum = 1}.minimize(loss); }, __LINE__,
         "rmsprop: requires a momentum that is 0 or more and below 1, got 1");
  refuse([&] { (void)Lion{.beta2 = 1}.minimize(loss); }, __LINE__,
         "lion: requires a beta2 that is 0 or more and below 1, got 1");
  refuse([&] { (void)LAMB{.weight_decay = -1}.minimize(loss); }, __LINE__,
         "lamb: requires a weight_decay that is finite and not negative, got -1");
  CHECK(net.graph.to_string().size() == before);
}

// ---- schedules

namespace {

void check_rates(const optim::Schedule& schedule, optim::Per per, const std::function<double(double)>& formula) {
  const std::vector<double> rates = optim::rates_of(schedule, 200, per);
  REQUIRE(rates.size() == 200);
  for (std::size_t t = 0; t < rates.size(); ++t) {
    INFO("at " << t);
    CHECK(rates[t] == Approx(formula(static_cast<double>(t))).epsilon(1e-12).margin(1e-15));
  }
  // By the other clock, which stands still, it stays the first one.
  const auto other = optim::rates_of(schedule, 3, per == optim::Per::step ? optim::Per::epoch : optim::Per::step);
  CHECK(other == std::vector<double>(3, rates[0]));
}

}  // namespace

TEST_CASE("schedules of steps and epochs by their formulas") {
  using namespace optim;
  constexpr double pi = std::numbers::pi;
  for (const Per per : {Per::step, Per::epoch}) {
    check_rates(piecewise_constant({.boundaries = {10, 50}, .rates = {1, 0.5, 0.1}, .per = per}), per, [](double t) {
      return t < 10 ? 1 : t < 50 ? 0.5 : 0.1;
    });
    check_rates(step_decay({.initial = 0.3, .factor = 0.5, .interval = 30, .per = per}), per,
                [](double t) { return 0.3 * std::pow(0.5, std::floor(t / 30)); });
    check_rates(polynomial_decay({.initial = 0.3, .last = 0.1, .length = 120, .power = 2, .per = per}), per,
                [](double t) { return 0.1 + 0.2 * std::pow(1 - std::min(t / 120, 1.0), 2); });
    check_rates(polynomial_decay({.initial = 0.1, .last = 0.3, .length = 120, .per = per}), per,
                [](double t) { return 0.1 + 0.2 * std::min(t / 120, 1.0); });
    check_rates(cosine_decay({.initial = 0.3, .last = 0.1, .length = 120, .per = per}), per,
                [](double t) { return 0.1 + 0.1 * (1 + std::cos(pi * std::min(t / 120, 1.0))); });
    check_rates(cosine_decay({.initial = 0.3, .last = 0.1, .length = 40, .restarts = true, .shrink = 0.5, .per = per}),
                per, [](double t) {
                  const double period = std::floor(t / 40);
                  return 0.1 + 0.2 * std::pow(0.5, period) * (1 + std::cos(pi * (t / 40 - period))) / 2;
                });
    // Periods of 7, 21, 63 and 189 steps.
    check_rates(cosine_decay({.initial = 0.3, .length = 7, .restarts = true, .growth = 3, .per = per}), per,
                [](double t) {
                  double begin = 0;
                  double length = 7;
                  while (t >= begin + length) {
                    begin += length;
                    length *= 3;
                  }
                  return 0.15 * (1 + std::cos(pi * (t - begin) / length));
                });
    check_rates(one_cycle({.highest = 0.2, .length = 100, .rise = 0.25, .begin = 0.1, .end = 0.01, .per = per}), per,
                [](double t) {
                  if (t < 25) return 0.2 * (0.1 + 0.9 * t / 25);
                  return 0.2 * (0.01 + 0.99 * (1 + std::cos(pi * (std::min(t, 100.0) - 25) / 75)) / 2);
                });
    check_rates(inverse_root({.highest = 0.2, .warm_up = 50, .per = per}), per,
                [](double t) { return 0.2 * std::min((t + 1) / 50, std::sqrt(50 / (t + 1))); });
    check_rates(warm_up(step_decay({.initial = 0.3, .factor = 0.5, .interval = 30, .per = per}),
                        {.length = 20, .begin = 0.1, .per = per}),
                per,
                [](double t) { return (0.1 + 0.9 * std::min(t / 20, 1.0)) * 0.3 * std::pow(0.5, std::floor(t / 30)); });
    check_rates(warm_up(0.3, {.length = 20, .per = per}), per, [](double t) { return 0.3 * std::min(t / 20, 1.0); });
  }
}

TEST_CASE("a schedule of steps goes on with the State's steps") {
  Graph graph;
  const Value w = graph.parameter("w", zeros({}));
  const auto rate = optim::piecewise_constant({.boundaries = {2}, .rates = {1, 0.25}});
  State state(graph);
  Program train(state, {.updates = optim::GradientDescent{.learning_rate = rate}.minimize(w)});
  Numbers seen;
  for (int i = 0; i < 4; ++i) {
    train.run();
    seen.push_back(state[w].item());
  }
  CHECK(seen == Numbers{-1, -2, -2.25, -2.5});
}

TEST_CASE("a rate falls where a number does not get better, and a checkpoint goes on") {
  Graph graph;
  const Value w = graph.parameter("w", zeros({}));
  const optim::ReduceOnPlateau plateau(graph,
                                       {.initial = 1, .factor = 0.5, .patience = 2, .least = 0.1, .lowest = 0.2});
  State state(graph);
  Program train(state, {.updates = optim::GradientDescent{.learning_rate = plateau.rate()}.minimize(w)});
  const auto rate_after = [&](State& of, double number) {
    plateau.observe(of, number);
    return of[plateau.rate()].item();
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(rate_after(state, nan) == 1);
  CHECK(rate_after(state, 5) == 1);
  CHECK(rate_after(state, 4.95) == 1);  // better, but not by 0.1
  CHECK(rate_after(state, nan) == 0.5);
  CHECK(rate_after(state, 4.8) == 0.5);  // better than 5, and the count begins anew
  CHECK(rate_after(state, 6) == 0.5);
  State copy(state);
  CHECK(rate_after(copy, 1) == 0.5);
  CHECK(rate_after(state, 6) == 0.25);
  CHECK(rate_after(state, 6) == 0.25);
  CHECK(rate_after(state, 6) == 0.2);
  train.run();
  CHECK(state[w].item() == -0.2);
  CHECK(!plateau.observe(state, 6));
  CHECK(!plateau.observe(state, 6));  // it is the lowest

  const optim::ReduceOnPlateau higher(graph, {.initial = 1, .patience = 1, .higher_is_better = true});
  State other(graph);
  CHECK(!higher.observe(other, 0.5));
  CHECK(!higher.observe(other, 0.6));
  CHECK(higher.observe(other, 0.55));
  CHECK(other[higher.rate()].item() == Approx(0.1));
}

TEST_CASE("schedules of steps refuse what is out of range") {
  using namespace optim;
  const auto refuse = [](const std::function<void()>& f, int line, const std::string& message) {
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
  };
  refuse([] { (void)piecewise_constant({.boundaries = {1}, .rates = {1}}); }, __LINE__,
         "piecewise_constant: requires one rate more than boundaries, got 1 rates and 1 boundaries");
  const PiecewiseConstant twice{.boundaries = {2, 2}, .rates = {1, 2, 3}};
  refuse([&] { (void)piecewise_constant(twice); }, __LINE__,
         "piecewise_constant: requires ascending boundaries, got 2 before 2");
  refuse([] { (void)piecewise_constant({.boundaries = {}, .rates = {-1}}); }, __LINE__,
         "piecewise_constant: requires a finite rate >= 0, got -1");
  refuse([] { (void)step_decay({.interval = 0}); }, __LINE__, "step_decay: requires a finite interval > 0, got 0");
  refuse([] { (void)polynomial_decay({.power = 0}); }, __LINE__,
         "polynomial_decay: requires a finite power > 0, got 0");
  const double infinite = std::numeric_limits<double>::infinity();
  refuse([&] { (void)cosine_decay({.length = infinite}); }, __LINE__,
         "cosine_decay: requires a finite length > 0, got inf");
  refuse([] { (void)cosine_decay({.growth = 0.5}); }, __LINE__, "cosine_decay: requires a finite growth >= 1, got 0.5");
  refuse([] { (void)cosine_decay({.shrink = 2}); }, __LINE__, "cosine_decay: requires a shrink of 0 to 1, got 2");
  refuse([] { (void)one_cycle({.rise = 1}); }, __LINE__, "one_cycle: requires a rise within 0 and 1, got 1");
  refuse([] { (void)inverse_root({.warm_up = 0}); }, __LINE__, "inverse_root: requires a finite warm_up > 0, got 0");
  refuse([] { (void)warm_up(0.1, {.begin = -1}); }, __LINE__, "warm_up: requires a begin of 0 to 1, got -1");
  Graph graph;
  refuse([&] { ReduceOnPlateau(graph, {.patience = 0}); }, __LINE__,
         "reduce_on_plateau: requires a patience of 1 or more, got 0");
  refuse([&] { ReduceOnPlateau(graph, {.factor = 2}); }, __LINE__,
         "reduce_on_plateau: requires a factor of 0 to 1, got 2");
  refuse([] { (void)rates_of(step_decay({}), -1); }, __LINE__, "rates_of: requires a count >= 0, got -1");
}
