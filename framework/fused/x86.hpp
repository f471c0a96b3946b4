// From vector code to machine code for x86-64. Not installed.
#pragma once

#include <cstdint>
#include <memory>

#include <chainrule/framework/fused/generate.hpp>
#include <chainrule/framework/fused/vector_code.hpp>

namespace chainrule::detail {

enum class X86 : std::uint8_t { avx2, avx512 };

// Throws std::runtime_error where the system gives no memory that may be executed.
std::shared_ptr<const GeneratedCode> make_x86(const VectorCode& code, X86 set);

}  // namespace chainrule::detail
