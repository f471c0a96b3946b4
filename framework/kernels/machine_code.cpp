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

struct Choice {
  std::optional<X86> set;
  std::string_view why_none;
};

Choice wanted() {
  const char* wish = std::getenv("CHAINRULE_GENERATE");
  const std::string_view asked = wish ? wish : "";
  if (!asked.empty() && asked != "0" && asked != "1")
    throw Error(Location{}, "CHAINRULE_GENERATE", fmt::format("requires 0 or 1, got '{}'", asked));
  if (asked == "0") return {std::nullopt, "CHAINRULE_GENERATE is 0"};
  const std::string_view name = tables().name;
  if (name == "avx512") return {X86::avx512, {}};
  if (name == "avx2") return {X86::avx2, {}};
  return {std::nullopt, "it needs AVX2 and FMA, or more"};
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

const Choice& choice() {
  static const Choice made = [] {
    const Choice w = wanted();
    return !w.set || can_run() ? w : Choice{std::nullopt, "the system lets this process make no code"};
  }();
  return made;
}

}  // namespace

std::optional<X86> generated_set() { return choice().set; }
std::string_view why_none_generated() { return choice().why_none; }

}  // namespace chainrule::kernels

#else

namespace chainrule::kernels {

std::optional<X86> generated_set() { return std::nullopt; }
std::string_view why_none_generated() { return "the library was built without"; }

}  // namespace chainrule::kernels

#endif
