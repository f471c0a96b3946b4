#include <chainrule/framework/graph/draws.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace chainrule::detail {

double Draws::unit() {
  if (drawn_ % 2 == 0)
    block_ = philox::block({static_cast<std::uint32_t>(element_), static_cast<std::uint32_t>(element_ >> 32), stream_,
                            0x494E4954u /* "INIT" */ + drawn_ / 2},
                           seed_);
  const std::size_t half = 2 * (drawn_++ % 2);
  return static_cast<double>((std::uint64_t{block_[half]} << 20) | (block_[half + 1] >> 12)) * 0x1p-52;
}

// Of uniform u1, u2, ... the first k are below e / 1, e / 2, ... with the probability e^k / k!, so that their number is
// even with 1 - e + e^2 / 2 - ... = exp(-e): von Neumann's method.
bool Draws::chance(double exponent) {
  int below = 0;
  while (unit() * (below + 1) < exponent) ++below;
  return below % 2 == 0;
}

bool Draws::chances(std::int64_t n, double exponent) {
  for (std::int64_t i = 0; i < n; ++i)
    if (!chance(exponent)) return false;
  return true;
}

// The magnitude is k + x: a whole number k with the probability exp(-k / 2) kept with exp(-k (k - 1) / 2), that is
// exp(-k^2 / 2), and x in [0, 1) kept with exp(-x (2k + x) / 2), the rest of exp(-(k + x)^2 / 2).
double Draws::normal(double bound) {
  while (true) {
    std::int64_t k = 0;
    while (chance(0.5)) ++k;
    if (!chances(k * (k - 1), 0.5)) continue;
    const double x = unit();
    const auto whole = static_cast<double>(k);
    if (!chances(k + 1, x * (2 * whole + x) / (2 * whole + 2))) continue;
    const double magnitude = whole + x;
    if (magnitude > bound) continue;
    return unit() < 0.5 ? -magnitude : magnitude;
  }
}

namespace {

// In eight sums, for vector instructions; in this order on every machine.
double dot(const double* a, const double* b, std::int64_t n) {
  std::array<double, 8> sums{};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t lane = 0; lane < 8; ++lane)
      sums[lane] += a[i + static_cast<std::int64_t>(lane)] * b[i + static_cast<std::int64_t>(lane)];
  for (; i < n; ++i) sums[0] += a[i] * b[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// What is left of v beside the unit vectors before it.
void take_off(double* v, const double* units, std::int64_t count, std::int64_t n) {
  for (const double* unit = units; unit != units + count * n; unit += n) {
    const double part = dot(unit, v, n);
    for (std::int64_t i = 0; i < n; ++i) v[i] -= part * unit[i];
  }
}

}  // namespace

// Gram and Schmidt's method, whose R has a positive diagonal as it is. Each vector twice: once leaves what its rounding
// errors are in the direction of the others, twice is enough for full precision (Giraud, Langou and Rozloznik 2005).
std::vector<double> orthogonal(std::int64_t rows, std::int64_t columns, std::uint64_t seed, std::uint64_t stream) {
  const std::int64_t count = std::min(rows, columns);
  const std::int64_t n = std::max(rows, columns);
  std::vector<double> q(static_cast<std::size_t>(count * n));
  for (std::int64_t i = 0; i < count * n; ++i)
    q[static_cast<std::size_t>(i)] = Draws(seed, stream, i).normal(std::numeric_limits<double>::infinity());
  for (std::int64_t j = 0; j < count; ++j) {
    double* v = q.data() + j * n;
    for (int time = 0; time < 2; ++time) take_off(v, q.data(), j, n);
    const double length = std::sqrt(dot(v, v, n));
    // A single number that is drawn as 0 has no sign of its own.
    if (length == 0) v[0] = 1;
    for (std::int64_t i = 0; i < n && length > 0; ++i) v[i] /= length;
  }
  if (rows <= columns) return q;
  std::vector<double> transposed(q.size());
  for (std::int64_t j = 0; j < count; ++j)
    for (std::int64_t i = 0; i < n; ++i)
      transposed[static_cast<std::size_t>(i * count + j)] = q[static_cast<std::size_t>(j * n + i)];
  return transposed;
}

}  // namespace chainrule::detail
