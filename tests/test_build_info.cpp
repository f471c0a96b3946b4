// What build_info() says in each environment, and the line about OpenBLAS's kernels.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/products/blas_core.hpp>
#include <fmt/core.h>

#include "catch.hpp"
#include "support.hpp"

using namespace chainrule;
using Catch::Contains;

namespace {

// What a process of this program says, all of it, where it runs the test with this tag.
std::string said(const std::string& tag, const std::string& variables) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string clean = "env -u CHAINRULE_ARCH -u CHAINRULE_GENERATE -u CHAINRULE_BLAS_WARNING ";
  FILE* pipe = popen((clean + variables + " '" + self + "' '[" + tag + "]' 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string out;
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) out += static_cast<char>(c);
  pclose(pipe);
  return out;
}

std::string info_with(const std::string& variables) { return said(".info", variables); }
std::string products_with(const std::string& variables) { return said(".products", variables); }

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

// The line about OpenBLAS's kernels.
std::size_t lines(const std::string& text) { return count(text, "chainrule: OpenBLAS "); }

bool has(const std::string& processor) {
  const std::string own = build_info().processor;
  return own == processor || (own == "avx512" && processor == "avx2");
}

}  // namespace

// Run by those below, in processes of their own.
TEST_CASE("information, for another process", "[.info]") { fmt::print("{}\n", build_info()); }

TEST_CASE("products, for another process", "[.products]") {
  for (const DType dtype : {float32, float64}) {
    Graph graph;
    const auto x = graph.input("x", {2, 2}, dtype);
    const auto y = matmul(x, x);
    std::string result;
    const Error error = test::error_of([&] {
      for (int i = 0; i < 2; ++i)
        result = test::compute(graph, {y, matmul(y, x)}, {{x, Array{{0.0, 1.0}, {2.0, 0.0}}}})[0].to_string();
    });
    fmt::print("[{}] {}\n", error.what(), result);
  }
}

TEST_CASE("sums, for another process", "[.sums]") {
  Graph graph;
  const auto x = graph.input("x", {2});
  CHECK(test::compute(graph, {sum(x * x)}, {{x, Array{1.0, 2.0}}})[0].item() == 5);
}

TEST_CASE("build_info tells what the library is") {
  const BuildInfo info = build_info();
  CHECK(std::count(info.version.begin(), info.version.end(), '.') == 2);
#ifdef __clang__
  CHECK_THAT(info.compiler, Contains("clang"));
#else
  CHECK_THAT(info.compiler, Contains("g++"));
#endif
  CHECK(info.generated_code.empty() != info.why_none_generated.empty());
  CHECK(info.products == (info.generated_code.empty() ? "OpenBLAS" : "generated code"));
  CHECK(std::count(info.blas_version.begin(), info.blas_version.end(), '.') == 2);
  CHECK(!info.blas_core.empty());
  CHECK(info.processors >= 1);

  const std::string text = info.to_string();
  CHECK(text == fmt::format("{}", info));
  for (const std::string& said : {info.version, info.compiler, info.processor, info.vector_kernels, info.generated_code,
                                  info.products, info.blas_version, info.blas_core})
    CHECK_THAT(text, Contains(said));

  const int before = num_threads();
  set_num_threads(3);
  CHECK(build_info().threads == 3);
  set_num_threads(before);
  CHECK(build_info().threads == before);
}

TEST_CASE("build_info tells what the environment asks for") {
  CHECK_THAT(info_with("CHAINRULE_NUM_THREADS=3"), Contains("threads         3"));
  CHECK_THAT(info_with("CHAINRULE_NUM_THREADS=none"), Contains("requires a number from 1 to 1024, got 'none'"));
  CHECK_THAT(info_with("CHAINRULE_ARCH=none"), Contains("requires baseline, avx2 or avx512, got 'none'"));

  const std::string baseline = info_with("CHAINRULE_ARCH=baseline");
  CHECK_THAT(baseline, Contains("vector kernels  baseline"));
  CHECK_THAT(baseline, Contains("generated code  none: "));
  CHECK_THAT(baseline, Contains("products        OpenBLAS"));
  if (!has("avx2")) return;

  const std::string avx2 = info_with("CHAINRULE_ARCH=avx2");
  CHECK_THAT(avx2, Contains("vector kernels  avx2"));
  if (build_info().why_none_generated == "the library was built without") return;
  CHECK_THAT(avx2, Contains("generated code  avx2"));
  CHECK_THAT(avx2, Contains("products        generated code"));
  const std::string none = info_with("CHAINRULE_GENERATE=0");
  CHECK_THAT(none, Contains("generated code  none: CHAINRULE_GENERATE is 0"));
  CHECK_THAT(none, Contains("products        OpenBLAS"));
  CHECK_THAT(info_with("CHAINRULE_GENERATE=no"), Contains("requires 0 or 1, got 'no'"));
}

