#include <chainrule/framework/check/function.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

#include <chainrule/framework/autodiff/gradients.hpp>
#include <chainrule/framework/check/disturb.hpp>
#include <chainrule/framework/check/preconditions.hpp>
#include <chainrule/framework/run/state_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule::check {

std::int64_t Function::elements() const {
  std::int64_t out = 0;
  for (const Array& point : points) out += point.size();
  return out;
}

Function function_of(const Op& op, const Sample& sample, DType dtype, const CheckOptions& options) {
  SampleGraph s = graph_of(sample, dtype, options);
  Values terms = apply(s.graph, op, s.inputs, s.attributes).node().outputs();
  std::erase_if(terms, [](Value y) { return !is_floating(y.dtype()); });
  Function f{s.graph,      State(s.graph),
             {},           terms,
             {},           s.floating,
             s.names,      std::vector<std::string>(s.names.size()),
             s.points,     {},
             options.mode, detail::scoped(op.location)};
  for (std::size_t i = 0; i < terms.size(); ++i) {
    f.weights.push_back(weights_for(evaluate(terms[i].shape(), Sizes{}), options.seed, i).astype(dtype));
    const Value term = sum(terms[i] * f.weights[i]);
    f.sum = i == 0 ? term : f.sum + term;
  }
  return f;
}

Array weights_for(const Dims& shape, std::uint64_t seed, std::uint64_t stream) {
  Array out = uniform(to_shape(shape), 0.5, 1.5).draw(float64, seed, 2 * stream + 1000);
  const Array sign = integers(to_shape(shape), 0, 2).draw(float64, seed, 2 * stream + 1001);
  for (std::int64_t i = 0; i < out.size(); ++i)
    if (sign[i] == 0) out.set(i, -out[i]);
  return out;
}

Value numbers_like(Function& f, Value like, const Array& numbers) {
  const Value input = f.graph.input(f.graph.unique_name("direction"), like.shape(), numbers.dtype());
  f.feeds.emplace_back(input, Array(numbers));
  return input;
}

Function next_order(const Function& f, const CheckOptions& options) {
  Function out = f;
  out.terms = gradients(f.sum, f.variables, f.at);
  out.weights.clear();
  out.sum = Value{};
  for (std::size_t v = 0; v < out.terms.size(); ++v) {
    out.weights.push_back(weights_for(f.points[v].shape(), options.seed, 100 + v));
    const Value term = sum(out.terms[v] * numbers_like(out, f.variables[v], out.weights.back()));
    out.sum = out.sum.defined() ? out.sum + term : term;
  }
  return out;
}

std::vector<Feed> feeds_of(const Function& f) {
  std::vector<Feed> feeds = f.feeds;
  for (std::size_t i = 0; i < f.variables.size(); ++i)
    if (f.variables[i].node().op().name == "input") feeds.emplace_back(f.variables[i], f.points[i]);
  return feeds;
}

std::vector<Array> analytic_gradient(const Function& f) {
  State state = f.state;
  Program program(state, {.outputs = gradients(f.sum, f.variables, f.at), .mode = f.mode}, f.at);
  const std::vector<Feed> feeds = feeds_of(f);
  const Results results = program.run(std::span<const Feed>(feeds), f.at);
  std::vector<Array> out;
  for (std::size_t v = 0; v < results.size(); ++v) out.push_back(results[v]);
  return out;
}

double root_mean_square(const Array& x) {
  double sum = 0;
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) continue;
    sum += x[i] * x[i];
    ++count;
  }
  return count == 0 ? 0 : std::sqrt(sum / static_cast<double>(count));
}

double size_of(double x, double typical) { return std::max({std::isfinite(x) ? std::abs(x) : 0, 0.1 * typical, 1e-3}); }

double first_step(double x, double typical) { return step_of_size * size_of(x, typical); }

