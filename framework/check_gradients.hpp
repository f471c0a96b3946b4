// The gradient checker: analytic gradients against finite differences, element by element.
//
// Numeric derivatives are central differences in float64, extrapolated to step 0 by Ridders' method (C.J.F. Ridders,
// "Accurate computation of F'(x) and F'(x) F''(x)", 1982), which also estimates their error: a difference within that
// estimate is no evidence against a gradient, and an estimate too large to decide by is said to be so.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>

#include <chainrule/framework/op.hpp>
#include <chainrule/framework/program.hpp>
#include <chainrule/framework/state.hpp>

namespace chainrule {

struct CheckOptions {
  // An element passes where |analytic - numeric| <= tolerance * max(|analytic|, |numeric|, 0.01 * largest element) and
  // ten times the estimated error of the numeric value.
  double tolerance = 1e-6;
  int orders = 2;           // 1: gradients; 2: gradients of gradients too
  bool float32 = true;      // of an op: whether its float32 gradient agrees with its float64 one
  std::uint64_t seed = 1;   // of the samples' random inputs and of the cotangents
  Mode mode = Mode::training;
};

enum class Verdict : std::uint8_t { pass, fail, inconclusive };

// One input of one sample, or one value of a network.
struct CheckRow {
  std::string subject;  // "sample 1" of an op; "" of a network
  std::string input;    // "input 0", or the value's name
  DType dtype = float64;
  int order = 1;
  Dims shape;
  Verdict verdict = Verdict::pass;
  // The notes' relative distance: ||analytic - numeric|| / (||analytic|| + ||numeric||), 0 where both are 0.
  double distance = 0;
  // The worst element: its index, both values, and the estimated error of the numeric one.
  Dims worst;
  double analytic = 0;
  double numeric = 0;
  double error = 0;
};

class CheckReport {
 public:
  std::string title;
  std::vector<CheckRow> rows;
  // What went wrong before anything could be compared ("sample 2: ..."); a report with one has not passed.
  std::vector<std::string> errors;

  // Whether every row passed and there is at least one.
  [[nodiscard]] bool passed() const;
  // The greatest relative distance of the rows in float64.
  [[nodiscard]] double distance() const;
  // A table, a row an input.
  [[nodiscard]] std::string to_string() const;
};

// Every sample of an op: the gradient of a randomly weighted sum of its output, in orders 1 and 2, and float32 against
// float64. An op without a gradient rule, or whose samples have nothing to differentiate, throws Error.
CheckReport check_gradients(const Op& op, const CheckOptions& options = {});

// d loss / d value for each value (parameters, variables or inputs) of a whole network, at the State's numbers and these
// feeds. The State and the graph are left as they are: the check runs on a copy of both, in float64 whatever the
// graph's dtype. Random masks are frozen, since no run of the check updates anything. Order 1 unless options say 2.
CheckReport check_gradients(Value loss, const Values& values, const State& state, std::span<const Feed> feeds,
                            const CheckOptions& options = {.orders = 1}, Location at = Location::here());
CheckReport check_gradients(Value loss, const Values& values, const State& state,
                            std::initializer_list<Feed> feeds = {}, const CheckOptions& options = {.orders = 1},
                            Location at = Location::here());

}  // namespace chainrule

// fmt::print("{}", report). (Not derived from a formatter of fmt's, whose definition would need its heavy header.)
template <>
struct fmt::formatter<chainrule::CheckReport> {
  static constexpr auto parse(fmt::format_parse_context& context) { return context.begin(); }
  static auto format(const chainrule::CheckReport& report, fmt::format_context& context) {
    auto out = context.out();
    for (const char c : report.to_string()) *out++ = c;
    return out;
  }
};
