// What this library is and runs with, for reports and for finding out why something is slow.
#pragma once

#include <string>

#include <chainrule/framework/core/text_formatter.hpp>

namespace chainrule {

struct BuildInfo {
  std::string version;         // of chainrule: "0.1.0"
  std::string compiler;        // that built it: "g++ 12.2.0"
  bool files = false;          // whether chainrule::files was built with it
  std::string processor;       // the best kernels that this processor runs: "baseline", "avx2" or "avx512"
  std::string vector_kernels;  // those in use: the same, unless the environment variable CHAINRULE_ARCH asks for less
  std::string generated_code;  // for which instruction set code is made at run time: "avx2", "avx512", or empty
  std::string why_none_generated;  // "CHAINRULE_GENERATE is 0"; empty where code is made
  std::string products;            // what computes matrix products: "generated code" or "OpenBLAS"
  std::string blas_version;        // OpenBLAS's: "0.3.21"
  std::string blas_core;           // for which processor its kernels are: "SkylakeX"
  // Where OpenBLAS computes products with kernels for a lesser processor than this one, what to do; else empty. The
  // first such product prints it on standard error, once a process, unless the environment variable
  // CHAINRULE_BLAS_WARNING is 0.
  std::string advice;
  int threads = 1;     // num_threads()
  int processors = 1;  // that this process may use

  // A line for each of these, or fewer.
  [[nodiscard]] std::string to_string() const;
};

// Throws Error where one of the environment variables CHAINRULE_ARCH, CHAINRULE_GENERATE and CHAINRULE_NUM_THREADS says
// nothing of use, as a Program's constructor or first run does.
[[nodiscard]] BuildInfo build_info();

}  // namespace chainrule

template <>
struct fmt::formatter<chainrule::BuildInfo> : chainrule::detail::TextFormatter {
  static auto format(const chainrule::BuildInfo& info, fmt::format_context& context) {
    return write(info.to_string(), context);
  }
};
