// Matrix products: every element by the rule of framework/products/product.hpp, bit for bit, whatever computes it; no
// byte is touched outside of the matrices.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__) && defined(__x86_64__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/products/scheme.hpp>
#include <chainrule/framework/products/tiny.hpp>

#include "catch.hpp"
#include "support.hpp"

using namespace chainrule;
using test::random_numbers;
using namespace chainrule::products;
using kernels::X86;

namespace {

// The instruction sets that this machine runs.
std::vector<X86> sets() {
  const auto set = kernels::generated_set();
  if (!set) {
    WARN("Skipped what compares generated code: none is made here");
    return {};
  }
  return *set == X86::avx512 ? std::vector{X86::avx512, X86::avx2} : std::vector{X86::avx2};
}

template <class T>
constexpr DType dtype_t = sizeof(T) == 4 ? float32 : float64;

// Bytes between pages that cannot be touched: up to the one behind them, or from the one before them.
class Guarded {
 public:
  explicit Guarded(std::size_t most) : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    bytes_ = (most + page_ - 1) / page_ * page_;
    base_ = static_cast<char*>(
        mmap(nullptr, bytes_ + 2 * page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(base_ != MAP_FAILED);
    REQUIRE(mprotect(base_, page_, PROT_NONE) == 0);
    REQUIRE(mprotect(base_ + page_ + bytes_, page_, PROT_NONE) == 0);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, bytes_ + 2 * page_); }

  template <class T>
  T* place(std::int64_t n, bool at_end) {
    char* end = base_ + page_ + bytes_;
    return reinterpret_cast<T*>(at_end ? end - static_cast<std::size_t>(n) * sizeof(T) : base_ + page_);
  }

 private:
  std::size_t page_;
  std::size_t bytes_;
  char* base_;
};

// Element [i, j] of what lies row after row, or column after column.
std::int64_t at(std::int64_t i, std::int64_t j, std::int64_t stride, bool transposed) {
  return transposed ? j * stride + i : i * stride + j;
}

// The rule: blocks of terms, each a chain of fused multiply-adds.
template <class T>
T by_rule(const Product& p, const T* a, const T* b, std::int64_t i, std::int64_t j) {
  T sum = 0;
  for (std::int64_t begin = 0; begin < p.k; begin += 256) {
    T block = 0;
    for (std::int64_t k = begin; k < std::min(p.k, begin + 256); ++k)
      block = std::fma(a[at(i, k, p.lda, p.transpose_a)], b[at(k, j, p.ldb, p.transpose_b)], block);
    sum = begin == 0 ? block : sum + block;
  }
  return sum;
}
template <class T>
T by_rule(const Product& p, const T* a, const T* b, T c, std::int64_t i, std::int64_t j) {
  const T sum = by_rule(p, a, b, i, j);
  const T alpha = static_cast<T>(p.alpha);
  return p.adds ? std::fma(alpha, sum, c) : alpha * sum;
}

// NaNs are alike: which operand's payload goes on is the processor's choice.
template <class T>
bool same(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof a) == 0;
}

struct Threads {
  int before = num_threads();
  ~Threads() { set_num_threads(before); }
};

template <class T>
void run(const Scheme& scheme, const T* a, const T* b, T* c) {
  detail::reserve_scratch(scheme.scratch());
  std::vector<char> workspace(scheme.workspace() + 64, char(0x7F));
  scheme.run(a, b, c, workspace.data());
  for (std::size_t i = scheme.workspace(); i < workspace.size(); ++i) REQUIRE(workspace[i] == 0x7F);
}

struct Sizes3 {
  std::int64_t m, n, k;
};

Product product(Sizes3 s, bool ta, bool tb, std::int64_t gap = 0) {
  Product p;
  p.transpose_a = ta;
  p.transpose_b = tb;
  p.m = s.m;
  p.n = s.n;
  p.k = s.k;
  p.lda = (ta ? p.m : p.k) + gap;
  p.ldb = (tb ? p.k : p.n) + 2 * gap;
  p.ldc = p.n + 3 * gap;
  return p;
}

