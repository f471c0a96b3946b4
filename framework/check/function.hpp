// What is differentiated in a check: a scalar made of weighted outputs, and the arrays it is moved in. Not installed.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include <chainrule/framework/check/check_gradients.hpp>
#include <chainrule/framework/check/numeric.hpp>

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
  Location at;  // of the user's call, or where the op was registered

  [[nodiscard]] std::int64_t elements() const;  // of all points
};

// The floating outputs of an op on a sample, weighted at random. Its `sum` is empty where there are none.
Function function_of(const Op& op, const Sample& sample, DType dtype, const CheckOptions& options);

// Random numbers of both signs, none near 0 and no two alike.
Array weights_for(const Dims& shape, std::uint64_t seed, std::uint64_t stream);

// These numbers as a value of f's graph: a fed input of the shape of `like`, which may be symbolic.
Value numbers_like(Function& f, Value like, const Array& numbers);

// The function whose gradient is the second derivative: the gradient of `f` along random directions.
Function next_order(const Function& f, const CheckOptions& options);

std::vector<Feed> feeds_of(const Function& f);

std::vector<Array> analytic_gradient(const Function& f);

// The typical size of an array's elements, of those that are finite.
double root_mean_square(const Array& x);

// The size of an element, or where it is small beside its array, of what is typical there.
double size_of(double x, double typical);

// What an element is moved by. One that is not finite cannot be moved, and goes 0 along a direction.
inline constexpr double step_of_size = 0.02;
double first_step(double x, double typical);

// One element and how far it goes along a direction.
struct Move {
  std::size_t variable = 0;
  std::int64_t element = 0;
  double step = 0;
};

// Every element of every variable by half to one and a half times its first step, up or down at random: a single wrong
// element cannot escape, and two cannot cancel.
std::vector<Move> random_direction(const Function& f, std::uint64_t seed, std::uint64_t stream);

// The same function around x + h * moves.
Function moved(const Function& f, std::span<const Move> moves, double h);

// A function whose points move and come back.
class Mover {
 public:
  explicit Mover(Function f);
  [[nodiscard]] const Function& function() const { return f_; }
  [[nodiscard]] State& state() { return f_.state; }

  // The points at x + h * moves; back at x.
  void place(std::span<const Move> moves, double h);
  void put_back(std::span<const Move> moves);
  // By how much an element differs from x now.
  [[nodiscard]] double moved(const Move& move) const;

  // A program of the function's graph and state at where the points are.
  void run(Program& program, std::vector<Array>& into);
  // What rounding does to each element of its outputs, which at x are `at_points`: how they scatter over points at
  // `distance` from each other near x, in units of random_direction.
  std::vector<Array> rounding(Program& program, const std::vector<Array>& at_points, const CheckOptions& options,
                              double distance = 1e-5);
  // The same for values of its graph, by how far they are off where each op's result is (disturb.hpp).
  std::vector<Array> disturbed(const Values& values, const std::vector<Array>& at_points);
  // The number of an element itself; every variable is at x.
  void replace(std::size_t variable, std::int64_t element, double x);

 private:
  void to_state(std::span<const Move> moves);

  Function f_;
  std::vector<Feed> feeds_;
  std::vector<Array> original_;  // the points
};

// How rounding is looked at. None of these sees all of it, and each may see what is none: a verdict of fail has to hold
// by all of them.
enum class Look : std::uint8_t {
  near,  // how results scatter over points next to x
  wide,  // over a wider range too, where rounding makes long steps of a function that hardly changes; and disturbed
  fine,  // over points so close that hardly a jump of the function lies between them; and disturbed
};

// Runs a function and its gradient at moved points.
class Probe {
 public:
  Probe(Function f, const CheckOptions& options);

  [[nodiscard]] const Function& function() const { return mover_.function(); }
  // The analytic gradient at the points themselves, and what rounding does to each element of it.
  [[nodiscard]] const std::vector<Array>& analytic() const { return analytic_; }
  [[nodiscard]] const std::vector<Array>& rounding() const { return noise().gradient; }
  // Sum of |gradient * step|.
  [[nodiscard]] double magnitude_along(std::span<const Move> moves) const;

  // By how much the function would change if its most important element changed by all of its size.
  [[nodiscard]] double sensitivity() const;

  // The function at x + h * moves, x and x - h * moves.
  Differences along(std::span<const Move> moves, double h);
  // Chooses rounding() and that of the function; measured when first asked for.
  void look(Look look);
  [[nodiscard]] Look looking() const { return look_; }
  // Whether the function, near x, is the same whatever a number of x is that is not finite.
  bool is_independent_of(std::size_t variable, std::int64_t element);
  // Whether the function still is at the points what it was when the Probe was made, exactly.
  bool repeats();

 private:
  // What rounding does to each element.
  struct Noise {
    std::vector<Array> gradient;
    std::vector<Array> terms;
  };
  [[nodiscard]] const Noise& noise() const { return noise_[static_cast<std::size_t>(look_)]; }
  Noise scattered(double distance);

  Mover mover_;
  Program terms_;
  Values gradients_;
  Program gradient_;
  CheckOptions options_;
  Look look_ = Look::near;
  std::array<Noise, 3> noise_;  // by Look
  std::vector<Array> analytic_;
  std::vector<Array> middle_;
  std::vector<Array> above_;
  std::vector<Array> below_;
};

// What `judge` says by one look after the other, until it is not fail.
template <class Judge>
void look_until_not_failed(Probe& probe, Judge judge) {
  Verdict verdict = judge();
  for (const Look look : {Look::wide, Look::fine}) {
    if (verdict != Verdict::fail) break;
    probe.look(look);
    verdict = judge();
  }
  probe.look(Look::near);
}

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

CheckRow row_of(std::string_view check, std::string_view subject, std::string input);

// Appends the rows of a function: "gradient" for each variable and "Taylor"; with options.orders of 2 also "adjoint",
// and "second order" for each variable. Of more than options.full_below elements in all, also one of each for "all".
void check_function(const Function& f, std::string_view subject, const CheckOptions& options,
                    std::vector<CheckRow>& rows);

}  // namespace chainrule::check
