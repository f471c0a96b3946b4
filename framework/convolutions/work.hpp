// How the work of a convolution is cut for threads and caches. Not installed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <chainrule/framework/convolutions/geometry.hpp>
#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/products/product.hpp>

namespace chainrule::convolutions {

using products::Split;

// What a thread copies should stay in its second-level cache beside what it works on.
inline constexpr std::int64_t copied_bytes = 384 * 1024;
// So many parts are enough for the threads of a large machine, ...
inline constexpr std::int64_t enough_parts = 64;
// ... and a part of so many multiplications and additions is worth one thread's while, or should not be cut.
inline constexpr double worth_a_part = 2e6;

inline Range range_of(const Split& split, std::int64_t piece) {
  const std::int64_t begin = split.begin(piece);
  return {begin, begin + split.size + (split.is_larger(piece) ? 1 : 0)};
}

// n things in so many pieces.
inline Split pieces_of(std::int64_t n, std::int64_t pieces) {
  pieces = std::clamp<std::int64_t>(pieces, 1, std::max<std::int64_t>(n, 1));
  return {pieces, n / pieces, n % pieces};
}

// Strips of rows, or where one row is too much, of columns.
struct Strips {
  Split rows;
  Split columns;
  [[nodiscard]] std::int64_t count() const { return rows.pieces * columns.pieces; }
};

// Such that bytes_of(rows, columns) are not too many, and enough parts of `flops` there where there are `others` times
// as many.
template <class F>
Strips strips_of(std::int64_t rows, std::int64_t columns, double flops, std::int64_t others, F bytes_of) {
  Strips strips{pieces_of(rows, 1), pieces_of(columns, 1)};
  const auto too_large = [&] {
    const bool worth = flops / static_cast<double>(others * strips.count()) > 2 * worth_a_part;
    return bytes_of(strips.rows.largest(), strips.columns.largest()) > copied_bytes ||
           (others * strips.count() < enough_parts && worth);
  };
  while (strips.rows.largest() > 1 && too_large()) strips.rows = pieces_of(rows, 2 * strips.rows.pieces);
  while (strips.rows.largest() <= 1 && strips.columns.largest() > 512 && too_large())
    strips.columns = pieces_of(columns, 2 * strips.columns.pieces);
  return strips;
}

// Calls run(part, scratch) for each of the parts, on the library's threads, several small ones by one.
template <class F>
void run_parts(std::int64_t parts, double flops, void* own_scratch, const F& run) {
  const double each = flops / static_cast<double>(std::max<std::int64_t>(parts, 1));
  const auto grain = static_cast<std::int64_t>(std::clamp(worth_a_part / std::max(each, 1.0), 1.0, 1e6));
  const std::int64_t chunks = (parts + grain - 1) / grain;
  detail::parallel_for(static_cast<std::size_t>(chunks), [&](std::size_t chunk, void* scratch) {
    const std::int64_t begin = static_cast<std::int64_t>(chunk) * grain;
    for (std::int64_t part = begin; part < std::min(parts, begin + grain); ++part)
      run(part, scratch ? scratch : own_scratch);
  });
}

// Takes numbers apart: index.next(n) is the remainder by n, and the rest is divided by it.
class Index {
 public:
  explicit Index(std::int64_t index) : rest_(index) {}
  std::int64_t next(std::int64_t n) {
    const std::int64_t out = rest_ % n;
    rest_ /= n;
    return out;
  }

 private:
  std::int64_t rest_;
};

inline std::size_t in_whole_lines(std::int64_t bytes) { return (static_cast<std::size_t>(bytes) + 63) / 64 * 64; }

}  // namespace chainrule::convolutions
