#include <chainrule/optim/whole_batch.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include <chainrule/framework/autodiff/derivatives.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/optim/optimizer_parts.hpp>

namespace chainrule::optim {

namespace {

using Numbers = std::vector<double>;

double dot(const Numbers& a, const Numbers& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

double greatest(const Numbers& x) {
  double out = 0;
  for (const double element : x) out = std::isnan(element) ? element : std::max(out, std::abs(element));
  return out;
}

void add(Numbers& to, double factor, const Numbers& x) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * x[i];
}

Numbers negative(const Numbers& x) {
  Numbers out(x.size());
  std::transform(x.begin(), x.end(), out.begin(), std::negate<>());
  return out;
}

void check(Value loss, const WholeBatchOptions& o, std::string_view name, Location at) {
  if (!loss.defined()) throw Error(at, name, "requires a loss, got an empty Value");
  if (loss.rank() != 0) throw Error(at, name, fmt::format("requires a scalar loss, got {}", loss.describe()));
  const auto require = [&](bool holds, std::string_view required, auto got) {
    if (!holds) throw Error(at, name, fmt::format("requires {}, got {}", required, got));
  };
  require(o.iterations >= 0, "0 iterations or more", o.iterations);
  require(o.gradient_tolerance >= 0, "a gradient_tolerance of 0 or more", o.gradient_tolerance);
  require(o.cost_tolerance >= 0, "a cost_tolerance of 0 or more", o.cost_tolerance);
  require(o.decrease > 0 && o.decrease < o.curvature && o.curvature < 1, "0 < decrease < curvature < 1",
          fmt::format("{} and {}", o.decrease, o.curvature));
  require(o.evaluations_a_search > 0, "at least one evaluation a search", o.evaluations_a_search);
  require(o.history > 0, "a history of at least one step", o.history);
}

// A place in the space of all parameters' elements.
struct Point {
  Numbers x;
  double cost = 0;
  Numbers gradient;
};

// The cost and its derivatives as functions of the parameters' elements, all in one row.
class Cost {
 public:
  Cost(State& state, Value loss, const Values& parameters, std::span<const Feed> feeds,
       const WholeBatchOptions& options, bool with_products, std::string_view name, Location at)
      : state_(state), parameters_(parameters), at_(at), feeds_(feeds.begin(), feeds.end()) {
    if (parameters.empty()) throw Error(at, name, "requires at least one parameter, got none");
    Values outputs = {loss};
    Values with_hessian;
    // What is built is of use to these programs only, but cannot be taken from the graph again.
    {
      detail::Attempt attempt(loss.data());
      const detail::LocationScope scope(at);
      const detail::RootScope root(loss.data());
      const Values g = detail::training_gradients(loss, parameters, name, at);
      parts::check(parameters, g, name, at);
      outputs.insert(outputs.end(), g.begin(), g.end());
      if (with_products) {
        Graph graph = loss.graph();
        for (const Value p : parameters)
          directions_.push_back(
              graph.input(graph.unique_name(fmt::format("{}/{}", p.name(), name)), p.shape(), p.dtype()));
        with_hessian = hvp(loss, parameters, directions_, at);
      }
      attempt.succeed();
    }
    costs_.emplace(state, Request{.outputs = outputs, .mode = options.mode}, at);
    if (with_products) products_.emplace(state, Request{.outputs = with_hessian, .mode = options.mode}, at);
    for (const Value p : parameters) arrays_.emplace_back(p.dtype(), state.get(p, at).shape());
    begin_ = read();
  }

  ~Cost() {
    if (!kept_) write(begin_);
  }
  Cost(const Cost&) = delete;
  Cost& operator=(const Cost&) = delete;

  [[nodiscard]] const Numbers& begin() const { return begin_; }