TEST_CASE("advice on OpenBLAS's core is for one whose instructions are less than the processor's") {
  using products::advice_on_core;
  const auto advice = [](const char* core, const char* processor) {
    return advice_on_core({"0.3.21", core, true}, processor);
  };
  for (const char* core : {"Prescott", "Core2", "Nehalem", "Barcelona", "Sandybridge", "Bulldozer", "PRESCOTT"}) {
    CHECK_THAT(advice(core, "avx512"), Contains("OPENBLAS_CORETYPE=SkylakeX"));
    CHECK_THAT(advice(core, "avx2"), Contains("OPENBLAS_CORETYPE=Haswell"));
    CHECK(advice(core, "baseline").empty());
  }
  for (const char* core : {"Haswell", "Zen", "Excavator"}) {
    CHECK_THAT(advice(core, "avx512"), Contains("OPENBLAS_CORETYPE=SkylakeX"));
    CHECK(advice(core, "avx2").empty());
  }
  // The last two: another processor's, and one that is not known here.
  for (const char* core : {"SkylakeX", "Cooperlake", "SapphireRapids", "SKYLAKEX", "neoversen1", "Later"})
    for (const char* processor : {"avx512", "avx2", "baseline"}) CHECK(advice(core, processor).empty());

  // No environment helps a library of one core.
  const std::string other = advice_on_core({"0.3.21", "HASWELL", false}, "avx512");
  CHECK_THAT(other, Contains("OpenBLAS 0.3.21") && Contains("HASWELL") && Contains("AVX-512") &&
                        Contains("DYNAMIC_ARCH=1") && !Contains("OPENBLAS_CORETYPE"));
  CHECK(count(other, "\n") == 0);
}

TEST_CASE("the first product of an OpenBLAS with kernels for a lesser processor says so once") {
  const std::string none = "CHAINRULE_GENERATE=0 ";
  // What is not for x86-64, or has one core, keeps its own.
  const bool chooses = products::blas().has_cores && has("avx2");
  const std::string prescott = none + "OPENBLAS_CORETYPE=Prescott ";
  const std::string warned = products_with(prescott);
  CHECK(count(warned, "[nothing was thrown]") == 2);
  if (chooses) {
    CHECK(lines(warned) == 1);
    CHECK_THAT(warned, Contains("kernels for Prescott") &&
                           Contains(has("avx512") ? "OPENBLAS_CORETYPE=SkylakeX" : "OPENBLAS_CORETYPE=Haswell") &&
                           Contains("CHAINRULE_BLAS_WARNING=0"));
    CHECK(lines(products_with(prescott + "CHAINRULE_BLAS_WARNING=1")) == 1);
    CHECK(lines(products_with("CHAINRULE_ARCH=baseline OPENBLAS_CORETYPE=Prescott")) == 1);
    CHECK_THAT(info_with(prescott), Contains("advice          OpenBLAS "));
    CHECK(lines(products_with(none + "OPENBLAS_CORETYPE=Haswell")) == (has("avx512") ? 1 : 0));
  }
  if (chooses && has("avx512")) CHECK(lines(products_with(none + "OPENBLAS_CORETYPE=SkylakeX")) == 0);

  // Silenced; not where there is no product; nor where generated code computes it.
  const std::string silent = products_with(prescott + "CHAINRULE_BLAS_WARNING=0");
  CHECK(lines(silent) == 0);
  CHECK(count(silent, "[nothing was thrown]") == 2);
  CHECK(lines(said(".sums", prescott)) == 0);
  if (info_with("").find("products        generated code") != std::string::npos) {
    CHECK(lines(products_with("OPENBLAS_CORETYPE=Prescott")) == 0);
    CHECK_THAT(info_with("OPENBLAS_CORETYPE=Prescott"), !Contains("advice"));
  }
  CHECK_THAT(products_with(prescott + "CHAINRULE_BLAS_WARNING=off"),
             Contains("CHAINRULE_BLAS_WARNING: requires 0 or 1, got 'off'"));
}
