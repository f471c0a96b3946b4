// ./tests/run bench --products: matrix products by the library's generated code, by OpenBLAS with its best kernels for
// this processor, and by Eigen and oneDNN (float32) where they are installed, one after the other in one process;
// beside the rate at which the processor multiplies and adds what is in its registers.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <cblas.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#ifdef BENCH_EIGEN
#include <Eigen/Core>
#endif
#ifdef BENCH_DNNL
#include <oneapi/dnnl/dnnl.h>
#endif

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/products/dots.hpp>
#include <chainrule/framework/products/scheme.hpp>
#include <chainrule/framework/products/tiny.hpp>

namespace {

using chainrule::products::Dots;
using chainrule::products::Tiny;

using chainrule::products::Product;
using chainrule::products::Scheme;

struct Case {
  std::int64_t m, n, k;
  bool transpose_a = false;
  bool transpose_b = false;
  std::int64_t batch = 1;  // so many products, one after the other in memory
};

std::vector<Case> cases(bool quick) {
  std::vector<Case> out = {
      // The networks of the benchmark: forward, gradients of the weights, of the inputs.
      {5, 64, 2},
      {2, 64, 5, true},
      {5, 2, 64, false, true},
      {128, 512, 784},
      {784, 512, 128, true},
      {128, 512, 512, false, true},
      {512, 512, 128, true},
      {128, 10, 512},
      {512, 10, 128, true},
      {128, 512, 10, false, true},
      {64, 64, 32},
      {64, 64, 64, false, true},
      {256, 128, 576},
      {768, 384, 128},
      {768, 65, 128},
      {512, 4096, 1024},
      // Few of one thing.
      {1, 512, 512},
      {1, 512, 512, false, true},
      {512, 1, 512},
      {4096, 16, 64},
      {16, 4096, 64},
      {20, 12, 471, false, true},
      {386, 36, 45, true},
      {512, 512, 1},
      {512, 512, 4},
      {512, 512, 16},
      {64, 64, 16384, true},
      // Batches.
      {64, 64, 64, false, false, 48},
      {64, 64, 64, false, true, 48},
      {64, 64, 64, true, false, 48},
  };
  // Of the largest network: forward, gradients of the weights, of the inputs.
  if (!quick)
    out.insert(out.end(), {{512, 4096, 4096},
                           {512, 1000, 4096},
                           {4096, 4096, 512, true},
                           {4096, 1000, 512, true},
                           {512, 4096, 4096, false, true},
                           {512, 4096, 1000, false, true}});
  for (const std::int64_t side : {4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048})
    if (!quick || side <= 256)
      for (const bool ta : {false, true})
        for (const bool tb : {false, true})
          if (side < 2048 || (!ta && !tb)) out.push_back({side, side, side, ta, tb});
  if (quick) out.erase(std::remove_if(out.begin(), out.end(), [](const Case& c) { return c.n == 4096; }), out.end());
  return out;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// One of f's, from as many as take long enough to be measured.
double time_of(const std::function<void()>& f) {
  for (long times = 1;; times *= 2) {
    const double begin = seconds();
    for (long i = 0; i < times; ++i) f();
    const double took = seconds() - begin;
    if (took > 4e-4) return took / static_cast<double>(times);
  }
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

// Multiplications and additions of twelve vectors in registers, a second; in units of 1e9.
template <class T>
double peak() {
#ifdef __AVX512F__
  constexpr std::size_t bytes = 64;
#else
  constexpr std::size_t bytes = 32;
#endif
  using V __attribute__((vector_size(bytes))) = T;
  V s[12] = {};
  const V a = {};
  constexpr int times = 20'000;
  const double begin = seconds();
  for (int i = 0; i < times; ++i) {
#define BENCH_ALL(op)                                                                                            \
  asm volatile(op " %12, %12, %0\n" op " %12, %12, %1\n" op " %12, %12, %2\n" op " %12, %12, %3\n" op            \
                  " %12, %12, %4\n" op " %12, %12, %5\n" op " %12, %12, %6\n" op " %12, %12, %7\n" op            \
                  " %12, %12, %8\n" op " %12, %12, %9\n" op " %12, %12, %10\n" op " %12, %12, %11\n"             \
               : "+v"(s[0]), "+v"(s[1]), "+v"(s[2]), "+v"(s[3]), "+v"(s[4]), "+v"(s[5]), "+v"(s[6]), "+v"(s[7]), \
                 "+v"(s[8]), "+v"(s[9]), "+v"(s[10]), "+v"(s[11])                                                \
               : "v"(a))
    if constexpr (sizeof(T) == 4) {
      BENCH_ALL("vfmadd231ps");
    } else {
      BENCH_ALL("vfmadd231pd");
    }
#undef BENCH_ALL
  }
  return 2.0 * std::size(s) * (bytes / sizeof(T)) * times / (seconds() - begin) / 1e9;
}

void blas(const Product& p, const float* a, const float* b, float* c) {
  cblas_sgemm(CblasRowMajor, p.transpose_a ? CblasTrans : CblasNoTrans, p.transpose_b ? CblasTrans : CblasNoTrans,
              static_cast<int>(p.m), static_cast<int>(p.n), static_cast<int>(p.k), 1, a, static_cast<int>(p.lda), b,
              static_cast<int>(p.ldb), 0, c, static_cast<int>(p.ldc));
}
void blas(const Product& p, const double* a, const double* b, double* c) {
  cblas_dgemm(CblasRowMajor, p.transpose_a ? CblasTrans : CblasNoTrans, p.transpose_b ? CblasTrans : CblasNoTrans,
              static_cast<int>(p.m), static_cast<int>(p.n), static_cast<int>(p.k), 1, a, static_cast<int>(p.lda), b,
              static_cast<int>(p.ldb), 0, c, static_cast<int>(p.ldc));
}

#ifdef BENCH_EIGEN
template <class T>
void eigen(const Product& p, const T* a, const T* b, T* c) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> left(a, p.transpose_a ? p.k : p.m, p.lda);
  const Eigen::Map<const Matrix> right(b, p.transpose_b ? p.n : p.k, p.ldb);
  Eigen::Map<Matrix> out(c, p.m, p.n);
  if (p.transpose_a && p.transpose_b) {
    out.noalias() = left.transpose() * right.transpose();
  } else if (p.transpose_a) {
    out.noalias() = left.transpose() * right;
  } else if (p.transpose_b) {
    out.noalias() = left * right.transpose();
  } else {
    out.noalias() = left * right;
  }
}
#endif

#ifdef BENCH_DNNL
void dnnl(const Product& p, const float* a, const float* b, float* c) {
  if (dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, 1, a, p.lda, b, p.ldb, 0, c,
                 p.ldc) != dnnl_success)
    throw std::runtime_error("oneDNN failed");
}
#endif

struct Options {
  int rounds = 15;
  int threads = 1;
  bool quick = false;
  std::string json_file;
};

struct Program {
  std::string name;
  std::function<void()> run;
  std::vector<double> times = {};
};

// The ratio of our rate to the better one of OpenBLAS and oneDNN.
template <class T>
double run_case(const Case& of, const Options& options, nlohmann::json& rows) {
  Product p;
  p.transpose_a = of.transpose_a;
  p.transpose_b = of.transpose_b;
  p.m = of.m;
  p.n = of.n;
  p.k = of.k;
  p.lda = of.transpose_a ? of.m : of.k;
  p.ldb = of.transpose_b ? of.k : of.n;
  p.ldc = of.n;
  const chainrule::DType dtype = sizeof(T) == 4 ? chainrule::float32 : chainrule::float64;
  // The library's arrays begin with a line of the cache.
  const auto numbers = [&](std::int64_t size) {
    chainrule::Array x(dtype, {size});
    for (std::int64_t i = 0; i < size; ++i) x.template data<T>()[i] = static_cast<T>((i * 7919) % 1000) / 500 - 1;
    return x;
  };
  const chainrule::Array left = numbers(of.batch * p.m * p.k);
  const chainrule::Array right = numbers(of.batch * p.n * p.k);
  const T* a = left.template data<T>();
  const T* b = right.template data<T>();
  const std::int64_t size_of_c = of.batch * p.m * p.n;
  chainrule::Array results[] = {numbers(size_of_c), numbers(size_of_c), numbers(size_of_c)};
  T* c = results[0].template data<T>();
  T* expected = results[1].template data<T>();
  const auto set = *chainrule::kernels::generated_set();
  const Scheme scheme(p, dtype, set);
  // As a program chooses (framework/products/matmul.cpp).
  std::optional<Dots> dots;
  std::optional<Tiny> tiny;
  if (Dots::serves(p)) {
    dots.emplace(p, dtype);
  } else if (Tiny::serves(p, dtype, set)) {
    tiny.emplace(p, dtype, set);
  }
  std::vector<double> workspace(scheme.workspace() / sizeof(double) + 1);
  chainrule::detail::reserve_scratch(scheme.scratch());
  // f(a, b, c) for each product of the batch.
  const auto each = [&](T* out, const auto& f) {
    for (std::int64_t i = 0; i < of.batch; ++i) f(a + i * p.m * p.k, b + i * p.n * p.k, out + i * p.m * p.n);
  };
  const auto with_others = [&](const auto& f) {
    return [&, f] { each(results[2].template data<T>(), [&](const T* x, const T* y, T* z) { f(p, x, y, z); }); };
  };
  std::vector<Program> programs = {
      {"chainrule",
       [&] {
         each(c, [&](const T* x, const T* y, T* z) {
           if (dots) return dots->run(x, y, z, nullptr);
           if (tiny) return tiny->run(x, y, z, nullptr);
           scheme.run(x, y, z, workspace.data());
         });
       }},
      {"openblas", [&] { each(expected, [&](const T* x, const T* y, T* z) { blas(p, x, y, z); }); }},
  };
#ifdef BENCH_EIGEN
  programs.push_back({"eigen", with_others([](const auto&... arguments) { eigen(arguments...); })});
#endif
#ifdef BENCH_DNNL
  if constexpr (sizeof(T) == sizeof(float))
    programs.push_back({"onednn", with_others([](const auto&... arguments) { dnnl(arguments...); })});
#endif
  double top = 0;
  for (int round = 0; round < options.rounds; ++round) {
    for (Program& program : programs) program.times.push_back(time_of(program.run));
    top = std::max(top, peak<T>());
  }
  for (std::int64_t i = 0; i < size_of_c; ++i)
    if (!(std::abs(c[i] - expected[i]) <= static_cast<T>(sizeof(T) == 4 ? 1e-5 : 1e-13) * static_cast<T>(p.k)))
      throw std::runtime_error("the products disagree");
  const std::string transposes = std::string(of.transpose_a ? "T" : "N") + (of.transpose_b ? "T" : "N");
  fmt::print("{} {:>4} x {:>4} x {:>5} {}{}", sizeof(T) == 4 ? "float32" : "float64", p.m, p.n, p.k, transposes,
             of.batch > 1 ? fmt::format(" {:>2}x", of.batch) : "    ");
  const double flops = 2e-9 * static_cast<double>(of.batch * p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  for (const Program& program : programs) {
    const double rate = flops / median(program.times);
    fmt::print(" {:9.1f}", rate);
    rows.push_back({{"program", program.name},
                    {"dtype", sizeof(T) == 4 ? "float32" : "float64"},
                    {"m", p.m},
                    {"n", p.n},
                    {"k", p.k},
                    {"transposes", transposes},
                    {"batch", of.batch},
                    {"threads", options.threads},
                    {"gflops", rate}});
  }
#ifdef BENCH_DNNL
  if (sizeof(T) == 8) fmt::print(" {:>9}", "");
#endif
  double others = median(programs[1].times);
  if (programs.back().name == "onednn") others = std::min(others, median(programs.back().times));
  const double ratio = others / median(programs[0].times);
  fmt::print(" {:9.1f} {:9.2f}   {}\n", top, ratio, dots ? "dots" : tiny ? "straight-line code" : scheme.describe());
  std::fflush(stdout);
  return ratio;
}

void run_all(const Options& options) {
  chainrule::set_num_threads(options.threads);
  openblas_set_num_threads(options.threads);
  fmt::print("GFLOP/s, medians of {}; OpenBLAS's core {}; peak: of one processor's registers\n\n", options.rounds,
             openblas_get_corename());
  fmt::print("{:34} {:>9} {:>9}", "", "chainrule", "openblas");
#ifdef BENCH_EIGEN
  fmt::print(" {:>9}", "eigen");
#endif
#ifdef BENCH_DNNL
  fmt::print(" {:>9}", "onednn");
#endif
  fmt::print(" {:>9} {:>9}\n", "peak", "/best");
  nlohmann::json rows = nlohmann::json::array();
  for (const bool single : {true, false}) {
    double logs = 0;
    double least = 1e9;
    const auto all = cases(options.quick);
    for (const Case& of : all) {
      const double ratio = single ? run_case<float>(of, options, rows) : run_case<double>(of, options, rows);
      logs += std::log(ratio);
      least = std::min(least, ratio);
    }
    fmt::print("{}: {:.2f} times the better of OpenBLAS and oneDNN in the geometric mean, {:.2f} at least\n\n",
               single ? "float32" : "float64", std::exp(logs / static_cast<double>(all.size())), least);
  }
  if (!options.json_file.empty()) std::ofstream(options.json_file) << rows.dump(1) << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("The library's matrix products against those of others.");
  app.name("./tests/run bench --products");
  app.add_option("--rounds", options.rounds, "how often each is timed")->check(CLI::PositiveNumber);
  app.add_option("--threads", options.threads, "threads of the library and of OpenBLAS")->check(CLI::Range(1, 1024));
  app.add_option("--json", options.json_file, "write the results to this file, too");
  app.add_flag("--quick", options.quick, "the smaller ones only, and three rounds");
  CLI11_PARSE(app, argc, argv);
  if (options.quick) options.rounds = 3;
  // OpenBLAS takes kernels for SSE3 where it does not know a processor by name.
  if (!std::getenv("OPENBLAS_CORETYPE")) {
    setenv("OPENBLAS_CORETYPE", __builtin_cpu_supports("avx512dq") ? "SkylakeX" : "Haswell", 1);
    setenv("OMP_NUM_THREADS", std::to_string(options.threads).c_str(), 1);  // oneDNN's
    execv("/proc/self/exe", argv);
  }
  try {
    if (!chainrule::kernels::generated_set()) throw std::runtime_error("No products are generated on this machine.");
    run_all(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
