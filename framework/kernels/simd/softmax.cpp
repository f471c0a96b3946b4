// Softmax by its parts, and its gradient.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <chainrule/framework/kernels/simd/batch.hpp>
#include <chainrule/framework/kernels/simd/operations.hpp>

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

// The sum of the lanes of each of as many vectors as a vector has lanes.
template <class T>
Batch<T> sum_lanes(Batch<T>* held) {
  for (std::size_t half = width<T> / 2; half > 0; half /= 2) {
    for (std::size_t k = 0; k < half; ++k) {
      const auto [low, high] = interleave<T>(held[k], held[k + half]);
      held[k] = low + high;
    }
  }
  return held[0];
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
    T sums[w];
    sum_lanes<T>(held).store_unaligned(sums);
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

// ---- exponentials less the greatest

template <class T>
constexpr T lowest_exp = single<T> ? -104 : -746;  // exp of what is less is 0

// exp(x) for lowest_exp <= x <= 0, or NaN.
template <class T>
Batch<T> exp_below(Batch<T> x) {
#if defined(__AVX2__)
  Vectors<T> m;
  return kernels::exp_of_large(m, x);
#else
  return Exp::apply<Batch<T> >(x);
#endif
}

// exp(x - greatest). Where it vanishes that is not left to its formula: processors are ten times as slow where results
// are below all normal numbers.
template <class T>
Batch<T> exp_less(Batch<T> x, Batch<T> greatest) {
  const Batch<T> zero(T(0));
  const Batch<T> difference = x - greatest;
  const auto vanishes = difference < Batch<T>(lowest_exp<T>);
  return xsimd::select(vanishes, zero, exp_below<T>(xsimd::select(vanishes, zero, difference)));
}

// The same as a term of a sum that is at least 1: what is far below the sum's last digit may be anything that is. (Of
// a NaN, the second operand, this maximum is NaN.)
template <class T>
Batch<T> exp_term(Batch<T> x, Batch<T> greatest) {
  return exp_below<T>(xsimd::max(Batch<T>(T(single<T> ? -80 : -700)), x - greatest));
}

// Of the first `count` < width elements at x; the other lanes are 0, or NaN where the greatest is not finite.
template <class T>
Batch<T> exp_part(const T* x, std::size_t count, T greatest) {
  constexpr std::size_t w = width<T>;
  static constexpr auto ones_and_zeros = [] {
    std::array<T, 2 * w> out{};
    for (std::size_t k = 0; k < w; ++k) out[k] = T(1);
    return out;
  }();
  return exp_term<T>(load_part(x, count, greatest), Batch<T>(greatest)) * load(ones_and_zeros.data() + w - count);
}

// Elements of a line whose greatest is sought and whose exponentials are made while the first cache holds them, with
// the next ones, which memory brings meanwhile.
template <class T>
constexpr std::size_t held_elements = 16'384 / sizeof(T);

template <class T>
const VectorTable<T>& own_table() {
  if constexpr (single<T>) {
    return tables().float32;
  } else {
    return tables().float64;
  }
}

// As dot_block.
template <class T>
Batch<T> exp_block(const T* x, std::size_t n, T greatest) {
  constexpr std::size_t w = width<T>;
  const Batch<T> less(greatest);
  Batch<T> s0(T(0));
  Batch<T> s1(T(0));
  std::size_t i = 0;
  for (; i + 2 * w <= n; i += 2 * w) {
    __builtin_prefetch(x + i + held_elements<T>);
    __builtin_prefetch(x + i + held_elements<T> + w);
    s0 = s0 + exp_term<T>(load(x + i), less);
    s1 = s1 + exp_term<T>(load(x + i + w), less);
  }
  if (i + w <= n) {
    s0 = s0 + exp_term<T>(load(x + i), less);
    i += w;
  }
  if (i < n) s1 = s1 + exp_part(x + i, n - i, greatest);
  return s0 + s1;
}

template <class T>
Batch<T> exp_pairwise(const T* x, std::size_t n, T greatest) {
  if (n <= block) return exp_block(x, n, greatest);
  const std::size_t half = (n / 2 + block - 1) / block * block;
  const Batch<T> first = exp_pairwise(x, half, greatest);
  return first + exp_pairwise(x + half, n - half, greatest);
}

// The greatest of a run, and the sum of exp(x - greatest) in the lanes of a vector; of numbers that are all -infinity
// any sum.
template <class T>
struct ExpSum {
  T greatest;
  Batch<T> sum;
};

template <class T>
ExpSum<T> exp_sum(const T* x, std::size_t n) {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  if (n <= held_elements<T>) {
    const T greatest = own_table<T>().max(x, n);
    return {greatest, exp_pairwise(x, n, greatest == lowest ? T(0) : greatest)};
  }
  const std::size_t half = (n / 2 + block - 1) / block * block;
  const ExpSum<T> a = exp_sum(x, half);
  const ExpSum<T> b = exp_sum(x + half, n - half);
  const T greatest = a.greatest > b.greatest || a.greatest != a.greatest ? a.greatest : b.greatest;
  const Batch<T> of_both(greatest == lowest ? T(0) : greatest);
  return {greatest,
          a.sum * exp_less<T>(Batch<T>(a.greatest), of_both) + b.sum * exp_less<T>(Batch<T>(b.greatest), of_both)};
}

template <class T>
void exp_sum_lines(const T* x, std::size_t lines, std::size_t columns, T* greatest, T* total) {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  if (columns <= held_elements<T>) {
    own_table<T>().max_lines(x, lines, columns, greatest);
    constexpr std::size_t w = width<T>;
    for (std::size_t i = 0; i < lines; i += w) {
      const std::size_t count = lines - i < w ? lines - i : w;
      Batch<T> held[w];
      for (std::size_t k = 0; k < count; ++k) held[k] = exp_pairwise(x + (i + k) * columns, columns, greatest[i + k]);
      if (count == w) {
        sum_lanes<T>(held).store_unaligned(total + i);
      } else {  // in the same order, or a line's bits would depend on where it is
        for (std::size_t k = count; k < w; ++k) held[k] = Batch<T>(T(0));
        store_part<T>(sum_lanes<T>(held), total + i, count);
      }
    }
    return;
  }
  for (std::size_t i = 0; i < lines; ++i) {
    const ExpSum<T> of_line = exp_sum(x + i * columns, columns);
    greatest[i] = of_line.greatest;
    total[i] = of_line.greatest == lowest ? std::numeric_limits<T>::quiet_NaN() : xsimd::hadd(of_line.sum);
  }
}

// f of each vector of a line to `out`.
template <class T, class F>
void each_of_line(const T* x, std::size_t n, T* out, bool streams, F f) {
  constexpr std::size_t w = width<T>;
  const auto part = [&](std::size_t i, std::size_t count) {
    store_part<T>(f(load_part(x + i, count, T(0))), out + i, count);
  };
  std::size_t i = 0;
  if (streams) {
    const std::size_t beyond = reinterpret_cast<std::uintptr_t>(out) / sizeof(T) % w;
    const std::size_t head = beyond == 0 ? 0 : w - beyond;
    if (head > 0 && head <= n) {
      part(0, head);
      i = head;
    }
    if (beyond == 0 || i > 0)
      for (; i + w <= n; i += w) stream<T>(f(load(x + i)), out + i);
  }
  for (; i + w <= n; i += w) f(load(x + i)).store_unaligned(out + i);
  if (i < n) part(i, n - i);
}

// So that other threads see what is past the caches.
void end_streams([[maybe_unused]] bool streams) {
#if defined(__AVX2__)
  if (streams) _mm_sfence();
#endif
}

template <class T>
void exp_lines(const T* x, std::size_t lines, std::size_t columns, const T* greatest, const T* factor, T* out,
               bool streams) {
  for (std::size_t i = 0; i < lines; ++i)
    each_of_line(
        x + i * columns, columns, out + i * columns, streams,
        [less = Batch<T>(greatest[i]), by = Batch<T>(factor[i])](Batch<T> v) { return exp_less<T>(v, less) * by; });
  end_streams(streams);
}

template <class T>
void shift_lines(const T* x, std::size_t lines, std::size_t columns, const T* first, const T* second, T* out,
                 bool streams) {
  for (std::size_t i = 0; i < lines; ++i)
    each_of_line(x + i * columns, columns, out + i * columns, streams,
                 [a = Batch<T>(first[i]), b = Batch<T>(second[i])](Batch<T> v) { return (v - a) - b; });
  end_streams(streams);
}

// Calls f with each vector's number of its first column, and what reads and writes so many lanes.
template <class T, class F>
void by_columns(std::size_t columns, F f) {
  constexpr std::size_t w = width<T>;
  std::size_t j = 0;
  for (; j + w <= columns; j += w)
    f(
        j, [](const T* p) { return load(p); }, [](Batch<T> x, T* p) { x.store_unaligned(p); });
  if (const std::size_t left = columns - j; left > 0)
    f(
        j, [left](const T* p) { return load_part(p, left, T(0)); },
        [left](Batch<T> x, T* p) { store_part<T>(x, p, left); });
}

template <class T>
void exp_sum_rows(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, T* greatest, T* total) {
  own_table<T>().max_part_of_rows(x, stride, rows, columns, greatest);
  by_columns<T>(columns, [=](std::size_t j, auto read, auto write) {
    const Batch<T> less = read(greatest + j);
    Batch<T> sum(T(0));
    for (std::size_t begin = 0; begin < rows; begin += rows_at_once) {
      const std::size_t end = rows - begin < rows_at_once ? rows : begin + rows_at_once;
      Batch<T> of_block(T(0));
      for (std::size_t i = begin; i < end; ++i) of_block = of_block + exp_term<T>(read(x + i * stride + j), less);
      sum = sum + of_block;
    }
    write(sum, total + j);
  });
}

template <class T>
void exp_rows(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, const T* greatest, const T* factor,
              T* out) {
  by_columns<T>(columns, [=](std::size_t j, auto read, auto write) {
    const Batch<T> less = read(greatest + j);
    const Batch<T> by = read(factor + j);
    for (std::size_t i = 0; i < rows; ++i)
      write(exp_less<T>(read(x + i * stride + j), less) * by, out + i * stride + j);
  });
}

template <class T>
void shift_rows(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, const T* first, const T* second,
                T* out) {
  by_columns<T>(columns, [=](std::size_t j, auto read, auto write) {
    const Batch<T> a = read(first + j);
    const Batch<T> b = read(second + j);
    for (std::size_t i = 0; i < rows; ++i) write((read(x + i * stride + j) - a) - b, out + i * stride + j);
  });
}

}  // namespace

template <class T>
void fill_softmax(VectorTable<T>& table) {
  table.softmax_gradient_lines = softmax_gradient_lines<T>;
  table.softmax_gradient_rows = softmax_gradient_rows<T>;
  table.exp_sum_lines = exp_sum_lines<T>;
  table.exp_lines = exp_lines<T>;
  table.shift_lines = shift_lines<T>;
  table.exp_sum_rows = exp_sum_rows<T>;
  table.exp_rows = exp_rows<T>;
  table.shift_rows = shift_rows<T>;
}
template void fill_softmax(VectorTable<float>& table);
template void fill_softmax(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
