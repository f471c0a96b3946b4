#include <chainrule/framework/check/judge.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/autodiff/gradients.hpp>
#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule::check {

namespace {

bool is_between(double a, double left, double right, double slack) {
  return a >= std::min(left, right) - slack && a <= std::max(left, right) + slack;
}

// At a jump there is no derivative, but there are those of the branches beside it.
Finding judge_jump(const Evidence& e) {
  const Slope& n = e.numeric;
  if (std::isnan(n.left) || std::isnan(n.right)) return {Verdict::inconclusive, Reason::jump};
  const double slack = 1e-3 * (std::abs(n.left) + std::abs(n.right)) + 10 * e.rounding + e.tolerance * e.scale;
  return {is_between(e.analytic, n.left, n.right, slack) ? Verdict::inconclusive : Verdict::fail, Reason::jump};
}

Finding judge_kink(const Evidence& e) {
  const Slope& n = e.numeric;
  const double slack = 1e-4 * std::abs(n.right - n.left) + e.tolerance * e.scale + 10 * (n.error + e.rounding);
  return is_between(e.analytic, n.left, n.right, slack) ? Finding{Verdict::subgradient, Reason::between}
                                                        : Finding{Verdict::fail, Reason::differs};
}

}  // namespace

double floor_of(const Probe& probe, const CheckOptions& options) {
  return options.tolerance * std::max(1.0, 0.01 * probe.sensitivity());
}

Finding judge(const Evidence& e) {
  const Slope& n = e.numeric;
  if (std::isnan(e.analytic) && (n.form != Form::smooth || std::isfinite(n.error)))
    return {Verdict::fail, Reason::not_finite};
  if (n.form == Form::jump) return judge_jump(e);
  if (n.form == Form::kink) return judge_kink(e);
  if (!std::isfinite(n.error)) return {Verdict::inconclusive, Reason::unsettled};
  if (!std::isfinite(e.analytic))
    return {n.error <= 1e-3 * std::abs(n.value) ? Verdict::fail : Verdict::inconclusive, Reason::not_finite};
  const double error = n.error + e.rounding;
  const double difference = std::abs(e.analytic - n.value);
  const bool resolved = error <= 1e-4 * e.scale;
  if (difference > e.tolerance * e.scale + 10 * error) {
    if (resolved || difference > 100 * error) return {Verdict::fail, Reason::differs};
    return {Verdict::inconclusive, Reason::hidden};
  }
  if (resolved) return {};
  // Agreement to so many digits is not by chance, however coarse the estimate.
  const double larger = std::max(std::abs(e.analytic), std::abs(n.value));
  if (larger > 0 && difference <= e.tolerance * larger) return {};
  if (error <= e.floor && n.error <= 10 * n.rounding) return {Verdict::pass, Reason::by_scale};
  return {Verdict::inconclusive, Reason::hidden};
}

std::string to_string(const Finding& finding, const Evidence& e) {
  const Slope& n = e.numeric;
  switch (finding.reason) {
    case Reason::jump:
      return fmt::format("no derivative exists there{}",
                         std::isnan(n.left) || std::isnan(n.right)
                             ? ""
                             : fmt::format(" (slopes beside it {:.4g} and {:.4g})", n.left, n.right));
    case Reason::hidden:
      return fmt::format("undecided: differences resolve no more than +-{:.1e} here", n.error + e.rounding);
    case Reason::unsettled: return "undecided: no difference is finite";
    case Reason::not_finite: return std::isnan(e.analytic) ? "the gradient is NaN" : "the gradient is infinite";
    case Reason::agrees:
    case Reason::by_scale:
    case Reason::between:
    case Reason::beside:
    case Reason::differs: return "";
  }
  return "";
}

// ---- RowJudge

RowJudge::RowJudge(const Probe& probe, std::size_t variable, const CheckOptions& options, CheckRow& row)
    : row_(row),
      probe_(probe),
      variable_(variable),
      analytic_(probe.analytic()[variable]),
      point_(probe.function().points[variable]),
      tolerance_(options.tolerance),
      floor_(floor_of(probe, options)),
      typical_(root_mean_square(point_)) {
  for (std::int64_t i = 0; i < analytic_.size(); ++i)
    if (std::isfinite(analytic_[i])) largest_ = std::max(largest_, std::abs(analytic_[i]));
}

double RowJudge::scale(double a, double n) const { return std::max({std::abs(a), std::abs(n), 0.01 * largest_}); }

double RowJudge::slope_floor(std::int64_t element) const { return floor_ / size_of(point_[element], typical_); }

Evidence RowJudge::evidence(std::int64_t element, const Slope& numeric) const {
  const double a = analytic_[element];
  return {a, probe_.rounding()[variable_][element], numeric, scale(a, numeric.value), tolerance_, slope_floor(element)};
}

