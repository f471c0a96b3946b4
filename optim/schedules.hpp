// Learning rates: a number, a value of the graph (an input that each run is fed), or a schedule, which is an expression
// of the State's epoch or step.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/run/state.hpp>

namespace chainrule::optim {

// Makes the rate as a scalar of a graph, in the graph's dtype.
using Schedule = std::function<Value(Graph graph)>;

class LearningRate {
 public:
  template <class T>
  requires std::is_arithmetic_v<T> LearningRate(T rate) : rate_(static_cast<double>(rate)) {}
  LearningRate(Value rate) : rate_(rate) {}
  LearningRate(Schedule schedule) : rate_(std::move(schedule)) {}

  // As a scalar of this graph and dtype. Throws Error, in the name of the optimizer, for a number that is not finite or
  // is negative, an empty schedule, and a value that is empty, no scalar, of another graph, or a constant of such a
  // number.
  [[nodiscard]] Value in(Graph graph, DType dtype, Location at, std::string_view optimizer = "learning_rate") const;

 private:
  std::variant<double, Value, Schedule> rate_;
};

// Schedules throw Error for options that are not finite or out of range.

struct InverseTimeDecay {
  double initial = 0.1;  // 0 or more
  double decay = 1;      // 0 or more
};
// initial / (1 + decay * epoch)
Schedule inverse_time_decay(InverseTimeDecay options, Location at = Location::here());

struct IntervalDecay {
  double initial = 0.1;    // 0 or more
  double decay = 1;        // 0 or more
  double interval = 1000;  // above 0
};
// initial / (1 + decay * floor(epoch / interval)): the course's fixed-interval scheduling.
Schedule interval_decay(IntervalDecay options, Location at = Location::here());

struct ExponentialDecay {
  double initial = 0.1;  // 0 or more
  double base = 0.95;    // above 0
};
// initial * base^epoch
Schedule exponential_decay(ExponentialDecay options, Location at = Location::here());

struct InverseRootDecay {
  double initial = 0.1;  // 0 or more
  double k = 1;          // 0 or more
};
// initial * k / sqrt(epoch + 1), of an epoch counted from 0
Schedule inverse_root_decay(InverseRootDecay options, Location at = Location::here());

// What the schedules below count: the State's steps (batches, from 0) or its epochs. As fit() sets it, the epoch is
// that of the last whole one, so that the first two epochs of a training both have the number 0.
enum class Per : std::uint8_t { step, epoch };

struct PiecewiseConstant {
  std::vector<double> boundaries;  // ascending, each 0 or more
  std::vector<double> rates;       // one more than boundaries, each 0 or more
  Per per = Per::step;
};
// rates[i] where t is at or after i of the boundaries.
Schedule piecewise_constant(PiecewiseConstant options, Location at = Location::here());

struct StepDecay {
  double initial = 0.1;  // 0 or more
  double factor = 0.1;   // 0 or more
  double interval = 30;  // above 0
  Per per = Per::epoch;
};
// initial * factor^floor(t / interval)
Schedule step_decay(StepDecay options, Location at = Location::here());

struct PolynomialDecay {
  double initial = 0.1;  // 0 or more
  double last = 0;       // 0 or more
  double length = 1;     // above 0
  double power = 1;      // above 0; 1 is a straight line
  Per per = Per::step;
};
// last + (initial - last) (1 - min(t / length, 1))^power
Schedule polynomial_decay(PolynomialDecay options, Location at = Location::here());

struct CosineDecay {
  double initial = 0.1;  // 0 or more
  double last = 0;       // 0 or more
  double length = 1;     // above 0: of the first period
  // Whether it begins anew after each period, which is then `growth` times as long as the one before, from `shrink`
  // times the height; else it stays at `last`.
  bool restarts = false;
  double growth = 1;  // 1 or more
  double shrink = 1;  // 0 to 1
  Per per = Per::step;
};
// last + (height - last) (1 + cos(pi x)) / 2 with x the share of the period that is over, 0 to 1, and in period
// number i, from 0, height = last + (initial - last) shrink^i. (Loshchilov and Hutter 2017.)
Schedule cosine_decay(CosineDecay options, Location at = Location::here());

struct OneCycle {
  double highest = 0.1;     // 0 or more
  double length = 1;        // above 0: of the whole training
  double rise = 0.3;        // the share of it until the highest rate; above 0 and below 1
  double begin = 1.0 / 25;  // what share of the highest rate the first one is; 0 to 1
  double end = 0;           // and the last one
  Per per = Per::step;
};
// In a straight line from begin * highest to highest, then by half a cosine to end * highest, where it stays.
// (Smith and Topin 2018.)
Schedule one_cycle(OneCycle options, Location at = Location::here());

struct InverseRoot {
  double highest = 1e-3;  // 0 or more
  double warm_up = 4000;  // above 0
  Per per = Per::step;
};
// highest * min((t + 1) / warm_up, sqrt(warm_up / (t + 1))): that of the transformer (Vaswani et al. 2017), whose
// constant is here the highest rate, reached at t + 1 = warm_up.
Schedule inverse_root(InverseRoot options, Location at = Location::here());

struct WarmUp {
  double length = 1;  // above 0
  double begin = 0;   // the share of the schedule's rate at t = 0; 0 to 1
  Per per = Per::step;
};
// Any schedule, or a number, times begin + (1 - begin) min(t / length, 1):
//   optim::Adam{.learning_rate = optim::warm_up(optim::cosine_decay({.initial = 3e-4, .length = 2000}), {.length =
//   100})}
Schedule warm_up(LearningRate schedule, WarmUp options, Location at = Location::here());

struct PlateauOptions {
  double initial = 0.1;        // 0 or more
  double factor = 0.1;         // what the rate is multiplied by; 0 to 1
  std::int64_t patience = 10;  // after so many numbers, one after another, that are not better; above 0
  double least = 0;            // by how much a number has to be better than the best one to count as better; 0 or more
  double lowest = 0;           // of the rate; 0 or more
  bool higher_is_better = false;
};
// A rate that falls where a number, such as the cost of a validation, does not get better any more. The rate, the best
// number and the count of those since are variables of the graph ("plateau/rate", ...), so checkpoints have them.
//   optim::ReduceOnPlateau plateau(graph, {.initial = 1e-3});
//   const auto updates = optim::Adam{.learning_rate = plateau.rate()}.minimize(loss);
//   ... fit(..., {.after_epoch = [&](auto& report) { plateau.observe(state, report.validation[0]); }})
class ReduceOnPlateau {
 public:
  ReduceOnPlateau(Graph graph, const PlateauOptions& options, Location at = Location::here());
  [[nodiscard]] Value rate() const { return rate_; }  // a float64 scalar
  // Takes notice of a number, between runs. NaN is not better. Returns whether the rate was reduced.
  bool observe(State& state, double number, Location at = Location::here()) const;

 private:
  PlateauOptions options_;
  Value rate_;
  Value best_;
  Value since_;
};

// The rates that a schedule gives at steps, or epochs, 0 to count - 1 (the other of the two stays 0), for a picture or
// a test.
std::vector<double> rates_of(const Schedule& schedule, std::int64_t count, Per per = Per::step,
                             Location at = Location::here());

}  // namespace chainrule::optim
