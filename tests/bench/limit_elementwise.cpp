// W4 by hand: one loop that reads a, b and c once and writes their gradients, vectorized by the compiler.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "buffer.hpp"
#include "limit.hpp"
#include "parallel.hpp"
#include "workloads.hpp"

namespace bench {

namespace {

// exp(x) for x in [-87, 88]; others are cut to it. 2^n exp(r), |r| <= log(2) / 2, by the polynomial of degree 6.
inline float fast_exp(float x) {
  x = std::min(std::max(x, -87.0F), 88.0F);
  const float n = std::nearbyint(x * 1.44269504F);
  const float r = x - n * 0.693147182F;
  float p = 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  return p * std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}

// The loss of elements [begin, end), and their gradients.
double fused(const float* __restrict a, const float* __restrict b, const float* __restrict c, float* __restrict da,
             float* __restrict db, float* __restrict dc, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t tile = 4096;  // so that a float sums few numbers
  double loss = 0;
  for (std::int64_t from = begin; from < end; from += tile) {
    const auto to = std::min(from + tile, end);
    float sum = 0;
    for (std::int64_t i = from; i < to; ++i) {
      const float s = 1 / (1 + fast_exp(-(a[i] * b[i] + c[i])));
      const float t = 1 - 2 / (1 + fast_exp(2 * (a[i] - b[i])));
      const float r = std::max(c[i], 0.0F);
      const float e = fast_exp(-a[i] * a[i]);
      sum += s * t * r + e;
      const float dz = s * (1 - s) * t * r;  // by a * b + c
      const float dd = s * (1 - t * t) * r;  // by a - b
      da[i] = dz * b[i] + dd - 2 * a[i] * e;
      db[i] = dz * a[i] - dd;
      dc[i] = dz + (c[i] > 0 ? s * t : 0);
    }
    loss += static_cast<double>(sum);
  }
  return loss;
}

class Elementwise final : public Run {
 public:
  explicit Elementwise(int threads) : threads_(threads), losses_(static_cast<std::size_t>(threads)) {
    for (std::size_t i = 0; i < 3; ++i) {
      inputs_[i] = Buffer(w4_size);
      gradients_[i] = Buffer(w4_size);
      fill(inputs_[i].data(), w4_size, stream_x + i, 2);
    }
  }

  double step() override {
    parallel_for(w4_size, threads_, [&](std::int64_t begin, std::int64_t end, int thread) {
      losses_[static_cast<std::size_t>(thread)] =
          fused(inputs_[0].data(), inputs_[1].data(), inputs_[2].data(), gradients_[0].data(), gradients_[1].data(),
                gradients_[2].data(), begin, end);
    });
    double loss = 0;
    for (const double part : losses_) loss += part;
    return loss;
  }

  void gradients(Sink& sink) override {
    step();
    constexpr std::array names = {"a", "b", "c"};
    for (std::size_t i = 0; i < 3; ++i) sink.add(names[i], gradients_[i].data(), w4_size);
  }
  void weights(Sink& /*sink*/) override {}

 private:
  int threads_;
  std::vector<double> losses_;
  std::array<Buffer, 3> inputs_;
  std::array<Buffer, 3> gradients_;
};

}  // namespace

std::unique_ptr<Run> hand_fused_elementwise(int threads) { return std::make_unique<Elementwise>(threads); }

}  // namespace bench
