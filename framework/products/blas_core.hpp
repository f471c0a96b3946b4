// Which OpenBLAS is linked, and whether its kernels are those of this processor. Not installed.
#pragma once

#include <string>
#include <string_view>

namespace chainrule::products {

struct Blas {
  std::string version;  // "0.3.21"
  std::string core;     // for whose processor its kernels are: "SkylakeX"
  bool has_cores;       // whether it has those of several processors to choose from
};

// Of the library that this process runs with.
const Blas& blas();

// One line that says that products run slower than they could, and what to do: where the core's instruction set is
// known to be less than `processor`, "avx512" or "avx2" (kernels::VectorTables::name). Else empty.
std::string advice_on_core(const Blas& blas, std::string_view processor);

// Prints that line on standard error the first time that it is called, unless the environment variable
// CHAINRULE_BLAS_WARNING is 0. Throws Error where that is neither 0 nor 1.
void warn_of_slow_core();

}  // namespace chainrule::products
