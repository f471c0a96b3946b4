// Sums of products along rows.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cmath>
#include <utility>

#include <chainrule/framework/kernels/simd/machine.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

// As many chains of multiply-adds as 64 bytes have elements, whatever the vectors: so bits do not depend on these. Nor
// on how many rows are taken at a time.
template <class T>
constexpr std::size_t chains = 64 / sizeof(T);

#if defined(__AVX2__)
template <class T>
constexpr std::size_t vectors = chains<T> / width<T>;

template <class T>
void load_chains(const T* p, std::size_t count, Batch<T>* to) {
  for (std::size_t i = 0; i < vectors<T>; ++i) {
    const std::size_t begin = i * width<T>;
    to[i] = begin + width<T> <= count ? load(p + begin)
            : begin < count           ? load_part(p + begin, count - begin, T(0))
                                      : Batch<T>(T(0));
  }
}

inline float fold(__m128 x) {
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline double fold(__m128d x) { return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x))); }
inline float fold(__m256 x) { return fold(_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1))); }
inline double fold(__m256d x) { return fold(_mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1))); }

template <class T>
T fold_chains(const Batch<T>* x) {
#if defined(__AVX512F__)
  if constexpr (single<T>) {
    const __m512 all = x[0];
    return fold(
        _mm256_add_ps(_mm512_castps512_ps256(all), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1))));
  } else {
    const __m512d all = x[0];
    return fold(_mm256_add_pd(_mm512_castpd512_pd256(all), _mm512_extractf64x4_pd(all, 1)));
  }
#else
  if constexpr (single<T>) {
    return fold(static_cast<__m256>(x[0] + x[1]));
  } else {
    return fold(static_cast<__m256d>(x[0] + x[1]));
  }
#endif
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
  Batch<T> sums[R][C][n];
  for (auto& row : sums)
    for (auto& sum : row)
      for (auto& v : sum) v = Batch<T>(T(0));
  for (std::size_t p = 0; p < k; p += chains<T>) {
    Batch<T> x[R][n];
    Batch<T> y[C][n];
    for (std::size_t i = 0; i < R; ++i) load_chains(a + static_cast<std::ptrdiff_t>(i) * lda + p, k - p, x[i]);
    for (std::size_t j = 0; j < C; ++j) load_chains(b + static_cast<std::ptrdiff_t>(j) * ldb + p, k - p, y[j]);
    for (std::size_t i = 0; i < R; ++i)
      for (std::size_t j = 0; j < C; ++j)
        for (std::size_t v = 0; v < n; ++v) sums[i][j][v] = Vectors<T>::fma(x[i][v], y[j][v], sums[i][j][v]);
  }
  for (std::size_t i = 0; i < R; ++i)
    for (std::size_t j = 0; j < C; ++j)
      out[static_cast<std::ptrdiff_t>(i) * places.row + static_cast<std::ptrdiff_t>(j) * places.column] =
          fold_chains<T>(sums[i][j]);
}

template <std::size_t C, class T>
void dots_of_columns(const T* a, std::ptrdiff_t lda, std::int64_t m, const T* b, std::ptrdiff_t ldb, std::size_t k,
                     T* out, Places places) {
  constexpr std::size_t rows = vectors<T> == 1 ? 5 : 3;  // all sums in registers
  std::int64_t i = 0;
  for (; i + static_cast<std::int64_t>(rows) <= m; i += rows)
    dots_of<rows, C>(a + i * lda, lda, b, ldb, k, out + i * places.row, places);
  for (; i < m; ++i) dots_of<1, C>(a + i * lda, lda, b, ldb, k, out + i * places.row, places);
}

// Factors may change places: a product is the same either way.
template <class T>
void dots(const T* a, std::ptrdiff_t lda, std::int64_t m, const T* b, std::ptrdiff_t ldb, std::int64_t n,
          std::int64_t k, T* out) {
  Places places{n, 1};
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
          std::int64_t k, T* out) {
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      T sums[chains<T>] = {};
      for (std::int64_t p = 0; p < k; ++p) {
        T& sum = sums[static_cast<std::size_t>(p) % chains<T>];
        sum = std::fma(a[i * lda + p], b[j * ldb + p], sum);
      }
      *out++ = sum_of_chains(sums);
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
