// Numeric derivatives of a function of one number, with what is known of their error. Not installed.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>

namespace chainrule::check {

// f(x + h) - f(x) and f(x) - f(x - h), each from differences of single terms, and what rounding does to either.
struct Differences {
  double above = 0;
  double below = 0;
  double noise = 0;
};

using Along = std::function<Differences(double h)>;

enum class Form : std::uint8_t {
  smooth,  // the slopes to both sides meet as the step shrinks, or cannot be told apart
  kink,    // both converge, to different slopes
  jump,    // the function's change stays as the step shrinks: there is no slope
};

struct Slope {
  double value = 0;
  double error = std::numeric_limits<double>::infinity();  // estimated, of a kink of `left` and `right`; else infinite
  double rounding = 0;                                     // what of the error is not due to the length of the steps
  Form form = Form::smooth;
  // Of a kink, the slopes to both sides; of a jump, those of the branches beside it, NaN where they do not converge.
  double left = 0;
  double right = 0;
};

// The slope at 0 of h -> f(x + h) by central differences, extrapolated to h = 0 by Ridders' method, from the first,
// largest step on; each next one is half as long. It ends early once the estimated error is below `enough`, which is
// asked with the value so far: 0 for one that is not to be believed without a look at smaller steps, as one that
// contradicts a gradient (of a staircase, two steps may agree by chance). Where that is not reached, or the slopes to
// both sides do not seem to meet, either is looked at alone, at steps that shrink by 8 until rounding hides them: they
// settle apart (kink), grow like 1/h (jump), or meet at smaller steps than the first ones, from where the extrapolation
// begins again.
using Enough = std::function<double(double value)>;
Slope slope(const Along& along, double h, const Enough& enough);

// The same from two steps, for the many elements that are right and smooth; an infinite error says that it is not
// enough.
Slope quick_slope(const Along& f, double h);

// What rounding does to each of a row of numbers that a smooth function gave at equal distances: their fourth
// differences, of which the function itself is gone.
class Jitter {
 public:
  static constexpr int least_points = 5;
  void add(double value);
  [[nodiscard]] double value() const { return most_; }

 private:
  double last_[4] = {};
  int seen_ = 0;
  double most_ = 0;
};

}  // namespace chainrule::check
