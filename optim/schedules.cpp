#include <chainrule/optim/schedules.hpp>

#include <cmath>
#include <initializer_list>

#include <fmt/core.h>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>

namespace chainrule::optim {

namespace {

// A schedule by the epoch as a number. It is computed in float64, whose powers keep their digits over many epochs and
// which counts beyond 2^24 of them, and is of the graph's dtype.
template <class F>
Schedule of_epoch(F rate) {
  return [rate](Graph graph) { return cast(rate(cast(graph.epoch(), float64)), graph.dtype()); };
}

// A number among a schedule's options, which is finite and 0 or more, or above 0.
struct Option {
  std::string_view name;
  double value;
  bool above_0 = false;
};

void require(std::initializer_list<Option> options, std::string_view schedule, Location at) {
  for (const auto& [name, value, above_0] : options)
    if (!std::isfinite(value) || !(above_0 ? value > 0 : value >= 0))
      throw Error(at, schedule, fmt::format("requires a finite {} {} 0, got {}", name, above_0 ? ">" : ">=", value));
}

}  // namespace

Value LearningRate::in(Graph graph, DType dtype, Location at, std::string_view optimizer) const {
  const auto refuse = [&](std::string_view required, const std::string& got) {
    throw Error(at, optimizer, fmt::format("requires a learning_rate {}, got {}", required, got));
  };
  const auto require_in_range = [&](double number) {
    if (!(number >= 0 && std::isfinite(number))) refuse("that is finite and not negative", fmt::format("{}", number));
  };
  if (const auto* number = std::get_if<double>(&rate_)) {
    require_in_range(*number);
    return graph.constant(*number, dtype, at);
  }
  const auto* schedule = std::get_if<Schedule>(&rate_);
  if (schedule && !*schedule) refuse("that is a number, value or schedule", "an empty schedule");
  const Value rate = schedule ? (*schedule)(graph) : std::get<Value>(rate_);
  if (!rate.defined()) refuse("that is a number, value or schedule", "an empty Value");
  if (rate.data() != graph.data().get()) refuse("of the loss's graph", rate.describe() + " of another");
  if (!(rate.shape() == Shape{}) || rate.dtype() == boolean)
    refuse("that is a scalar", fmt::format("{} {}", name(rate.dtype()), to_string(rate.shape())));
  if (const Array* constant = detail::constant_value(rate)) require_in_range(constant->item());
  return cast(rate, dtype, at);
}

Schedule inverse_time_decay(InverseTimeDecay o, Location at) {
  require({{"initial", o.initial}, {"decay", o.decay}}, "inverse_time_decay", at);
  return of_epoch([o](Value epoch) { return o.initial / (1.0 + o.decay * epoch); });
}

Schedule interval_decay(IntervalDecay o, Location at) {
  require({{"initial", o.initial}, {"decay", o.decay}, {"interval", o.interval, true}}, "interval_decay", at);
  return of_epoch([o](Value epoch) { return o.initial / (1.0 + o.decay * floor(epoch / o.interval)); });
}

Schedule exponential_decay(ExponentialDecay o, Location at) {
  require({{"initial", o.initial}, {"base", o.base, true}}, "exponential_decay", at);
  return of_epoch([o](Value epoch) { return o.initial * pow(o.base, epoch); });
}

Schedule inverse_root_decay(InverseRootDecay o, Location at) {
  require({{"initial", o.initial}, {"k", o.k}}, "inverse_root_decay", at);
  return of_epoch([o](Value epoch) { return o.initial * o.k / sqrt(epoch + 1.0); });
}

}  // namespace chainrule::optim
