// Random numbers of initial values. Not installed.
#pragma once

#include <cstdint>
#include <vector>

#include <chainrule/framework/core/philox.hpp>

namespace chainrule::detail {

// What is drawn for one element of a stream: as many numbers as it takes, a pure function of (seed, stream, element).
class Draws {
 public:
  Draws(std::uint64_t seed, std::uint64_t stream, std::int64_t element)
      : seed_(seed), stream_(static_cast<std::uint32_t>(stream)), element_(static_cast<std::uint64_t>(element)) {}

  // In [0, 1) with 52 bits.
  double unit();
  // Normally distributed between -bound and bound, without a function of libm's: comparisons, products and quotients of
  // uniform numbers, so that every machine draws the same bits (Karney 2016, algorithm N).
  double normal(double bound);

 private:
  bool chance(double exponent);  // true with the probability exp(-exponent), for 0 <= exponent <= 1
  bool chances(std::int64_t n, double exponent);

  std::uint64_t seed_;
  std::uint32_t stream_;
  std::uint64_t element_;
  std::uint32_t drawn_ = 0;
  philox::Block block_{};
};

// A matrix {rows, columns}, row by row: as orthogonal() in initial.hpp says.
std::vector<double> orthogonal(std::int64_t rows, std::int64_t columns, std::uint64_t seed, std::uint64_t stream);

}  // namespace chainrule::detail
