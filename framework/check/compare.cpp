#include <chainrule/framework/check/compare.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/check/judge.hpp>

namespace chainrule::check {

Kinks::Kinks(const Function& f) {
  for (const Array& point : f.points) elements.emplace_back(static_cast<std::size_t>(point.size()), char{0});
}

bool Kinks::any() const {
  return along_directions || jumps || unsettled ||
         std::any_of(elements.begin(), elements.end(),
                     [](const std::vector<char>& of) { return std::find(of.begin(), of.end(), char{1}) != of.end(); });
}

namespace {

// In first steps.
constexpr double distance_beside = 1.0 / 16;

class Comparison {
 public:
  Comparison(Probe& probe, std::string_view check, std::string_view subject, const CheckOptions& options,
             bool of_gradient)
      : probe_(probe), f_(probe.function()), options_(options), of_gradient_(of_gradient), found_(f_) {
    for (std::size_t v = 0; v < f_.variables.size(); ++v) {
      CheckRow row = row_of(check, subject, f_.names[v]);
      row.line = f_.lines[v];
      row.shape = to_shape(f_.points[v].shape());
      rows_.push_back(std::move(row));
      judges_.emplace_back(probe, v, options, rows_.back());
      typical_.push_back(root_mean_square(f_.points[v]));
    }
    all_ = row_of(check, subject, "all");
    all_.shape = Shape{f_.elements()};
  }

  Kinks run(std::vector<CheckRow>& rows) {
    const bool directions = f_.elements() > options_.full_below;
    if (directions) {
      along_directions();
      sampled_elements();
    } else {
      for (std::size_t v = 0; v < rows_.size(); ++v)
        for (std::int64_t i = 0; i < f_.points[v].size(); ++i) element(v, i);
    }
    for (std::size_t v = 0; v < rows_.size(); ++v) finish(v);
    for (CheckRow& row : rows_) rows.push_back(std::move(row));
    if (directions) rows.push_back(std::move(all_));
    return std::move(found_);
  }

 private:
  void finish(std::size_t v) {
    judges_[v].finish();
    const Array& gradient = probe_.analytic()[v];
    for (std::int64_t i = 0; i < gradient.size(); ++i) {
      if (!std::isnan(gradient[i])) continue;
      if (const std::string why = unchosen_side(f_, v); !why.empty())
        rows_[v].note += (rows_[v].note.empty() ? "" : "; ") + why;
      return;
    }
  }

  // ---- single elements

  Finding element(std::size_t v, std::int64_t i) {
    const Move move{v, i, 1};
    const auto [evidence, finding] = judged(std::span(&move, 1), first_step(f_.points[v][i], typical_[v]),
                                            [&] { return judges_[v].evidence(i, slope_at(v, i)); });
    const bool unsettled = finding.reason == Reason::unsettled;
    if (evidence.numeric.form != Form::smooth || unsettled) found_.elements[v][static_cast<std::size_t>(i)] = 1;
    if (unsettled) found_.unsettled = true;
    if (evidence.numeric.form == Form::jump) found_.jumps = true;
    judges_[v].add(i, evidence, finding);
    return finding;
  }

  template <class F>
  std::pair<Evidence, Finding> judged(std::span<const Move> moves, double step, F evidence_of) {
    Evidence evidence;
    Finding finding;
    look_until_not_failed(probe_, [&] {
      evidence = evidence_of();
      finding = finding_of(evidence, moves, step);
      return finding.verdict;
    });
    return {evidence, finding};
  }

  Finding finding_of(const Evidence& evidence, std::span<const Move> moves, double step) {
    if (!of_gradient_ || evidence.numeric.form == Form::smooth || !std::isfinite(evidence.analytic))
      return judge(evidence);
    if (!beside_) beside_.emplace(moved(f_, random_direction(f_, options_.seed, 7000), distance_beside), options_);
    beside_->look(probe_.looking());
    Evidence e = evidence_along(*beside_, moves);
    e.tolerance = std::max(e.tolerance, 0.01 * options_.tolerance);
    e.numeric = slope([&](double h) { return beside_->along(moves, h); }, 0.25 * distance_beside * step,
                      [&](double value) {
                        const double enough = 0.1 * e.tolerance * e.scale;
                        return std::abs(e.analytic - value) <= 10 * enough ? enough : 0;
                      });
    e.scale = std::max(e.scale, std::abs(evidence.numeric.value));
    const Finding there = judge(e);
    return there.verdict == Verdict::pass ? Finding{Verdict::subgradient, Reason::beside} : there;
  }

