#include <chainrule/framework/check/numeric.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace chainrule::check {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinite = std::numeric_limits<double>::infinity();

// ---- both sides together

// Ridders' tableau, row by row.
class Extrapolation {
 public:
  // The difference quotients of steps that halve.
  void add(const Differences& d, double h) {
    const double quotient = (d.above + d.below) / (2 * h);
    if (!std::isfinite(quotient)) {  // outside of the domain: only smaller steps count
      usable_ = 0;
      return;
    }
    // Of a smooth function the difference of both sides shrinks with the step.
    const double gap = (d.above - d.below) / h;
    apart_ = usable_ > 0 && std::abs(gap) > 0.8 * std::abs(gap_) && std::abs(gap) > 20 * d.noise / h;
    gap_ = gap;
    Row row{};
    row[0] = quotient;
    double factor = 4;
    for (std::size_t k = 1; k <= usable_; ++k, factor *= 4) {
      row[k] = (row[k - 1] * factor - last_[k - 1]) / (factor - 1);
      const double error = std::max(std::abs(row[k] - row[k - 1]), std::abs(row[k] - last_[k - 1])) + d.noise / h;
      if (error <= best_.error) {
        best_.value = row[k];
        best_.error = error;
        best_.rounding = d.noise / h;
      }
    }
    last_ = row;
    ++usable_;
  }
  // Sides that stay apart have nothing nearer in common than what lies between them, however well quotients agree.
  [[nodiscard]] Slope best() const {
    Slope out = best_;
    if (apart_) out.error = std::max(out.error, std::abs(gap_) / 2);
    return out;
  }
  [[nodiscard]] bool apart() const { return apart_; }

  static constexpr int most_steps = 12;

 private:
  using Row = std::array<double, most_steps>;
  Row last_{};
  std::size_t usable_ = 0;
  Slope best_;
  double gap_ = 0;
  bool apart_ = false;
};

struct Extrapolated {
  Slope slope;
  bool sure = false;  // the error is below `enough`, and both sides meet
};

Extrapolated extrapolate(const Along& f, double h, const Enough& enough) {
  Extrapolation e;
  for (int i = 0; i < Extrapolation::most_steps; ++i, h /= 2) {
    e.add(f(h), h);
    if (!e.apart() && e.best().error <= enough(e.best().value)) return {e.best(), true};
  }
  const double value = e.best().value;
  return {e.best(), !e.apart() && enough(value) > 0 && e.best().error <= 1e-6 * std::abs(value)};
}

// ---- either side alone

// The changes of one side over steps that shrink by `shrink`, and what they say.
constexpr double shrink = 8;

struct Settled {
  double value = nan;
  double error = infinite;
  double step = 0;
};

// Quotients that should settle as the step shrinks.
class Settling {
 public:
  void add(double quotient, double h, double noise) { at_.push_back({quotient, h, noise / h}); }

  // The slope: extrapolated once, as their error is in proportion to the step, where two after each other agree best
  // and all at smaller steps agree with them.
  [[nodiscard]] Settled best() const {
    Settled out;
    for (std::size_t j = 1; j < at_.size(); ++j) {
      const double correction = (at_[j].quotient - at_[j - 1].quotient) / (shrink - 1);
      const double value = at_[j].quotient + correction;
      const double error = std::abs(correction) + at_[j].rounding;
      if (error < out.error && holds_from(j, value, error)) out = {value, error, at_[j].h};
    }
    return out;
  }

 private:
  struct Quotient {
    double quotient;
    double h;
    double rounding;
  };

  [[nodiscard]] bool holds_from(std::size_t j, double value, double error) const {
    return std::all_of(at_.begin() + static_cast<std::ptrdiff_t>(j), at_.end(),
                       [&](const Quotient& q) { return std::abs(q.quotient - value) <= 10 * (error + q.rounding); });
  }

  std::vector<Quotient> at_;
};

struct Sides {
  Settled left;  // from the point itself
  Settled right;
  bool jump = false;
  Settled left_branch;  // from points beside it
  Settled right_branch;
};

