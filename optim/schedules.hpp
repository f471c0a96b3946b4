// Learning rates: a number, a value of the graph (an input that each run is fed), or a schedule, which is an expression
// of the State's epoch or step.
#pragma once

#include <functional>
#include <string_view>
#include <type_traits>
#include <variant>

#include <chainrule/framework/graph/graph.hpp>

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

}  // namespace chainrule::optim
