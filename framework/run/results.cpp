// What runs give: Results and Profile.
#include <algorithm>

#include <fmt/core.h>

#include <chainrule/framework/run/program.hpp>

namespace chainrule {

// ---- Results

const Array& Results::at(std::size_t i, Location at) const {
  if (i >= size()) throw Error(at, "results", fmt::format("requires an index below {}, got {}", size(), i));
  return (*arrays_)[i];
}

const Array& Results::at(Value output, Location at) const {
  for (std::size_t i = 0; i < outputs_->size(); ++i)
    if ((*outputs_)[i] == output) return (*arrays_)[i];
  throw Error(at, "results",
              fmt::format("requires an output of the program, got {}",
                          output.defined() ? output.describe() : std::string("an empty Value")));
}

namespace {

double only_element(const Array& array, Location at) {
  if (array.size() != 1)
    throw Error(at, "results", fmt::format("scalar() requires one element, got shape {}", to_string(array.shape())));
  return array[0];
}

}  // namespace

double Results::scalar(Value output, Location at) const { return only_element(this->at(output, at), at); }
double Results::scalar(std::size_t i, Location at) const { return only_element(this->at(i, at), at); }

// ---- Profile

double Profile::seconds() const {
  double total = 0;
  for (const Step& step : steps) total += step.seconds;
  return total;
}

std::string Profile::to_string() const {
  std::vector<Step> sorted = steps;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Step& a, const Step& b) { return a.seconds > b.seconds; });
  const double total = seconds();
  std::string out = fmt::format("{:>6} {:>9} {:>12} {:>8} {:>8} {:>6} {:>8}  step\n", "share", "calls", "us / call",
                                "GFLOP/s", "GB/s", "parts", "longest");
  for (const Step& step : sorted) {
    const double calls = std::max(1.0, static_cast<double>(step.calls));
    const auto rate = [&](double work) {
      return work > 0 && step.seconds > 0 ? fmt::format("{:.1f}", work * calls / step.seconds * 1e-9)
                                          : std::string("-");
    };
    out += fmt::format("{:>5.1f}% {:>9} {:>12.3f} {:>8} {:>8} {:>6} {:>7.1f}%  {}{}\n",
                       total > 0 ? 100 * step.seconds / total : 0.0, step.calls, step.seconds / calls * 1e6,
                       rate(step.flops), rate(step.bytes), step.parts, 100 * step.longest, step.title,
                       step.location.known() ? fmt::format("  ({})", step.location.to_string()) : "");
  }
  return out;
}

}  // namespace chainrule
