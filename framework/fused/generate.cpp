#include <chainrule/framework/fused/generate.hpp>

#include <chainrule/framework/core/error.hpp>

#ifdef CHAINRULE_GENERATE_X86

#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include <fmt/core.h>

#include <chainrule/framework/fused/x86.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::detail {

namespace {

// The instruction set that code is made for, the vector kernels' own; none where code is not wanted.
std::optional<X86> wanted_set() {
  const char* wish = std::getenv("CHAINRULE_GENERATE");
  const std::string_view asked = wish ? wish : "";
  if (!asked.empty() && asked != "0" && asked != "1")
    throw Error(Location{}, "CHAINRULE_GENERATE", fmt::format("requires 0 or 1, got '{}'", asked));
  if (asked == "0") return std::nullopt;
  const std::string_view kernels = kernels::tables().name;
  if (kernels == "avx512") return X86::avx512;
  if (kernels == "avx2") return X86::avx2;
  return std::nullopt;
}

// Whether this process may make code, and run it.
bool can_run(X86 set) {
  VectorCode code(float32);
  const std::uint32_t x = code.stream(0);
  code.store(code.micro(Micro::neg, x, x, x), 0, false);
  float number[1] = {1};
  char* const slots[] = {reinterpret_cast<char*>(number)};
  try {
    make_x86(code, set)->run()(slots, 1);
  } catch (const std::runtime_error&) {
    return false;
  }
  return number[0] == -1;
}

std::optional<X86> generated_set() {
  static const std::optional<X86> set = [] {
    const std::optional<X86> wanted = wanted_set();
    return wanted && can_run(*wanted) ? wanted : std::nullopt;
  }();
  return set;
}

}  // namespace

bool can_generate() { return generated_set().has_value(); }

bool can_generate(Micro micro, DType dtype) {
  if (!can_generate() || !VectorCode::has(micro, dtype)) return false;
  // Logarithms take numbers apart, which AVX2 has no instructions for.
  return generated_set() == X86::avx512 || (micro != Micro::log && micro != Micro::log1p);
}

std::shared_ptr<const GeneratedCode> generate(const VectorCode& code) {
  static std::mutex mutex;
  static std::unordered_map<std::string, std::weak_ptr<const GeneratedCode>> known;
  static std::size_t sweep_at = 64;
  std::string key = code.key();
  const std::lock_guard lock(mutex);
  if (const auto it = known.find(key); it != known.end())
    if (auto found = it->second.lock()) return found;
  std::shared_ptr<const GeneratedCode> made = make_x86(code, generated_set().value());
  if (known.size() >= sweep_at) {
    std::erase_if(known, [](const auto& entry) { return entry.second.expired(); });
    sweep_at = 2 * known.size() + 64;
  }
  known[std::move(key)] = made;
  return made;
}

}  // namespace chainrule::detail

#else

namespace chainrule::detail {

bool can_generate() { return false; }

bool can_generate(Micro, DType) { return false; }

std::shared_ptr<const GeneratedCode> generate(const VectorCode&) {
  invariant(false, "machine code cannot be generated here");
  return nullptr;
}

}  // namespace chainrule::detail

#endif