std::vector<Move> random_direction(const Function& f, std::uint64_t seed, std::uint64_t stream) {
  std::vector<Move> out;
  out.reserve(static_cast<std::size_t>(f.elements()));
  for (std::size_t v = 0; v < f.points.size(); ++v) {
    const Array factors = weights_for(f.points[v].shape(), seed, stream + v);
    const auto* factor = factors.data<double>();
    const auto* x = f.points[v].data<double>();
    const double typical = root_mean_square(f.points[v]);
    for (std::int64_t i = 0; i < factors.size(); ++i)
      out.push_back({v, i, std::isfinite(x[i]) ? factor[i] * first_step(x[i], typical) : 0});
  }
  return out;
}

namespace {

// A variable's point in the State; those of inputs are fed from where they are.
void put_in_state(Function& f, std::size_t variable) {
  const Value v = f.variables[variable];
  const auto& node = v.data()->node(v.id());
  if (node.op != &detail::variable_op()) return;
  Array& to = f.state.data()->variables[node.payload];
  std::memcpy(to.raw(), f.points[variable].raw(), to.bytes());
}

}  // namespace

Function moved(const Function& f, std::span<const Move> moves, double h) {
  Function out = f;
  for (const Move& move : moves) out.points[move.variable].data<double>()[move.element] += h * move.step;
  for (std::size_t v = 0; v < out.variables.size(); ++v) put_in_state(out, v);
  return out;
}

// ---- Mover

namespace {

constexpr double epsilon = std::numeric_limits<double>::epsilon();

// Of each element of some arrays, over points that lie at equal distances.
class Jitters {
 public:
  void add(const std::vector<Array>& arrays) {
    std::size_t next = 0;
    for (const Array& array : arrays) {
      if (of_.size() < next + static_cast<std::size_t>(array.size()))
        of_.resize(next + static_cast<std::size_t>(array.size()));
      const auto* x = array.data<double>();
      for (std::int64_t i = 0; i < array.size(); ++i) of_[next++].add(x[i]);
    }
  }
  // What rounding does to each element: what was seen, and no less than half a unit of the last place.
  [[nodiscard]] std::vector<Array> rounding(const std::vector<Array>& arrays) const {
    std::vector<Array> out;
    std::size_t next = 0;
    for (const Array& array : arrays) {
      out.push_back(array);
      auto* x = out.back().data<double>();
      for (std::int64_t i = 0; i < array.size(); ++i, ++next)
        x[i] = std::max(2 * of_[next].value(), epsilon * std::abs(x[i]));
    }
    return out;
  }

 private:
  std::vector<Jitter> of_;
};

}  // namespace

Mover::Mover(Function f) : f_(std::move(f)), feeds_(feeds_of(f_)), original_(f_.points) {}

void Mover::place(std::span<const Move> moves, double h) {
  for (const Move& move : moves)
    f_.points[move.variable].data<double>()[move.element] =
        original_[move.variable].data<double>()[move.element] + h * move.step;
  to_state(moves);
}

void Mover::put_back(std::span<const Move> moves) {
  for (const Move& move : moves)
    f_.points[move.variable].data<double>()[move.element] = original_[move.variable].data<double>()[move.element];
  to_state(moves);
}

void Mover::to_state(std::span<const Move> moves) {
  std::size_t done = f_.variables.size();
  for (const Move& move : moves) {
    if (move.variable != done) put_in_state(f_, move.variable);
    done = move.variable;
  }
}

void Mover::replace(std::size_t variable, std::int64_t element, double x) {
  f_.points[variable].data<double>()[element] = x;
  put_in_state(f_, variable);
}

double Mover::moved(const Move& move) const {
  return f_.points[move.variable].data<double>()[move.element] - original_[move.variable].data<double>()[move.element];
}

void Mover::run(Program& program, std::vector<Array>& into) {
  const Results results = program.run(std::span<const Feed>(feeds_), f_.at);
  into.resize(results.size());
  for (std::size_t t = 0; t < results.size(); ++t) into[t] = results[t];
}

