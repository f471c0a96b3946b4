// Sums, maxima and minima of a run, of lines and of rows.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>
#include <limits>
#include <type_traits>

#include <chainrule/framework/kernels/simd/batch.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

// Sums are made of blocks of up to 256 elements, and the blocks are added pairwise. Extremes need no blocks: theirs are
// as long as pays.
constexpr std::size_t block = 256;

// What is combined. `start` with anything is that. combine() keeps NaNs; take() need not where Beside sees them.
template <class T>
struct SumOf {
  static constexpr T start = T(0);
  static Batch<T> combine(Batch<T> a, Batch<T> b) { return a + b; }
  [[maybe_unused]] static T combine_one(T a, T b) { return a + b; }

  // Nothing beside the sums themselves.
  struct Beside {
    void see(Batch<T> /*a*/, Batch<T> /*b*/) {}
    [[nodiscard]] Batch<T> settle(Batch<T> sum) const { return sum; }
  };
  static Batch<T> take(Batch<T> held, Batch<T> x) { return held + x; }
};

// Whether a lane has seen a NaN: of two vectors by one comparison, where a maximum that keeps NaNs needs three
// instructions for each.
template <class T>
class AnyNaN {
 public:
#if defined(__AVX512F__)
  void see(Batch<T> a, Batch<T> b) {
    if constexpr (single<T>) {
      none_ = _mm512_mask_cmp_ps_mask(none_, a, b, _CMP_ORD_Q);
    } else {
      none_ = _mm512_mask_cmp_pd_mask(none_, a, b, _CMP_ORD_Q);
    }
  }
  [[nodiscard]] Batch<T> settle(Batch<T> x) const {
    const Batch<T> nan(std::numeric_limits<T>::quiet_NaN());
    if constexpr (single<T>) {
      return _mm512_mask_blend_ps(none_, nan, x);
    } else {
      return _mm512_mask_blend_pd(none_, nan, x);
    }
  }

 private:
  std::conditional_t<single<T>, __mmask16, __mmask8> none_ = static_cast<decltype(none_)>(~0U);
#else
  void see(Batch<T> a, Batch<T> b) {
#if defined(__AVX2__)
    if constexpr (single<T>) {
      any_ = any_ | Batch<T>(_mm256_cmp_ps(a, b, _CMP_UNORD_Q));
    } else {
      any_ = any_ | Batch<T>(_mm256_cmp_pd(a, b, _CMP_UNORD_Q));
    }
#else
    const Batch<T> zero(T(0));
    const Batch<T> nan(std::numeric_limits<T>::quiet_NaN());
    any_ = any_ | xsimd::select(xsimd::isnan(a) | xsimd::isnan(b), nan, zero);
#endif
  }
  // All bits of a NaN's exponent are set.
  [[nodiscard]] Batch<T> settle(Batch<T> x) const { return x | any_; }

 private:
  Batch<T> any_ = Batch<T>(T(0));
#endif
};

template <class T>
struct MaxOf {
  static constexpr T start = -std::numeric_limits<T>::infinity();
  static Batch<T> combine(Batch<T> a, Batch<T> b) { return maximum(a, b); }
  static T combine_one(T a, T b) { return a > b || a != a ? a : b; }
  using Beside = AnyNaN<T>;
  static Batch<T> take(Batch<T> held, Batch<T> x) { return xsimd::max(held, x); }
};

template <class T>
struct MinOf {
  static constexpr T start = std::numeric_limits<T>::infinity();
  static Batch<T> combine(Batch<T> a, Batch<T> b) { return minimum(a, b); }
  static T combine_one(T a, T b) { return a < b || a != a ? a : b; }
  using Beside = AnyNaN<T>;
  static Batch<T> take(Batch<T> held, Batch<T> x) { return xsimd::min(held, x); }
};

// A run that is being reduced to one vector. No arrays: these would be kept in memory.
template <class T, class F>
class Run {
 public:
  static constexpr std::size_t step = 4 * width<T>;

