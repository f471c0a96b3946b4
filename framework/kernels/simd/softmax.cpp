// The gradient of a softmax.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>

#include <chainrule/framework/kernels/simd/batch.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

// Sums of products as sums are made: blocks one after the other by several accumulators, and the blocks pairwise.
constexpr std::size_t block = 256;
constexpr std::size_t rows_at_once = 64;

template <class T>
Batch<T> dot_block(const T* a, const T* b, std::size_t n) {
  constexpr std::size_t w = width<T>;
  Batch<T> s0(T(0));
  Batch<T> s1(T(0));
  std::size_t i = 0;
  for (; i + 2 * w <= n; i += 2 * w) {
    s0 = s0 + load(a + i) * load(b + i);
    s1 = s1 + load(a + i + w) * load(b + i + w);
  }
  if (i + w <= n) {
    s0 = s0 + load(a + i) * load(b + i);
    i += w;
  }
  if (i < n) s1 = s1 + load_part(a + i, n - i, T(0)) * load_part(b + i, n - i, T(0));
  return s0 + s1;
}

template <class T>
Batch<T> dot_pairwise(const T* a, const T* b, std::size_t n) {
  if (n <= block) return dot_block(a, b, n);
  const std::size_t half = (n / 2 + block - 1) / block * block;
  return dot_pairwise(a, b, half) + dot_pairwise(a + half, b + half, n - half);
}

template <class T>
Batch<T> slope(Batch<T> y, Batch<T> dy, Batch<T> sum) {
  return y * (dy - sum);
}

// Some lines at a time, so many as have one vector of sums and stay in the first cache.
template <class T>
void softmax_gradient_lines(const T* y, const T* dy, std::size_t lines, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  constexpr std::size_t elements = 4096;
  const std::size_t fitting = columns * w <= elements ? w : columns < elements ? elements / columns : 1;
  for (std::size_t i = 0; i < lines; i += fitting) {
    const std::size_t count = lines - i < fitting ? lines - i : fitting;
    const std::size_t first = i * columns;
    Batch<T> held[w];
    for (std::size_t k = 0; k < w; ++k)
      held[k] = k < count ? dot_pairwise(y + first + k * columns, dy + first + k * columns, columns) : Batch<T>(T(0));
    for (std::size_t half = w / 2; half > 0; half /= 2) {
      for (std::size_t k = 0; k < half; ++k) {
        const auto [low, high] = interleave<T>(held[k], held[k + half]);
        held[k] = low + high;
      }
    }
    T sums[w];
    held[0].store_unaligned(sums);
    for (std::size_t k = 0; k < count; ++k) {
      const Batch<T> sum(sums[k]);
      const std::size_t end = first + (k + 1) * columns;
      std::size_t j = first + k * columns;
      for (; j + w <= end; j += w) slope<T>(load(y + j), load(dy + j), sum).store_unaligned(out + j);
      if (j < end)
        store_part<T>(slope<T>(load_part(y + j, end - j, T(0)), load_part(dy + j, end - j, T(0)), sum), out + j,
                      end - j);
    }
  }
}

template <class T, class Read, class Write>
void softmax_gradient_column(const T* y, const T* dy, std::size_t stride, std::size_t rows, Read read, Write write,
                             T* out) {
  Batch<T> sum(T(0));
  for (std::size_t begin = 0; begin < rows; begin += rows_at_once) {
    const std::size_t end = rows - begin < rows_at_once ? rows : begin + rows_at_once;
    Batch<T> of_block(T(0));
    for (std::size_t i = begin; i < end; ++i) of_block = of_block + read(y + i * stride) * read(dy + i * stride);
    sum = sum + of_block;
  }
  for (std::size_t i = 0; i < rows; ++i)
    write(slope<T>(read(y + i * stride), read(dy + i * stride), sum), out + i * stride);
}

template <class T>
void softmax_gradient_rows(const T* y, const T* dy, std::size_t stride, std::size_t rows, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  const auto whole = [](const T* p) { return load(p); };
  std::size_t j = 0;
  for (; j + w <= columns; j += w)
    softmax_gradient_column<T>(
        y + j, dy + j, stride, rows, whole, [](Batch<T> x, T* p) { x.store_unaligned(p); }, out + j);
  if (const std::size_t left = columns - j; left > 0)
    softmax_gradient_column<T>(
        y + j, dy + j, stride, rows, [left](const T* p) { return load_part(p, left, T(0)); },
        [left](Batch<T> x, T* p) { store_part<T>(x, p, left); }, out + j);
}

}  // namespace

template <class T>
void fill_softmax(VectorTable<T>& table) {
  table.softmax_gradient_lines = softmax_gradient_lines<T>;
  table.softmax_gradient_rows = softmax_gradient_rows<T>;
}
template void fill_softmax(VectorTable<float>& table);
template void fill_softmax(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
