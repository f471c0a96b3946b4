// A matrix product, as the rest of products/ sees it. Not installed.
//
// C = alpha A B, or C + alpha A B, for matrices that lie row after row. Every element is computed by one rule, whatever
// computes it: its terms are taken in blocks of 256, in order of k. Each block's sum is a chain of fused multiply-adds,
//
//   s = fma(a[i, k], b[k, j], s)    from s = 0,
//
// and the blocks' sums are added in order. The result is alpha times that sum, or fma(alpha, sum, c). So the bits are
// the same for every tile, packing, cut into parts, number of threads and batch, with AVX2 and with AVX-512; blocks
// keep the error of long sums as small as that of BLAS libraries, which add up in an order of their own.
//
// Products whose terms lie along rows of both operands, and which are small or of few rows or columns, have chains of
// their own (dots.hpp): which ones follows from the sizes and transposes of a matrix product alone.
#pragma once

#include <cstdint>

namespace chainrule::products {

inline constexpr std::int64_t block_terms = 256;

struct Product {
  // What is transposed lies in memory as its transpose.
  bool transpose_a = false;
  bool transpose_b = false;
  std::int64_t m = 0;  // rows of C
  std::int64_t n = 0;  // columns of C
  std::int64_t k = 0;  // terms of each sum
  // Elements from one row in memory to the next.
  std::int64_t lda = 1;
  std::int64_t ldb = 1;
  std::int64_t ldc = 1;
  double alpha = 1;
  bool adds = false;  // to what C holds
};

// n things in pieces whose sizes differ by one at most, the larger ones first.
struct Split {
  std::int64_t pieces = 1;
  std::int64_t size = 0;    // of the smaller ones
  std::int64_t larger = 0;  // how many have one more

  // As few as have no more than `most` each.
  static Split of(std::int64_t n, std::int64_t most) {
    const std::int64_t pieces = (n + most - 1) / most;
    return {pieces, n / pieces, n % pieces};
  }
  [[nodiscard]] std::int64_t begin(std::int64_t piece) const {
    return piece * size + (piece < larger ? piece : larger);
  }
  [[nodiscard]] bool is_larger(std::int64_t piece) const { return piece < larger; }
  [[nodiscard]] std::int64_t largest() const { return size + (larger > 0 ? 1 : 0); }
  // How many are of the larger size, or of the smaller.
  [[nodiscard]] std::int64_t count(bool of_larger) const { return of_larger ? larger : pieces - larger; }
};

}  // namespace chainrule::products
