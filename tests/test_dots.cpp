// Products of which both operands' terms lie along rows, small or of few rows or columns: by the rule of
// framework/products/dots.hpp, bit for bit.
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/kernels/machine_code.hpp>
#include <chainrule/framework/products/dots.hpp>

#include "catch.hpp"
#include "support.hpp"

using namespace chainrule;
using products::Dots;
using products::Product;
using test::random_numbers;

namespace {

// 64 bytes of chains in each block of 256 terms, then halves onto halves; blocks in order.
template <class T>
T by_rule(const Product& p, const T* a, const T* b) {
  constexpr std::int64_t chains = 64 / sizeof(T);
  T sum = 0;
  for (std::int64_t begin = 0; begin < p.k; begin += 256) {
    T of[chains] = {};
    for (std::int64_t k = begin; k < std::min(p.k, begin + 256); ++k)
      of[k % chains] = std::fma(a[k], b[k], of[k % chains]);
    for (std::int64_t half = chains / 2; half > 0; half /= 2)
      for (std::int64_t i = 0; i < half; ++i) of[i] += of[i + half];
    sum = begin == 0 ? of[0] : sum + of[0];
  }
  return sum;
}

// That a batch {items, rows, 40} by the transpose of {columns, 40} has the bits of each of its matrices by it.
void check_batch(std::int64_t items, std::int64_t rows, std::int64_t columns) {
  Graph graph;
  const auto a = graph.input("a", {items, rows, 40});
  const auto one = graph.input("one", {rows, 40});
  const auto b = graph.input("b", {columns, 40});
  State state(graph);
  Program many(state, {.outputs = {matmul(a, transpose(b))}});
  Program single(state, {.outputs = {matmul(one, transpose(b))}});
  const auto numbers_a = random_numbers<double>(items * rows * 40, 4);
  const auto numbers_b = random_numbers<double>(columns * 40, 5);
  const Array fed_b = Array::from(numbers_b.data(), {columns, 40});
  const Array all = many.run({{a, Array::from(numbers_a.data(), {items, rows, 40})}, {b, fed_b}})[0];
  for (std::int64_t item = 0; item < items; ++item) {
    const Array fed_one = Array::from(numbers_a.data() + item * rows * 40, {rows, 40});
    const Array made = single.run({{one, fed_one}, {b, fed_b}})[0];
    std::int64_t different = 0;
    for (std::int64_t e = 0; e < rows * columns; ++e) different += made[e] != all[item * rows * columns + e] ? 1 : 0;
    CHECK(different == 0);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("dots are computed by their rule", "", float, double) {
  using T = TestType;
  constexpr DType dtype = std::is_same_v<T, float> ? float32 : float64;
  for (const std::int64_t k : {16, 17, 31, 32, 40, 63, 64, 255, 256, 257, 600})
    for (std::int64_t m = 1; m <= 64; m += m < 9 ? 1 : 11)
      for (std::int64_t n = 1; m * n <= 64; n += n < 9 ? 1 : 11) {
        Product p;
        p.transpose_b = true;
        p.m = m;
        p.n = n;
        p.k = k;
        p.lda = k + m % 3;
        p.ldb = k + n % 2;
        p.ldc = n + m % 2;
        p.adds = (m + n + k) % 2 == 0;
        p.alpha = n % 3 == 0 ? -1.5 : 1;
        REQUIRE(Dots::serves(p));
        const auto a = random_numbers<T>(m * p.lda, 1);
        const auto b = random_numbers<T>(n * p.ldb, 2);
        const auto before = random_numbers<T>(m * p.ldc, 3);
        auto c = before;
        Dots(p, dtype).run(a.data(), b.data(), c.data(), nullptr);
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t j = 0; j < p.ldc; ++j) {
            const auto e = static_cast<std::size_t>(i * p.ldc + j);
            if (j >= n) {
              REQUIRE(c[e] == before[e]);
              continue;
            }
            const T sum = by_rule(p, a.data() + i * p.lda, b.data() + j * p.ldb);
            const T alpha = static_cast<T>(p.alpha);
            REQUIRE(c[e] == (p.adds ? std::fma(alpha, sum, before[e]) : alpha * sum));
          }
      }
}

TEMPLATE_TEST_CASE("matrices times vectors are dots, whatever the number of threads", "", float, double) {
  using T = TestType;
  constexpr DType dtype = std::is_same_v<T, float> ? float32 : float64;
  struct Sizes {
    std::int64_t m;
    std::int64_t n;
    std::int64_t k;
  };
  for (const Sizes& sizes : {Sizes{1, 65, 16},
                             {1, 1000, 300},
                             {3, 200, 257},
                             {4, 129, 64},
                             {1000, 1, 300},
                             {777, 3, 31},
                             {200, 4, 520},
                             {1, 3000, 600},
                             {3000, 2, 260}})
    for (const bool adds : {false, true}) {
      Product p;
      // A matrix of one row or column lies both ways.
      p.transpose_a = sizes.m == 1;
      p.transpose_b = sizes.n != 1;
      p.m = sizes.m;
      p.n = sizes.n;
      p.k = sizes.k;
      p.lda = p.transpose_a ? 1 : p.k;
      p.ldb = p.transpose_b ? p.k + 3 : 1;
      p.ldc = p.n + 1;
      p.adds = adds;
      p.alpha = adds ? -0.5 : 1;
      REQUIRE(Dots::serves(p));
      const std::int64_t row_of_b = p.transpose_b ? p.ldb : p.k;
      const auto a = random_numbers<T>(p.m * p.k, 1);
      const auto b = random_numbers<T>(p.n * row_of_b, 2);
      const auto before = random_numbers<T>(p.m * p.ldc, 3);
      auto right = before;
      for (std::int64_t i = 0; i < p.m; ++i)
        for (std::int64_t j = 0; j < p.n; ++j) {
          const T sum = by_rule(p, a.data() + i * p.k, b.data() + j * row_of_b);
          T& to = right[static_cast<std::size_t>(i * p.ldc + j)];
          to = adds ? std::fma(T(-0.5), sum, to) : sum;
        }
      const int threads = num_threads();
      for (const int count : {1, 2, 16}) {
        set_num_threads(count);
        auto c = before;
        Dots(p, dtype).run(a.data(), b.data(), c.data(), nullptr);
        CHECK(c == right);
      }
      set_num_threads(threads);
    }
}

TEST_CASE("which products are dots follows from one matrix, whatever the batch") {
  Product p;
  p.transpose_b = true;
  p.m = 8;
  p.n = 8;
  p.k = 16;
  CHECK(Dots::serves(p));
  p.m = 9;
  CHECK_FALSE(Dots::serves(p));
  p.m = 8;
  p.k = 15;
  CHECK_FALSE(Dots::serves(p));
  p.k = 16;
  p.transpose_a = true;
  CHECK_FALSE(Dots::serves(p));
  p.transpose_a = false;
  p.m = 1000;
  p.n = 4;
  CHECK(Dots::serves(p));
  p.n = 5;
  CHECK_FALSE(Dots::serves(p));
  p.n = 1;
  p.transpose_b = false;
  CHECK(Dots::serves(p));
  p.n = 2;
  CHECK_FALSE(Dots::serves(p));

  // As one product of 12 rows, or six of two.
  check_batch(6, 2, 5);
}

TEST_CASE("a batch of vectors by one transposed matrix has each vector's bits") { check_batch(7, 1, 300); }

TEMPLATE_TEST_CASE("dots: NaN and infinity of operands reach the result, and nothing beyond them", "", float, double) {
  using T = TestType;
  constexpr DType dtype = std::is_same_v<T, float> ? float32 : float64;
  Product p;
  p.transpose_b = true;
  p.m = 3;
  p.n = 4;
  p.k = 21;
  p.lda = p.ldb = 24;
  p.ldc = 4;
  std::vector<T> a(72, std::numeric_limits<T>::quiet_NaN());
  std::vector<T> b(96, std::numeric_limits<T>::infinity());
  for (std::int64_t i = 0; i < 7; ++i)
    for (std::int64_t k = 0; k < 21; ++k)
      (i < 3 ? a[static_cast<std::size_t>(i * 24 + k)] : b[static_cast<std::size_t>((i - 3) * 24 + k)]) = 1;
  std::vector<T> c(12);
  Dots(p, dtype).run(a.data(), b.data(), c.data(), nullptr);
  for (const T x : c) CHECK(x == 21);
  a[24 + 20] = std::numeric_limits<T>::infinity();
  b[20] = 0;
  Dots(p, dtype).run(a.data(), b.data(), c.data(), nullptr);
  CHECK(c[0] == 20);
  CHECK(std::isnan(c[4]));
  CHECK(c[5] == std::numeric_limits<T>::infinity());
}
