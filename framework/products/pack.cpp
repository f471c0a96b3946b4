#include <chainrule/framework/products/pack.hpp>

#include <cstring>

namespace chainrule::products {

namespace {

// Vectors of 32 bytes, and blocks of as many rows: compiled for AVX, which every processor has that tiles are made for.
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
#define CHAINRULE_AVX __attribute__((target("avx")))  // NOLINT(cppcoreguidelines-macro-usage)
#else
#define CHAINRULE_AVX
#endif

CHAINRULE_AVX void transpose_block(const float* from, std::ptrdiff_t stride, float* to, std::ptrdiff_t to_stride) {
  using V = Lanes<float>::Type;
  V rows[8];
  V pairs[8];
  for (int i = 0; i < 8; ++i) rows[i] = *reinterpret_cast<const V*>(from + i * stride);
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

CHAINRULE_AVX void transpose_block(const double* from, std::ptrdiff_t stride, double* to, std::ptrdiff_t to_stride) {
  using V = Lanes<double>::Type;
  V rows[4];
  V pairs[4];
  for (int i = 0; i < 4; ++i) rows[i] = *reinterpret_cast<const V*>(from + i * stride);
  for (int i = 0; i < 4; i += 2) {
    pairs[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 4, 2, 6);
    pairs[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 1, 5, 3, 7);
  }
  for (int i = 0; i < 2; ++i) {
    *reinterpret_cast<V*>(to + i * to_stride) = __builtin_shufflevector(pairs[i], pairs[i + 2], 0, 1, 4, 5);
    *reinterpret_cast<V*>(to + (i + 2) * to_stride) = __builtin_shufflevector(pairs[i], pairs[i + 2], 2, 3, 6, 7);
  }
}

// to[j, i] = from[i, j]
template <class T>
CHAINRULE_AVX void transpose(const T* from, std::ptrdiff_t stride, std::int64_t rows, std::int64_t columns, T* to,
                             std::ptrdiff_t to_stride) {
  constexpr std::int64_t block = Lanes<T>::count;
  std::int64_t i = 0;
  for (; i + block <= rows; i += block) {
    std::int64_t j = 0;
    for (; j + block <= columns; j += block)
      transpose_block(from + i * stride + j, stride, to + j * to_stride + i, to_stride);
    for (; j < columns; ++j)
      for (std::int64_t r = i; r < i + block; ++r) to[j * to_stride + r] = from[r * stride + j];
  }
  for (; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * stride + j];
}

template <class T>
CHAINRULE_AVX void pack(const T* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns,
                        std::int64_t width, T* to) {
  transpose(from, stride, columns, terms, to, width);
  if (columns == width) return;
  for (std::int64_t p = 0; p < terms; ++p)
    for (std::int64_t j = columns; j < width; ++j) to[p * width + j] = 0;
}

}  // namespace

void pack_rows(const char* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns, std::int64_t width,
               std::size_t element, char* to) {
  const std::size_t line = static_cast<std::size_t>(width) * element;
  const std::size_t used = static_cast<std::size_t>(columns) * element;
  for (std::int64_t p = 0; p < terms; ++p) {
    std::memcpy(to, from, used);
    std::memset(to + used, 0, line - used);
    from += stride * static_cast<std::ptrdiff_t>(element);
    to += line;
  }
}

void pack_transposed(const float* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns,
                     std::int64_t width, float* to) {
  pack(from, stride, terms, columns, width, to);
}
void pack_transposed(const double* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns,
                     std::int64_t width, double* to) {
  pack(from, stride, terms, columns, width, to);
}

}  // namespace chainrule::products