  Point at(Numbers x) {
    write(x);
    ++evaluations;
    const Results results = costs_->run(std::span<const Feed>(feeds_), at_);
    Point out{.x = read(), .cost = results[0][0], .gradient = {}};  // as rounded to the parameters' dtypes
    for (std::size_t i = 1; i < results.size(); ++i)
      for (std::int64_t k = 0; k < results[i].size(); ++k) out.gradient.push_back(results[i][k]);
    return out;
  }

  // The Hessian at a point times a direction.
  Numbers product(const Point& point, const Numbers& direction) {
    write(point.x);
    ++products;
    std::vector<Feed> feeds = feeds_;
    std::vector<Array> arrays = arrays_;
    fill(arrays, direction);
    for (std::size_t i = 0; i < arrays.size(); ++i) feeds.emplace_back(directions_[i], arrays[i]);
    const Results results = products_->run(std::span<const Feed>(feeds), at_);
    Numbers out;
    for (std::size_t i = 0; i < results.size(); ++i)
      for (std::int64_t k = 0; k < results[i].size(); ++k) out.push_back(results[i][k]);
    return out;
  }

  // Leaves the State with these numbers.
  void keep(const Numbers& x) {
    write(x);
    kept_ = true;
  }

  std::int64_t evaluations = 0;
  std::int64_t products = 0;

 private:
  [[nodiscard]] Numbers read() const {
    Numbers out;
    for (const Value p : parameters_) {
      const Array& array = state_.get(p, at_);
      for (std::int64_t k = 0; k < array.size(); ++k) out.push_back(array[k]);
    }
    return out;
  }
  static void fill(std::vector<Array>& arrays, const Numbers& x) {
    std::size_t at = 0;
    for (Array& array : arrays)
      for (std::int64_t k = 0; k < array.size(); ++k) array.set(k, x[at++]);
  }
  void write(const Numbers& x) {
    fill(arrays_, x);
    for (std::size_t i = 0; i < arrays_.size(); ++i) state_.set(parameters_[i], arrays_[i], at_);
  }

  State& state_;
  Values parameters_;
  Location at_;
  std::vector<Feed> feeds_;
  Values directions_;
  std::optional<Program> costs_;
  std::optional<Program> products_;
  std::vector<Array> arrays_;
  Numbers begin_;
  bool kept_ = false;
};

// ---- the search along a direction

// Where it is: the step, the point there and the slope of the cost along the direction.
struct Place {
  double step = 0;
  Point point;
  double slope = 0;
};

// Within (low, high), the minimum of the cubic through both places with their slopes (Nocedal and Wright 2006, equation
// 3.59), not too near to either end; the middle where there is none.
double between(const Place& low, const Place& high) {
  const double width = high.step - low.step;
  const double middle = low.step + width / 2;
  const double d1 = low.slope + high.slope - 3 * (high.point.cost - low.point.cost) / width;
  const double squared = d1 * d1 - low.slope * high.slope;
  if (!(squared >= 0)) return middle;
  const double d2 = std::copysign(std::sqrt(squared), width);
  const double step = high.step - width * (high.slope + d2 - d1) / (high.slope - low.slope + 2 * d2);
  const double share = (step - low.step) / width;
  return share > 0.1 && share < 0.9 ? step : middle;
}

// Nocedal and Wright 2006, algorithms 3.5 and 3.6. Nothing where no step lowers the cost.
class Search {
 public:
  Search(Cost& cost, const WholeBatchOptions& options) : cost_(cost), options_(options) {}

  std::optional<Place> along(const Numbers& direction, const Point& from, double first) {
    direction_ = &direction;
    begin_ = {0, from, dot(from.gradient, direction)};
    left_ = options_.evaluations_a_search;
    if (!(begin_.slope < 0)) return std::nullopt;
    Place before = begin_;
    double step = first;
    while (left_ > 0) {
      Place now = at(step);
      if (!is_low_enough(now) || (before.step > 0 && now.point.cost >= before.point.cost)) return narrowed(before, now);
      if (is_flat_enough(now)) return now;
      if (now.slope >= 0) return narrowed(now, before);
      before = std::move(now);
      step *= 2;
    }
    return best_of(before);
  }