void RowJudge::add(std::int64_t element, const Evidence& evidence, const Finding& finding) {
  const double a = evidence.analytic;
  const Slope& numeric = evidence.numeric;
  // Where the difference quotient is no reference, the gradient itself is: at a kink its distance from the interval is
  // what counts, and below what differences resolve there is no distance to be seen.
  const bool no_reference = finding.reason == Reason::between || finding.reason == Reason::beside ||
                            finding.reason == Reason::by_scale || finding.reason == Reason::hidden ||
                            finding.reason == Reason::unsettled;
  const double reference = no_reference ? a : numeric.value;
  const double difference = std::abs(a - reference);
  if (std::isfinite(difference)) distance_.add(a, reference);
  const double s = scale(a, reference);
  double badness = static_cast<double>(finding.verdict) * 1e6 + (s == 0 ? 0 : difference / s);
  if (!std::isfinite(badness)) badness = 1e9;
  if (badness > worst_) {
    worst_ = badness;
    row_.worst = index_of(element, analytic_.shape());
    row_.analytic = a;
    row_.numeric = numeric.value;
    row_.error = numeric.error;
    worst_note_ = to_string(finding, evidence);
    if (finding.reason == Reason::jump)
      worst_note_ = fmt::format("jump at element {}: {}", chainrule::to_string(row_.worst), worst_note_);
  }
  if (numeric.form == Form::kink) note_kink(element, numeric);
  if (finding.reason == Reason::beside) ++beside_;
  if (finding.reason == Reason::by_scale) {
    ++hidden_;
    hidden_error_ = std::max(hidden_error_, numeric.error);
  }
  row_.verdict = std::max(row_.verdict, finding.verdict);
}

void RowJudge::note_kink(std::int64_t element, const Slope& numeric) {
  ++kinks_;
  if (kinks_ <= 3)
    kink_notes_ += fmt::format("{}{} (slopes {:.4g} and {:.4g})", kink_notes_.empty() ? "" : ", ",
                               chainrule::to_string(index_of(element, analytic_.shape())), numeric.left, numeric.right);
}

namespace {

std::string elements(int count) { return count == 1 ? "1 element" : fmt::format("{} elements", count); }

}  // namespace

void RowJudge::finish() {
  row_.distance = distance_.value();
  const auto say = [this](const std::string& text) {
    if (!text.empty()) row_.note += (row_.note.empty() ? "" : "; ") + text;
  };
  say(worst_note_);
  if (kinks_ > 0)
    say(fmt::format("{} kink{} at {}{}", kinks_, kinks_ == 1 ? "" : "s", kink_notes_, kinks_ > 3 ? ", ..." : ""));
  if (beside_ > 0) say(fmt::format("no slope at {}, right beside", elements(beside_)));
  if (hidden_ > 0) say(fmt::format("{} below what differences resolve, +-{:.1e}", elements(hidden_), hidden_error_));
}

// ---- where

// 0 times a slope that is not finite is NaN: what flows to the side that is not chosen is 0, and NaN is what arrives.
std::string unchosen_side(const Function& f, std::size_t variable) {
  Function g = f;
  const std::vector<Feed> points = feeds_of(g);
  const auto count = f.sum.id();
  for (std::uint32_t id = 0; id <= count; ++id) {
    const Value value(g.graph.data().get(), id);
    if (value.node().op().name != "where" || !is_floating(value.dtype())) continue;
    for (std::size_t side = 1; side < 3; ++side) {
      const Value branch = value.node().input(side);
      const Value zeros = g.graph.input(g.graph.unique_name("zeros"), branch.shape(), branch.dtype());
      Program value_of(g.state, {.outputs = {branch}, .mode = g.mode}, f.at);
      const Array numbers = value_of.run(std::span<const Feed>(points), f.at)[0];
      Program program(g.state, {.outputs = gradients(branch, {f.variables[variable]}, zeros, f.at), .mode = g.mode},
                      f.at);
      std::vector<Feed> feeds = points;
      const Array none = Array::full(numbers.dtype(), numbers.shape(), 0);
      feeds.emplace_back(zeros, none);
      const Results slopes = program.run(std::span<const Feed>(feeds), f.at);
      for (std::int64_t i = 0; i < slopes[0].size(); ++i)
        if (!std::isfinite(slopes[0][i]))
          return fmt::format(
              "the side of `where` ({}) that is not chosen has a slope that is not finite, and 0 times it is NaN: "
              "write where(ok, f(where(ok, x, safe)), other) with an x that is safe for f",
              value.location().to_string());
    }
  }
  return "";
}

}  // namespace chainrule::check
