// Mean and variance by pieces that are put together in double (T.F. Chan, G.H. Golub and R.J. LeVeque, "Algorithms for
// computing the sample variance", 1983). Not installed.
#pragma once

#include <cstddef>
#include <cstdint>

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels {

// Mean and squared distances of some elements. The mean is kept as a distance from an element of its size, which
// float64 would else round to its last place.
struct Moments {
  double count = 0;
  double base = 0;
  double mean = 0;  // from base
  double squares = 0;

  void add(const Moments& other) {
    if (other.count == 0) return;
    if (count == 0) {
      *this = other;
      return;
    }
    const double distance = (other.base - base) + other.mean - mean;
    const double total = count + other.count;
    const double share = other.count / total;
    mean += distance * share;
    squares += other.squares + distance * distance * count * share;
    count = total;
  }
};

// Elements that are in the nearest cache when they are read again; of more, sums would lose too much.
inline constexpr std::int64_t piece_elements = 4096;

// Of n elements, at most piece_elements.
template <class T>
Moments moments_of(const T* x, std::int64_t n) {
  const VectorTable<T>& t = table<T>();
  const auto size = static_cast<std::size_t>(n);
  const T center = t.sum(x, size) / static_cast<T>(n);
  T sums[2];
  t.centered_moments(x, size, center, sums);
  const auto count = static_cast<double>(n);
  const double rest = static_cast<double>(sums[0]) / count;  // what the center was rounded by
  const double squares = static_cast<double>(sums[1]) - rest * static_cast<double>(sums[0]);
  return {count, static_cast<double>(center), rest, squares < 0 ? 0.0 : squares};
}

}  // namespace chainrule::kernels
