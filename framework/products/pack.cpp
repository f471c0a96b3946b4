#include <chainrule/framework/products/pack.hpp>

#include <algorithm>
#include <cstring>

namespace chainrule::products {

namespace {

// Vectors of 32 bytes, and blocks of as many rows: compiled for what every processor has that tiles are made for.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  static constexpr int count = 8;
  typedef float Type __attribute__((vector_size(32), aligned(4), may_alias));  // NOLINT: using takes no may_alias
};
template <>
struct Lanes<double> {
  static constexpr int count = 4;
  typedef double Type __attribute__((vector_size(32), aligned(8), may_alias));  // NOLINT
};

#if defined(__x86_64__)
#define CHAINRULE_AVX2 __attribute__((target("avx2,fma")))  // NOLINT(cppcoreguidelines-macro-usage)
#else
#define CHAINRULE_AVX2
#endif

CHAINRULE_AVX2 void transpose_block(const float* const* from, std::int64_t at, float* to, std::ptrdiff_t to_stride) {
  using V = Lanes<float>::Type;
  V rows[8];
  V pairs[8];
  for (int i = 0; i < 8; ++i) rows[i] = *reinterpret_cast<const V*>(from[i] + at);
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    rows[i] = __builtin_shufflevector(pairs[i], pairs[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    rows[i + 1] = __builtin_shufflevector(pairs[i], pairs[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    rows[i + 2] = __builtin_shufflevector(pairs[i + 1], pairs[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    rows[i + 3] = __builtin_shufflevector(pairs[i + 1], pairs[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (int i = 0; i < 4; ++i) {
    *reinterpret_cast<V*>(to + i * to_stride) = __builtin_shufflevector(rows[i], rows[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    *reinterpret_cast<V*>(to + (i + 4) * to_stride) =
        __builtin_shufflevector(rows[i], rows[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

CHAINRULE_AVX2 void transpose_block(const double* const* from, std::int64_t at, double* to, std::ptrdiff_t to_stride) {
  using V = Lanes<double>::Type;
  V rows[4];
  V pairs[4];
  for (int i = 0; i < 4; ++i) rows[i] = *reinterpret_cast<const V*>(from[i] + at);
  for (int i = 0; i < 4; i += 2) {
    pairs[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 4, 2, 6);
    pairs[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 1, 5, 3, 7);
  }
  for (int i = 0; i < 2; ++i) {
    *reinterpret_cast<V*>(to + i * to_stride) = __builtin_shufflevector(pairs[i], pairs[i + 2], 0, 1, 4, 5);
    *reinterpret_cast<V*>(to + (i + 2) * to_stride) = __builtin_shufflevector(pairs[i], pairs[i + 2], 2, 3, 6, 7);
  }
}

CHAINRULE_AVX2 inline float multiply_add(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
CHAINRULE_AVX2 inline double multiply_add(double x, double y, double z) { return __builtin_fma(x, y, z); }

}  // namespace

template <class T>
CHAINRULE_AVX2 void pack_rows(const T* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns,
                              std::int64_t width, T* to) {
  using V = typename Lanes<T>::Type;
  constexpr std::int64_t lanes = Lanes<T>::count;
  const std::int64_t whole = columns / lanes * lanes;
  for (std::int64_t p = 0; p < terms; ++p, from += stride, to += width) {
    std::int64_t j = 0;
    for (; j < whole; j += lanes) *reinterpret_cast<V*>(to + j) = *reinterpret_cast<const V*>(from + j);
    for (; j < columns; ++j) to[j] = from[j];
  }
}

// n elements; pieces of it twice.
template <class T>
CHAINRULE_AVX2 void copy_few(const T* from, std::int64_t n, T* to) {
  using V = typename Lanes<T>::Type;
  constexpr std::int64_t lanes = Lanes<T>::count;
  if (n >= lanes) {
    for (std::int64_t i = 0; i + lanes < n; i += lanes)
      *reinterpret_cast<V*>(to + i) = *reinterpret_cast<const V*>(from + i);
    *reinterpret_cast<V*>(to + n - lanes) = *reinterpret_cast<const V*>(from + n - lanes);
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i] = from[i];
  }
}

template <class T>
CHAINRULE_AVX2 void pack_tiles(const T* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t tiles,
                               std::int64_t rows, T* to) {
  // So many lines that lie on the same sets of the first cache stay in it.
  constexpr std::int64_t few = 8;
  for (std::int64_t begin = 0; begin < terms; begin += few)
    for (std::int64_t tile = 0; tile < tiles; ++tile)
      for (std::int64_t p = begin; p < std::min(begin + few, terms); ++p)
        copy_few(from + p * stride + tile * rows, rows, to + (tile * terms + p) * rows);
}

template <class T>
CHAINRULE_AVX2 void pack_transposed(const T* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns,
                                    std::int64_t width, T* to) {
  constexpr std::int64_t block = Lanes<T>::count;
  // So many terms fill a line of the cache, which is read as a whole while it is at hand.
  constexpr std::int64_t line = 64 / sizeof(T);
  for (std::int64_t begin = 0; begin < terms; begin += line) {
    const std::int64_t end = std::min(begin + line, terms);
    for (std::int64_t j = 0; j < columns; j += block) {
      // Behind the last column it is taken again.
      const T* rows[block];
      for (std::int64_t i = 0; i < block; ++i) rows[i] = from + std::min(j + i, columns - 1) * stride;
      std::int64_t p = begin;
      for (; p + block <= end; p += block) transpose_block(rows, p, to + p * width + j, width);
      for (; p < end; ++p)
        for (std::int64_t i = 0; i < block; ++i) to[p * width + j + i] = rows[i][p];
    }
  }
}

template <class T>
CHAINRULE_AVX2 void put_transposed(const T* from, std::ptrdiff_t stride, std::int64_t rows, std::int64_t columns,
                                   T alpha, bool adds, T* to, std::ptrdiff_t to_stride) {
  constexpr std::int64_t block = Lanes<T>::count;
  const auto put = [&](std::int64_t i, std::int64_t j) {
    T& c = to[j * to_stride + i];
    const T sum = from[i * stride + j];
    c = adds ? multiply_add(alpha, sum, c) : alpha * sum;
  };
  const bool moves = alpha == 1 && !adds;
  for (std::int64_t i = 0; i < rows; i += block) {
    std::int64_t j = 0;
    if (moves && i + block <= rows) {
      const T* lines[block];
      for (std::int64_t r = 0; r < block; ++r) lines[r] = from + (i + r) * stride;
      for (; j + block <= columns; j += block) transpose_block(lines, j, to + j * to_stride + i, to_stride);
    }
    for (; j < columns; ++j)
      for (std::int64_t r = i; r < std::min(i + block, rows); ++r) put(r, j);
  }
}

template <class T>
CHAINRULE_AVX2 void put_sum(const T* from, std::ptrdiff_t next, std::int64_t count, std::int64_t rows,
                            std::int64_t columns, T alpha, bool adds, T* to, std::ptrdiff_t to_stride) {
  // So many at a time: a few vectors, in registers.
  constexpr std::int64_t several = 4 * Lanes<T>::count;
  for (std::int64_t i = 0; i < rows; ++i, from += columns, to += to_stride)
    for (std::int64_t begin = 0; begin < columns; begin += several) {
      T sums[several];
      const std::int64_t n = std::min(several, columns - begin);
      for (std::int64_t j = 0; j < n; ++j) sums[j] = from[begin + j];
      if (n == several) {
        using V = typename Lanes<T>::Type;
        V s[4];
        for (int v = 0; v < 4; ++v) s[v] = *reinterpret_cast<const V*>(sums + v * Lanes<T>::count);
        for (std::int64_t t = 1; t < count; ++t)
          for (int v = 0; v < 4; ++v)
            s[v] += *reinterpret_cast<const V*>(from + t * next + begin + v * Lanes<T>::count);
        for (int v = 0; v < 4; ++v) *reinterpret_cast<V*>(sums + v * Lanes<T>::count) = s[v];
      } else {
        for (std::int64_t t = 1; t < count; ++t)
          for (std::int64_t j = 0; j < n; ++j) sums[j] += from[t * next + begin + j];
      }
      for (std::int64_t j = 0; j < n; ++j)
        to[begin + j] = adds ? multiply_add(alpha, sums[j], to[begin + j]) : alpha * sums[j];
    }
}

template void pack_rows(const float*, std::ptrdiff_t, std::int64_t, std::int64_t, std::int64_t, float*);
template void pack_rows(const double*, std::ptrdiff_t, std::int64_t, std::int64_t, std::int64_t, double*);
template void pack_tiles(const float*, std::ptrdiff_t, std::int64_t, std::int64_t, std::int64_t, float*);
template void pack_tiles(const double*, std::ptrdiff_t, std::int64_t, std::int64_t, std::int64_t, double*);
template void pack_transposed(const float*, std::ptrdiff_t, std::int64_t, std::int64_t, std::int64_t, float*);
template void pack_transposed(const double*, std::ptrdiff_t, std::int64_t, std::int64_t, std::int64_t, double*);
template void put_transposed(const float*, std::ptrdiff_t, std::int64_t, std::int64_t, float, bool, float*,
                             std::ptrdiff_t);
template void put_transposed(const double*, std::ptrdiff_t, std::int64_t, std::int64_t, double, bool, double*,
                             std::ptrdiff_t);

template void put_sum(const float*, std::ptrdiff_t, std::int64_t, std::int64_t, std::int64_t, float, bool, float*,
                      std::ptrdiff_t);
template void put_sum(const double*, std::ptrdiff_t, std::int64_t, std::int64_t, std::int64_t, double, bool, double*,
                      std::ptrdiff_t);

}  // namespace chainrule::products
