#include <chainrule/framework/products/blas.hpp>

#include <cblas.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/elementwise.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/framework/products/blas_core.hpp>

namespace chainrule::products {

namespace {

struct Gemm {
  CBLAS_TRANSPOSE ta;
  CBLAS_TRANSPOSE tb;
  int m;
  int n;
  int k;
  int lda;
  int ldb;
  int ldc;
  double alpha;
  double beta;
};

Gemm gemm_of(const Product& p) {
  const auto narrow = [](std::int64_t x) { return static_cast<int>(x); };
  return {p.transpose_a ? CblasTrans : CblasNoTrans,
          p.transpose_b ? CblasTrans : CblasNoTrans,
          narrow(p.m),
          narrow(p.n),
          narrow(p.k),
          narrow(p.lda),
          narrow(p.ldb),
          narrow(p.ldc),
          p.alpha,
          p.adds ? 1.0 : 0.0};
}

void gemm(const Gemm& g, const float* a, const float* b, float* c) {
  cblas_sgemm(CblasRowMajor, g.ta, g.tb, g.m, g.n, g.k, static_cast<float>(g.alpha), a, g.lda, b, g.ldb,
              static_cast<float>(g.beta), c, g.ldc);
}

void gemm(const Gemm& g, const double* a, const double* b, double* c) {
  cblas_dgemm(CblasRowMajor, g.ta, g.tb, g.m, g.n, g.k, g.alpha, a, g.lda, b, g.ldb, g.beta, c, g.ldc);
}

// ---- parts for threads

// Multiplications and additions from which a product is cut.
constexpr std::int64_t worth_cutting = 16'000'000;
// Each part packs the other operand anew, which shows where it has fewer rows or columns than this.
constexpr int long_part = 2048;
// Parts begin at multiples of this, so that they are aligned.
constexpr int part_unit = 64;

struct Parts {
  bool of_columns;
  int size;  // rows or columns of each but the last
  int count;
};

// Of OpenBLAS's kernels those for AVX-512 in float32 add up in the same order wherever a product is cut: so one thread
// need not cut it. (Tried on 2,300 products of random sizes; test_threads tries some more.)
template <class T>
bool same_when_cut() {
  if constexpr (sizeof(T) != sizeof(float)) return false;
  static const bool same = [] {
    const std::string_view core = openblas_get_corename();
    return core == "SkylakeX" || core == "Cooperlake";
  }();
  return same;
}

// The longer side of the product is cut. Other kernels add up in another order near the edge of what they are given, so
// the parts follow from the sizes alone, and one thread computes the same ones.
Parts cut(const Gemm& g) {
  const bool of_columns = g.n >= g.m;
  const int side = of_columns ? g.n : g.m;
  if (std::int64_t{g.m} * g.n * g.k < worth_cutting) return {of_columns, side, 1};
  const int parts = std::clamp(side / long_part, 2, 16);
  const int size = ((side + parts - 1) / parts + part_unit - 1) / part_unit * part_unit;
  return {of_columns, size, (side + size - 1) / size};
}

template <class T>
void gemm_in_parts(const Gemm& g, const T* a, const T* b, T* c) {
  const Parts parts = cut(g);
  if (parts.count <= 1 || (same_when_cut<T>() && num_threads() == 1)) return gemm(g, a, b, c);
  detail::parallel_for(static_cast<std::size_t>(parts.count), [&](std::size_t part, void*) {
    Gemm own = g;
    const int begin = static_cast<int>(part) * parts.size;
    if (parts.of_columns) {
      own.n = std::min(parts.size, g.n - begin);
      gemm(own, a, b + (g.tb == CblasTrans ? std::int64_t{begin} * g.ldb : begin), c + begin);
    } else {
      own.m = std::min(parts.size, g.m - begin);
      gemm(own, a + (g.ta == CblasTrans ? begin : std::int64_t{begin} * g.lda), b, c + std::int64_t{begin} * g.ldc);
    }
  });
}

// ---- A-times-B-transposed, small

// The AVX-512 kernels of OpenBLAS that take operands where they lie, up to a million multiplications, are slow where
// the second one is transposed. To transpose it first takes a quarter off: that costs n * k moves, against m * n * k
// multiplications. (Rows of 1 KB and more share cache sets, and are slow to transpose.)
constexpr std::int64_t most_of_small = 1'000'000;

bool has_slow_transposed() {
  static const bool slow = [] {
    const std::string_view core = openblas_get_corename();
    return core == "SkylakeX" || core == "Cooperlake" || core == "SapphireRapids";
  }();
  return slow;
}

bool transposes_first(const Gemm& g, std::size_t element) {
  const int least = element == sizeof(float) ? 32 : 64;
  const int most = element == sizeof(float) ? 128 : 64;
  return g.ta == CblasNoTrans && g.tb == CblasTrans && g.m >= 32 && g.n >= least && g.n <= 128 && g.k <= most &&
         std::int64_t{g.m} * g.n * g.k <= most_of_small && has_slow_transposed();
}

template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float Type __attribute__((vector_size(16), aligned(4), may_alias));  // NOLINT: using takes no may_alias
};
template <>
struct Lanes<double> {
  typedef double Type __attribute__((vector_size(16), aligned(8), may_alias));  // NOLINT
};

// One block of 16 bytes by as many rows.
void transpose_block(const float* from, std::int64_t columns, float* to, std::int64_t rows) {
  using V = Lanes<float>::Type;
  const auto load = [&](std::int64_t i) { return *reinterpret_cast<const V*>(from + i * columns); };
  const auto store = [&](std::int64_t j, V v) { *reinterpret_cast<V*>(to + j * rows) = v; };
  const V a = load(0);
  const V b = load(1);
  const V c = load(2);
  const V d = load(3);
  const V ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const V cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const V ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const V cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store(0, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
  store(1, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
  store(2, __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5));
  store(3, __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7));
}
void transpose_block(const double* from, std::int64_t columns, double* to, std::int64_t rows) {
  using V = Lanes<double>::Type;
  const V a = *reinterpret_cast<const V*>(from);
  const V b = *reinterpret_cast<const V*>(from + columns);
  *reinterpret_cast<V*>(to) = __builtin_shufflevector(a, b, 0, 2);
  *reinterpret_cast<V*>(to + rows) = __builtin_shufflevector(a, b, 1, 3);
}

// to[j, i] = from[i, j]
template <class T>
void transpose(const T* from, std::int64_t rows, std::int64_t columns, T* to) {
  constexpr std::int64_t lanes = 16 / sizeof(T);
  std::int64_t i = 0;
  for (; i + lanes <= rows; i += lanes) {
    std::int64_t j = 0;
    for (; j + lanes <= columns; j += lanes) transpose_block(from + i * columns + j, columns, to + j * rows + i, rows);
    for (; j < columns; ++j)
      for (std::int64_t k = 0; k < lanes; ++k) to[j * rows + i + k] = from[(i + k) * columns + j];
  }
  for (; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) to[j * rows + i] = from[i * columns + j];
}

// BLAS threads would split sums differently from one thread count to the next, and its spinning threads would fight
// with ours: products run on the calling thread.
void use_one_blas_thread() {
  static const bool once = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(once);
}

// Results that lie in memory beyond the caches cost more to add to than the product itself, where that is of a few
// terms: then it is made beside them, and added.
constexpr int few_terms = 32;
constexpr std::int64_t large_result = 65'536;

}  // namespace