  void take(const T* x) {
    constexpr std::size_t w = width<T>;
    const Batch<T> v0 = load(x);
    const Batch<T> v1 = load(x + w);
    const Batch<T> v2 = load(x + 2 * w);
    const Batch<T> v3 = load(x + 3 * w);
    a0_ = F::take(a0_, v0);
    a1_ = F::take(a1_, v1);
    a2_ = F::take(a2_, v2);
    a3_ = F::take(a3_, v3);
    beside0_.see(v0, v1);
    beside1_.see(v2, v3);
  }

  // The last n < step elements.
  Batch<T> end(const T* x, std::size_t n) {
    constexpr std::size_t w = width<T>;
    std::size_t i = 0;
    for (; i + w <= n; i += w) {
      const Batch<T> v = load(x + i);
      a0_ = F::take(a0_, v);
      beside0_.see(v, v);
    }
    if (i < n) {
      const Batch<T> v = load_part(x + i, n - i, F::start);
      a1_ = F::take(a1_, v);
      beside0_.see(v, v);
    }
    return F::combine(beside0_.settle(F::combine(a0_, a1_)), beside1_.settle(F::combine(a2_, a3_)));
  }

 private:
  Batch<T> a0_ = Batch<T>(F::start);
  Batch<T> a1_ = Batch<T>(F::start);
  Batch<T> a2_ = Batch<T>(F::start);
  Batch<T> a3_ = Batch<T>(F::start);
  typename F::Beside beside0_;
  typename F::Beside beside1_;
};

// `count` runs of n elements, 1 or 2, the first elements of which are `apart` from each other: memory gives two runs at
// a time faster than one.
template <class T, class F, std::size_t count>
void reduce_block(const T* x, std::size_t apart, std::size_t n, Batch<T>* out) {
  constexpr std::size_t step = Run<T, F>::step;
  Run<T, F> first;
  std::size_t i = 0;
  if constexpr (count == 1) {
    for (; i + step <= n; i += step) first.take(x + i);
  } else {
    Run<T, F> second;
    for (; i + step <= n; i += step) {
      first.take(x + i);
      second.take(x + apart + i);
    }
    out[1] = second.end(x + apart + i, n - i);
  }
  out[0] = first.end(x + i, n - i);
}

template <class T, class F, std::size_t count>
void reduce_pairwise(const T* x, std::size_t apart, std::size_t n, Batch<T>* out) {
  if (n <= block) return reduce_block<T, F, count>(x, apart, n, out);
  const std::size_t half = (n / 2 + block - 1) / block * block;
  Batch<T> other[count];
  reduce_pairwise<T, F, count>(x, apart, half, out);
  reduce_pairwise<T, F, count>(x + half, apart, n - half, other);
  for (std::size_t c = 0; c < count; ++c) out[c] = F::combine(out[c], other[c]);
}

// Lines of n elements, one after the other, to a vector each.
template <class T, class F>
void reduce_some_lines(const T* x, std::size_t lines, std::size_t n, Batch<T>* out) {
  std::size_t i = 0;
  if (n >= 2 * block)
    for (; i + 2 <= lines; i += 2) reduce_pairwise<T, F, 2>(x + i * n, n, n, out + i);
  for (; i < lines; ++i) reduce_pairwise<T, F, 1>(x + i * n, n, n, out + i);
}

template <class T, class F>
T reduce(const T* x, std::size_t n) {
  Batch<T> held;
  reduce_pairwise<T, F, 1>(x, n, n, &held);
  return across<T, F>(held);
}

