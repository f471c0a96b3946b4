// What a right gradient satisfies whatever its size: the order of a Taylor remainder, and that J' is J's adjoint.
#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/autodiff/derivatives.hpp>
#include <chainrule/framework/check/compare.hpp>
#include <chainrule/framework/check/judge.hpp>
#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule::check {

namespace {

// f(x + h d) - f(x) - h <g, d> over shrinking h.
struct Remainders {
  struct At {
    double h;
    double remainder;
    double noise;
  };
  std::vector<At> clear;                                   // of rounding, without a gap up to the first that is not
  double least = std::numeric_limits<double>::infinity();  // of (remainder + noise) / h: how wrong the slope may be
  double last = std::numeric_limits<double>::infinity();   // of these, that at the smallest step
  bool finite = false;                                     // any
};

double rounding_along(const Probe& probe, std::span<const Move> moves) {
  double out = 0;
  for (const Move& move : moves)
    out += std::abs(move.step) * probe.rounding()[move.variable].data<double>()[move.element];
  return out;
}

Remainders remainders_of(Probe& probe, std::span<const Move> moves, double slope) {
  Remainders out;
  bool hidden = false;
  const double rounding = rounding_along(probe, moves);
  for (double h = 1; h > 1e-10 && !hidden; h /= 4) {
    const Differences d = probe.along(moves, h);
    const double remainder = std::abs(d.above - h * slope);
    if (!std::isfinite(remainder)) continue;
    const double noise = d.noise + h * rounding;
    out.finite = true;
    out.last = (remainder + noise) / h;
    out.least = std::min(out.least, out.last);
    hidden = hidden || remainder <= 8 * noise;
    if (!hidden) out.clear.push_back({h, remainder, noise});
  }
  return out;
}

// By which power of h the remainder shrinks between the last two, or the two before.
double power(const Remainders& r, std::size_t before = 0) {
  const std::size_t n = r.clear.size() - before;
  return n < 2 ? std::numeric_limits<double>::quiet_NaN()
               : std::log(r.clear[n - 2].remainder / r.clear[n - 1].remainder) /
                     std::log(r.clear[n - 2].h / r.clear[n - 1].h);
}

struct Opinion {
  Verdict verdict = Verdict::inconclusive;
  double power = std::numeric_limits<double>::quiet_NaN();
  std::string note;
};

Opinion opinion(Probe& probe, const std::vector<Move>& moves, const CheckOptions& options) {
  double slope = 0;
  double squares = 0;
  for (const Move& move : moves) {
    const double term = move.step * probe.analytic()[move.variable].data<double>()[move.element];
    slope += term;
    squares += term * term;
  }
  const Remainders r = remainders_of(probe, moves, slope);
  if (!r.finite)
    return {Verdict::inconclusive, power(r),
            std::isfinite(slope) ? "undecided: the function is not finite along any step"
                                 : "undecided: the gradient is not finite"};
  const double floor = step_of_size * floor_of(probe, options);
  const bool vanishes = r.least <= std::max(options.tolerance * std::sqrt(squares), floor);
  if (r.clear.size() < 2) {
    if (vanishes) return {Verdict::pass, power(r), "remainder within rounding"};
    return {Verdict::inconclusive, power(r), "undecided: rounding hides the remainder"};
  }
  const double p = power(r);
  const std::string shrinks = fmt::format("remainder shrinks like h^{:.2f}", p);
  if (p >= 1.8) return {Verdict::pass, p, shrinks};
  // Steps across jumps say nothing of the slope: those do that end before the first one, where the remainder is gone
  // at once. Many jumps are crossed in proportion to h.
  if (vanishes) return {Verdict::pass, p, "remainder within rounding, but for steps across a jump"};
  if (p < 0.5 || r.last <= 0.1 * r.clear.back().remainder / r.clear.back().h)
    return {Verdict::inconclusive, p, shrinks + ", as at a jump"};
  // Of a wrong gradient it is in proportion to h in the end; a single such pair of steps may be chance.
  if (p <= 1.2 && power(r, 1) <= 1.2) return {Verdict::fail, p, shrinks + ", not h^2"};
  return {Verdict::inconclusive, p, shrinks + ", not clearly h^2"};
}

// The same direction, but for elements that are small beside their array: none is moved by more than a part of itself.
std::vector<Move> in_proportion(const Function& f, std::vector<Move> moves) {
  for (Move& move : moves) {
    const double most = step_of_size * std::abs(f.points[move.variable][move.element]);
    if (most > 0) move.step = std::clamp(move.step, -most, most);
  }
  return moves;
}

}  // namespace

