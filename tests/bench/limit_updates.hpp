// The optimizers' passes of the limits, over one array of all parameters.
#pragma once

#include <cmath>
#include <cstdint>

#include "workloads.hpp"

namespace bench {

// Small enough that the weights, and so the numbers that the products see, stay as they are.
constexpr float limit_rate = 1e-9F;

inline void adam(float* __restrict w, float* __restrict v, float* __restrict s, const float* __restrict g,
                 std::int64_t begin, std::int64_t end, int step) {
  constexpr auto beta1 = static_cast<float>(adam_beta1);
  constexpr auto beta2 = static_cast<float>(adam_beta2);
  constexpr auto epsilon = static_cast<float>(adam_epsilon);
  const auto correct_v = static_cast<float>(1 / (1 - std::pow(adam_beta1, step)));
  const auto correct_s = static_cast<float>(1 / (1 - std::pow(adam_beta2, step)));
  for (std::int64_t i = begin; i < end; ++i) {
    v[i] = beta1 * v[i] + (1 - beta1) * g[i];
    s[i] = beta2 * s[i] + (1 - beta2) * g[i] * g[i];
    w[i] -= limit_rate * (v[i] * correct_v) / (std::sqrt(s[i] * correct_s) + epsilon);
  }
}

inline void heavy_ball_step(float* __restrict w, float* __restrict v, const float* __restrict g, std::int64_t begin,
                            std::int64_t end) {
  constexpr auto momentum = static_cast<float>(heavy_ball);
  for (std::int64_t i = begin; i < end; ++i) {
    v[i] = momentum * v[i] + g[i];
    w[i] -= limit_rate * v[i];
  }
}

inline void descent(float* __restrict w, const float* __restrict g, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) w[i] -= limit_rate * g[i];
}

}  // namespace bench
