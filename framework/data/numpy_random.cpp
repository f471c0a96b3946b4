// Bit for bit means: the libm that NumPy is linked with too, every product rounded before it is added (the build
// says -ffp-contract=off), and the draws in NumPy's order, also where C++ would leave the order open.
#include <chainrule/framework/data/numpy_random.hpp>

#include <bit>
#include <cmath>
#include <numeric>

#include <fmt/core.h>

namespace chainrule::numpy {

namespace {

double checked_range(double low, double high, Location at) {
  const double range = high - low;
  if (!std::isfinite(range))
    throw Error(at, "uniform", fmt::format("requires a finite high - low, got low = {} and high = {}", low, high));
  return range;
}

void check_deviation(double deviation, Location at) {
  if (deviation < 0) throw Error(at, "normal", fmt::format("requires a deviation of 0 or more, got {}", deviation));
}

// The largest offset from low that is still below high.
std::uint64_t checked_offset(std::int64_t low, std::int64_t high, Location at) {
  if (low >= high) throw Error(at, "randint", fmt::format("requires low < high, got {} and {}", low, high));
  return static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) - 1;
}

// Through unsigned numbers: low + offset is within 64 bits, the offset alone may not be.
std::int64_t add(std::int64_t low, std::uint64_t offset) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + offset);
}

template <class T, class Draw>
Array filled(const Dims& shape, Draw draw) {
  Array out(dtype_of<T>(), shape);
  T* to = out.data<T>();
  for (std::int64_t i = 0; i < out.size(); ++i) to[i] = draw();
  return out;
}

}  // namespace

void RandomState::throw_seed(const std::string& got, Location at) {
  throw Error(at, "RandomState", fmt::format("requires a seed between 0 and 2**32 - 1, got {}", got));
}

void RandomState::reset(std::uint32_t seed) {
  for (std::size_t i = 0; i < words; ++i) {
    state_[i] = seed;
    seed = 1812433253U * (seed ^ (seed >> 30)) + static_cast<std::uint32_t>(i) + 1;
  }
  position_ = words;
  has_kept_ = false;
}

// The next 624 words. In three stretches instead of one with indices modulo 624: a reshuffle of a small data set
// spends most of its time here.
void RandomState::refill() {
  constexpr std::size_t ahead = 397;
  const auto twist = [this](std::size_t i, std::size_t next, std::size_t other) {
    const std::uint32_t joined = (state_[i] & 0x80000000U) | (state_[next] & 0x7fffffffU);
    state_[i] = state_[other] ^ (joined >> 1) ^ ((0U - (joined & 1U)) & 0x9908b0dfU);
  };
  for (std::size_t i = 0; i < words - ahead; ++i) twist(i, i + 1, i + ahead);
  for (std::size_t i = words - ahead; i < words - 1; ++i) twist(i, i + 1, i + ahead - words);
  twist(words - 1, 0, ahead - 1);
  position_ = 0;
}

std::uint32_t RandomState::word() {
  if (position_ == words) refill();
  std::uint32_t y = state_[position_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680U;
  y ^= (y << 15) & 0xefc60000U;
  return y ^ (y >> 18);
}

// Draws as many low bits as max has until they are not above it. Up to 32 bits need one word a try; more need two,
// the upper one first.
std::uint64_t RandomState::interval(std::uint64_t max) {
  if (max == 0) return 0;
  const std::uint64_t mask = ~std::uint64_t{0} >> std::countl_zero(max);
  std::uint64_t drawn = 0;
  do {
    drawn = word();
    if (max > 0xffffffffU) drawn = drawn << 32 | word();
    drawn &= mask;
  } while (drawn > max);
  return drawn;
}

double RandomState::random_sample() {
  const std::uint32_t a = word() >> 5;
  const std::uint32_t b = word() >> 6;
  return (a * 67108864.0 + b) / 9007199254740992.0;
}

Array RandomState::random_sample(const Dims& shape) {
  return filled<double>(shape, [this] { return random_sample(); });
}

double RandomState::standard_normal() {
  if (has_kept_) {
    has_kept_ = false;
    return kept_;
  }
  double x1 = 0;
  double x2 = 0;
  double r2 = 0;
  do {
    x1 = 2.0 * random_sample() - 1.0;
    x2 = 2.0 * random_sample() - 1.0;
    r2 = x1 * x1 + x2 * x2;
  } while (r2 >= 1.0 || r2 == 0.0);
  const double f = std::sqrt(-2.0 * std::log(r2) / r2);
  kept_ = f * x1;
  has_kept_ = true;
  return f * x2;
}

Array RandomState::standard_normal(const Dims& shape) {
  return filled<double>(shape, [this] { return standard_normal(); });
}

double RandomState::uniform(double low, double high) {
  const double range = checked_range(low, high, Location{});
  return low + range * random_sample();
}

Array RandomState::uniform(double low, double high, const Dims& shape, Location at) {
  const double range = checked_range(low, high, at);
  return filled<double>(shape, [&] { return low + range * random_sample(); });
}

double RandomState::normal(double mean, double deviation) {
  check_deviation(deviation, Location{});
  return mean + deviation * standard_normal();
}

Array RandomState::normal(double mean, double deviation, const Dims& shape, Location at) {
  check_deviation(deviation, at);
  return filled<double>(shape, [&] { return mean + deviation * standard_normal(); });
}

std::int64_t RandomState::randint(std::int64_t low, std::int64_t high) {
  return add(low, interval(checked_offset(low, high, Location{})));
}

Array RandomState::randint(std::int64_t low, std::int64_t high, const Dims& shape, Location at) {
  const std::uint64_t offset = checked_offset(low, high, at);
  return filled<std::int64_t>(shape, [&] { return add(low, interval(offset)); });
}

std::vector<std::int64_t> RandomState::permutation(std::int64_t n, Location at) {
  if (n < 0) throw Error(at, "permutation", fmt::format("requires a length of 0 or more, got {}", n));
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  if (n < 2) return out;
  // shuffle(out), without a branch on whether a try succeeds, which no processor predicts: this is most of what an
  // epoch's batches cost. A failed try (three of ten) swaps an element with itself.
  std::uint64_t i = out.size() - 1;
  for (; i > 0xffffffffU; --i) std::swap(out[i], out[interval(i)]);
  std::int64_t* const values = out.data();
  while (i > 0) {
    const std::uint64_t mask = ~std::uint64_t{0} >> std::countl_zero(i);
    while (i > mask >> 1) {
      const std::uint64_t drawn = word() & mask;
      const std::uint64_t j = drawn > i ? i : drawn;
      const std::int64_t moved = values[i];
      values[i] = values[j];
      values[j] = moved;
      i -= drawn > i ? 0 : 1;
    }
  }
  return out;
}

}  // namespace chainrule::numpy
