#include <chainrule/optim/schedules.hpp>

#include <fmt/core.h>

#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>

namespace chainrule::optim {

namespace {

Value epoch_of(Graph graph) { return cast(graph.epoch(), graph.dtype()); }

}  // namespace

Value LearningRate::in(Graph graph, DType dtype, Location at) const {
  const Value rate = schedule_ ? schedule_(graph) : value_.defined() ? value_ : graph.constant(number_, dtype, at);
  if (rate.data() != graph.data().get()) throw Error(at, "learning_rate", "requires a value of the loss's graph");
  if (!(rate.shape() == Shape{}))
    throw Error(at, "learning_rate", fmt::format("requires a scalar, got {}", to_string(rate.shape())));
  return cast(rate, dtype, at);
}

Schedule inverse_time_decay(InverseTimeDecay o) {
  return [o](Graph graph) { return o.initial / (1.0 + o.decay * epoch_of(graph)); };
}

Schedule interval_decay(IntervalDecay o) {
  if (!(o.interval > 0)) throw Error("interval_decay", fmt::format("requires interval > 0, got {}", o.interval));
  return [o](Graph graph) { return o.initial / (1.0 + o.decay * floor(epoch_of(graph) / o.interval)); };
}

Schedule exponential_decay(ExponentialDecay o) {
  return [o](Graph graph) { return o.initial * pow(o.base, epoch_of(graph)); };
}

Schedule inverse_root_decay(InverseRootDecay o) {
  return [o](Graph graph) { return o.initial * o.k / sqrt(epoch_of(graph) + 1.0); };
}

}  // namespace chainrule::optim
