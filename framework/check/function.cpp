#include <chainrule/framework/check/function.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/derivatives.hpp>
#include <chainrule/framework/state_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule::check {

Array weights_for(const Dims& shape, std::uint64_t seed, std::uint64_t stream) {
  Array out = uniform(to_shape(shape), 0.5, 1.5).draw(float64, seed, 2 * stream + 1000);
  const Array sign = integers(to_shape(shape), 0, 2).draw(float64, seed, 2 * stream + 1001);
  for (std::int64_t i = 0; i < out.size(); ++i)
    if (sign[i] == 0) out.set(i, -out[i]);
  return out;
}

namespace {

// These numbers as a value of f's graph: a fed input of the variable's own shape, which may be symbolic.
Value numbers_like(Function& f, Value variable, const Array& numbers) {
  const Value input = f.graph.input(f.graph.unique_name("direction"), variable.shape(), numbers.dtype());
  f.feeds.emplace_back(input, Array(numbers));
  return input;
}

}  // namespace

Function next_order(const Function& f, const CheckOptions& options) {
  Function out = f;
  out.terms = gradients(f.sum, f.variables);
  out.weights.clear();
  out.sum = Value{};
  for (std::size_t v = 0; v < out.terms.size(); ++v) {
    out.weights.push_back(weights_for(f.points[v].shape(), options.seed, 100 + v));
    const Value term = sum(out.terms[v] * numbers_like(out, f.variables[v], out.weights.back()));
    out.sum = out.sum.defined() ? out.sum + term : term;
  }
  return out;
}

namespace {

std::vector<Feed> feeds_of(const Function& f) {
  std::vector<Feed> feeds = f.feeds;
  for (std::size_t i = 0; i < f.variables.size(); ++i)
    if (f.variables[i].node().op().name == "input") feeds.emplace_back(f.variables[i], f.points[i]);
  return feeds;
}

}  // namespace

std::vector<Array> analytic_gradient(const Function& f) {
  State state = f.state;
  Program program(state, {.outputs = gradients(f.sum, f.variables, f.at), .mode = f.mode}, f.at);
  const std::vector<Feed> feeds = feeds_of(f);
  const Results results = program.run(std::span<const Feed>(feeds), f.at);
  std::vector<Array> out;
  for (std::size_t v = 0; v < results.size(); ++v) out.push_back(results[v]);
  return out;
}

// ---- Probe

Probe::Probe(Function f)
    : f_(std::move(f)),
      analytic_(analytic_gradient(f_)),
      program_(f_.state, {.outputs = f_.terms, .mode = f_.mode}, f_.at),
      feeds_(feeds_of(f_)) {
  run(middle_);
}

void Probe::run(std::vector<Array>& into) {
  const Results results = program_.run(std::span<const Feed>(feeds_), f_.at);
  into.resize(results.size());
  for (std::size_t t = 0; t < results.size(); ++t) into[t] = results[t];
}

void Probe::put(std::size_t variable) {
  const Value v = f_.variables[variable];
  const auto& node = v.data()->node(v.id());
  if (node.op == &detail::variable_op()) {
    Array& to = f_.state.data()->variables[node.payload];
    std::memcpy(to.raw(), f_.points[variable].raw(), to.bytes());
  }
}

Differences Probe::along(std::size_t variable, std::span<const std::int64_t> elements,
                         std::span<const double> direction, double h) {
  Array& x = f_.points[variable];
  auto* data = x.data<double>();
  std::vector<double> before;
  before.reserve(elements.size());
  for (const auto e : elements) before.push_back(data[e]);
  double up = h;
  double down = h;
  const auto move = [&](double step) {
    for (std::size_t i = 0; i < elements.size(); ++i) data[elements[i]] = before[i] + step * direction[i];
    put(variable);
  };
  move(h);
  // A single element's step is what rounding makes of it.
  if (elements.size() == 1) up = (data[elements[0]] - before[0]) / direction[0];
  run(above_);
  move(-h);
  if (elements.size() == 1) down = (before[0] - data[elements[0]]) / direction[0];
  run(below_);
  move(0);

  Differences d;
  double magnitude = 0;
  double largest = 0;  // where nothing moves at all, what is too small to move it is not known to be 0
  for (std::size_t t = 0; t < middle_.size(); ++t) {
    const auto* w = f_.weights[t].data<double>();
    const auto* a = above_[t].data<double>();
    const auto* m = middle_[t].data<double>();
    const auto* b = below_[t].data<double>();
    for (std::int64_t k = 0; k < middle_[t].size(); ++k) {
      largest = std::max(largest, std::abs(w[k] * m[k]));
      if (a[k] == m[k] && m[k] == b[k]) continue;
      d.above += w[k] * (a[k] - m[k]);
      d.below += w[k] * (m[k] - b[k]);
      magnitude += std::abs(w[k] * m[k]);
    }
  }
  d.above *= h / up;
  d.below *= h / down;
  d.noise = 2 * std::numeric_limits<double>::epsilon() * (magnitude > 0 ? magnitude : 2 * largest);
  return d;
}

