#include <chainrule/framework/check/float32.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/autodiff/gradients.hpp>
#include <chainrule/framework/check/function.hpp>

namespace chainrule::check {

namespace {

constexpr double ulp = std::numeric_limits<float>::epsilon();

// Rounding differs by some ULPs for each operation on the way; a wrong formula, or one that cancels in float32, by
// thousands. In a gradient the output's weights are rounded too, and sums of them cancel.
constexpr double most_ulps_of_values = 32;
constexpr double most_ulps_of_gradients = 256;

// What half a ULP of every input does to each element of a program's outputs, at most, in some tries.
std::vector<Array> conditioning(Mover& mover, Program& program, const std::vector<Array>& at_points,
                                const CheckOptions& options) {
  constexpr int tries = 4;
  std::vector<Array> out = at_points;
  for (Array& array : out)
    for (std::int64_t i = 0; i < array.size(); ++i) array.set(i, 0);
  std::vector<Array> there;
  for (int t = 0; t < tries; ++t) {
    std::vector<Move> moves = random_direction(mover.function(), options.seed, 8000 + 20 * static_cast<unsigned>(t));
    for (Move& move : moves)
      move.step = std::copysign(0.5 * ulp * mover.function().points[move.variable][move.element], move.step);
    mover.place(moves, 1);
    mover.run(program, there);
    mover.put_back(moves);
    for (std::size_t a = 0; a < out.size(); ++a)
      for (std::int64_t i = 0; i < out[a].size(); ++i)
        if (const double change = std::abs(there[a][i] - at_points[a][i]); std::isfinite(change))
          out[a].set(i, std::max(out[a][i], change));
  }
  return out;
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

CheckRow compared(const Array& got, const Array& expected, const Array& conditioning, std::string_view subject,
                  const std::string& input, double most_ulps) {
  CheckRow row = row_of("float32", subject, input);
  row.dtype = float32;
  row.shape = to_shape(expected.shape());
  // An element that is small because terms of the size of others cancel has their rounding.
  double largest = 0;
  for (std::int64_t i = 0; i < expected.size(); ++i)
    if (std::isfinite(expected[i])) largest = std::max(largest, std::abs(expected[i]));
  RelativeDistance distance;
  double worst = -1;
  for (std::int64_t i = 0; i < expected.size(); ++i) {
    const double a = got[i];
    const double b = expected[i];
    if (std::isfinite(a) && std::isfinite(b)) distance.add(a, b);
    const double unit = ulp * std::max(std::abs(b), 0.05 * largest) + conditioning[i] +
                        static_cast<double>(std::numeric_limits<float>::min());
    // What float32 has no number for is infinite there.
    const bool beyond = std::isinf(a) && std::abs(b) > static_cast<double>(std::numeric_limits<float>::max());
    double ulps = same(a, b) || beyond ? 0 : std::abs(a - b) / unit;
    if (!std::isfinite(ulps)) ulps = 1e9;
    if (ulps <= worst) continue;
    worst = ulps;
    row.worst = index_of(i, expected.shape());
    row.analytic = a;
    row.numeric = b;
    row.ulps = ulps;
  }
  row.distance = distance.value();
  row.verdict = row.ulps <= most_ulps ? Verdict::pass : Verdict::fail;
  row.note = fmt::format("{:.1f} ULP", row.ulps);
  return row;
}

// The same outputs of both functions, beside each other.
template <class Outputs>
void compare_outputs(const Function& wide, const Function& narrow, std::string_view subject,
                     const std::vector<std::string>& names, double most_ulps, const CheckOptions& options,
                     Outputs outputs, std::vector<CheckRow>& rows) {
  Mover in64(wide);
  Mover in32(narrow);
  Program program64(in64.state(), {.outputs = outputs(wide), .mode = wide.mode}, wide.at);
  Program program32(in32.state(), {.outputs = outputs(narrow), .mode = narrow.mode}, narrow.at);
  std::vector<Array> expected;
  std::vector<Array> got;
  in64.run(program64, expected);
  in32.run(program32, got);
  const std::vector<Array> sensitive = conditioning(in64, program64, expected, options);
  for (std::size_t i = 0; i < expected.size(); ++i)
    rows.push_back(compared(got[i], expected[i], sensitive[i], subject, names[i], most_ulps));
}

}  // namespace

void check_float32_values(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                          std::vector<CheckRow>& rows) {
  const Function wide = function_of(op, sample, float64, options);
  if (wide.variables.empty() || !wide.sum.defined()) return;
  std::vector<std::string> names;
  for (const Value term : wide.terms)
    names.push_back(op.has_several_outputs() ? fmt::format("output {}", term.output_index()) : "values");
  compare_outputs(
      wide, function_of(op, sample, float32, options), subject, names, most_ulps_of_values, options,
      [](const Function& f) { return f.terms; }, rows);
}

void check_float32_gradients(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                             std::vector<CheckRow>& rows) {
  const Function wide = function_of(op, sample, float64, options);
  compare_outputs(
      wide, function_of(op, sample, float32, options), subject, wide.names, most_ulps_of_gradients, options,
      [](const Function& f) { return gradients(f.sum, f.variables, f.at); }, rows);
}

}  // namespace chainrule::check
