#include <chainrule/framework/products/dots.hpp>

#include <algorithm>
#include <cmath>

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::products {

namespace {

constexpr std::int64_t most_elements = 64;
constexpr std::int64_t fewest_terms = 16;

template <class T>
void run_dots(const Product& p, const T* a, const T* b, T* c) {
  static const auto sums_of = kernels::table<T>().dots;
  if (p.k <= block_terms && p.alpha == 1 && !p.adds) return sums_of(a, p.lda, p.m, b, p.ldb, p.n, p.k, c, p.ldc);
  T sums[most_elements];
  T block[most_elements];
  sums_of(a, p.lda, p.m, b, p.ldb, p.n, std::min(p.k, block_terms), sums, p.n);
  for (std::int64_t begin = block_terms; begin < p.k; begin += block_terms) {
    sums_of(a + begin, p.lda, p.m, b + begin, p.ldb, p.n, std::min(p.k - begin, block_terms), block, p.n);
    for (std::int64_t i = 0; i < p.m * p.n; ++i) sums[i] += block[i];
  }
  const T alpha = static_cast<T>(p.alpha);
  for (std::int64_t i = 0; i < p.m; ++i)
    for (std::int64_t j = 0; j < p.n; ++j) {
      T& to = c[i * p.ldc + j];
      to = p.adds ? std::fma(alpha, sums[i * p.n + j], to) : alpha * sums[i * p.n + j];
    }
}

}  // namespace

bool Dots::serves(const Product& p) {
  return !p.transpose_a && p.transpose_b && p.m <= most_elements && p.n <= most_elements &&
         p.m * p.n <= most_elements && p.k >= fewest_terms;
}

Dots::Dots(const Product& product, DType dtype) : p_(product), single_(dtype == float32) {}

void Dots::run(const void* a, const void* b, void* c, void* /*workspace*/) const {
  if (single_) {
    run_dots(p_, static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(c));
  } else {
    run_dots(p_, static_cast<const double*>(a), static_cast<const double*>(b), static_cast<double*>(c));
  }
}

}  // namespace chainrule::products
