#include <chainrule/optim/gradients.hpp>

#include <cmath>
#include <string_view>
#include <unordered_map>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/random.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/optim/optimizer_parts.hpp>

namespace chainrule::optim {

namespace {

void check(const Values& gradients, std::string_view function, Location at) {
  if (gradients.empty()) throw Error(at, function, "requires at least one gradient, got none");
  for (const Value g : gradients) {
    if (!g.defined()) throw Error(at, function, "requires values, got an empty Value");
    if (g.data() != gradients[0].data())
      throw Error(at, function, fmt::format("requires values of one graph, got {} of another", g.describe()));
    if (!is_floating(g.dtype()))
      throw Error(at, function, fmt::format("requires float32 or float64, got {}", g.describe()));
  }
}

void check_most(double most, std::string_view function, Location at) {
  if (!(most > 0 && std::isfinite(most)))
    throw Error(at, function, fmt::format("requires a finite bound above 0, got {}", most));
}

// Builds f() after the checks, in one go.
template <class F>
auto built(const Values& gradients, std::string_view function, Location at, F f) {
  at = detail::scoped(at);
  check(gradients, function, at);
  return detail::attempt(gradients, [&] {
    const detail::LocationScope scope(at);
    return f();
  });
}

template <class F>
Values each(const Values& values, F f) {
  Values out;
  for (const Value v : values) out.push_back(f(v));
  return out;
}

Value sum_of_squares(Value x) { return sum(square(cast(x, float64))); }

Value scaled_to(Value g, Value norm, double most) { return g * cast(minimum(1.0, most / norm), g.dtype()); }

Value norm_of(const Values& values) {
  Value squares = sum_of_squares(values[0]);
  for (std::size_t i = 1; i < values.size(); ++i) squares = squares + sum_of_squares(values[i]);
  return sqrt(squares);
}

// The updates where the condition holds.
Updates only_if(Value condition, const Updates& updates) {
  Updates out;
  for (const Update& update : updates)
    out.push_back({update.variable, where(condition, update.expression, update.variable)});
  return out;
}

void check(const Updates& updates, const Values& beside, std::string_view function, Location at) {
  if (updates.empty()) throw Error(at, function, "requires at least one update, got none");
  for (const Update& update : updates)
    for (const Value v : {update.variable, update.expression}) {
      if (!v.defined()) throw Error(at, function, "requires values, got an empty Value");
      if (!beside.empty() && v.data() != beside[0].data())
        throw Error(at, function, fmt::format("requires values of one graph, got {} of another", v.describe()));
    }
}

}  // namespace

Value global_norm(const Values& values, Location at) {
  return built(values, "global_norm", at, [&] { return norm_of(values); });
}

Values clip_by_value(const Values& gradients, double most, Location at) {
  check_most(most, "clip_by_value", at);
  return built(gradients, "clip_by_value", at,
               [&] { return each(gradients, [&](Value g) { return clip(g, -most, most); }); });
}

Values clip_by_norm(const Values& gradients, double most, Location at) {
  check_most(most, "clip_by_norm", at);
  return built(gradients, "clip_by_norm", at,
               [&] { return each(gradients, [&](Value g) { return scaled_to(g, norm_of({g}), most); }); });
}

Values clip_by_global_norm(const Values& gradients, double most, Location at) {
  check_most(most, "clip_by_global_norm", at);
  return built(gradients, "clip_by_global_norm", at, [&] {
    const Value norm = norm_of(gradients);
    return each(gradients, [&](Value g) { return scaled_to(g, norm, most); });
  });
}

namespace {

Value noise_like(Value g) { return random_normal(g.graph(), g.shape(), 0, 1, {.dtype = g.dtype()}); }

}  // namespace

Values add_noise(const Values& gradients, double deviation, Location at) {
  if (!(deviation >= 0 && std::isfinite(deviation)))
    throw Error(at, "add_noise", fmt::format("requires a finite deviation >= 0, got {}", deviation));
  return built(gradients, "add_noise", at,
               [&] { return each(gradients, [&](Value g) { return g + deviation * noise_like(g); }); });
}

Values add_noise(const Values& gradients, Value deviation, Location at) {
  Values all = gradients;
  all.push_back(deviation);
  return built(all, "add_noise", at, [&] {
    return each(gradients, [&](Value g) { return g + cast(deviation, g.dtype()) * noise_like(g); });
  });
}

Guarded skip_unless_finite(const Updates& updates, const Values& gradients, Location at) {
  constexpr std::string_view function = "skip_unless_finite";
  check(updates, gradients, function, at);
  return built(gradients, function, at, [&]() -> Guarded {
    Value others;
    for (const Value g : gradients) {
      const Value count = sum(cast(logical_not(isfinite(g)), float64));
      others = others.defined() ? others + count : count;
    }
    const Value is_finite = equal(others, 0.0);
    const detail::RootScope root(gradients[0].data());
    const Value skipped = parts::count_variable(gradients[0].graph(), "skipped");
    Guarded out{.updates = only_if(is_finite, updates), .skipped = skipped};
    out.updates.push_back({skipped, skipped + cast(logical_not(is_finite), int64)});
    return out;
  });
}

Updates accumulate(std::int64_t batches, const Values& parameters, const Values& gradients,
                   const std::function<Updates(const Values&)>& apply, Location at) {
  constexpr std::string_view function = "accumulate";
  if (batches < 1) throw Error(at, function, fmt::format("requires at least one batch, got {}", batches));
  if (!apply) throw Error(at, function, "requires a function that makes updates, got an empty one");
  parts::check(parameters, gradients, function, at);
  return built(gradients, function, at, [&] {
    Graph graph = gradients[0].graph();
    const detail::RootScope root(gradients[0].data());
    const Value count = parts::count_variable(graph, "accumulated");
    const Value is_due = equal(count, batches - 1);
    Updates out;
    Values means;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const Value sum = parts::slot(parameters[i], "accumulated");
      const Value next = sum + gradients[i];
      means.push_back(next / static_cast<double>(batches));
      out.push_back({sum, where(is_due, 0.0, next)});
    }
    const Updates made = apply(means);
    check(made, gradients, function, at);
    for (const Update& update : only_if(is_due, made)) out.push_back(update);
    out.push_back({count, where(is_due, std::int64_t{0}, count + 1)});
    return out;
  });
}