double Probe::moved(const std::vector<Array>& directions, double h, double& magnitude) {
  std::vector<Array> before = f_.points;
  for (std::size_t v = 0; v < directions.size(); ++v) {
    auto* x = f_.points[v].data<double>();
    for (std::int64_t i = 0; i < f_.points[v].size(); ++i) x[i] += h * directions[v][i];
    put(v);
  }
  run(above_);
  for (std::size_t v = 0; v < directions.size(); ++v) {
    f_.points[v] = before[v];  // in place: feeds refer to this memory
    put(v);
  }
  double difference = 0;
  magnitude = 0;
  for (std::size_t t = 0; t < middle_.size(); ++t) {
    for (std::int64_t k = 0; k < middle_[t].size(); ++k) {
      difference += f_.weights[t][k] * (above_[t][k] - middle_[t][k]);
      magnitude += std::abs(f_.weights[t][k] * middle_[t][k]);
    }
  }
  return difference;
}

// ---- comparisons

namespace {

double root_mean_square(const Array& x) {
  double sum = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) sum += x[i] * x[i];
  return x.size() == 0 ? 0 : std::sqrt(sum / static_cast<double>(x.size()));
}

// The first step at an element, in proportion to it or to the typical one.
double first_step(double x, double typical) { return 0.02 * std::max({std::abs(x), 0.1 * typical, 1e-3}); }

}  // namespace

Dims index_of(std::int64_t flat, const Dims& shape) {
  Dims index = Dims::filled(shape.rank(), 0);
  for (std::size_t axis = shape.rank(); axis-- > 0;) {
    index[axis] = flat % shape[axis];
    flat /= shape[axis];
  }
  return index;
}

double RelativeDistance::value() const {
  const double norms = std::sqrt(a2_) + std::sqrt(b2_);
  return norms == 0 ? 0 : std::sqrt(difference2_) / norms;
}

namespace {

// What has been found of a row so far.
class Judge {
 public:
  Judge(CheckRow& row, const Array& analytic, const CheckOptions& options)
      : row_(row), analytic_(analytic), options_(options) {
    for (std::int64_t i = 0; i < analytic.size(); ++i)
      if (std::isfinite(analytic[i])) largest_ = std::max(largest_, std::abs(analytic[i]));
  }

  // The scale by which a difference at an element is measured.
  [[nodiscard]] double scale(double a, double n) const { return std::max({std::abs(a), std::abs(n), 0.01 * largest_}); }

  [[nodiscard]] Verdict verdict_of(double a, const Slope& n) const {
    if (!std::isfinite(n.error)) return Verdict::inconclusive;  // no difference was finite
    if (!std::isfinite(a)) return Verdict::fail;
    const double s = scale(a, n.value);
    const double difference = std::abs(a - n.value);
    const double allowed = options_.tolerance * s;
    if (n.kink) {
      const double low = std::min(n.left, n.right);
      const double high = std::max(n.left, n.right);
      const double slack = 1e-4 * (high - low) + allowed;
      return a >= low - slack && a <= high + slack ? Verdict::subgradient : Verdict::fail;
    }
    if (difference <= allowed) return Verdict::pass;
    if (!(n.error <= 1e-4 * s)) return Verdict::inconclusive;
    return difference <= allowed + 10 * n.error ? Verdict::pass : Verdict::fail;
  }

