// The gradient checker: analytic gradients against finite differences, with the evidence for each verdict.
//
// How it decides. Numeric derivatives are central differences in float64, extrapolated to step 0 by Ridders' method
// (C.J.F. Ridders, "Accurate computation of F'(x) and F'(x) F''(x)", 1982), which estimates their error: a difference
// within ten times that estimate is no evidence against a gradient, and where the estimate is too large to decide, the
// verdict says so. What rounding does is measured, since a sum that cancels has the rounding of its parts and not of
// its size: the function and the gradient are run at points at equal distances nearby, and the fourth differences of
// what comes out are not the function's but rounding's (R.W. Hamming's table; J.J. More and S.M. Wild, "Estimating
// computational noise", 2011). Outputs are weighted by random numbers of both signs, since a bare sum is blind to what
// conserves it (softmax); differences are taken of each output before they are summed, so that unmoved ones cancel
// exactly. The steps are in proportion to each element.
//
// Where there is no slope. At a kink the slopes to either side settle apart as the step shrinks; a gradient between
// them is a subgradient, and is reported as one. At a jump the function's change stays as the step shrinks and its
// quotients grow without bound: no gradient is right there, so it fails where it is not that of the branches beside the
// jump, and else is inconclusive. A gradient that itself has a kink or a jump has no second derivative there, and what
// the rules make of it is a product of choices; the second order is then compared beside the point.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/framework/graph/format.hpp>
#include <chainrule/framework/graph/op.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/framework/run/state.hpp>

namespace chainrule {

struct CheckOptions {
  // An element passes where |analytic - numeric| <= tolerance * scale + 10 * the estimated error of both; scale is the
  // greater of both, but at least a hundredth of the largest element of the gradient. The error has to be below a
  // ten-thousandth of the scale, or so small in absolute terms that both are 0 beside it: below the tolerance of a
  // function of size 1 (or of what its most important element changes it by) over the element's own size.
  double tolerance = 1e-6;
  int orders = 2;             // 2: gradients of gradients too
  bool float32 = true;        // of an op: its float32 values and gradient against those in float64
  bool preconditions = true;  // of an op: whether its kernel can be trusted at all (see check_gradients(op))
  std::uint64_t seed = 1;     // of the samples' random inputs, weights and directions; a report names it
  Mode mode = Mode::training;
  // More elements than this, of all values together, are checked along random directions in which every one moves up or
  // down (which a single wrong element cannot escape) and at some sampled elements, all in all; a failure is bisected
  // to its element. The directions have a row of their own, of input "all".
  std::int64_t full_below = 512;
  int directions = 3;
  int sampled = 8;
};

enum class Verdict : std::uint8_t { pass, subgradient, inconclusive, fail };

// One comparison: an input of a sample, or a value of a network.
struct CheckRow {
  std::string check;    // "gradient", "second order", "float32", "adjoint", "Taylor", or "repeatable" and the like
  std::string subject;  // "sample 1" of an op; "" of a network
  std::string input;    // "input 0", or the value's name; "values" of a float32 forward, "all" of all inputs together
  std::string line;     // of the program where the value was made
  DType dtype = float64;
  Shape shape;
  Verdict verdict = Verdict::pass;
  // The notes' relative distance: ||analytic - numeric|| / (||analytic|| + ||numeric||), 0 where both are 0, of the
  // elements that differences can resolve.
  double distance = 0;
  // The worst element: its index, both values, the estimated error of the numeric one, and for float32 how many ULPs
  // of float32 lie between both.
  Dims worst;
  double analytic = 0;
  double numeric = 0;
  double error = 0;
  double ulps = 0;
  // Why it is undecided, kinks and jumps and their elements, the power of a Taylor remainder, what a precondition
  // found; and where a gradient is NaN because of the side of a `where` that is not chosen, how to write it.
  std::string note;
};

class CheckReport {
 public:
  std::string title;
  std::string line;  // where the op or the loss was made
  std::uint64_t seed = 0;
  std::vector<CheckRow> rows;
  // What went wrong before anything could be compared ("sample 2: ..."); a report with one has not passed.
  std::vector<std::string> errors;

  // Whether there are rows and all pass (subgradients do).
  [[nodiscard]] bool passed() const;
  // fail where any row failed or an error stands; else inconclusive where any is; else subgradient, else pass.
  [[nodiscard]] Verdict verdict() const;
  // The greatest relative distance among the gradients in float64.
  [[nodiscard]] double distance() const;
  // A table, a row a comparison; in colour for a terminal.
  [[nodiscard]] std::string to_string(bool colour = false) const;
  // One line: title, verdict, comparisons, distance.
  [[nodiscard]] std::string summary(bool colour = false) const;
  [[nodiscard]] std::string to_json() const;
};

std::string_view name(Verdict verdict);

// Prints the table, in colour where the file is a terminal.
void print(const CheckReport& report, std::FILE* file = stdout);

// Every sample of an op.
//   gradient      of a randomly weighted sum of its output, in each input
//   second order  the same of the gradient itself
//   float32       the float32 values and gradient against the float64 ones, in ULPs of float32
//   adjoint       <J v, w> = <v, J' w> for random v and w
//   Taylor        a second opinion without a tolerance: f(x + h d) - f(x) - h <g, d> shrinks like h^2 for a right
//                 gradient g, like h for a wrong one, and not at all at a jump
// And before that, whether the kernel can be trusted: runs of one made kernel, and of another made for the same, agree
// bit for bit; inputs and what lies beside the operands are not written, and what lies there is not read; outputs are
// wholly written (memory is poisoned first); the same value as two inputs and memory reused in place give what separate
// memory gives; and shapes of size 0 and 1 run. A kernel that writes where it must not is not run any further.
// What an op's rules or kernel throw is an error of the report. Throws Error for an op without a gradient rule, or
// whose samples have nothing to differentiate. `at`: the line of errors of an op that is not registered.
CheckReport check_gradients(const Op& op, const CheckOptions& options = {}, Location at = Location::here());

// d loss / d value for each value (floating parameters, variables or inputs) of a whole network, at the State's numbers
// and these feeds. The State and the graph are left as they are: the check runs on a copy of both, in float64 whatever
// the graph's dtype. Random masks are frozen, since no run of the check updates anything; a loss that changes from run
// to run all the same fails.
CheckReport check_gradients(Value loss, const Values& values, const State& state, std::span<const Feed> feeds,
                            const CheckOptions& options = {}, Location at = Location::here());
CheckReport check_gradients(Value loss, const Values& values, const State& state,
                            std::initializer_list<Feed> feeds = {}, const CheckOptions& options = {},
                            Location at = Location::here());

// The course's own check: every element of the values moved by +-epsilon, and ||g - g'|| / (||g|| + ||g'||) over all of
// them together. The course calls a gradient right below 1e-7. (No error estimate, no kinks: see check_gradients.)
double gradient_check_n(Value loss, const Values& values, const State& state, std::span<const Feed> feeds,
                        double epsilon = 1e-7, Location at = Location::here());
double gradient_check_n(Value loss, const Values& values, const State& state, std::initializer_list<Feed> feeds = {},
                        double epsilon = 1e-7, Location at = Location::here());

}  // namespace chainrule

template <>
struct fmt::formatter<chainrule::CheckReport> : chainrule::detail::TextFormatter {
  static auto format(const chainrule::CheckReport& report, fmt::format_context& context) {
    return write(report.to_string(), context);
  }
};
