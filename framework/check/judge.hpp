// The verdict on a gradient's elements, and on its slope along directions. Not installed.
#pragma once

#include <string>
#include <vector>

#include <chainrule/framework/check/function.hpp>

namespace chainrule::check {

// An analytic slope beside a numeric one, with all that says how far they may lie apart.
struct Evidence {
  double analytic = 0;
  double rounding = 0;  // of the analytic one
  Slope numeric;
  double scale = 0;      // by which a difference is measured
  double tolerance = 0;  // of the scale
  double floor = 0;      // an error below this tells 0 from any slope that matters
};

enum class Reason : std::uint8_t {
  agrees,
  by_scale,  // both are below what differences resolve, and that is little
  between,   // at a kink
  beside,    // a gradient without a slope here, right beside the point
  differs,
  not_finite,
  jump,
  hidden,     // the error of the differences is too large
  unsettled,  // no difference is finite
};

struct Finding {
  Verdict verdict = Verdict::pass;
  Reason reason = Reason::agrees;
};

// The change of a function that is none, beside all that it can change by.
double floor_of(const Probe& probe, const CheckOptions& options);

Finding judge(const Evidence& evidence);

// Why an undecided or failed comparison is one: "" where the numbers say it.
std::string to_string(const Finding& finding, const Evidence& evidence);

// What has been found of a row so far.
class RowJudge {
 public:
  RowJudge(const Probe& probe, std::size_t variable, const CheckOptions& options, CheckRow& row);

  // The scale by which a difference at an element is measured.
  [[nodiscard]] double scale(double a, double n) const;
  // The floor of an element's evidence.
  [[nodiscard]] double slope_floor(std::int64_t element) const;
  [[nodiscard]] Evidence evidence(std::int64_t element, const Slope& numeric) const;
  void add(std::int64_t element, const Evidence& evidence, const Finding& finding);
  // The row's distance and note.
  void finish();

 private:
  void note_kink(std::int64_t element, const Slope& numeric);

  CheckRow& row_;
  const Probe& probe_;
  std::size_t variable_;
  const Array& analytic_;
  const Array& point_;
  double tolerance_;
  double floor_;
  double typical_;
  double largest_ = 0;
  double worst_ = -1;
  RelativeDistance distance_;
  std::string worst_note_;
  int kinks_ = 0;
  std::string kink_notes_;
  int beside_ = 0;
  int hidden_ = 0;  // passed by scale
  double hidden_error_ = 0;
};

// Where a gradient is NaN because of a side that `where` did not choose: what to write instead; "" where it is not.
std::string unchosen_side(const Function& f, std::size_t variable);

}  // namespace chainrule::check