template <class T>
BlasScheme<T>::BlasScheme(const Product& product) : p_(product) {
  warn_of_slow_core();
  use_one_blas_thread();
  beside_ = p_.adds && p_.k < few_terms && p_.m * p_.n > large_result;
  transposes_first_ = !beside_ && transposes_first(gemm_of(p_), sizeof(T));
}

template <class T>
std::size_t BlasScheme<T>::workspace() const {
  return sizeof(T) * static_cast<std::size_t>(beside_ ? p_.m * p_.n : transposes_first_ ? p_.n * p_.k : 0);
}

template <class T>
bool BlasScheme<T>::may_be_cut() const {
  return p_.m * p_.n * p_.k >= worth_cutting;
}

template <class T>
void BlasScheme<T>::run(const void* a, const void* b, void* c, void* workspace) const {
  Gemm g = gemm_of(p_);
  const T* left = static_cast<const T*>(a);
  const T* right = static_cast<const T*>(b);
  T* out = static_cast<T*>(c);
  T* own = static_cast<T*>(workspace);
  if (transposes_first_) {
    transpose(right, g.n, g.k, own);
    g.tb = CblasNoTrans;
    g.ldb = g.n;
    gemm(g, left, own, out);
  } else if (beside_) {
    g.beta = 0;
    gemm_in_parts(g, left, right, own);
    kernels::table<T>().micro[static_cast<std::size_t>(Micro::add)][0](out, out, own, nullptr,
                                                                       static_cast<std::size_t>(p_.m * p_.n));
  } else {
    gemm_in_parts(g, left, right, out);
  }
}

template <class T>
void BlasScheme<T>::run_alone(const void* a, const void* b, void* c, void* /*workspace*/) const {
  gemm(gemm_of(p_), static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(c));
}

template class BlasScheme<float>;
template class BlasScheme<double>;

}  // namespace chainrule::products
