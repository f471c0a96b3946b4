// Where the greatest elements are.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <chainrule/framework/kernels/simd/batch.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

template <class T>
constexpr T lowest = -std::numeric_limits<T>::infinity();

// A bit for each lane: a = b, or both are NaN.
template <class T>
std::uint32_t alike(Batch<T> a, Batch<T> b) {
#if defined(__AVX512F__)
  if constexpr (single<T>) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) |
           _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), b, b, _CMP_UNORD_Q);
  } else {
    return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ) |
           _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q), b, b, _CMP_UNORD_Q);
  }
#elif defined(__AVX2__)
  if constexpr (single<T>) {
    const __m256 nan = _mm256_and_ps(_mm256_cmp_ps(a, a, _CMP_UNORD_Q), _mm256_cmp_ps(b, b, _CMP_UNORD_Q));
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_or_ps(nan, _mm256_cmp_ps(a, b, _CMP_EQ_OQ))));
  } else {
    const __m256d nan = _mm256_and_pd(_mm256_cmp_pd(a, a, _CMP_UNORD_Q), _mm256_cmp_pd(b, b, _CMP_UNORD_Q));
    return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_or_pd(nan, _mm256_cmp_pd(a, b, _CMP_EQ_OQ))));
  }
#else
  const auto mask = (a == b) | (xsimd::isnan(a) & xsimd::isnan(b));
  if (!xsimd::any(mask)) return 0;
  T lanes[width<T>];
  xsimd::select(mask, Batch<T>(T(1)), Batch<T>(T(0))).store_unaligned(lanes);
  std::uint32_t bits = 0;
  for (std::size_t k = 0; k < width<T>; ++k) bits |= static_cast<std::uint32_t>(lanes[k] != 0) << k;
  return bits;
#endif
}

// Where a line that has `value` has it first; where that is NaN, its first NaN.
template <class T>
std::size_t find(const T* x, std::size_t n, T value) {
  constexpr std::size_t w = width<T>;
  const Batch<T> wanted(value);
  std::size_t i = 0;
  for (; i + w <= n; i += w) {
    __builtin_prefetch(x + n + i);  // the next line: nothing else reads memory meanwhile
    if (const std::uint32_t lanes = alike<T>(load(x + i), wanted))
      return i + static_cast<std::size_t>(__builtin_ctz(lanes));
  }
  // What follows the line is behind what it has.
  return i + static_cast<std::size_t>(__builtin_ctz(alike<T>(load_part(x + i, n - i, value), wanted)));
}

// A line that does not stay in the first cache while it is read twice: in blocks that do.
template <class T>
std::size_t long_argmax(const VectorTable<T>& table, const T* x, std::size_t n, std::size_t block) {
  T best = lowest<T>;
  std::size_t at = 0;
  for (std::size_t i = 0; i < n; i += block) {
    const std::size_t count = n - i < block ? n - i : block;
    const T here = table.max(x + i, count);
    if (here <= best) continue;  // or NaN
    best = here;
    at = i + find(x + i, count, here);
    if (here != here) break;
  }
  return at;
}

// The greatest first, and then where it is: that takes less than to carry indices along.
template <class T>
void argmax_lines(const T* x, std::size_t lines, std::size_t columns, std::int64_t* out) {
  constexpr std::size_t block = 16'384 / sizeof(T);
  constexpr std::size_t most = 64;
  const VectorTable<T>& own = []() -> const VectorTable<T>& {
    if constexpr (single<T>) {
      return tables().float32;
    } else {
      return tables().float64;
    }
  }();
  if (columns > block) {
    for (std::size_t i = 0; i < lines; ++i)
      out[i] = static_cast<std::int64_t>(long_argmax<T>(own, x + i * columns, columns, block));
    return;
  }
  const std::size_t fitting = block / columns < most ? block / columns : most;
  for (std::size_t i = 0; i < lines; i += fitting) {
    T greatest[most];
    const std::size_t count = lines - i < fitting ? lines - i : fitting;
    own.max_lines(x + i * columns, count, columns, greatest);
    for (std::size_t k = 0; k < count; ++k)
      out[i + k] = static_cast<std::int64_t>(find(x + (i + k) * columns, columns, greatest[k]));
  }
}

// Indices as whole numbers in the bits of vectors: a choice moves them as it moves numbers.
template <class T>
using Index = std::conditional_t<single<T>, std::int32_t, std::int64_t>;

// x takes the place of `held`: it is greater, or the first NaN.
template <class T>
typename Batch<T>::batch_bool_type takes_over(Batch<T> x, Batch<T> held) {
#if defined(__AVX512F__)
  if constexpr (single<T>) {
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(held, held, _CMP_ORD_Q), x, held, _CMP_NLE_UQ);
  } else {
    return _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(held, held, _CMP_ORD_Q), x, held, _CMP_NLE_UQ);
  }
#else
  return (x > held) | (xsimd::isnan(x) & (held == held));
#endif
}

template <class T, std::size_t count, class Read>
void argmax_stripe(const T* x, std::size_t stride, std::size_t rows, Read read, Index<T>* out) {
  Batch<T> held[count];
  Batch<T> at[count];
  for (std::size_t k = 0; k < count; ++k) {
    held[k] = read(x + k * width<T>);
    at[k] = Batch<T>(T(0));
  }
  for (std::size_t i = 1; i < rows; ++i) {
    const Batch<T> here(__builtin_bit_cast(T, static_cast<Index<T>>(i)));
    for (std::size_t k = 0; k < count; ++k) {
      const Batch<T> v = read(x + i * stride + k * width<T>);
      const auto better = takes_over<T>(v, held[k]);
      held[k] = xsimd::select(better, v, held[k]);
      at[k] = xsimd::select(better, here, at[k]);
    }
  }
  for (std::size_t k = 0; k < count; ++k) {
    T bits[width<T>];
    at[k].store_unaligned(bits);
    for (std::size_t lane = 0; lane < width<T>; ++lane)
      out[k * width<T> + lane] = __builtin_bit_cast(Index<T>, bits[lane]);
  }
}

template <class T>
void argmax_part_of_rows(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, std::int64_t* out) {
  constexpr std::size_t w = width<T>;
  constexpr std::size_t stripe = 4;
  Index<T> found[stripe * w];
  const auto whole = [](const T* p) { return load(p); };
  std::size_t j = 0;
  const auto put = [&](std::size_t n) {
    for (std::size_t k = 0; k < n; ++k) out[j + k] = found[k];
  };
  for (; j + stripe * w <= columns; j += stripe * w) {
    argmax_stripe<T, stripe>(x + j, stride, rows, whole, found);
    put(stripe * w);
  }
  for (; j + w <= columns; j += w) {
    argmax_stripe<T, 1>(x + j, stride, rows, whole, found);
    put(w);
  }
  if (const std::size_t left = columns - j; left > 0) {
    argmax_stripe<T, 1>(
        x + j, stride, rows, [left](const T* p) { return load_part(p, left, T(0)); }, found);
    put(left);
  }
}

}  // namespace

template <class T>
void fill_argmax(VectorTable<T>& table) {
  table.argmax_lines = argmax_lines<T>;
  table.argmax_part_of_rows = argmax_part_of_rows<T>;
}
template void fill_argmax(VectorTable<float>& table);
template void fill_argmax(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