 private:
  Place at(double step) {
    --left_;
    Numbers x = begin_.point.x;
    add(x, step, *direction_);
    Place out{step, cost_.at(std::move(x)), 0};
    out.slope = dot(out.point.gradient, *direction_);
    return out;
  }
  [[nodiscard]] bool is_low_enough(const Place& place) const {
    return std::isfinite(place.slope) &&
           place.point.cost <= begin_.point.cost + options_.decrease * place.step * begin_.slope;
  }
  [[nodiscard]] bool is_flat_enough(const Place& place) const {
    return std::abs(place.slope) <= -options_.curvature * begin_.slope;
  }
  [[nodiscard]] std::optional<Place> best_of(const Place& place) const {
    if (place.step > 0 && place.point.cost < begin_.point.cost) return place;
    return std::nullopt;
  }

  // Between a place that is low and another one: of all steps so far that are low enough, low has the lowest cost.
  std::optional<Place> narrowed(Place low, Place high) {
    while (left_ > 0 && std::abs(high.step - low.step) > 1e-16 * std::max(1.0, std::abs(low.step))) {
      const bool is_known = std::isfinite(high.point.cost) && std::isfinite(high.slope);
      Place now = at(is_known ? between(low, high) : (low.step + high.step) / 2);
      if (!is_low_enough(now) || now.point.cost >= low.point.cost) {
        high = std::move(now);
        continue;
      }
      if (is_flat_enough(now)) return now;
      if (now.slope * (high.step - low.step) >= 0) high = std::move(low);
      low = std::move(now);
    }
    return best_of(low);
  }

  Cost& cost_;
  const WholeBatchOptions& options_;
  const Numbers* direction_ = nullptr;
  Place begin_;
  std::int64_t left_ = 0;
};

// ---- the loop that both share

// direction(point, cost) gives where to go; took(before, after) hears of each step. Where no step lowers the cost
// fresh() may forget what directions were made of and say that it is worth another try.
template <class Method>
Minimum minimize(Cost& cost, const WholeBatchOptions& options, Method method) {
  Minimum out;
  Point now = cost.at(cost.begin());
  const auto finish = [&](Ended ended, std::string why) {
    cost.keep(now.x);
    out.cost = now.cost;
    out.gradient = greatest(now.gradient);
    out.evaluations = cost.evaluations;
    out.products = cost.products;
    out.ended = ended;
    out.why = std::move(why);
    return out;
  };
  if (!std::isfinite(now.cost) || !std::isfinite(greatest(now.gradient)))
    return finish(Ended::not_finite,
                  fmt::format("the cost, {}, or its gradient is not finite where the search begins", now.cost));
  Search search(cost, options);
  while (true) {
    if (const double size = greatest(now.gradient); size <= options.gradient_tolerance)
      return finish(Ended::gradient, fmt::format("the gradient's greatest element, {:.3g}, is at most {}", size,
                                                 options.gradient_tolerance));
    if (out.iterations >= options.iterations)
      return finish(Ended::iterations, fmt::format("{} iterations were made", out.iterations));
    const Numbers direction = method.direction(now, cost);
    std::optional<Place> next = search.along(direction, now, method.first_step(now));
    if (!next) {
      if (method.fresh()) continue;
      return finish(Ended::no_lower_cost, "no step along the direction lowers the cost");
    }
    method.took(now, next->point);
    const double before = now.cost;
    now = std::move(next->point);
    Iteration iteration{out.iterations++, now.cost, greatest(now.gradient), next->step};
    if (options.after_iteration) options.after_iteration(iteration);
    if (iteration.stop) return finish(Ended::stopped, "after_iteration() asked for it");
    if (const double change = before - now.cost;
        change <= options.cost_tolerance * std::max({std::abs(before), std::abs(now.cost), 1.0}) &&
        greatest(now.gradient) > options.gradient_tolerance)
      return finish(Ended::cost, fmt::format("the cost changed by {:.3g} only", change));
  }
}

class Lbfgs {
 public:
  explicit Lbfgs(std::int64_t history) : history_(static_cast<std::size_t>(history)) {}

