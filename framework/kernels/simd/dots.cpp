// Sums of products along rows.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>
#include <utility>

#include <chainrule/framework/kernels/simd/machine.hpp>
#include <chainrule/framework/kernels/simd/unroll.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

// As many chains of multiply-adds as 64 bytes have elements, whatever the vectors: so bits do not depend on these. Nor
// on how many rows are taken at a time.
template <class T>
constexpr std::size_t chains = 64 / sizeof(T);

#if defined(__AVX2__)
template <class T>
constexpr std::size_t vectors = chains<T> / width<T>;

// Those of the elements [begin, begin + width) that are below count; the others are 0.
template <class T>
Batch<T> load_chain(const T* p, std::size_t begin, std::size_t count) {
  if (begin + width<T> <= count) return load(p + begin);
  return begin < count ? load_part(p + begin, count - begin, T(0)) : Batch<T>(T(0));
}

// Adds the lanes of `count` vectors: the second half of the lanes to the first, as long as there are two. Of two
// vectors in one, as long as there are two; so `count` is a power of two, and at most that of the lanes.
template <class T, std::size_t count>
CHAINRULE_INLINE inline void fold_lanes(Batch<T>* held, T* out) {
  constexpr std::size_t w = width<T>;
  unrolled<std::bit_width(w) - 1>([&](auto level) CHAINRULE_INLINE {
    constexpr std::size_t pairs = count >> (level + 1);
    unrolled<pairs == 0 ? 1 : pairs>([&](auto k) CHAINRULE_INLINE {
      const auto [low, high] = interleave<T>(held[k], held[k + pairs]);
      held[k] = low + high;
    });
  });
  if constexpr (count == w) {
    held[0].store_unaligned(out);
  } else {
    T lanes[w];
    held[0].store_unaligned(lanes);
    unrolled<count>([&](auto s) { out[s] = lanes[s * (w / count)]; });
  }
}

template <class T, std::size_t count>
CHAINRULE_INLINE inline void fold_all(Batch<T>* held, T* out) {
  constexpr std::size_t several = std::min(std::bit_floor(count), width<T>);
  fold_lanes<T, several>(held, out);
  if constexpr (count > several) fold_all<T, count - several>(held + several, out + several);
}

// Where the sum of row i of a and row j of b goes.
struct Places {
  std::ptrdiff_t row;
  std::ptrdiff_t column;
};

// R rows of a by C rows of b.
template <std::size_t R, std::size_t C, class T>
void dots_of(const T* a, std::ptrdiff_t lda, const T* b, std::ptrdiff_t ldb, std::size_t k, T* out, Places places) {
  constexpr std::size_t n = vectors<T>;
  Batch<T> sums[R * C][n];
  unrolled<R * C>([&](auto s) { unrolled<n>([&](auto v) { sums[s][v] = Batch<T>(T(0)); }); });
  const auto add = [&](const auto& read) CHAINRULE_INLINE {
    Batch<T> y[C][n];
    unrolled<C>([&](auto j) CHAINRULE_INLINE { read(b + static_cast<std::ptrdiff_t>(j) * ldb, y[j]); });
    unrolled<R>([&](auto i) CHAINRULE_INLINE {
      Batch<T> x[n];
      read(a + static_cast<std::ptrdiff_t>(i) * lda, x);
      unrolled<C>([&](auto j) CHAINRULE_INLINE {
        unrolled<n>([&](auto v)
                        CHAINRULE_INLINE { sums[i * C + j][v] = Vectors<T>::fma(x[v], y[j][v], sums[i * C + j][v]); });
      });
    });
  };
  for (; k >= chains<T>; k -= chains<T>, a += chains<T>, b += chains<T>)
    add([](const T* p, Batch<T>* to)
            CHAINRULE_INLINE { unrolled<n>([&](auto v) CHAINRULE_INLINE { to[v] = load(p + v * width<T>); }); });
  if (k > 0)
    add([k](const T* p, Batch<T>* to) CHAINRULE_INLINE {
      unrolled<n>([&](auto v) CHAINRULE_INLINE { to[v] = load_chain(p, v * width<T>, k); });
    });
  Batch<T> folded[R * C];
  unrolled<R * C>([&](auto s) {
    folded[s] = sums[s][0];
    if constexpr (n == 2) folded[s] = folded[s] + sums[s][1];
  });
  T results[R * C];
  fold_all<T, R * C>(folded, results);
  unrolled<R * C>([&](auto s) {
    out[static_cast<std::ptrdiff_t>(s / C) * places.row + static_cast<std::ptrdiff_t>(s % C) * places.column] =
        results[s];
  });
}

// The last rows, of which there are fewer than `most`.
template <std::size_t most, std::size_t C, class T>
void dots_of_rest(const T* a, std::ptrdiff_t lda, std::int64_t rows, const T* b, std::ptrdiff_t ldb, std::size_t k,
                  T* out, Places places) {
  if constexpr (most > 1) {
    if (rows == most - 1) return dots_of<most - 1, C>(a, lda, b, ldb, k, out, places);
    dots_of_rest<most - 1, C>(a, lda, rows, b, ldb, k, out, places);
  }
}

template <std::size_t C, class T>
void dots_of_columns(const T* a, std::ptrdiff_t lda, std::int64_t m, const T* b, std::ptrdiff_t ldb, std::size_t k,
                     T* out, Places places) {
  constexpr std::size_t rows = vectors<T> == 1 ? 5 : 3;  // all sums in registers
  std::int64_t i = 0;
  for (; i + static_cast<std::int64_t>(rows) <= m; i += rows)
    dots_of<rows, C>(a + i * lda, lda, b, ldb, k, out + i * places.row, places);
  dots_of_rest<rows, C>(a + i * lda, lda, m - i, b, ldb, k, out + i * places.row, places);
}

// Factors may change places: a product is the same either way.
template <class T>
void dots(const T* a, std::ptrdiff_t lda, std::int64_t m, const T* b, std::ptrdiff_t ldb, std::int64_t n,
          std::int64_t k, T* out, std::ptrdiff_t ldo) {
  Places places{ldo, 1};
  if (m < n) {
    std::swap(a, b);
    std::swap(lda, ldb);
    std::swap(m, n);
    std::swap(places.row, places.column);
  }
  const auto terms = static_cast<std::size_t>(k);
  std::int64_t j = 0;
  for (; j + 2 <= n; j += 2) dots_of_columns<2>(a, lda, m, b + j * ldb, ldb, terms, out + j * places.column, places);
  if (j < n) dots_of_columns<1>(a, lda, m, b + j * ldb, ldb, terms, out + j * places.column, places);
}
#else
// The chains' sum: the second half is added to the first, as long as there are two.
template <class T>
T sum_of_chains(T* x) {
  for (std::size_t half = chains<T> / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

template <class T>
void dots(const T* a, std::ptrdiff_t lda, std::int64_t m, const T* b, std::ptrdiff_t ldb, std::int64_t n,
          std::int64_t k, T* out, std::ptrdiff_t ldo) {
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      T sums[chains<T>] = {};
      for (std::int64_t p = 0; p < k; ++p) {
        T& sum = sums[static_cast<std::size_t>(p) % chains<T>];
        sum = std::fma(a[i * lda + p], b[j * ldb + p], sum);
      }
      out[i * ldo + j] = sum_of_chains(sums);
    }
}
#endif

}  // namespace

template <class T>
void fill_dots(VectorTable<T>& table) {
  table.dots = dots<T>;
}
template void fill_dots(VectorTable<float>& table);
template void fill_dots(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
