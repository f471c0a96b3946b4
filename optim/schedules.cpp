#include <chainrule/optim/schedules.hpp>

#include <fmt/core.h>

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

}  // namespace

Value LearningRate::in(Graph graph, DType dtype, Location at) const {
  const Value rate = schedule_ ? schedule_(graph) : value_.defined() ? value_ : graph.constant(number_, dtype, at);
  if (rate.data() != graph.data().get()) throw Error(at, "learning_rate", "requires a value of the loss's graph");
  if (!(rate.shape() == Shape{}))
    throw Error(at, "learning_rate", fmt::format("requires a scalar, got {}", to_string(rate.shape())));
  return cast(rate, dtype, at);
}

Schedule inverse_time_decay(InverseTimeDecay o) {
  return of_epoch([o](Value epoch) { return o.initial / (1.0 + o.decay * epoch); });
}

Schedule interval_decay(IntervalDecay o) {
  if (!(o.interval > 0)) throw Error("interval_decay", fmt::format("requires interval > 0, got {}", o.interval));
  return of_epoch([o](Value epoch) { return o.initial / (1.0 + o.decay * floor(epoch / o.interval)); });
}

Schedule exponential_decay(ExponentialDecay o) {
  return of_epoch([o](Value epoch) { return o.initial * pow(o.base, epoch); });
}

Schedule inverse_root_decay(InverseRootDecay o) {
  return of_epoch([o](Value epoch) { return o.initial * o.k / sqrt(epoch + 1.0); });
}

}  // namespace chainrule::optim