// Whether a change stays the same, clear of rounding, while the step shrinks by 8, and again by 8.
bool stays(const double (&change)[3], double noise) {
  return std::abs(change[2]) > 20 * noise && std::abs(change[2]) > 0.7 * std::abs(change[1]) &&
         std::abs(change[1]) > 0.7 * std::abs(change[0]);
}

Sides look_at_sides(const Along& f, double h) {
  constexpr int levels = 11;  // down to a ten billionth of the first step
  Sides out;
  Settling left;
  Settling right;
  Settling left_branch;
  Settling right_branch;
  double above[3] = {};
  double below[3] = {};
  double noise = 0;
  for (int i = 0; i < levels; ++i, h /= shrink) {
    const Differences d = f(h);
    right.add(d.above / h, h, d.noise);
    left.add(d.below / h, h, d.noise);
    for (int k = 0; k < 2; ++k) {
      above[k] = above[k + 1];
      below[k] = below[k + 1];
    }
    above[2] = d.above;
    below[2] = d.below;
    noise = d.noise;
    if (i == 0) continue;
    const double between = h * (shrink - 1);
    right_branch.add((above[1] - above[2]) / between, h, d.noise);
    left_branch.add((below[1] - below[2]) / between, h, d.noise);
  }
  out.left = left.best();
  out.right = right.best();
  out.jump = stays(above, noise) || stays(below, noise);
  out.left_branch = left_branch.best();
  out.right_branch = right_branch.best();
  return out;
}

}  // namespace

namespace {

// x + h and x - h are exact for most x where h is a power of 2.
double power_of_two(double h) { return std::exp2(std::floor(std::log2(h))); }

}  // namespace

Slope slope(const Along& along, double h, const Enough& enough) {
  const double first_step = power_of_two(h);
  // A term that a small step does not move is not known any better for it.
  double noise = 0;
  const Along f = [&](double step) {
    Differences d = along(step);
    noise = std::max(noise, d.noise);
    d.noise = noise;
    return d;
  };
  const Extrapolated first = extrapolate(f, first_step, enough);
  if (first.sure) return first.slope;
  const Sides sides = look_at_sides(f, first_step);
  const auto formed = [&](Form form, double left, double right, double error) {
    Slope out = first.slope;
    out.form = form;
    out.left = left;
    out.right = right;
    out.error = error;
    return out;
  };
  if (sides.jump) {
    const Settled& left = sides.left_branch;
    const Settled& right = sides.right_branch;
    // A branch that does not settle has no slope to compare with.
    const double enough_for_both = 1e-3 * (std::abs(left.value) + std::abs(right.value));
    return formed(Form::jump, left.error <= enough_for_both ? left.value : nan,
                  right.error <= enough_for_both ? right.value : nan, infinite);
  }
  const double gap = std::abs(sides.right.value - sides.left.value);
  const double errors = sides.left.error + sides.right.error;
  if (errors < 0.02 * gap) return formed(Form::kink, sides.left.value, sides.right.value, errors);
  if (!std::isfinite(errors)) return first.slope;
  // Both sides meet, but perhaps only at steps far below the first.
  const Extrapolated again = extrapolate(f, std::min(sides.left.step, sides.right.step) * shrink, enough);
  const Slope& one = again.slope;
  const bool first_meets = std::abs(first.slope.value - sides.right.value) <= first.slope.error + 10 * errors;
  return first_meets && first.slope.error <= one.error ? first.slope : one;
}

Slope quick_slope(const Along& f, double h) {
  const double step = power_of_two(h);
  Extrapolation e;
  e.add(f(step), step);
  e.add(f(step / 2), step / 2);
  Slope out = e.best();
  if (e.apart()) out.error = infinite;
  return out;
}

void Jitter::add(double value) {
  if (seen_ >= 4) {
    const double fourth =
        (value - last_[3]) - 3 * (last_[3] - last_[2]) + 3 * (last_[2] - last_[1]) - (last_[1] - last_[0]);
    // Those of independent errors are sqrt(1 + 16 + 36 + 16 + 1) times as large.
    if (std::isfinite(fourth)) most_ = std::max(most_, std::abs(fourth) / std::sqrt(70.0));
  }
  std::copy(last_ + 1, last_ + 4, last_);
  last_[3] = value;
  ++seen_;
}

}  // namespace chainrule::check
