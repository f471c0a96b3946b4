#include <chainrule/framework/kernels/machine_code.hpp>

#ifdef CHAINRULE_GENERATE_X86

#include <cstdlib>
#include <string_view>

#include <fmt/core.h>
#include <xbyak/xbyak.h>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels {

namespace {

std::optional<X86> wanted_set() {
  const char* wish = std::getenv("CHAINRULE_GENERATE");
  const std::string_view asked = wish ? wish : "";
  if (!asked.empty() && asked != "0" && asked != "1")
    throw Error(Location{}, "CHAINRULE_GENERATE", fmt::format("requires 0 or 1, got '{}'", asked));
  if (asked == "0") return std::nullopt;
  const std::string_view name = tables().name;
  if (name == "avx512") return X86::avx512;
  if (name == "avx2") return X86::avx2;
  return std::nullopt;
}

// Whether this process may make code, and run it.
bool can_run() {
  struct Probe : Xbyak::CodeGenerator {
    Probe() : Xbyak::CodeGenerator(64, Xbyak::AutoGrow) {
      mov(eax, 42);
      ret();
      ready(Xbyak::CodeArray::PROTECT_RE);
    }
  };
  try {
    return Probe().getCode<int (*)()>()() == 42;
  } catch (const Xbyak::Error&) {
    return false;
  }
}

}  // namespace

std::optional<X86> generated_set() {
  static const std::optional<X86> set = [] {
    const std::optional<X86> wanted = wanted_set();
    return wanted && can_run() ? wanted : std::nullopt;
  }();
  return set;
}

}  // namespace chainrule::kernels

#else

namespace chainrule::kernels {

std::optional<X86> generated_set() { return std::nullopt; }

}  // namespace chainrule::kernels

#endif