  Verdict add(std::int64_t element, const Slope& n) {
    const double a = analytic_[element];
    const Verdict verdict = verdict_of(a, n);
    // At a kink the difference quotient is no reference; the gradient's own distance from the interval is.
    const double reference = n.kink && verdict == Verdict::subgradient ? a : n.value;
    const double difference = std::abs(a - reference);
    if (std::isfinite(difference)) distance_.add(a, reference);
    const double s = scale(a, reference);
    double badness = static_cast<double>(verdict) * 1e6 + (s == 0 ? 0 : difference / s);
    if (!std::isfinite(badness)) badness = 1e9;
    if (badness > worst_) {
      worst_ = badness;
      row_.worst = index_of(element, analytic_.shape());
      row_.analytic = a;
      row_.numeric = n.value;
      row_.error = n.error;
    }
    if (n.kink) {
      ++kinks_;
      if (kinks_ <= 3)
        kink_notes_ += fmt::format("{}{} (slopes {:.4g} and {:.4g})", kink_notes_.empty() ? "" : ", ",
                                   to_string(index_of(element, analytic_.shape())), n.left, n.right);
    }
    row_.verdict = std::max(row_.verdict, verdict);
    return verdict;
  }

  void finish() {
    row_.distance = distance_.value();
    if (kinks_ > 0)
      row_.note =
          fmt::format("{} kink{} at {}{}", kinks_, kinks_ == 1 ? "" : "s", kink_notes_, kinks_ > 3 ? ", ..." : "");
  }

 private:
  CheckRow& row_;
  const Array& analytic_;
  const CheckOptions& options_;
  double largest_ = 0;
  double worst_ = -1;
  RelativeDistance distance_;
  int kinks_ = 0;
  std::string kink_notes_;
};

class Comparison {
 public:
  Comparison(Probe& probe, std::size_t variable, const CheckOptions& options, CheckRow& row)
      : probe_(probe),
        variable_(variable),
        analytic_(probe.analytic()[variable]),
        options_(options),
        row_(row),
        judge_(row, analytic_, options),
        typical_(root_mean_square(probe.function().points[variable])) {}

  void run() {
    if (analytic_.size() <= options_.full_below) {
      for (std::int64_t i = 0; i < analytic_.size(); ++i) judge_.add(i, element(i));
    } else {
      by_projection();
    }
    judge_.finish();
  }

 private:
  Slope element(std::int64_t i) {
    const double a = analytic_[i];
    const double one = 1;
    const auto f = [&](double h) { return probe_.along(variable_, std::span(&i, 1), std::span(&one, 1), h); };
    const double h = first_step(probe_.function().points[variable_][i], typical_);
    // Most elements are right and smooth: two short steps show it. All others get the whole extrapolation, from a
    // longer step on, where rounding matters less.
    const Slope quick = slope(
        f, h / 16, [](double) { return 0.0; }, 2);
    const double s = judge_.scale(a, quick.value);
    if (!quick.kink && quick.error <= 0.1 * options_.tolerance * s &&
        std::abs(a - quick.value) <= 0.1 * options_.tolerance * s)
      return quick;
    return slope(f, h, [&](double value) {
      const double scale = judge_.scale(a, value);
      return (std::abs(a - value) <= 0.1 * options_.tolerance * scale ? 0.01 * options_.tolerance : 1e-12) * scale;
    });
  }

  // Steps of +-(the element's own first step): every element moves, in proportion to its size.
  [[nodiscard]] std::vector<double> signs(std::uint64_t stream) const {
    const Array& x = probe_.function().points[variable_];
    const Array coin = integers({x.size()}, 0, 2).draw(float64, options_.seed, stream);
    std::vector<double> out;
    for (std::int64_t i = 0; i < x.size(); ++i) out.push_back((coin[i] == 0 ? -1 : 1) * first_step(x[i], typical_));
    return out;
  }

  // Whether the gradient is right along a direction that is 0 but at some elements.
  Verdict along(std::span<const std::int64_t> elements, std::span<const double> direction, Slope& numeric,
                double& analytic) {
    analytic = 0;
    double squares = 0;
    for (std::size_t i = 0; i < elements.size(); ++i) {
      const double term = analytic_[elements[i]] * direction[i];
      analytic += term;
      squares += term * term;
    }
    const double s = std::max({std::abs(analytic), std::sqrt(squares)});
    numeric = slope([&](double h) { return probe_.along(variable_, elements, direction, h); }, 0.5,
                    [&](double) { return 1e-3 * options_.tolerance * s; });
    const double difference = std::abs(analytic - numeric.value);
    // A single element that is wrong by a hundredth of the typical one has to show: no more slack than the numeric
    // value's own error, and the rounding of the sum.
    const double allowed = 10 * numeric.error + 1e-9 * s;
    if (difference <= allowed) return numeric.error <= 1e-4 * s ? Verdict::pass : Verdict::inconclusive;
    if (numeric.kink) {
      const double low = std::min(numeric.left, numeric.right) - 1e-6 * s;
      const double high = std::max(numeric.left, numeric.right) + 1e-6 * s;
      return analytic >= low && analytic <= high ? Verdict::subgradient : Verdict::fail;
    }
    return numeric.error <= 1e-3 * s ? Verdict::fail : Verdict::inconclusive;
  }

