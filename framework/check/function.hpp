// What is differentiated in a check: a scalar made of weighted outputs, and the arrays it is moved in. Not installed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <chainrule/framework/check/numeric.hpp>
#include <chainrule/framework/check_gradients.hpp>

namespace chainrule::check {

// sum over terms of weights * term, a function of `variables` (inputs or variables of the graph) around `points`.
struct Function {
  Graph graph;
  State state;
  Value sum;     // as a value, for its analytic gradient
  Values terms;  // what is summed
  std::vector<Array> weights;
  Values variables;
  std::vector<std::string> names;
  std::vector<std::string> lines;
  std::vector<Array> points;
  std::vector<Feed> feeds;  // of the other inputs
  Mode mode = Mode::training;
  Location at;  // of the user's call
};

// Random numbers of both signs, none near 0 and no two alike.
Array weights_for(const Dims& shape, std::uint64_t seed, std::uint64_t stream);

// The function whose gradient is the second derivative: the gradient of `f` along random directions.
Function next_order(const Function& f, const CheckOptions& options);

std::vector<Array> analytic_gradient(const Function& f);

// Runs a function's terms at moved points.
class Probe {
 public:
  explicit Probe(const Function& f);

  // The function along a direction of one variable, x + h * direction, where direction is 0 but at `elements`.
  // `direction` has a step for each of these.
  Differences along(std::size_t variable, std::span<const std::int64_t> elements, std::span<const double> direction,
                    double h);
  // The value of the function with every variable moved along its direction.
  double moved(const std::vector<Array>& directions, double h, double& magnitude);
  [[nodiscard]] const Function& function() const { return f_; }

 private:
  void run(std::vector<Array>& into);
  void put(std::size_t variable);

  Function f_;
  Program program_;
  std::vector<Feed> feeds_;
  std::vector<Array> middle_;
  std::vector<Array> above_;
  std::vector<Array> below_;
};

// Typical size of an element; the first step at one.
double root_mean_square(const Array& x);
double first_step(double x, double typical);

Dims index_of(std::int64_t flat, const Dims& shape);

// Compares both gradients of variable v element by element, or for large ones along directions, and fills in the row.
void compare(Probe& probe, std::size_t variable, const Array& analytic, const CheckOptions& options, CheckRow& row);

// Appends the rows of one function: a gradient row for each variable.
void check_function(const Function& f, std::string_view check, std::string_view subject, const CheckOptions& options,
                    std::vector<CheckRow>& rows);
// The Taylor remainder and the adjoint identity, for all variables together.
void check_taylor(const Function& f, std::string_view subject, const CheckOptions& options,
                  std::vector<CheckRow>& rows);
void check_adjoint(const Function& f, std::string_view subject, const CheckOptions& options,
                   std::vector<CheckRow>& rows);

}  // namespace chainrule::check
