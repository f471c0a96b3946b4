#include <chainrule/framework/products/dots.hpp>

#include <algorithm>
#include <cmath>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::products {

namespace {

constexpr std::int64_t most_elements = 64;
constexpr std::int64_t most_lines = 4;  // rows or columns
constexpr std::int64_t fewest_terms = 16;
// Multiplications that are worth a part of their own.
constexpr std::int64_t worth_a_part = 65'536;

// Rows [i, i + rows) and columns [j, j + columns) of C, at most `most_elements`.
struct Patch {
  std::int64_t i;
  std::int64_t rows;
  std::int64_t j;
  std::int64_t columns;
};

template <class T>
void run_patch(const Product& p, const T* a, const T* b, T* c, const Patch& patch) {
  static const auto sums_of = kernels::table<T>().dots;
  a += patch.i * p.lda;
  b += patch.j * p.ldb;
  c += patch.i * p.ldc + patch.j;
  if (p.k <= block_terms && p.alpha == 1 && !p.adds)
    return sums_of(a, p.lda, patch.rows, b, p.ldb, patch.columns, p.k, c, p.ldc);
  T sums[most_elements];
  T block[most_elements];
  for (std::int64_t begin = 0; begin < p.k; begin += block_terms) {
    T* const to = begin == 0 ? sums : block;
    sums_of(a + begin, p.lda, patch.rows, b + begin, p.ldb, patch.columns, std::min(p.k - begin, block_terms), to,
            patch.columns);
    for (std::int64_t i = 0; begin > 0 && i < patch.rows * patch.columns; ++i) sums[i] += block[i];
  }
  const T alpha = static_cast<T>(p.alpha);
  for (std::int64_t i = 0; i < patch.rows; ++i)
    for (std::int64_t j = 0; j < patch.columns; ++j) {
      T& to = c[i * p.ldc + j];
      const T sum = sums[i * patch.columns + j];
      to = p.adds ? std::fma(alpha, sum, to) : alpha * sum;
    }
}

// Those rows and columns, of any number.
template <class T>
void run_patches(const Product& p, const T* a, const T* b, T* c, const Patch& all) {
  // As near to squares as there are rows and columns for.
  const std::int64_t rows = std::min(all.rows, std::max<std::int64_t>(8, most_elements / all.columns));
  const std::int64_t columns = std::min(all.columns, most_elements / rows);
  for (std::int64_t i = 0; i < all.rows; i += rows)
    for (std::int64_t j = 0; j < all.columns; j += columns)
      run_patch(p, a, b, c, {all.i + i, std::min(rows, all.rows - i), all.j + j, std::min(columns, all.columns - j)});
}

template <class T>
void run_in_parts(const Product& p, const T* a, const T* b, T* c) {
  const bool by_rows = p.m >= p.n;
  const std::int64_t lines = by_rows ? p.m : p.n;
  const std::int64_t of_line = std::max<std::int64_t>(1, (by_rows ? p.n : p.m) * p.k);
  // Whole patches.
  const std::int64_t grain = (worth_a_part / of_line / most_elements + 1) * most_elements;
  parallel_for(lines, grain, [&](std::int64_t begin, std::int64_t end) {
    run_patches(p, a, b, c, by_rows ? Patch{begin, end - begin, 0, p.n} : Patch{0, p.m, begin, end - begin});
  });
}

}  // namespace

bool Dots::serves(const Product& p) {
  const bool rows = !p.transpose_a || (p.m == 1 && p.lda == 1);
  const bool columns = p.transpose_b || (p.n == 1 && p.ldb == 1);
  const bool few =
      (p.m <= most_elements && p.n <= most_elements && p.m * p.n <= most_elements) || std::min(p.m, p.n) <= most_lines;
  return rows && columns && few && p.k >= fewest_terms;
}

Dots::Dots(const Product& product, DType dtype) : p_(product), single_(dtype == float32) {
  if (p_.transpose_a) p_.lda = p_.k;
  if (!p_.transpose_b) p_.ldb = p_.k;
  p_.transpose_a = false;
  p_.transpose_b = true;
  may_be_cut_ = std::max(p_.m, p_.n) > most_elements && p_.m * p_.n * p_.k > 2 * worth_a_part;
}

void Dots::run(const void* a, const void* b, void* c, void* workspace) const {
  if (!may_be_cut_) return run_alone(a, b, c, workspace);
  if (single_)
    run_in_parts(p_, static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(c));
  else
    run_in_parts(p_, static_cast<const double*>(a), static_cast<const double*>(b), static_cast<double*>(c));
}

void Dots::run_alone(const void* a, const void* b, void* c, void* /*workspace*/) const {
  const Patch all{0, p_.m, 0, p_.n};
  if (single_)
    run_patches(p_, static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(c), all);
  else
    run_patches(p_, static_cast<const double*>(a), static_cast<const double*>(b), static_cast<double*>(c), all);
}

}  // namespace chainrule::products
