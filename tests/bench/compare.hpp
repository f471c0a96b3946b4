// Whether two programs computed the same.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace bench {

// What a program wrote in a check: its line of JSON, and the file of its arrays.
struct Checked {
  const nlohmann::json& line;
  std::string file;
  bool updated = true;  // whether what it updates is to be compared, or only its losses and gradients
};

// Compares losses, gradients, and the change of each parameter (and running variances) after some steps. The distance
// of two arrays is the norm of their difference relative to the norm of ours; it may be the square root of the dtype's
// epsilon, and in networks with relu four times that (float32: 3.5e-4 and 1.4e-3). Errors of rounding are far below it,
// but they move activations across relu's kink. Of activations that are spread evenly around 0, off by k epsilon, a
// part of about k epsilon crosses it, each with all of its contribution to a gradient, so that the gradient's relative
// distance is about sqrt(k epsilon). Likewise Adam makes a full step of a gradient that only rounding keeps from 0.
// A missing term or a wrong factor is far above. Returns what differs, a line each; `greatest` is the greatest distance
// found, relative to what it may be.
std::vector<std::string> differences(const std::string& workload, bool small, const Checked& ours,
                                     const Checked& theirs, double& greatest);

// For W7, which no other program has: whether the compiled program's gradient of the last bias is what it has to be
// where all weights are 0.
std::vector<std::string> compile_differences(const std::string& workload, const Checked& ours);

}  // namespace bench