// As many lines at a time as a vector has lanes: the second halves of their vectors are combined with the first, of two
// lines in one vector, and so on, till one vector has them all, in order.
template <class T, class F>
void reduce_lines(const T* x, std::size_t lines, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  Batch<T> held[w];
  std::size_t i = 0;
  for (; i + w <= lines; i += w) {
    const T* line = x + i * columns;
    if (columns < w) {
      for (std::size_t k = 0; k < w; ++k, line += columns)
        held[k] = F::combine(Batch<T>(F::start), load_part(line, columns, F::start));
    } else {
      reduce_some_lines<T, F>(line, w, columns, held);
    }
    for (std::size_t half = w / 2; half > 0; half /= 2) {
      for (std::size_t k = 0; k < half; ++k) {
        const auto [low, high] = interleave<T>(held[k], held[k + half]);
        held[k] = F::combine(low, high);
      }
    }
    held[0].store_unaligned(out + i);
  }
  const std::size_t left = lines - i;
  if (left == 0) return;
  reduce_some_lines<T, F>(x + i * columns, left, columns, held);
  for (std::size_t k = 0; k < left; ++k) out[i + k] = across<T, F>(held[k]);
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
void reduce_row_block(const T* x, std::size_t rows, std::size_t stride, Read read, Batch<T>* out) {
  Batch<T> held[count];  // in registers: nothing else knows its address
  typename F::Beside beside[count];
  for (auto& h : held) h = Batch<T>(F::start);
  std::size_t i = 0;
  for (; i + 2 <= rows; i += 2) {
    for (std::size_t k = 0; k < count; ++k) {
      const Batch<T> v = read(x + i * stride + k * width<T>);
      const Batch<T> w = read(x + (i + 1) * stride + k * width<T>);
      held[k] = F::take(F::take(held[k], v), w);
      beside[k].see(v, w);
    }
  }
  if (i < rows) {
    for (std::size_t k = 0; k < count; ++k) {
      const Batch<T> v = read(x + i * stride + k * width<T>);
      held[k] = F::take(held[k], v);
      beside[k].see(v, v);
    }
  }
  for (std::size_t k = 0; k < count; ++k) out[k] = beside[k].settle(held[k]);
}

template <class T, class F, std::size_t count, class Read>
void reduce_rows_pairwise(const T* x, std::size_t rows, std::size_t stride, Read read, Batch<T>* out) {
  constexpr std::size_t rows_at_once = 64;
  if (rows <= rows_at_once) return reduce_row_block<T, F, count>(x, rows, stride, read, out);
  const std::size_t half = (rows / 2 + rows_at_once - 1) / rows_at_once * rows_at_once;
  Batch<T> other[count];
  reduce_rows_pairwise<T, F, count>(x, half, stride, read, out);
  reduce_rows_pairwise<T, F, count>(x + half * stride, rows - half, stride, read, other);
  for (std::size_t k = 0; k < count; ++k) out[k] = F::combine(out[k], other[k]);
}

template <class T, class F>
void reduce_part_of_rows(const T* x, std::size_t stride, std::size_t rows, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  constexpr std::size_t stripe = 4;  // vectors held in registers
  const auto whole = [](const T* p) { return load(p); };
  std::size_t j = 0;
  for (; j + stripe * w <= columns; j += stripe * w) {
    Batch<T> result[stripe];
    reduce_rows_pairwise<T, F, stripe>(x + j, rows, stride, whole, result);
    for (std::size_t k = 0; k < stripe; ++k) result[k].store_unaligned(out + j + k * w);
  }
  Batch<T> result;
  for (; j + w <= columns; j += w) {
    reduce_rows_pairwise<T, F, 1>(x + j, rows, stride, whole, &result);
    result.store_unaligned(out + j);
  }
  if (j < columns) {
    const std::size_t left = columns - j;
    const auto part = [left](const T* p) { return load_part(p, left, T(0)); };
    reduce_rows_pairwise<T, F, 1>(x + j, rows, stride, part, &result);
    store_part<T>(result, out + j, left);
  }
}

template <class T>
void sum_rows(const T* x, std::size_t rows, std::size_t columns, T* out) {
  reduce_part_of_rows<T, SumOf<T>>(x, columns, rows, columns, out);
}

}  // namespace

template <class T>
void fill_reductions(VectorTable<T>& table) {
  table.sum = reduce<T, SumOf<T>>;
  table.max = reduce<T, MaxOf<T>>;
  table.min = reduce<T, MinOf<T>>;
  table.sum_lines = reduce_lines<T, SumOf<T>>;
  table.max_lines = reduce_lines<T, MaxOf<T>>;
  table.min_lines = reduce_lines<T, MinOf<T>>;
  table.repeat = repeat<T>;
  table.sum_rows = sum_rows<T>;
  table.sum_part_of_rows = reduce_part_of_rows<T, SumOf<T>>;
  table.max_part_of_rows = reduce_part_of_rows<T, MaxOf<T>>;
  table.min_part_of_rows = reduce_part_of_rows<T, MinOf<T>>;
}
template void fill_reductions(VectorTable<float>& table);
template void fill_reductions(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
