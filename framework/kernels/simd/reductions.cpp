// Sums, maxima and minima of a run, of lines and of rows.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>
#include <limits>

#include <chainrule/framework/kernels/simd/batch.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

// Sums are made of blocks of up to 256 elements, and the blocks are added pairwise.
constexpr std::size_t block = 256;

struct SumOf {
  template <class B>
  static B combine(B a, B b) {
    return a + b;
  }
  template <class T>
  static T combine_one(T a, T b) {
    return a + b;
  }
  template <class T>
  static T start() {
    return T(0);
  }
};
struct MaxOf {
  template <class B>
  static B combine(B a, B b) {
    return maximum(a, b);
  }
  template <class T>
  static T combine_one(T a, T b) {
    return a > b || a != a ? a : b;
  }
  template <class T>
  static T start() {
    return -std::numeric_limits<T>::infinity();
  }
};
struct MinOf {
  template <class B>
  static B combine(B a, B b) {
    return minimum(a, b);
  }
  template <class T>
  static T combine_one(T a, T b) {
    return a < b || a != a ? a : b;
  }
  template <class T>
  static T start() {
    return std::numeric_limits<T>::infinity();
  }
};

template <class T, class F>
Batch<T> reduce_block(const T* x, std::size_t n) {
  constexpr std::size_t w = width<T>;
  const Batch<T> start(F::template start<T>());
  Batch<T> acc[4] = {start, start, start, start};
  std::size_t i = 0;
  for (; i + 4 * w <= n; i += 4 * w)
    for (std::size_t k = 0; k < 4; ++k) acc[k] = F::combine(acc[k], load(x + i + k * w));
  for (; i + w <= n; i += w) acc[0] = F::combine(acc[0], load(x + i));
  if (i < n) {
    acc[1] = F::combine(acc[1], load_part(x + i, n - i, F::template start<T>()));
  }
  return F::combine(F::combine(acc[0], acc[1]), F::combine(acc[2], acc[3]));
}

template <class T, class F>
Batch<T> reduce_pairwise(const T* x, std::size_t n) {
  if (n <= block) return reduce_block<T, F>(x, n);
  const std::size_t half = (n / 2 + block - 1) / block * block;
  return F::combine(reduce_pairwise<T, F>(x, half), reduce_pairwise<T, F>(x + half, n - half));
}

template <class T, class F>
T reduce(const T* x, std::size_t n) {
  constexpr std::size_t w = width<T>;
  T parts[w];
  reduce_pairwise<T, F>(x, n).store_unaligned(parts);
  for (std::size_t half = w / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) parts[i] = F::combine_one(parts[i], parts[i + half]);
  return parts[0];
}

// As many lines at a time as a vector has lanes: the second halves of their vectors are combined with the first, of two
// lines in one vector, and so on, till one vector has them all, in order.
template <class T, class F>
void reduce_lines(const T* x, std::size_t lines, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  const Batch<T> start(F::template start<T>());
  std::size_t i = 0;
  for (; i + w <= lines; i += w) {
    Batch<T> held[w];
    const T* line = x + i * columns;
    for (std::size_t k = 0; k < w; ++k, line += columns)
      held[k] = columns < w ? F::combine(start, load_part(line, columns, F::template start<T>()))
                            : reduce_pairwise<T, F>(line, columns);
    for (std::size_t half = w / 2; half > 0; half /= 2) {
      for (std::size_t k = 0; k < half; ++k) {
        const auto [low, high] = interleave<T>(held[k], held[k + half]);
        held[k] = F::combine(low, high);
      }
    }
    held[0].store_unaligned(out + i);
  }
  for (; i < lines; ++i) out[i] = reduce<T, F>(x + i * columns, columns);
}

// The way back from sums of lines.
template <class T>
void repeat(const T* x, std::size_t lines, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  const T* const end = out + lines * columns;
  for (std::size_t i = 0; i < lines; ++i, out += columns) {
    const Batch<T> value(x[i]);
    std::size_t k = 0;
    // The next line takes back what is written behind this one.
    for (; k < columns && out + k + w <= end; k += w) value.store_unaligned(out + k);
    for (; k < columns; ++k) out[k] = x[i];
  }
}

// Rows onto each other, `count` neighbouring vectors of them: blocks of up to 64 rows one row after the other, and the
// blocks pairwise.
template <class T, class F, std::size_t count, class Read>
void reduce_row_block(const T* x, std::size_t rows, std::size_t columns, Read read, Batch<T>* out) {
  Batch<T> held[count];  // in registers: nothing else knows its address
  for (auto& h : held) h = Batch<T>(F::template start<T>());
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t k = 0; k < count; ++k) held[k] = F::combine(held[k], read(x + i * columns + k * width<T>));
  for (std::size_t k = 0; k < count; ++k) out[k] = held[k];
}

template <class T, class F, std::size_t count, class Read>
void reduce_rows_pairwise(const T* x, std::size_t rows, std::size_t columns, Read read, Batch<T>* out) {
  constexpr std::size_t rows_at_once = 64;
  if (rows <= rows_at_once) return reduce_row_block<T, F, count>(x, rows, columns, read, out);
  const std::size_t half = (rows / 2 + rows_at_once - 1) / rows_at_once * rows_at_once;
  Batch<T> other[count];
  reduce_rows_pairwise<T, F, count>(x, half, columns, read, out);
  reduce_rows_pairwise<T, F, count>(x + half * columns, rows - half, columns, read, other);
  for (std::size_t k = 0; k < count; ++k) out[k] = F::combine(out[k], other[k]);
}

template <class T, class F>
void reduce_rows(const T* x, std::size_t rows, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  constexpr std::size_t stripe = 4;  // vectors held in registers
  const auto whole = [](const T* p) { return load(p); };
  std::size_t j = 0;
  for (; j + stripe * w <= columns; j += stripe * w) {
    Batch<T> result[stripe];
    reduce_rows_pairwise<T, F, stripe>(x + j, rows, columns, whole, result);
    for (std::size_t k = 0; k < stripe; ++k) result[k].store_unaligned(out + j + k * w);
  }
  Batch<T> result;
  for (; j + w <= columns; j += w) {
    reduce_rows_pairwise<T, F, 1>(x + j, rows, columns, whole, &result);
    result.store_unaligned(out + j);
  }
  if (j < columns) {
    const std::size_t left = columns - j;
    const auto part = [left](const T* p) { return load_part(p, left, T(0)); };
    reduce_rows_pairwise<T, F, 1>(x + j, rows, columns, part, &result);
    store_part<T>(result, out + j, left);
  }
}

}  // namespace

template <class T>
void fill_reductions(VectorTable<T>& table) {
  table.sum = reduce<T, SumOf>;
  table.max = reduce<T, MaxOf>;
  table.min = reduce<T, MinOf>;
  table.sum_lines = reduce_lines<T, SumOf>;
  table.max_lines = reduce_lines<T, MaxOf>;
  table.min_lines = reduce_lines<T, MinOf>;
  table.repeat = repeat<T>;
  table.sum_rows = reduce_rows<T, SumOf>;
  table.max_rows = reduce_rows<T, MaxOf>;
  table.min_rows = reduce_rows<T, MinOf>;
}
template void fill_reductions(VectorTable<float>& table);
template void fill_reductions(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
