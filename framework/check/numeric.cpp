#include <chainrule/framework/check/numeric.hpp>

#include <algorithm>
#include <cmath>

namespace chainrule::check {

namespace {

constexpr double shrink = 2;

struct OneSided {
  double left;
  double right;
  double noise;
  [[nodiscard]] double jump() const { return right - left; }
};

OneSided one_sided(const Differences& d, double h) { return {d.below / h, d.above / h, d.noise / h}; }

// Whether the jump stays as the step shrinks by 16 and by 256: that of a smooth function shrinks with it.
bool is_kink(const std::function<Differences(double)>& f, const OneSided& seen, double h, OneSided& finest) {
  OneSided before = seen;
  for (int i = 0; i < 2; ++i) {
    h /= 16;
    const OneSided now = one_sided(f(h), h);
    if (!(std::abs(now.jump()) > 0.7 * std::abs(before.jump())) || !(std::abs(now.jump()) > 20 * now.noise))
      return false;
    before = now;
  }
  finest = before;
  return true;
}

}  // namespace

Slope slope(const std::function<Differences(double h)>& f, double first_step, const Enough& enough, int steps) {
  double table[most_steps][most_steps];
  Slope best;
  OneSided last{};
  double last_h = 0;
  bool jumps = false;  // the last two steps look like a kink
  int usable = 0;
  double h = first_step;
  for (int i = 0; i < steps; ++i, h /= shrink) {
    const Differences d = f(h);
    const double quotient = (d.above + d.below) / (2 * h);
    if (!std::isfinite(quotient)) {  // outside of the domain: only smaller steps count
      usable = 0;
      continue;
    }
    const OneSided sides = one_sided(d, h);
    jumps =
        usable > 0 && std::abs(sides.jump()) > 0.8 * std::abs(last.jump()) && std::abs(sides.jump()) > 20 * sides.noise;
    last = sides;
    last_h = h;
    table[usable][0] = quotient;
    double factor = shrink * shrink;
    const double rounding = d.noise / h;
    for (int k = 1; k <= usable; ++k, factor *= shrink * shrink) {
      table[usable][k] = (table[usable][k - 1] * factor - table[usable - 1][k - 1]) / (factor - 1);
      const double error = std::max(std::abs(table[usable][k] - table[usable][k - 1]),
                                    std::abs(table[usable][k] - table[usable - 1][k - 1])) +
                           rounding;
      if (error <= best.error) {
        best.value = table[usable][k];
        best.error = error;
      }
    }
    ++usable;
    if (usable > 1 && best.error <= enough(best.value)) break;
  }
  if (usable == 0) {
    best.error = std::numeric_limits<double>::infinity();
    return best;
  }
  OneSided finest{};
  if (jumps && is_kink(f, last, last_h, finest)) {
    best.kink = true;
    best.left = finest.left;
    best.right = finest.right;
  }
  return best;
}

}  // namespace chainrule::check
