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
  explicit Probe(Function f);

  // The analytic gradient at the points themselves.
  [[nodiscard]] const std::vector<Array>& analytic() const { return analytic_; }

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
  std::vector<Array> analytic_;
  Program program_;
  std::vector<Feed> feeds_;
  std::vector<Array> middle_;
  std::vector<Array> above_;
  std::vector<Array> below_;
};

Dims index_of(std::int64_t flat, const Dims& shape);

// The notes' relative distance of two gradients, ||a - b|| / (||a|| + ||b||), 0 where both are 0.
class RelativeDistance {
 public:
  void add(double a, double b) {
    difference2_ += (a - b) * (a - b);
    a2_ += a * a;
    b2_ += b * b;
  }
  [[nodiscard]] double value() const;

 private:
  double difference2_ = 0;
  double a2_ = 0;
  double b2_ = 0;
};

// Appends the rows of a function: "gradient" for each variable and "Taylor"; with options.orders of 2 also "adjoint",
// and "second order" for each variable.
void check_function(const Function& f, std::string_view subject, const CheckOptions& options,
                    std::vector<CheckRow>& rows);

}  // namespace chainrule::check