  // The two loops of Nocedal 1980.
  Numbers direction(const Point& now, Cost&) {
    Numbers q = negative(now.gradient);
    Numbers shares(pairs_.size());
    for (std::size_t i = pairs_.size(); i-- > 0;) {
      shares[i] = dot(pairs_[i].step, q) / pairs_[i].product;
      add(q, -shares[i], pairs_[i].change);
    }
    if (!pairs_.empty()) {
      const double scale = pairs_.back().product / dot(pairs_.back().change, pairs_.back().change);
      for (double& x : q) x *= scale;
    }
    for (std::size_t i = 0; i < pairs_.size(); ++i)
      add(q, shares[i] - dot(pairs_[i].change, q) / pairs_[i].product, pairs_[i].step);
    return q;
  }
  // Without a scale yet: a step of length 1 at most.
  [[nodiscard]] double first_step(const Point& now) const {
    return pairs_.empty() ? std::min(1.0, 1 / std::sqrt(dot(now.gradient, now.gradient))) : 1;
  }
  bool fresh() {
    const bool had_some = !pairs_.empty();
    pairs_.clear();
    return had_some;
  }
  void took(const Point& before, const Point& after) {
    Pair pair{after.x, after.gradient, 0};
    add(pair.step, -1, before.x);
    add(pair.change, -1, before.gradient);
    pair.product = dot(pair.step, pair.change);
    // Of a curvature that is not positive, or lost in rounding, nothing is to be learned.
    if (!(pair.product > 1e-16 * dot(pair.change, pair.change))) return;
    pairs_.push_back(std::move(pair));
    if (pairs_.size() > history_) pairs_.pop_front();
  }

 private:
  struct Pair {
    Numbers step;
    Numbers change;  // of the gradient
    double product;  // of both
  };
  std::size_t history_;
  std::deque<Pair> pairs_;
};

class NewtonCg {
 public:
  static Numbers direction(const Point& now, Cost& cost) {
    const std::size_t n = now.gradient.size();
    const double size = std::sqrt(dot(now.gradient, now.gradient));
    const double enough = std::min(0.5, std::sqrt(size)) * size;
    Numbers z(n, 0.0);
    Numbers residual = now.gradient;
    Numbers d = negative(residual);
    double squares = dot(residual, residual);
    for (std::size_t i = 0; i < 2 * n + 10; ++i) {
      const Numbers product = cost.product(now, d);
      const double curvature = dot(d, product);
      if (!(curvature > 0)) return i == 0 ? negative(now.gradient) : z;
      const double step = squares / curvature;
      add(z, step, d);
      add(residual, step, product);
      const double next = dot(residual, residual);
      if (std::sqrt(next) <= enough) break;
      for (std::size_t k = 0; k < n; ++k) d[k] = -residual[k] + next / squares * d[k];
      squares = next;
    }
    return z;
  }
  [[nodiscard]] static double first_step(const Point&) { return 1; }
  static bool fresh() { return false; }
  static void took(const Point&, const Point&) {}
};

}  // namespace

Minimum lbfgs(State& state, Value loss, const Values& parameters, std::span<const Feed> feeds,
              const WholeBatchOptions& options, Location at) {
  check(loss, options, "lbfgs", at);
  Cost cost(state, loss, parameters, feeds, options, false, "lbfgs", at);
  return minimize(cost, options, Lbfgs(options.history));
}

Minimum newton_cg(State& state, Value loss, const Values& parameters, std::span<const Feed> feeds,
                  const WholeBatchOptions& options, Location at) {
  check(loss, options, "newton_cg", at);
  Cost cost(state, loss, parameters, feeds, options, true, "newton_cg", at);
  return minimize(cost, options, NewtonCg());
}

}  // namespace chainrule::optim
