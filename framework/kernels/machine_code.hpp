// Whether machine code is made at run time, and for which processors. Not installed.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace chainrule::kernels {

enum class X86 : std::uint8_t { avx2, avx512 };

// The instruction set that code is made for, the vector kernels' own (vector_table.hpp); none where these are for other
// processors, the system does not let a process make code, the library was built without, or the environment variable
// CHAINRULE_GENERATE is 0. Throws Error where that is neither 0 nor 1.
std::optional<X86> generated_set();
// Why there is none; empty where there is one.
std::string_view why_none_generated();

}  // namespace chainrule::kernels