std::int64_t size(std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  return rows == 0 ? 0 : (rows - 1) * stride + columns;
}

// Runs it and compares all of C, what is between its rows included.
template <class T>
void check(const Product& p, X86 set, unsigned seed) {
  INFO(p.m << " x " << p.n << " x " << p.k << (p.transpose_a ? " A^T" : "") << (p.transpose_b ? " B^T" : "")
           << (p.adds ? " adds" : "") << (set == X86::avx2 ? " AVX2" : " AVX-512"));
  const auto a = random_numbers<T>(p.transpose_a ? size(p.k, p.m, p.lda) : size(p.m, p.k, p.lda), seed);
  const auto b = random_numbers<T>(p.transpose_b ? size(p.n, p.k, p.ldb) : size(p.k, p.n, p.ldb), seed + 1);
  const auto before = random_numbers<T>(size(p.m, p.n, p.ldc), seed + 2);
  std::vector<T> right = before;
  for (std::int64_t i = 0; i < p.m; ++i)
    for (std::int64_t j = 0; j < p.n; ++j) {
      T& c = right[static_cast<std::size_t>(i * p.ldc + j)];
      c = by_rule(p, a.data(), b.data(), c, i, j);
    }
  const Scheme scheme(p, dtype_t<T>, set);
  for (const int threads : {1, 2, 16}) {
    set_num_threads(threads);
    std::vector<T> c = before;
    run(scheme, a.data(), b.data(), c.data());
    CHECK(std::memcmp(c.data(), right.data(), c.size() * sizeof(T)) == 0);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("products of every size up to 40, to the bit and no further", "", float, double) {
  using T = TestType;
  constexpr std::int64_t most = 40;
  const auto left = random_numbers<T>(most * most, 1);
  const auto right = random_numbers<T>(most * most, 2);
  // chains[k][i][j]: the sum of the first k terms.
  std::vector<T> chains(static_cast<std::size_t>((most + 1) * most * most), T(0));
  const auto chain = [&](std::int64_t k, std::int64_t i, std::int64_t j) -> T& {
    return chains[static_cast<std::size_t>((k * most + i) * most + j)];
  };
  for (std::int64_t k = 0; k < most; ++k)
    for (std::int64_t i = 0; i < most; ++i)
      for (std::int64_t j = 0; j < most; ++j)
        chain(k + 1, i, j) = std::fma(left[static_cast<std::size_t>(i * most + k)],
                                      right[static_cast<std::size_t>(k * most + j)], chain(k, i, j));
  Guarded for_a(most * most * sizeof(T));
  Guarded for_b(most * most * sizeof(T));
  Guarded for_c(most * most * sizeof(T));
  std::int64_t wrong = 0;
  std::int64_t tiny = 0;
  for (const X86 set : sets())
    for (std::int64_t m = 1; m <= most; ++m)
      for (std::int64_t n = 1; n <= most; ++n)
        for (std::int64_t k = 1; k <= most; ++k)
          for (const int transposes : {0, 1, 2, 3}) {
            const Product p = product({m, n, k}, (transposes & 1) != 0, (transposes & 2) != 0);
            const bool at_end = (m + n + k) % 3 != 0;
            T* a = for_a.place<T>(m * k, at_end);
            T* b = for_b.place<T>(k * n, at_end);
            T* c = for_c.place<T>(m * n, at_end);
            for (std::int64_t i = 0; i < m; ++i)
              for (std::int64_t t = 0; t < k; ++t)
                a[at(i, t, p.lda, p.transpose_a)] = left[static_cast<std::size_t>(i * most + t)];
            for (std::int64_t t = 0; t < k; ++t)
              for (std::int64_t j = 0; j < n; ++j)
                b[at(t, j, p.ldb, p.transpose_b)] = right[static_cast<std::size_t>(t * most + j)];
            const auto count_wrong = [&] {
              for (std::int64_t i = 0; i < m; ++i)
                wrong += std::memcmp(c + i * n, &chain(k, i, 0), static_cast<std::size_t>(n) * sizeof(T)) != 0 ? 1 : 0;
            };
            const Scheme scheme(p, dtype_t<T>, set);
            std::vector<char> workspace(scheme.workspace());
            scheme.run(a, b, c, workspace.data());
            count_wrong();
            // (A third of them: code is made for each.)
            if (Tiny::serves(p, dtype_t<T>, set) && (m + 2 * n + k) % 3 == 0) {
              std::memset(c, 0x7F, static_cast<std::size_t>(m * n) * sizeof(T));
              Tiny(p, dtype_t<T>, set).run(a, b, c, nullptr);
              count_wrong();
              ++tiny;
            }
            if (wrong > 0)
              FAIL(m << " x " << n << " x " << k << ", transposes " << transposes
                     << (set == X86::avx2 ? ", AVX2" : ", AVX-512"));
          }
  CHECK(wrong == 0);
  CHECK((tiny > 1000 || sets().empty()));
}

TEMPLATE_TEST_CASE("tiny products leave what is between the rows of C alone, and take strided operands", "", float,
                   double) {
  using T = TestType;
  for (const X86 set : sets())
    for (const Sizes3 sizes : {Sizes3{5, 64, 2}, {1, 1, 1}, {2, 37, 5}, {9, 3, 7}, {40, 5, 1}, {1, 9, 50}, {13, 16, 3}})
      for (const bool transposed : {false, true}) {
        const Product p = product(sizes, transposed, false, 3);
        REQUIRE(Tiny::serves(p, dtype_t<T>, set));
        const auto a = random_numbers<T>(transposed ? size(p.k, p.m, p.lda) : size(p.m, p.k, p.lda), 1);
        const auto b = random_numbers<T>(size(p.k, p.n, p.ldb), 2);
        auto c = random_numbers<T>(size(p.m, p.n, p.ldc), 3);
        auto right = c;
        for (std::int64_t i = 0; i < p.m; ++i)
          for (std::int64_t j = 0; j < p.n; ++j)
            right[static_cast<std::size_t>(i * p.ldc + j)] = by_rule(p, a.data(), b.data(), i, j);
        Tiny(p, dtype_t<T>, set).run(a.data(), b.data(), c.data(), nullptr);
        CHECK(c == right);
      }
  Product p = product({5, 64, 2}, false, false);
  for (const X86 set : sets()) {
    CHECK(Tiny::serves(p, dtype_t<T>, set));
    p.adds = true;
    CHECK_FALSE(Tiny::serves(p, dtype_t<T>, set));
    p.adds = false;
    p.alpha = 2;
    CHECK_FALSE(Tiny::serves(p, dtype_t<T>, set));
    p.alpha = 1;
    CHECK_FALSE(Tiny::serves(product({5, 64, 2}, false, true), dtype_t<T>, set));
    CHECK_FALSE(Tiny::serves(product({64, 64, 64}, false, false), dtype_t<T>, set));
  }
}

TEMPLATE_TEST_CASE("products: alpha, sums into C, strides, long sums, any number of threads", "", float, double) {
  const Threads restore;
  std::mt19937_64 random(3);
  const Sizes3 all[] = {{1, 1, 1},      {7, 5, 256},     {7, 5, 257},    {30, 33, 512},   {65, 100, 700},
                        {1, 70, 1000},  {70, 1, 1000},   {3, 2, 5000},   {200, 300, 310}, {64, 1100, 40},
                        {1100, 64, 40}, {50, 1024, 300}, {130, 512, 90}, {600, 17, 300},  {17, 600, 520},
                        {2, 3000, 400}, {3000, 2, 400},  {64, 64, 4200}, {9, 33, 7937},   {33, 9, 7170},
                        {1, 40, 65'600}};
  unsigned seed = 10;
  for (const X86 set : sets())
    for (const Sizes3& sizes : all)
      for (const int transposes : {0, 1, 2, 3}) {
        Product p = product(sizes, (transposes & 1) != 0, (transposes & 2) != 0, random() % 2 == 0 ? 0 : 3);
        if (random() % 3 != 0) p.adds = true;
        if (random() % 2 == 0) p.alpha = -0.37;
        check<TestType>(p, set, seed += 3);
      }
}

TEMPLATE_TEST_CASE("products of random sizes", "", float, double) {
  const Threads restore;
  std::mt19937_64 random(5);
  for (const X86 set : sets())
    for (int i = 0; i < 120; ++i) {
      const auto up_to = [&](std::uint64_t most) { return static_cast<std::int64_t>(1 + random() % most); };
      const Sizes3 sizes = {up_to(150), up_to(200), random() % 4 == 0 ? up_to(900) : up_to(120)};
      Product p = product(sizes, random() % 2 == 0, random() % 2 == 0, static_cast<std::int64_t>(random() % 3));
      p.adds = random() % 2 == 0;
      if (random() % 2 == 0) p.alpha = 1.7;
      check<TestType>(p, set, static_cast<unsigned>(random()));
    }
}

TEMPLATE_TEST_CASE("products: NaN and infinity of operands reach the result", "", float, double) {
  using T = TestType;
  using L = std::numeric_limits<T>;
  const T specials[] = {0, T(-0.0), L::infinity(), -L::infinity(), L::quiet_NaN(), L::max(), L::denorm_min(), L::min()};
  std::mt19937_64 random(7);
  for (const X86 set : sets())
    for (int repeat = 0; repeat < 200; ++repeat) {
      Product p = product({1 + repeat % 19, 1 + repeat % 37, 1 + repeat % 23}, repeat % 2 == 0, repeat % 4 < 2);
      p.adds = repeat % 3 == 0;
      if (repeat % 5 == 0) p.alpha = 0;
      auto a = random_numbers<T>(p.m * p.k, static_cast<unsigned>(repeat));
      auto b = random_numbers<T>(p.n * p.k, static_cast<unsigned>(repeat) + 1);
      auto c = random_numbers<T>(p.m * p.n, static_cast<unsigned>(repeat) + 2);
      for (auto* x : {&a, &b, &c})
        for (T& element : *x)
          if (random() % 8 == 0) element = specials[random() % std::size(specials)];
      const auto before = c;
      run(Scheme(p, dtype_t<T>, set), a.data(), b.data(), c.data());
      for (std::int64_t i = 0; i < p.m; ++i)
        for (std::int64_t j = 0; j < p.n; ++j) {
          const auto e = static_cast<std::size_t>(i * p.n + j);
          REQUIRE(same(c[e], by_rule(p, a.data(), b.data(), before[e], i, j)));
        }
    }
}

TEMPLATE_TEST_CASE("long sums are as exact as blocks make them", "", float, double) {
  using T = TestType;
  constexpr std::int64_t k = 65'536;
  const auto a = random_numbers<T>(8 * k, 11);
  const auto b = random_numbers<T>(8 * k, 12);
  for (const X86 set : sets()) {
    const Product p = product({8, 8, k}, false, false);
    std::vector<T> c(64);
    run(Scheme(p, dtype_t<T>, set), a.data(), b.data(), c.data());
    long double errors = 0;
    long double squares = 0;
    for (std::int64_t i = 0; i < 8; ++i)
      for (std::int64_t j = 0; j < 8; ++j) {
        long double exact = 0;
        for (std::int64_t t = 0; t < k; ++t)
          exact +=
              static_cast<long double>(a[static_cast<std::size_t>(i * k + t)]) * b[static_cast<std::size_t>(t * 8 + j)];
        const long double error = c[static_cast<std::size_t>(i * 8 + j)] - exact;
        errors += error * error;
        squares += exact * exact;
      }
    // One chain of 65536 terms is about 75 units off.
    CHECK(std::sqrt(errors / squares) < 12 * std::numeric_limits<T>::epsilon());
  }
}

TEMPLATE_TEST_CASE("the products of a batch have the bits of single ones, on any number of threads", "", float,
                   double) {
  const Threads restore;
  using T = TestType;
  const DType dtype = dtype_t<T>;
  const bool ta = GENERATE(false, true);
  const bool tb = GENERATE(false, true);
  const std::int64_t m = 33;
  const std::int64_t n = 50;
  const std::int64_t k = 300;
  Graph graph({.dtype = dtype});
  const auto a = graph.input("a", ta ? Shape{4, 1, k, m} : Shape{4, 1, m, k});
  const auto b = graph.input("b", tb ? Shape{3, n, k} : Shape{3, k, n});
  const auto c = matmul(ta ? transpose(a, {0, 1, 3, 2}) : a, tb ? transpose(b, {0, 2, 1}) : b);
  State state(graph);
  Program program(state, {.outputs = {c}});
  const auto numbers_a = random_numbers<T>(4 * m * k, 21);
  const auto numbers_b = random_numbers<T>(3 * n * k, 22);
  Array fed_a(dtype, ta ? Dims{4, 1, k, m} : Dims{4, 1, m, k});
  Array fed_b(dtype, tb ? Dims{3, n, k} : Dims{3, k, n});
  std::copy(numbers_a.begin(), numbers_a.end(), fed_a.template data<T>());
  std::copy(numbers_b.begin(), numbers_b.end(), fed_b.template data<T>());
  const Product p = product({m, n, k}, ta, tb);
  for (const int threads : {1, 2, 16}) {
    set_num_threads(threads);
    const Array made = program.run({{a, fed_a}, {b, fed_b}})[0];
    for (std::int64_t item = 0; item < 12; ++item)
      for (std::int64_t e = 0; e < m * n; e += 7) {
        const T right =
            by_rule(p, numbers_a.data() + item / 3 * m * k, numbers_b.data() + item % 3 * n * k, e / n, e % n);
        const T got = made.template data<T>()[item * m * n + e];
        if (kernels::generated_set()) {
          REQUIRE(same(got, right));
        } else {
          REQUIRE(std::abs(got - right) <= 300 * 4 * std::numeric_limits<T>::epsilon());
        }
      }
  }
}

#if defined(__linux__) && defined(__x86_64__)
// Run by the next test, in a process of its own.
TEST_CASE("products where memory for code is refused", "[.refused]") {
  const bool made = kernels::generated_set().has_value();  // while it may be made
  // From here on the system call that makes memory executable fails.
  const auto offset_of_argument = [](int i) {
    return static_cast<std::uint32_t>(offsetof(seccomp_data, args) + static_cast<std::size_t>(i) * 8);
  };
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mprotect, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset_of_argument(2)),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program_of_filter{std::size(filter), filter};
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program_of_filter) != 0) {
    WARN("Skipped: system calls cannot be refused here");
    return;
  }
  const Product p = product({5, 6, 7}, false, false);
  if (made) CHECK_THROWS_AS(Scheme(p, float32, *kernels::generated_set()), std::runtime_error);
  for (const DType dtype : {float32, float64}) {
    Graph graph({.dtype = dtype});
    const auto a = graph.input("a", {5, 7});
    const auto b = graph.input("b", {7, 6});
    State state(graph);
    Program program(state, {.outputs = {matmul(a, b)}});
    const Array c = program.run({{a, Array::full(dtype, {5, 7}, 2)}, {b, Array::full(dtype, {7, 6}, 3)}})[0];
    CHECK(c.identical(Array::full(dtype, {5, 6}, 42)));
  }
}

TEST_CASE("where memory for code is refused, BLAS computes products") {
  const pid_t child = fork();
  if (child == 0) {
    execl("/proc/self/exe", "test_products", "[.refused]", static_cast<char*>(nullptr));
    _exit(127);
  }
  REQUIRE(child > 0);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("products of no rows, columns or terms") {
  for (const DType dtype : {float32, float64})
    for (const std::int64_t m : {0, 3})
      for (const std::int64_t n : {0, 5})
        for (const std::int64_t k : {0, 2}) {
          Graph graph({.dtype = dtype});
          const auto a = graph.input("a", {m, k});
          const auto b = graph.input("b", {k, n});
          State state(graph);
          Program program(state, {.outputs = {matmul(a, b)}});
          const Array c = program.run({{a, Array::full(dtype, {m, k}, 2)}, {b, Array::full(dtype, {k, n}, 3)}})[0];
          CHECK(c.identical(Array::full(dtype, {m, n}, k == 0 ? 0 : 12)));
        }
}
