// Learning rates: a number, a value of the graph (an input that each run is fed), or a schedule, which is an expression
// of the State's epoch or step.
#pragma once

#include <functional>
#include <type_traits>

#include <chainrule/framework/graph.hpp>

namespace chainrule::optim {

// Makes the rate as a scalar of a graph, in the graph's dtype.
using Schedule = std::function<Value(Graph graph)>;

class LearningRate {
 public:
  template <class T>
  requires std::is_arithmetic_v<T> LearningRate(T rate) : number_(static_cast<double>(rate)) {}
  LearningRate(Value rate) : value_(rate) {}
  LearningRate(Schedule schedule) : schedule_(std::move(schedule)) {}

  // As a scalar of this graph and dtype. Throws Error for a value that is no scalar or of another graph.
  [[nodiscard]] Value in(Graph graph, DType dtype, Location at) const;

 private:
  double number_ = 0;
  Value value_;
  Schedule schedule_;
};

struct InverseTimeDecay {
  double initial = 0.1;
  double decay = 1;
};
// initial / (1 + decay * epoch)
Schedule inverse_time_decay(InverseTimeDecay options);

struct IntervalDecay {
  double initial = 0.1;
  double decay = 1;
  double interval = 1000;
};
// initial / (1 + decay * floor(epoch / interval)): the course's fixed-interval scheduling.
Schedule interval_decay(IntervalDecay options);

struct ExponentialDecay {
  double initial = 0.1;
  double base = 0.95;
};
// initial * base^epoch
Schedule exponential_decay(ExponentialDecay options);

struct InverseRootDecay {
  double initial = 0.1;
  double k = 1;
};
// initial * k / sqrt(epoch + 1), of an epoch counted from 0
Schedule inverse_root_decay(InverseRootDecay options);

}  // namespace chainrule::optim
