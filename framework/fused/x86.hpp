// From vector code to machine code for x86-64. Not installed.
#pragma once

#include <memory>

#include <chainrule/framework/fused/generate.hpp>
#include <chainrule/framework/fused/vector_code.hpp>
#include <chainrule/framework/kernels/machine_code.hpp>

namespace chainrule::detail {

using kernels::X86;

// Throws std::runtime_error where the system gives no memory that may be executed.
std::shared_ptr<const GeneratedCode> make_x86(const VectorCode& code, X86 set);

}  // namespace chainrule::detail