  Slope slope_at(std::size_t v, std::int64_t i) {
    // Where the point is not finite there is no difference to take, but perhaps nothing depends on it.
    if (!std::isfinite(f_.points[v][i])) {
      Slope none;
      if (probe_.is_independent_of(v, i)) none.error = 0;
      return none;
    }
    const double a = probe_.analytic()[v][i];
    const RowJudge& judge = judges_[v];
    const Move move{v, i, 1};
    const auto f = [&](double h) { return probe_.along(std::span(&move, 1), h); };
    const double h = first_step(f_.points[v][i], typical_[v]);
    // Most elements are right and smooth: two short steps show it. All others get the whole extrapolation, from a
    // longer step on, where rounding matters less.
    const Slope quick = quick_slope(f, h / 16);
    const double enough = 0.1 * options_.tolerance * judge.scale(a, quick.value);
    if (quick.error <= enough && std::abs(a - quick.value) <= enough) return quick;
    if (a == 0 && quick.value == 0 && quick.error <= 0.01 * judge.slope_floor(i)) return quick;
    const auto from = [&](double step) {
      return slope(f, step, [&](double value) {
        const double scale = judge.scale(a, value);
        return std::abs(a - value) <= 0.1 * options_.tolerance * scale ? 0.01 * options_.tolerance * scale : 0;
      });
    };
    const Slope wide = from(h);
    const double own = step_of_size * std::abs(f_.points[v][i]);
    if (own == 0 || own >= h || std::abs(a - wide.value) <= options_.tolerance * judge.scale(a, wide.value))
      return wide;
    // It is small beside its array. Steps of that size may lead to where the function is another one: 1 / x at 0.1,
    // beside 1e30.
    const Slope close = from(own);
    return close.error <= 1e-4 * judge.scale(a, close.value) ? close : wide;
  }

  // Where kinks blur every direction (thousands of relus), single elements still decide.
  void sampled_elements() {
    for (int k = 0; k < options_.sampled; ++k) {
      const std::size_t v = static_cast<std::size_t>(k) % rows_.size();
      const std::int64_t size = f_.points[v].size();
      if (size == 0) continue;
      const Array chosen = integers({1}, 0, size).draw(float64, options_.seed, 6000 + static_cast<std::uint64_t>(k));
      element(v, static_cast<std::int64_t>(chosen[0]));
    }
  }

  // ---- directions

  // What there is to compare a numeric slope along a direction with.
  [[nodiscard]] Evidence evidence_along(const Probe& probe, std::span<const Move> moves) const {
    Evidence e;
    double squares = 0;
    for (const Move& move : moves) {
      const double term = probe.analytic()[move.variable].data<double>()[move.element] * move.step;
      e.analytic += term;
      squares += term * term;
      e.rounding += std::abs(move.step) * probe.rounding()[move.variable].data<double>()[move.element];
    }
    e.scale = std::max(std::abs(e.analytic), std::sqrt(squares));
    // A single element that is wrong by a hundredth of the typical one has to show: no more slack than the numeric
    // value's own error, and the rounding of the sum.
    e.tolerance = 1e-3 * options_.tolerance;
    e.floor = step_of_size * floor_of(probe, options_);
    return e;
  }

  Evidence compared_along(std::span<const Move> moves) {
    Evidence e = evidence_along(probe_, moves);
    // From steps on at which few relus of thousands change sides, until a single element that is wrong by a thousandth
    // of the typical one would show.
    const double enough = 1e-5 * e.scale / std::sqrt(static_cast<double>(moves.size()));
    const double close = std::max(enough, e.tolerance * e.scale);
    e.numeric = slope([&](double h) { return probe_.along(moves, h); }, 1.0 / 256,
                      [&](double value) { return std::abs(e.analytic - value) <= 10 * close ? close : 0; });
    return e;
  }

