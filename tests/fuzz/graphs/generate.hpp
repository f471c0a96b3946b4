// Random well-typed graphs over the whole registry. How an op may be called follows from its samples: their dtypes,
// ranks and attributes, changed at random. Whatever apply() takes is well-typed; an Error means: try another.
#pragma once

#include <atomic>

#include "recipe.hpp"

namespace chainrule::fuzz {

struct GenerateOptions {
  std::vector<std::string> without = {};  // ops to leave out
  bool odd = true;                        // also calls with an input too few or too many
  double gradients = 0.05;                // the part of them whose gradients are checked
};

// `tries` counts the steps that were tried. At number `last` the recipe ends with the step that is tried, which is not
// computed: the way to the step that crashed a process in the middle of this.
Recipe generate(std::uint64_t seed, const GenerateOptions& options, std::atomic<std::uint64_t>& tries,
                std::uint64_t last = 0);

}  // namespace chainrule::fuzz
