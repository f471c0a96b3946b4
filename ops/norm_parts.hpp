// What the files of normalizations have in common. Not installed.
#pragma once

#include <cmath>
#include <vector>

#include <fmt/core.h>

#include <chainrule/framework/graph/op.hpp>

namespace chainrule::detail {

inline void require_epsilon(const OpCall& call) {
  const double epsilon = call.attributes().number("epsilon");
  if (!(epsilon > 0 && std::isfinite(epsilon))) call.fail("epsilon > 0", fmt::format("{}", epsilon));
}

// x, and maybe gamma and, where `most` is 3, beta of this shape, all of one floating dtype.
inline void require_features(const OpCall& call, std::size_t most, const Shape& features) {
  if (call.size() < 1 || call.size() > most)
    call.fail(fmt::format("1 to {} inputs", most), fmt::format("{}", call.size()));
  call.require_floating(0);
  call.require_same_dtype();
  const char* const names[] = {"x", "gamma", "beta"};
  for (std::size_t i = 1; i < call.size(); ++i)
    if (!(call.shape(i) == features))
      call.fail(fmt::format("{} of shape {} for {}", names[i], to_string(features), to_string(call.shape(0))),
                to_string(call.shape(i)));
}

// x alone, with gamma, and with both where the op has them: of both signs, since a sum of the like is a constant.
inline std::vector<Sample> norm_samples(std::size_t most, const Shape& x, const Shape& features,
                                        const Attributes& attributes, bool differentiate = true) {
  std::vector<Sample> out;
  for (std::size_t count = 1; count <= most; ++count) {
    Sample sample{.inputs = {uniform(x, -2, 2)}, .attributes = attributes, .differentiate = differentiate};
    for (std::size_t i = 1; i < count; ++i) sample.inputs.push_back(uniform(features, -2, 2));
    out.push_back(sample);
  }
  return out;
}

inline std::vector<Sample> joined(const std::vector<std::vector<Sample>>& parts) {
  std::vector<Sample> out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

}  // namespace chainrule::detail
