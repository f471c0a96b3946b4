// Exercise 9: exponentially weighted averages of a year's temperatures, with and without bias correction.
//
// The average is a variable of the State, the recursion its update: what momentum, RMSProp and Adam do with gradients.
#include "course.hpp"

#include <cmath>
#include <numbers>
#include <numeric>

namespace {

// A year in degrees, with a cold and noisy January. (The notes show London's, without numbers.)
std::vector<double> temperatures() {
  cr::numpy::RandomState rng(1);
  std::vector<double> out(365);
  for (std::size_t day = 0; day < out.size(); ++day)
    out[day] = 11 - 8 * std::cos(2 * std::numbers::pi * (static_cast<double>(day) - 15) / 365) + 2.5 * rng.randn();
  return out;
}

void exercise(const course::Options& options) {
  const std::vector<double> betas{0.5, 0.9, 0.98};

  cr::Graph graph;
  const auto theta = graph.input("theta", {});
  const auto beta = graph.constant(betas);             // {3}: three averages at once
  const auto v = graph.variable("v", cr::zeros({3}));  // v_0 = 0
  const auto next = beta * v + (1 - beta) * theta;
  const auto t = cr::cast(graph.step(), cr::float64) + 1;
  const auto corrected = next / (1 - cr::pow(beta, t));
  cr::State state(graph);
  cr::Program observe(state, {.outputs = {next, corrected}, .updates = {{v, next}}});

  for (const double b : betas) fmt::print("beta {}: an average over about {:.0f} days\n", b, 1 / (1 - b));
  fmt::print("\nday  temperature        beta 0.5           beta 0.9          beta 0.98\n");
  fmt::print("                       v  corrected       v  corrected       v  corrected\n");
  const auto year = temperatures();
  std::vector<std::vector<double>> v_curves(3);
  std::vector<std::vector<double>> corrected_curves(3);
  for (std::size_t i = 0; i < year.size(); ++i) {
    const auto averages = observe.run({{theta, year[i]}});
    for (std::int64_t k = 0; k < 3; ++k) {
      v_curves[k].push_back(averages[0][k]);
      corrected_curves[k].push_back(averages[1][k]);
    }
    const std::size_t day = i + 1;
    if (day > 5 && day % 50 != 0 && day != 10 && day != 20 && day != 365) continue;
    fmt::print("{:3}  {:11.2f}", day, year[i]);
    for (std::int64_t k = 0; k < 3; ++k) fmt::print("  {:6.2f}  {:9.2f}", averages[0][k], averages[1][k]);
    fmt::print("\n");
  }

  std::vector<double> days(year.size());
  std::iota(days.begin(), days.end(), 1);
  cr::plot::Figure figure({.title = "A year's temperatures and their weighted averages",
                           .x_label = "day",
                           .y_label = "temperature in degrees Celsius"});
  figure.points("temperature", days, year);
  figure.line("beta 0.9", days, v_curves[1]);
  figure.line("beta 0.98", days, v_curves[2]);
  figure.line("beta 0.98 with bias correction", days, corrected_curves[2]);
  course::save(options, "", figure);
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "Exponentially weighted averages of temperatures, with and without bias correction.",
                     exercise, {.plot = true});
}