  void by_projection() {
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < analytic_.size(); ++i) all.push_back(i);
    int inconclusive = 0;
    for (int p = 0; p < options_.directions; ++p) {
      const auto direction = signs(5000 + static_cast<std::uint64_t>(p));
      Slope numeric;
      double analytic = 0;
      const Verdict verdict = along(all, direction, numeric, analytic);
      if (verdict == Verdict::inconclusive) ++inconclusive;
      if (verdict != Verdict::fail) continue;
      const std::int64_t found = bisect(all, direction);
      if (found >= 0 && judge_.add(found, element(found)) == Verdict::fail) return;
      row_.verdict = Verdict::fail;
      row_.analytic = analytic;
      row_.numeric = numeric.value;
      row_.error = numeric.error;
      row_.note = "wrong along a random direction, and at no single element";
      return;
    }
    // Where kinks blur every direction (thousands of relus), single elements still decide.
    const Array chosen = integers({options_.sampled}, 0, analytic_.size()).draw(float64, options_.seed, 6000);
    for (std::int64_t i = 0; i < chosen.size(); ++i)
      judge_.add(static_cast<std::int64_t>(chosen[i]), element(static_cast<std::int64_t>(chosen[i])));
    if (inconclusive == options_.directions) row_.verdict = std::max(row_.verdict, Verdict::inconclusive);
  }

  // The element at fault: of the halves, the one that fails, and so on down.
  std::int64_t bisect(std::vector<std::int64_t> elements, std::vector<double> direction) {
    while (elements.size() > 1) {
      const auto half = static_cast<std::ptrdiff_t>(elements.size() / 2);
      double worst = 0;
      int side = -1;
      for (int s = 0; s < 2; ++s) {
        const std::span<const std::int64_t> e(elements.begin() + (s == 0 ? 0 : half),
                                              s == 0 ? elements.begin() + half : elements.end());
        const std::span<const double> d(direction.begin() + (s == 0 ? 0 : half),
                                        s == 0 ? direction.begin() + half : direction.end());
        Slope numeric;
        double analytic = 0;
        const Verdict verdict = along(e, d, numeric, analytic);
        const double difference = std::abs(analytic - numeric.value);
        if (verdict == Verdict::fail && difference > worst) {
          worst = difference;
          side = s;
        }
      }
      if (side < 0) return -1;
      if (side == 0) {
        elements.resize(static_cast<std::size_t>(half));
        direction.resize(static_cast<std::size_t>(half));
      } else {
        elements.erase(elements.begin(), elements.begin() + half);
        direction.erase(direction.begin(), direction.begin() + half);
      }
    }
    return elements[0];
  }

  Probe& probe_;
  std::size_t variable_;
  const Array& analytic_;
  const CheckOptions& options_;
  CheckRow& row_;
  Judge judge_;
  double typical_;
};

CheckRow row_of(std::string_view check, std::string_view subject, std::string input) {
  CheckRow row;
  row.check = check;
  row.subject = subject;
  row.input = std::move(input);
  return row;
}

// A row for each variable.
void compare(Probe& probe, std::string_view check, std::string_view subject, const CheckOptions& options,
             std::vector<CheckRow>& rows) {
  const Function& f = probe.function();
  for (std::size_t v = 0; v < f.variables.size(); ++v) {
    CheckRow row = row_of(check, subject, f.names[v]);
    row.line = f.lines[v];
    row.shape = to_shape(f.points[v].shape());
    Comparison(probe, v, options, row).run();
    rows.push_back(std::move(row));
  }
}

