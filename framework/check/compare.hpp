// The rows of a check that compare a gradient with differences. Not installed.
#pragma once

#include <vector>

#include <chainrule/framework/check/function.hpp>

namespace chainrule::check {

// Where the function has no slope: elements by variable, whether random directions meet any, and whether there is more
// than kinks.
struct Kinks {
  explicit Kinks(const Function& f);
  std::vector<std::vector<char>> elements;
  bool along_directions = false;
  bool jumps = false;
  bool unsettled = false;  // no difference is finite
  [[nodiscard]] bool any() const;
};

// Appends a row for each variable. Of no more than options.full_below elements in all each is compared. Of more, the
// slopes along random directions of all of them are, in a row of their own for "all", and some elements; what is wrong
// along a direction is bisected to its element.
// `of_gradient`: the function is itself a gradient. Where that has a kink or jumps there is no second derivative, and
// what the rules make of it is a product of choices; such an element has to be right beside the point.
Kinks compare(Probe& probe, std::string_view check, std::string_view subject, const CheckOptions& options,
              bool of_gradient, std::vector<CheckRow>& rows);

// Appends the row of the Taylor remainder along a random direction of all elements but those at kinks.
void check_taylor(Probe& probe, std::string_view subject, const CheckOptions& options, const Kinks& kinks,
                  std::vector<CheckRow>& rows);

// Appends the row of <J v, w> = <v, J' w>.
void check_adjoint(Probe& probe, std::string_view subject, const CheckOptions& options, std::vector<CheckRow>& rows);

}  // namespace chainrule::check