// Near the points rather than at them, since zeros and ties add up without rounding.
std::vector<Array> Mover::rounding(Program& program, const std::vector<Array>& at_points, const CheckOptions& options,
                                   double distance) {
  std::vector<Move> moves = random_direction(f_, options.seed, 400);
  // In proportion to each element, however small beside others: it may be near a pole.
  for (Move& move : moves)
    if (const double x = original_[move.variable].data<double>()[move.element]; x != 0)
      move.step = std::copysign(std::min(std::abs(move.step), step_of_size * std::abs(x)), move.step);
  // Of many elements' errors only sums matter, which need no second look.
  const int points = Jitter::least_points + (f_.elements() > options.full_below ? 0 : 3);
  Jitters jitters;
  std::vector<Array> outputs;
  for (int i = 1; i <= points; ++i) {
    place(moves, i * distance);
    run(program, outputs);
    jitters.add(outputs);
  }
  put_back(moves);
  return jitters.rounding(at_points);
}

// Rounding that is the same wherever the points are does not scatter: 1 - sum(softmax(x)) may be 1e-16 for all x.
std::vector<Array> Mover::disturbed(const Values& values, const std::vector<Array>& at_points) {
  // Each op's result may be off by some units of the last place. A jump that a disturbance crosses counts little.
  constexpr double rounding = 4 * epsilon;
  std::vector<Array> out;
  out.reserve(at_points.size());
  for (const Array& at : at_points) out.push_back(Array::full(float64, at.shape(), 0));
  // Whether something is moved by about its own size.
  const auto scatter = [&](double by) {
    bool far = false;
    for (std::int64_t seed = 1; seed <= 3; ++seed) {
      Program program(f_.state, {.outputs = check::disturbed(values, by, seed), .mode = f_.mode}, f_.at);
      std::vector<Array> off;
      run(program, off);
      for (std::size_t t = 0; t < off.size(); ++t) {
        for (std::int64_t k = 0; k < off[t].size(); ++k) {
          const double d = std::abs(off[t][k] - at_points[t][k]);
          far = far || d > 0.5 * std::abs(at_points[t][k]);
          if (std::isfinite(d)) out[t].set(k, std::max(out[t][k], d * rounding / by));
        }
      }
    }
    return far;
  };
  // That is no longer of first order, as 1 / x is not for an x of rounding errors alone.
  if (scatter(0x1p-33)) scatter(rounding);
  return out;
}

// ---- Probe

Probe::Probe(Function f, const CheckOptions& options)
    : mover_(std::move(f)),
      terms_(mover_.state(), {.outputs = function().terms, .mode = function().mode}, function().at),
      gradients_(gradients(function().sum, function().variables, function().at)),
      gradient_(mover_.state(), {.outputs = gradients_, .mode = function().mode}, function().at),
      options_(options) {
  mover_.run(gradient_, analytic_);
  mover_.run(terms_, middle_);
  noise_[0] = scattered(1e-5);
}

double Probe::magnitude_along(std::span<const Move> moves) const {
  double out = 0;
  for (const Move& move : moves) {
    const double term = std::abs(move.step * analytic_[move.variable].data<double>()[move.element]);
    if (std::isfinite(term)) out += term;
  }
  return out;
}

namespace {

// The larger of each two elements.
void raise(std::vector<Array>& arrays, const std::vector<Array>& others) {
  for (std::size_t t = 0; t < arrays.size(); ++t)
    for (std::int64_t k = 0; k < arrays[t].size(); ++k) arrays[t].set(k, std::max(arrays[t][k], others[t][k]));
}

}  // namespace

Probe::Noise Probe::scattered(double distance) {
  return {mover_.rounding(gradient_, analytic_, options_, distance),
          mover_.rounding(terms_, middle_, options_, distance)};
}

