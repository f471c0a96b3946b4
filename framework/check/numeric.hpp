// Numeric derivatives of a function of one number, with what is known of their error. Not installed.
#pragma once

#include <functional>
#include <limits>

namespace chainrule::check {

// f(x + h) - f(x) and f(x) - f(x - h), each from differences of single terms, and what rounding does to either.
struct Differences {
  double above = 0;
  double below = 0;
  double noise = 0;
};

struct Slope {
  double value = 0;
  double error = std::numeric_limits<double>::infinity();  // estimated; infinite where nothing could be computed
  // At a kink the slopes to either side do not meet as the step shrinks.
  bool kink = false;
  double left = 0;
  double right = 0;
};

// The slope at 0 of h -> f(x + h) by central differences, extrapolated to h = 0 by Ridders' method, from the first,
// largest step on; each next one is half as long, and there are at most `steps`. It ends early once the estimated error
// is below `enough`, which is asked with the value so far.
inline constexpr int most_steps = 12;
using Enough = std::function<double(double value)>;
Slope slope(const std::function<Differences(double h)>& f, double first_step, const Enough& enough,
            int steps = most_steps);

}  // namespace chainrule::check