  void along_directions() {
    Finding best{Verdict::fail, Reason::differs};
    for (int p = 0; p < options_.directions; ++p) {
      const auto moves = random_direction(f_, options_.seed, 5000 + 100 * static_cast<std::uint64_t>(p));
      const auto [evidence, finding] = judged(moves, 1, [&] { return compared_along(moves); });
      if (evidence.numeric.form != Form::smooth) found_.along_directions = true;
      if (evidence.numeric.form == Form::jump) found_.jumps = true;
      const bool shown = finding.verdict == Verdict::fail || p == 0 || finding.verdict < best.verdict;
      if (shown) show(finding, evidence);
      if (p == 0 || finding.verdict < best.verdict) best = finding;
      if (finding.verdict != Verdict::fail) continue;
      blame(moves);
      return;
    }
    all_.verdict = best.verdict;
  }

  void show(const Finding& finding, const Evidence& e) {
    all_.verdict = finding.verdict;
    all_.analytic = e.analytic;
    all_.numeric = e.numeric.value;
    all_.error = e.numeric.error;
    const bool compared = finding.reason == Reason::agrees || finding.reason == Reason::differs;
    const double sum = e.scale + std::abs(e.numeric.value);
    all_.distance = compared && sum > 0 ? std::abs(e.analytic - e.numeric.value) / sum : 0;
    all_.note = fmt::format("along {} random directions", options_.directions);
    if (e.numeric.form == Form::kink)
      all_.note += fmt::format(", kinks (slopes {:.4g} and {:.4g})", e.numeric.left, e.numeric.right);
    if (e.numeric.form == Form::jump) all_.note += ", a jump";
    if (const std::string why = to_string(finding, e); !why.empty()) all_.note += "; " + why;
  }

  void blame(std::vector<Move> moves) {
    const Move found = bisect(std::move(moves));
    if (found.step != 0 && element(found.variable, found.element).verdict == Verdict::fail) {
      all_.note += fmt::format("; it is {} at {}", f_.names[found.variable],
                               chainrule::to_string(index_of(found.element, f_.points[found.variable].shape())));
      return;
    }
    all_.note += "; wrong at no single element";
  }

  // The element at fault: of the halves, the one that fails, and so on down. A step of 0 where neither does.
  Move bisect(std::vector<Move> moves) {
    while (moves.size() > 1) {
      const auto half = moves.size() / 2;
      const std::span<const Move> sides[] = {std::span(moves).first(half), std::span(moves).subspan(half)};
      double worst = 0;
      int side = -1;
      for (int s = 0; s < 2; ++s) {
        const Evidence e = compared_along(sides[s]);
        const double difference = std::abs(e.analytic - e.numeric.value);
        if (judge(e).verdict != Verdict::fail || !(difference > worst || std::isnan(difference))) continue;
        worst = std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
        side = s;
      }
      if (side < 0) return {};
      moves = std::vector<Move>(sides[side].begin(), sides[side].end());
    }
    return moves.empty() ? Move{} : moves[0];
  }

  Probe& probe_;
  const Function& f_;
  const CheckOptions& options_;
  bool of_gradient_;
  std::optional<Probe> beside_;
  Kinks found_;
  std::deque<CheckRow> rows_;  // the judges refer to them
  std::deque<RowJudge> judges_;
  std::vector<double> typical_;
  CheckRow all_;
};

}  // namespace

Kinks compare(Probe& probe, std::string_view check, std::string_view subject, const CheckOptions& options,
              bool of_gradient, std::vector<CheckRow>& rows) {
  return Comparison(probe, check, subject, options, of_gradient).run(rows);
}

void check_function(const Function& f, std::string_view subject, const CheckOptions& options,
                    std::vector<CheckRow>& rows) {
  const auto repeats = [&](Probe& probe, std::string_view of) {
    if (probe.repeats()) return;
    CheckRow row = row_of("repeatable", subject, "all");
    row.verdict = Verdict::fail;
    row.note = fmt::format("{} changes from run to run at the same point: no differences of it mean anything", of);
    rows.push_back(std::move(row));
  };
  Probe first(f, options);
  const Kinks kinks = compare(first, "gradient", subject, options, false, rows);
  check_taylor(first, subject, options, kinks, rows);
  repeats(first, "the function");
  if (options.orders < 2) return;
  check_adjoint(first, subject, options, rows);
  Probe second(next_order(f, options), options);
  compare(second, "second order", subject, options, true, rows);
  repeats(second, "the gradient");
}

}  // namespace chainrule::check
