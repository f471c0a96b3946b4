// NumPy's legacy random numbers (numpy.random.seed, rand, randn, permutation, ...), bit for bit, so that a program
// ported from NumPy starts from the same weights and sees the same mini-batches.
//
// The words come from the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998); what is made of them follows
// numpy.random.RandomState of NumPy 1.x and 2.x, whose streams NumPy has promised not to change. For work that
// needs no such agreement the framework's own generator is counter-based (philox.hpp).
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/core/shape.hpp>

namespace chainrule::numpy {

// One stream of random numbers. A copy goes on independently, with the same numbers.
// Arrays are float64, or int64 for integers, and are filled in row-major order, one draw after the other.
// (A function that draws one number takes no Location: {0} or {} for a shape could be one.)
class RandomState {
 public:
  // numpy.random.RandomState(seed). Throws Error where the seed is not within [0, 2^32).
  template <std::integral Integer>
  explicit RandomState(Integer seed, Location at = Location::here()) {
    reset(checked_seed(seed, at));
  }

  // numpy.random.seed(seed): as if newly made; drops the normal number that randn keeps. Errors as above.
  template <std::integral Integer>
  void seed(Integer seed, Location at = Location::here()) {
    reset(checked_seed(seed, at));
  }

  // Uniform over [0, 1): (a 2^26 + b) / 2^53, where a are the upper 27 bits of one word and b the upper 26 of the next.
  double random_sample();
  Array random_sample(const Dims& shape);
  double rand() { return random_sample(); }
  // rand(3, 4): an array of shape {3, 4}. Throws Error for a negative extent.
  template <std::integral Extent, std::integral... Extents>
  Array rand(Extent first, Extents... others) {
    return random_sample(Dims{static_cast<std::int64_t>(first), static_cast<std::int64_t>(others)...});
  }

  // Standard normal numbers by Marsaglia's polar method: x1, x2 uniform over [-1, 1) until 0 < r2 = x1^2 + x2^2 < 1,
  // f = sqrt(-2 log(r2) / r2). Numbers come in pairs: f x2 at once, f x1 at the next call, whatever else is drawn
  // between the two.
  double standard_normal();
  Array standard_normal(const Dims& shape);
  double randn() { return standard_normal(); }
  // randn(units, fan_in): an array of shape {units, fan_in}. Throws Error for a negative extent.
  template <std::integral Extent, std::integral... Extents>
  Array randn(Extent first, Extents... others) {
    return standard_normal(Dims{static_cast<std::int64_t>(first), static_cast<std::int64_t>(others)...});
  }

  // low + (high - low) rand(). Throws Error where high - low is not finite.
  double uniform(double low = 0, double high = 1);
  Array uniform(double low, double high, const Dims& shape, Location at = Location::here());

  // mean + deviation randn(). Throws Error where the deviation is negative.
  double normal(double mean = 0, double deviation = 1);
  Array normal(double mean, double deviation, const Dims& shape, Location at = Location::here());

  // Integers of [low, high), each as likely. Throws Error where the interval is empty, or for a negative extent.
  // Where it holds one integer nothing is drawn.
  std::int64_t randint(std::int64_t low, std::int64_t high);
  Array randint(std::int64_t low, std::int64_t high, const Dims& shape, Location at = Location::here());
  // randint(0, 10, 3, 4): an array of shape {3, 4}.
  template <std::integral Extent, std::integral... Extents>
  Array randint(std::int64_t low, std::int64_t high, Extent first, Extents... others) {
    return randint(low, high, Dims{static_cast<std::int64_t>(first), static_cast<std::int64_t>(others)...}, Location{});
  }

  // 0, 1, ..., n - 1, shuffled. Throws Error where n is negative.
  std::vector<std::int64_t> permutation(std::int64_t n, Location at = Location::here());

  // Reorders a vector, span or array in place (Fisher and Yates, from the last element down). Fewer than two
  // elements draw nothing.
  template <class Values>
  void shuffle(Values&& values) {
    using std::swap;
    for (std::size_t i = values.size(); i-- > 1;) swap(values[i], values[static_cast<std::size_t>(interval(i))]);
  }

 private:
  template <std::integral Integer>
  static std::uint32_t checked_seed(Integer seed, Location at) {
    // A negative seed becomes a number far above 2^32.
    if (static_cast<std::uint64_t>(seed) > 0xffffffffU) throw_seed(std::to_string(seed), at);
    return static_cast<std::uint32_t>(seed);
  }
  [[noreturn]] static void throw_seed(const std::string& got, Location at);

  void reset(std::uint32_t seed);
  void refill();
  std::uint32_t word();
  // An integer of [0, max], each as likely.
  std::uint64_t interval(std::uint64_t max);

  static constexpr std::size_t words = 624;
  std::array<std::uint32_t, words> state_;
  std::size_t position_ = words;  // of the next word; `words` when all are used up
  bool has_kept_ = false;
  double kept_ = 0;  // the second normal number of a pair
};

}  // namespace chainrule::numpy
