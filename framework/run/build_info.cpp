#include <chainrule/framework/run/build_info.hpp>

#include <optional>

#include <fmt/core.h>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/machine_code.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/framework/products/blas_core.hpp>

namespace chainrule {

namespace {

std::string compiler() {
#if defined(__clang__)
  return fmt::format("clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#elif defined(__GNUC__)
  return fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#else
  return "unknown";
#endif
}

constexpr bool has_files() {
#ifdef CHAINRULE_FILES
  return true;
#else
  return false;
#endif
}

}  // namespace

BuildInfo build_info() {
  BuildInfo info;
  info.version = CHAINRULE_VERSION;
  info.compiler = compiler();
  info.files = has_files();
  info.processor = kernels::best_tables().name;
  info.vector_kernels = kernels::tables().name;
  const std::optional<kernels::X86> generated = kernels::generated_set();
  if (generated) info.generated_code = *generated == kernels::X86::avx512 ? "avx512" : "avx2";
  info.why_none_generated = kernels::why_none_generated();
  info.products = generated ? "generated code" : "OpenBLAS";
  const products::Blas& blas = products::blas();
  info.blas_version = blas.version;
  info.blas_core = blas.core;
  if (!generated) info.advice = products::advice_on_core(blas, info.processor);
  info.threads = num_threads();
  info.processors = detail::processors_of();
  return info;
}

std::string BuildInfo::to_string() const {
  const auto line = [](std::string_view what, std::string_view is) { return fmt::format("\n  {:<16}{}", what, is); };
  return fmt::format("chainrule {}, built by {}, {} chainrule::files", version, compiler, files ? "with" : "without") +
         line("processor", fmt::format("{}, {} of them", processor, processors)) +
         line("vector kernels", vector_kernels) +
         line("generated code", generated_code.empty() ? "none: " + why_none_generated : generated_code) +
         line("products", products) + line("OpenBLAS", fmt::format("{}, kernels for {}", blas_version, blas_core)) +
         line("threads", fmt::format("{}", threads)) + (advice.empty() ? "" : line("advice", advice));
}

}  // namespace chainrule