Averages averages(const Updates& updates, const Values& parameters, const AverageOptions& options, Location at) {
  constexpr std::string_view function = "averages";
  if (!(options.decay >= 0 && options.decay <= 1))
    throw Error(at, function, fmt::format("requires a decay of 0 to 1, got {}", options.decay));
  if (options.begin < 0) throw Error(at, function, fmt::format("requires a begin >= 0, got {}", options.begin));
  if (options.every < 1) throw Error(at, function, fmt::format("requires an every >= 1, got {}", options.every));
  check(updates, parameters, function, at);
  std::unordered_map<std::uint32_t, Value> next;
  for (const Update& update : updates) next.emplace(update.variable.id(), update.expression);
  for (const Value w : parameters)
    if (!w.defined() || !next.contains(w.id()))
      throw Error(
          at, function,
          fmt::format("requires parameters that are updated, got {}", w.defined() ? w.describe() : "an empty Value"));
  return built(parameters, function, at, [&] {
    Graph graph = parameters[0].graph();
    const detail::RootScope root(parameters[0].data());
    const Value counted = parts::count_variable(graph, "averages/counted");
    Value is_due;
    Averages out;
    if (options.begin > 0 || options.every > 1) {
      const Value t = parts::count_variable(graph, "averages/t");
      const Value since = cast(t - options.begin, float64);
      const auto every = static_cast<double>(options.every);
      is_due = logical_and(greater_equal(since, 0.0), equal(since, every * floor(since / every)));
      out.updates.push_back({t, t + 1});
    }
    for (const Value w : parameters) {
      const Value now = next.at(w.id());
      const Value a = parts::slot(w, "average");
      const Value share =
          options.equal ? 1.0 / cast(counted + 1, w.dtype()) : graph.constant(1 - options.decay, w.dtype());
      const Value moved = where(equal(counted, 0), now, a + share * (now - a));
      out.updates.push_back({a, is_due.defined() ? where(is_due, moved, a) : moved});
      out.values.push_back(where(equal(counted, 0), w, a));
    }
    out.updates.push_back({counted, counted + (is_due.defined() ? cast(is_due, int64) : graph.constant(1, int64))});
    return out;
  });
}

}  // namespace chainrule::optim
