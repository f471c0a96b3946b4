#include "compare.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <stdexcept>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "workloads.hpp"

namespace bench {

namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

// Reads the arrays of a file one after the other.
class Reader {
 public:
  explicit Reader(const std::string& path) : file_(std::fopen(path.c_str(), "rb")) {
    if (!file_) throw std::runtime_error("cannot read " + path);
  }
  std::vector<double> next(std::size_t count, int bytes) {
    std::vector<double> out(count);
    if (bytes == 8) {
      get(out.data(), count, 8);
    } else {
      std::vector<float> floats(count);
      get(floats.data(), count, 4);
      std::copy(floats.begin(), floats.end(), out.begin());
    }
    return out;
  }

 private:
  void get(void* to, std::size_t count, std::size_t bytes) {
    if (std::fread(to, bytes, count, file_.get()) != count) throw std::runtime_error("a program's file is too short");
  }
  std::unique_ptr<std::FILE, Close> file_;
};

double norm(const std::vector<double>& x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return std::sqrt(sum);
}

// Elements whose gradient is rounding errors around 0, which Adam makes steps of.
struct Cancelled {
  std::size_t begin = 0;
  std::size_t end = 0;
};
Cancelled cancelled_part(const std::string& workload, const std::string& name, std::size_t count) {
  // Batch norm takes away what the bias before it adds.
  if (workload == "W2" && (name == "b1" || name == "b2")) return {0, count};
  // What is added to all keys adds the same to all scores of a query, and softmax takes it away.
  if (workload == "W9" && name.starts_with("b_qkv")) return {count / 3, 2 * count / 3};
  return {};
}

// Makes that part zeros. Returns its norm.
double take_out(std::vector<double>& x, const Cancelled& part) {
  const auto begin = x.begin() + static_cast<std::ptrdiff_t>(part.begin);
  const std::vector<double> taken(begin, x.begin() + static_cast<std::ptrdiff_t>(part.end));
  std::fill_n(begin, taken.size(), 0.0);
  return norm(taken);
}

double distance(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return std::sqrt(sum);
}

}  // namespace

std::vector<std::string> differences(const std::string& workload, bool small, const Checked& ours,
                                     const Checked& theirs, double& greatest) {
  std::vector<std::string> wrong;
  const double epsilon = is_float64(workload) ? std::numeric_limits<double>::epsilon()
                                              : static_cast<double>(std::numeric_limits<float>::epsilon());
  const bool has_kinks = workload == "W1" || workload == "W2" || workload == "W3" || is_for_images(workload);
  const double tolerance = std::sqrt(epsilon) * (has_kinks ? 4 : 1);
  // NaN is a difference.
  const auto judge = [&](const std::string& what, double difference, double scale) {
    const double relative = difference / scale;
    if (!(relative <= tolerance)) wrong.push_back(fmt::format("{}: distance {:.2e}", what, relative));
    if (!(relative / tolerance <= greatest)) greatest = relative / tolerance;
  };

  const auto losses = ours.line.at("losses").get<std::vector<double>>();
  const auto their_losses = theirs.line.at("losses").get<std::vector<double>>();
  if (losses.size() != their_losses.size()) return {"another number of losses"};
  for (std::size_t i = 0; i < losses.size(); ++i)
    judge(fmt::format("loss {} of step {}, ours {}", their_losses[i], i + 1, losses[i]),
          std::abs(losses[i] - their_losses[i]), std::abs(losses[i]));

  const auto& tensors = ours.line.at("tensors");
  const auto& their_tensors = theirs.line.at("tensors");
  const auto all = parameters(workload, small);
  if (theirs.updated && tensors.size() != their_tensors.size()) return {"another number of arrays"};
  const auto compared = theirs.updated ? tensors.size() : all.size();
  Reader reader(ours.file);
  Reader their_reader(theirs.file);
  double remainder = 0;  // of a gradient that would be 0
  for (std::size_t i = 0; i < compared; ++i) {
    const auto count = tensors[i].at("count").get<std::size_t>();
    const auto name = tensors[i].at("name").get<std::string>();
    if (their_tensors[i].at("count") != count || their_tensors[i].at("name") != name)
      return {fmt::format("another array than {}", name)};
    auto array = reader.next(count, tensors[i].at("bytes"));
    auto their_array = their_reader.next(count, their_tensors[i].at("bytes"));
    // What is cancelled is held against the gradient of batch norm's own bias, beta, or of the rest of its array, and
    // its steps are not compared.
    const Cancelled cancelled = cancelled_part(workload, name, count);
    if (i < all.size() || all.empty()) {
      if (cancelled.end > 0) remainder = std::max(take_out(array, cancelled), take_out(their_array, cancelled));
      if (cancelled.end == count) continue;
      judge("gradient of " + name, distance(array, their_array), norm(array));
      if (cancelled.end > 0) judge("cancelled gradient of " + name, remainder, norm(array));
      if (workload == "W2" && name.starts_with("beta"))
        judge("gradient of the bias before " + name, remainder, norm(array));
    } else if (i >= 2 * all.size()) {
      judge("running " + name, distance(array, their_array), norm(array));
    } else if (cancelled.end < count) {
      // Relative to the change of the parameter; that the sum of both was rounded is no difference.
      std::vector<double> initial(count);
      const auto& parameter = all.at(i - all.size());
      if (is_float64(workload)) {
        parameter.initialize(initial.data());
      } else {
        std::vector<float> floats(count);
        parameter.initialize(floats.data());
        std::copy(floats.begin(), floats.end(), initial.begin());
      }
      for (auto* x : {&initial, &array, &their_array}) take_out(*x, cancelled);
      const double rounding = 4 * epsilon * norm(initial);
      judge("change of " + name, std::max(0.0, distance(array, their_array) - rounding), distance(array, initial));
    }
  }
  return wrong;
}

std::vector<std::string> compile_differences(const std::string& workload, const Checked& ours) {
  const auto net = network(workload);
  const auto units = static_cast<std::size_t>(net.units.back());
  const auto count = static_cast<std::size_t>(net.batch) * units;
  std::vector<float> y(count);
  fill(y.data(), static_cast<std::int64_t>(count), stream_y, 1);
  // The output is 0, so mean((0 - y)^2) has the gradient -2 y / count by each of its elements.
  std::vector<double> expected(units);
  for (std::size_t i = 0; i < count; ++i)
    expected[i % units] -= 2 * static_cast<double>(y[i]) / static_cast<double>(count);
  const auto got = Reader(ours.file).next(units, 4);
  const double relative = distance(got, expected) / norm(expected);
  if (relative <= 1e-5) return {};
  return {fmt::format("gradient of the last bias: distance {:.2e}", relative)};
}

}  // namespace bench
