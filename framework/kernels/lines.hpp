// An array as lines along one of its axes. Not installed.
#pragma once

#include <chainrule/framework/graph/attributes.hpp>

namespace chainrule::kernels {

// Attribute "axis", which is complete: below the rank.
inline std::size_t axis_of(const Attributes& attributes) {
  return static_cast<std::size_t>(attributes.get<std::int64_t>("axis"));
}

// Element i of line (o, k) lies at (o * n + i) * inner + k.
struct Lines {
  std::int64_t outer = 1;
  std::int64_t n = 1;
  std::int64_t inner = 1;

  Lines(const Dims& shape, std::size_t axis) : n(shape[axis]) {
    for (std::size_t i = 0; i < axis; ++i) outer *= shape[i];
    for (std::size_t i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  }
};

}  // namespace chainrule::kernels
