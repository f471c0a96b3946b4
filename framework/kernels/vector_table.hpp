// The vector kernels: one table of functions for each instruction set, chosen when the process starts. Not installed.
//
// simd/ makes them (simd/tables.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

#include <chainrule/framework/kernels/window_table.hpp>

namespace chainrule::kernels {

// Number of micro-operations (framework/graph/elementwise.hpp); checked there, so that this header needs no other.
inline constexpr std::size_t micro_slots = 30;

// out[i] = f(a[i], b[i], c[i]) for i < n; unused operands are null. Operands may be `out` itself. With n | whole_lines
// what follows the last element, up to a multiple of 64 bytes, is scratch: whole vectors are written there, since a
// load that follows a partial store at once has to wait for it.
inline constexpr std::size_t whole_lines = std::size_t{1} << (8 * sizeof(std::size_t) - 1);
using MicroRun = void (*)(void* out, const void* a, const void* b, const void* c, std::size_t n);

// How a row is normalized, and the two numbers of its gradient.
template <class T>
struct NormalizedRow {
  T center;  // the mean, but for
  T rest;    // what that was rounded by
  T scale;
  T across;  // mean(gamma dy)
  T along;   // mean(gamma dy z)
};

template <class T>
struct VectorTable {
  // By micro-operation, then by which operands are a single element: bit 0 for a, 1 for b, 2 for c.
  MicroRun micro[micro_slots][8];
  // The sum / greatest / least of n contiguous elements. NaN if any is; of nothing 0 / -inf / inf.
  T (*sum)(const T* x, std::size_t n);
  T (*max)(const T* x, std::size_t n);
  T (*min)(const T* x, std::size_t n);
  // out[i] = the same of line i, x[i * columns] and so on, with the same bits.
  void (*sum_lines)(const T* x, std::size_t lines, std::size_t columns, T* out);
  void (*max_lines)(const T* x, std::size_t lines, std::size_t columns, T* out);
  void (*min_lines)(const T* x, std::size_t lines, std::size_t columns, T* out);
  // Each x[i] `columns` times.
  void (*repeat)(const T* x, std::size_t lines, std::size_t columns, T* out);
  // out[j] = the sum over rows i of x[i * columns + j].
  void (*sum_rows)(const T* x, std::size_t rows, std::size_t columns, T* out);
  // out[j] = the same over rows i of x[i * stride + j].
  void (*sum_part_of_rows)(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, T* out);
  void (*max_part_of_rows)(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, T* out);
  void (*min_part_of_rows)(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, T* out);
  // out[i] = the index of the first greatest or NaN of line i, x[i * columns] and so on.
  void (*argmax_lines)(const T* x, std::size_t lines, std::size_t columns, std::int64_t* out);
  // out[j] = the i of the first greatest or NaN of x[i * stride + j], of fewer than 2^31 rows.
  void (*argmax_part_of_rows)(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, std::int64_t* out);
  // out = y (dy - sum(y dy)), each line with its sum; or each column of rows i, with elements j + i * stride.
  void (*softmax_gradient_lines)(const T* y, const T* dy, std::size_t lines, std::size_t columns, T* out);
  void (*softmax_gradient_rows)(const T* y, const T* dy, std::size_t stride, std::size_t rows, std::size_t columns,
                                T* out);
  // Of each line i the greatest element, NaN if any is, and the sum of exp(x - greatest[i]); or of columns j of rows i.
  void (*exp_sum_lines)(const T* x, std::size_t lines, std::size_t columns, T* greatest, T* total);
  void (*exp_sum_rows)(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, T* greatest, T* total);
  // out = exp(x - greatest[i]) factor[i]; out = (x - first[i]) - second[i]. `streams`: it is written past the caches.
  void (*exp_lines)(const T* x, std::size_t lines, std::size_t columns, const T* greatest, const T* factor, T* out,
                    bool streams);
  void (*exp_rows)(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, const T* greatest,
                   const T* factor, T* out);
  void (*shift_lines)(const T* x, std::size_t lines, std::size_t columns, const T* first, const T* second, T* out,
                      bool streams);
  void (*shift_rows)(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, const T* first,
                     const T* second, T* out);
  // out = {sum(x - center), sum((x - center)^2)}, and {sum(g), sum(g (x - center))} with g = gamma dy, gamma null for
  // ones, of n elements: some thousands at most, as their rounding errors add up.
  void (*centered_moments)(const T* x, std::size_t n, T center, T* out);
  void (*centered_products)(const T* x, const T* dy, const T* gamma, std::size_t n, T center, T* out);
  // y = gamma z + beta with z = (x - center - rest) scale, null for ones and zeros, beta only beside gamma.
  void (*normalize)(const T* x, const T* gamma, const T* beta, std::size_t n, const NormalizedRow<T>& row, T* y);
  // dx = scale (gamma dy - across - z along), and dy z and dy added to dgamma and dbeta; where dx is null, only these;
  // where both of these are, only dx.
  void (*normalize_gradient)(const T* x, const T* dy, const T* gamma, std::size_t n, const NormalizedRow<T>& row, T* dx,
                             T* dgamma, T* dbeta);
  // to[i * to_stride + j] = from[j * from_stride + i] for i < rows and j < columns; `streams`: where it is aligned `to`
  // is written past the caches.
  void (*transpose)(const T* from, std::size_t from_stride, T* to, std::size_t to_stride, std::size_t rows,
                    std::size_t columns, bool streams);
  // out[i * ldo + j] = sum over p < k of a[i * lda + p] b[j * ldb + p], for i < m and j < n: in 64 / sizeof(T) chains
  // of fused multiply-adds, of the terms whose p has the same remainder, whose second half is then added to the first,
  // as long as there are two.
  void (*dots)(const T* a, std::ptrdiff_t lda, std::int64_t m, const T* b, std::ptrdiff_t ldb, std::int64_t n,
               std::int64_t k, T* out, std::ptrdiff_t ldo);
  // Elements [begin, begin + n) of a random mask: 1 where the upper 24 of an element's 32 Philox bits are below the
  // threshold, else 0. Four elements share a block (framework/core/philox.hpp), wherever the range is cut.
  void (*keep_mask)(T* out, std::uint64_t begin, std::size_t n, std::uint32_t threshold, std::uint64_t seed,
                    std::uint32_t stream, std::uint32_t step);
  WindowTable<T> windows;
};

struct VectorTables {
  const char* name;
  VectorTable<float> float32;
  VectorTable<double> float64;
};

namespace baseline {
const VectorTables& tables();
}
namespace avx2 {
const VectorTables& tables();
}
namespace avx512 {
const VectorTables& tables();
}

// The best that this machine runs; the environment variable CHAINRULE_ARCH=baseline|avx2|avx512 asks for a lesser one.
const VectorTables& tables();
// The best that this machine runs, whatever the environment asks for.
const VectorTables& best_tables();

template <class T>
const VectorTable<T>& table();
template <>
inline const VectorTable<float>& table<float>() {
  return tables().float32;
}
template <>
inline const VectorTable<double>& table<double>() {
  return tables().float64;
}

// The micro-operations that integers have, std::int64_t, std::int32_t and std::uint8_t: plain loops, nothing of weight
// is computed in integers.
template <class I>
MicroRun integer_micro(std::size_t micro, unsigned scalars);

}  // namespace chainrule::kernels
