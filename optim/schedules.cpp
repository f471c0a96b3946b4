#include <chainrule/optim/schedules.hpp>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <numbers>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/framework/run/state.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>

namespace chainrule::optim {

namespace {

// A schedule by the epoch as a number. It is computed in float64, whose powers keep their digits over many epochs and
// which counts beyond 2^24 of them, and is of the graph's dtype.
template <class F>
Schedule of(Per per, F rate) {
  return [per, rate](Graph graph) {
    const Value t = cast(per == Per::step ? graph.step() : graph.epoch(), float64);
    return cast(rate(t), graph.dtype());
  };
}
template <class F>
Schedule of_epoch(F rate) {
  return of(Per::epoch, std::move(rate));
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

void require_share(std::string_view name, double value, std::string_view schedule, Location at) {
  if (!(value >= 0 && value <= 1))
    throw Error(at, schedule, fmt::format("requires a {} of 0 to 1, got {}", name, value));
}

// The share of the way that is over: 0 to 1.
Value progress(Value t, double length) { return minimum(t / length, 1.0); }

// From 1 to 0 by half a cosine.
Value half_cosine(Value progress) { return 0.5 + 0.5 * cos(std::numbers::pi * progress); }

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

Schedule piecewise_constant(PiecewiseConstant o, Location at) {
  constexpr std::string_view name = "piecewise_constant";
  if (o.rates.size() != o.boundaries.size() + 1)
    throw Error(at, name,
                fmt::format("requires one rate more than boundaries, got {} rates and {} boundaries", o.rates.size(),
                            o.boundaries.size()));
  for (const double rate : o.rates) require({{"rate", rate}}, name, at);
  for (std::size_t i = 0; i < o.boundaries.size(); ++i) {
    require({{"boundary", o.boundaries[i]}}, name, at);
    if (i > 0 && !(o.boundaries[i - 1] < o.boundaries[i]))
      throw Error(at, name,
                  fmt::format("requires ascending boundaries, got {} before {}", o.boundaries[i - 1], o.boundaries[i]));
  }
  return of(o.per, [o](Value t) {
    Value rate = t.graph().constant(o.rates[0], float64);
    for (std::size_t i = 0; i < o.boundaries.size(); ++i)
      rate = where(greater_equal(t, o.boundaries[i]), o.rates[i + 1], rate);
    return rate;
  });
}

Schedule step_decay(StepDecay o, Location at) {
  require({{"initial", o.initial}, {"factor", o.factor}, {"interval", o.interval, true}}, "step_decay", at);
  return of(o.per, [o](Value t) { return o.initial * pow(o.factor, floor(t / o.interval)); });
}

Schedule polynomial_decay(PolynomialDecay o, Location at) {
  require({{"initial", o.initial}, {"last", o.last}, {"length", o.length, true}, {"power", o.power, true}},
          "polynomial_decay", at);
  return of(o.per, [o](Value t) {
    const Value left = 1.0 - progress(t, o.length);
    return o.last + (o.initial - o.last) * (o.power == 1 ? left : pow(left, o.power));
  });
}

namespace {

// Which of the periods t lies in, each `growth` times as long as the one before, and the share of it that is over.
struct Period {
  Value number;
  Value progress;
};
Period period_of(Value t, double length, double growth) {
  if (growth == 1) {
    const Value number = floor(t / length);
    return {number, t / length - number};
  }
  const auto begin_of = [&](Value number) { return length * ((pow(growth, number) - 1.0) / (growth - 1)); };
  Value number = floor(log(1.0 + (growth - 1) * t / length) / std::log(growth));
  // The logarithms are rounded: a period's first step may seem to be the last of the one before, and so on.
  number = where(less_equal(begin_of(number + 1.0), t), number + 1.0, number);
  number = where(greater(begin_of(number), t), number - 1.0, number);
  return {number, (t - begin_of(number)) / (length * pow(growth, number))};
}

}  // namespace

Schedule cosine_decay(CosineDecay o, Location at) {
  constexpr std::string_view name = "cosine_decay";
  require({{"initial", o.initial}, {"last", o.last}, {"length", o.length, true}}, name, at);
  require_share("shrink", o.shrink, name, at);
  if (!(o.growth >= 1 && std::isfinite(o.growth)))
    throw Error(at, name, fmt::format("requires a finite growth >= 1, got {}", o.growth));
  return of(o.per, [o](Value t) {
    if (!o.restarts) return o.last + (o.initial - o.last) * half_cosine(progress(t, o.length));
    const Period period = period_of(t, o.length, o.growth);
    const Value wave = (o.initial - o.last) * half_cosine(period.progress);
    return o.last + (o.shrink == 1 ? wave : pow(o.shrink, period.number) * wave);
  });
}

Schedule one_cycle(OneCycle o, Location at) {
  constexpr std::string_view name = "one_cycle";
  require({{"highest", o.highest}, {"length", o.length, true}}, name, at);
  require_share("begin", o.begin, name, at);
  require_share("end", o.end, name, at);
  if (!(o.rise > 0 && o.rise < 1)) throw Error(at, name, fmt::format("requires a rise within 0 and 1, got {}", o.rise));
  return of(o.per, [o](Value t) {
    const Value over = progress(t, o.length);
    const Value up = o.begin + (1 - o.begin) * (over / o.rise);
    const Value down = o.end + (1 - o.end) * half_cosine((over - o.rise) / (1 - o.rise));
    return o.highest * where(less(over, o.rise), up, down);
  });
}

Schedule inverse_root(InverseRoot o, Location at) {
  require({{"highest", o.highest}, {"warm_up", o.warm_up, true}}, "inverse_root", at);
  return of(o.per, [o](Value t) {
    const Value share = (t + 1.0) / o.warm_up;
    return o.highest * minimum(share, 1.0 / sqrt(share));
  });
}

Schedule warm_up(LearningRate schedule, WarmUp o, Location at) {
  constexpr std::string_view name = "warm_up";
  require({{"length", o.length, true}}, name, at);
  require_share("begin", o.begin, name, at);
  return [schedule = std::move(schedule), o, at, name](Graph graph) {
    const Value rate = schedule.in(graph, graph.dtype(), at, name);
    const auto share = of(o.per, [o](Value t) { return o.begin + (1 - o.begin) * progress(t, o.length); });
    return share(graph) * rate;
  };
}

ReduceOnPlateau::ReduceOnPlateau(Graph graph, const PlateauOptions& o, Location at) : options_(o) {
  constexpr std::string_view name = "reduce_on_plateau";
  require({{"initial", o.initial}, {"least", o.least}, {"lowest", o.lowest}}, name, at);
  require_share("factor", o.factor, name, at);
  if (o.patience < 1) throw Error(at, name, fmt::format("requires a patience of 1 or more, got {}", o.patience));
  const detail::LocationScope scope(detail::scoped(at));
  const detail::RootScope root(graph.data().get());
  const auto variable = [&](const char* part, const Array& initial) {
    return graph.variable(graph.unique_name(part), Initial(initial), initial.dtype());
  };
  rate_ = variable("plateau/rate", Array(o.initial));
  best_ = variable("plateau/best", Array(std::numeric_limits<double>::quiet_NaN()));  // none
  since_ = variable("plateau/since", Array(std::int64_t{0}));
}

bool ReduceOnPlateau::observe(State& state, double number, Location at) const {
  const double best = state.snapshot(best_, at).item();
  const double gain = options_.higher_is_better ? number - best : best - number;
  const bool is_better = !std::isnan(number) && (std::isnan(best) || (gain > 0 && gain >= options_.least));
  if (is_better) state.set(best_, Array(number), at);
  const auto since = is_better ? 0 : static_cast<std::int64_t>(state.snapshot(since_, at).item()) + 1;
  const bool is_due = since >= options_.patience;
  state.set(since_, Array(is_due ? 0 : since), at);
  if (!is_due) return false;
  const double rate = state.snapshot(rate_, at).item();
  const double lower = std::min(rate, std::max(options_.lowest, options_.factor * rate));
  state.set(rate_, Array(lower), at);
  return lower < rate;
}

std::vector<double> rates_of(const Schedule& schedule, std::int64_t count, Per per, Location at) {
  if (count < 0) throw Error(at, "rates_of", fmt::format("requires a count >= 0, got {}", count));
  Graph graph({.dtype = float64});
  const Value rate = LearningRate(schedule).in(graph, float64, at, "rates_of");
  State state(graph);
  Program program(state, {.outputs = {rate}});
  std::vector<double> rates;
  for (std::int64_t t = 0; t < count; ++t) {
    if (per == Per::step)
      state.set_step(t);
    else
      state.set_epoch(t);
    rates.push_back(program.run().scalar());
  }
  return rates;
}

}  // namespace chainrule::optim