// The Taylor remainder along a random direction of all variables together.
void check_taylor(Probe& probe, std::string_view subject, const CheckOptions& options, std::vector<CheckRow>& rows) {
  const Function& f = probe.function();
  std::vector<Array> directions;
  double slope_along = 0;
  for (std::size_t v = 0; v < f.variables.size(); ++v) {
    Array d = weights_for(f.points[v].shape(), options.seed, 200 + v);
    const double typical = root_mean_square(f.points[v]);
    for (std::int64_t i = 0; i < d.size(); ++i) {
      d.set(i, d[i] * std::max({std::abs(f.points[v][i]), 0.1 * typical, 1e-3}));
      slope_along += d[i] * probe.analytic()[v][i];
    }
    directions.push_back(std::move(d));
  }
  // The slope of log remainder over log h, where the remainder stands clear of rounding.
  double previous = 0;
  double previous_h = 0;
  double slope = std::numeric_limits<double>::quiet_NaN();
  for (double h = 1.0 / 64; h > 1e-7; h /= 4) {
    double magnitude = 0;
    const double remainder = std::abs(probe.moved(directions, h, magnitude) - h * slope_along);
    const double noise = 64 * std::numeric_limits<double>::epsilon() * (magnitude + std::abs(h * slope_along));
    if (!std::isfinite(remainder)) continue;
    if (remainder < noise) break;
    if (previous > 0) slope = std::log(previous / remainder) / std::log(previous_h / h);
    previous = remainder;
    previous_h = h;
  }
  CheckRow row = row_of("Taylor", subject, "all");
  row.numeric = slope;
  row.analytic = 2;
  // 1 at the end: the gradient is wrong. More than 1.15: the last steps cross a kink, and no smaller one did. Near 0:
  // the function jumps there (floor). Neither is evidence.
  row.verdict = slope > 0.9 && slope < 1.1 ? Verdict::fail : Verdict::pass;
  row.note = std::isnan(slope) ? "remainder within rounding" : fmt::format("remainder shrinks like h^{:.2f}", slope);
  const bool kinks = std::any_of(rows.begin(), rows.end(), [&](const CheckRow& r) {
    return r.subject == subject && r.check == "gradient" && r.note.find("kink") != std::string::npos;
  });
  if (kinks && row.verdict == Verdict::fail) {
    row.verdict = Verdict::pass;
    row.note += ", as it may at a kink";
  }
  rows.push_back(std::move(row));
}

void check_adjoint(const Probe& probe, std::string_view subject, const CheckOptions& options,
                   std::vector<CheckRow>& rows) {
  const Function& f = probe.function();
  // <J v, w> by the Jacobian-vector product, <v, J' w> by the gradient of the weighted sum, whose weights are w.
  Function g = f;
  Values vs;
  for (std::size_t v = 0; v < f.variables.size(); ++v)
    vs.push_back(numbers_like(g, f.variables[v], weights_for(f.points[v].shape(), options.seed, 300 + v)));
  Values products;
  for (const Value term : f.terms) products.push_back(jvp(term, f.variables, vs, f.at));
  Program program(g.state, {.outputs = products, .mode = f.mode}, f.at);
  const std::vector<Feed> feeds = feeds_of(g);
  const Results results = program.run(std::span<const Feed>(feeds), f.at);
  double forward = 0;
  double size = 0;
  for (std::size_t t = 0; t < products.size(); ++t) {
    for (std::int64_t k = 0; k < results[t].size(); ++k) {
      forward += f.weights[t][k] * results[t][k];
      size += std::abs(f.weights[t][k] * results[t][k]);
    }
  }
  double reverse = 0;
  for (std::size_t v = 0; v < f.variables.size(); ++v) {
    const Array direction = weights_for(f.points[v].shape(), options.seed, 300 + v);
    for (std::int64_t i = 0; i < direction.size(); ++i) {
      reverse += direction[i] * probe.analytic()[v][i];
      size += std::abs(direction[i] * probe.analytic()[v][i]);
    }
  }
  CheckRow row = row_of("adjoint", subject, "all");
  row.analytic = reverse;
  row.numeric = forward;
  row.distance = size == 0 ? 0 : std::abs(forward - reverse) / size;
  row.verdict = row.distance <= 1e-12 || size == 0 ? Verdict::pass : Verdict::fail;
  row.note = "<v, J'w> and <Jv, w>";
  rows.push_back(std::move(row));
}

}  // namespace

void check_function(const Function& f, std::string_view subject, const CheckOptions& options,
                    std::vector<CheckRow>& rows) {
  Probe probe(f);
  compare(probe, "gradient", subject, options, rows);
  check_taylor(probe, subject, options, rows);
  if (options.orders < 2) return;
  check_adjoint(probe, subject, options, rows);
  Probe second(next_order(f, options));
  compare(second, "second order", subject, options, rows);
}

}  // namespace chainrule::check