void Probe::look(Look look) {
  look_ = look;
  Noise& noise = noise_[static_cast<std::size_t>(look)];
  if (look == Look::near || noise.terms.size() == middle_.size()) return;
  noise = scattered(look == Look::wide ? 1e-3 : 1e-9);
  raise(noise.gradient, mover_.disturbed(gradients_, analytic_));
  raise(noise.terms, mover_.disturbed(function().terms, middle_));
  if (look != Look::wide) return;
  raise(noise.gradient, noise_[0].gradient);
  raise(noise.terms, noise_[0].terms);
}

bool Probe::is_independent_of(std::size_t variable, std::int64_t element) {
  const double x = function().points[variable][element];
  const double typical = size_of(x, root_mean_square(function().points[variable]));
  bool same = true;
  for (const double instead : {0.0, typical, -typical}) {
    mover_.replace(variable, element, instead);
    mover_.run(terms_, above_);
    for (std::size_t t = 0; t < middle_.size(); ++t)
      for (std::int64_t k = 0; k < middle_[t].size(); ++k) same = same && above_[t][k] == middle_[t][k];
  }
  mover_.replace(variable, element, x);
  return same;
}

double Probe::sensitivity() const {
  double out = 0;
  for (std::size_t v = 0; v < analytic_.size(); ++v) {
    const Array& x = function().points[v];
    const double typical = root_mean_square(x);
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const double change = std::abs(analytic_[v].data<double>()[i]) * size_of(x.data<double>()[i], typical);
      if (std::isfinite(change)) out = std::max(out, change);
    }
  }
  return out;
}

Differences Probe::along(std::span<const Move> moves, double h) {
  double up = h;
  double down = h;
  mover_.place(moves, h);
  // A single element's step is what rounding makes of it.
  if (moves.size() == 1) up = mover_.moved(moves[0]) / moves[0].step;
  mover_.run(terms_, above_);
  mover_.place(moves, -h);
  if (moves.size() == 1) down = -mover_.moved(moves[0]) / moves[0].step;
  mover_.run(terms_, below_);
  mover_.put_back(moves);

  Differences d;
  double rounding = 0;
  double largest = 0;  // where nothing moves at all, what is too small to move it is not known to be 0
  bool moved = false;
  bool unknown = false;  // a term that is not a number wherever the points are
  for (std::size_t t = 0; t < middle_.size(); ++t) {
    const auto* w = function().weights[t].data<double>();
    const auto* a = above_[t].data<double>();
    const auto* m = middle_[t].data<double>();
    const auto* b = below_[t].data<double>();
    const auto* r = noise().terms[t].data<double>();
    for (std::int64_t k = 0; k < middle_[t].size(); ++k) {
      largest = std::max(largest, std::abs(w[k] * r[k]));
      if (a[k] == m[k] && m[k] == b[k]) continue;
      if (std::isnan(a[k]) && std::isnan(m[k]) && std::isnan(b[k])) {
        unknown = true;
        continue;
      }
      moved = true;
      d.above += w[k] * (a[k] - m[k]);
      d.below += w[k] * (m[k] - b[k]);
      rounding += std::abs(w[k] * r[k]);
    }
  }
  // Other outputs' terms may be looked at beside it, but nothing says that it does not move.
  if (unknown && !moved) d.above = d.below = std::numeric_limits<double>::quiet_NaN();
  d.above *= h / up;
  d.below *= h / down;
  d.noise = 2 * (rounding > 0 ? rounding : largest) + epsilon * h * magnitude_along(moves);
  return d;
}

bool Probe::repeats() {
  mover_.run(terms_, above_);
  for (std::size_t t = 0; t < middle_.size(); ++t)
    if (!allclose(above_[t], middle_[t], 0, 0)) return false;  // a NaN's sign is not its value
  return true;
}

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

CheckRow row_of(std::string_view check, std::string_view subject, std::string input) {
  CheckRow row;
  row.check = check;
  row.subject = subject;
  row.input = std::move(input);
  return row;
}

}  // namespace chainrule::check