void check_taylor(Probe& probe, std::string_view subject, const CheckOptions& options, const Kinks& kinks,
                  std::vector<CheckRow>& rows) {
  Opinion found;
  // A remainder may change its sign between two steps, where its power means nothing: not along every direction.
  for (std::uint64_t direction = 0; direction < 3 && found.verdict == Verdict::inconclusive; ++direction) {
    std::vector<Move> moves = random_direction(probe.function(), options.seed, 200 + 50 * direction);
    std::erase_if(moves, [&](const Move& move) {
      return kinks.elements[move.variable][static_cast<std::size_t>(move.element)] != 0;
    });
    if (moves.empty() && !kinks.any()) {
      found = {Verdict::pass, found.power, "no elements"};
      break;
    }
    if (moves.empty()) {
      found = {Verdict::subgradient, found.power, "every element is at a kink"};
      if (kinks.jumps || kinks.unsettled)
        found = {Verdict::inconclusive, found.power, "undecided: no element has slopes to both sides"};
      break;
    }
    look_until_not_failed(probe, [&] {
      found = opinion(probe, moves, options);
      if (found.verdict <= Verdict::subgradient) return found.verdict;
      // Steps of a typical size may lead a small element to where the function is another one.
      const Opinion close = opinion(probe, in_proportion(probe.function(), moves), options);
      if (close.verdict == Verdict::pass) found = close;
      return found.verdict;
    });
  }
  if (found.verdict > Verdict::subgradient && kinks.any() && found.power < 1.8) {
    found.verdict = kinks.jumps ? Verdict::inconclusive : Verdict::subgradient;
    found.note += kinks.jumps ? ", as it may where the function jumps" : ", as it may at a kink";
  }
  CheckRow row = row_of("Taylor", subject, "all");
  row.numeric = found.power;
  row.analytic = 2;
  row.verdict = found.verdict;
  row.note = found.note;
  rows.push_back(std::move(row));
}

void check_adjoint(Probe& probe, std::string_view subject, const CheckOptions& options, std::vector<CheckRow>& rows) {
  const Function& f = probe.function();
  // <J v, w> by the Jacobian-vector product, <v, J' w> by the gradient of the weighted sum, whose weights are w.
  Function g = f;
  Values vs;
  std::vector<Array> directions;
  for (std::size_t v = 0; v < f.variables.size(); ++v) {
    directions.push_back(weights_for(f.points[v].shape(), options.seed, 300 + v));
    vs.push_back(numbers_like(g, f.variables[v], directions.back()));
  }
  Values products;
  for (const Value term : f.terms) products.push_back(jvp(term, f.variables, vs, f.at));
  Program program(g.state, {.outputs = products, .mode = f.mode}, f.at);
  Mover mover(g);
  std::vector<Array> results;
  mover.run(program, results);
  std::vector<Array> errors = mover.rounding(program, results, options);
  double forward = 0;
  double reverse = 0;
  double size = 0;
  double rounding = 0;
  const auto holds = [&] {
    forward = reverse = size = rounding = 0;
    const auto add = [&](double& sum, double weight, double value, double error) {
      sum += weight * value;
      size += std::abs(weight * value);
      rounding += std::abs(weight) * error;
    };
    for (std::size_t t = 0; t < results.size(); ++t)
      for (std::int64_t k = 0; k < results[t].size(); ++k) add(forward, f.weights[t][k], results[t][k], errors[t][k]);
    for (std::size_t v = 0; v < f.variables.size(); ++v)
      for (std::int64_t i = 0; i < directions[v].size(); ++i)
        add(reverse, directions[v][i], probe.analytic()[v][i], probe.rounding()[v][i]);
    return std::abs(forward - reverse) <= 1e-12 * size + 100 * rounding + 1e-6 * floor_of(probe, options);
  };
  bool held = holds();
  if (!held && std::isfinite(forward - reverse)) {
    const std::vector<Array> scattered = std::exchange(errors, mover.disturbed(products, results));
    for (std::size_t t = 0; t < errors.size(); ++t)
      for (std::int64_t k = 0; k < errors[t].size(); ++k) errors[t].set(k, std::max(errors[t][k], scattered[t][k]));
    probe.look(Look::wide);
    held = holds();
    probe.look(Look::near);
  }
  CheckRow row = row_of("adjoint", subject, "all");
  row.analytic = reverse;
  row.numeric = forward;
  row.error = rounding;
  const double difference = std::abs(forward - reverse);
  row.distance = size == 0 ? 0 : difference / size;
  row.note = "<v, J'w> and <Jv, w>";
  if (!std::isfinite(difference)) {
    row.verdict = Verdict::inconclusive;
    row.note += "; undecided: not finite";
  } else {
    row.verdict = held ? Verdict::pass : Verdict::fail;
  }
  rows.push_back(std::move(row));
}

}  // namespace chainrule::check
