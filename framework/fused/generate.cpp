#include <chainrule/framework/fused/generate.hpp>

#include <chainrule/framework/core/error.hpp>

#ifdef CHAINRULE_GENERATE_X86

#include <mutex>
#include <string>
#include <unordered_map>

#include <chainrule/framework/fused/x86.hpp>
#include <chainrule/framework/kernels/machine_code.hpp>

namespace chainrule::detail {

using kernels::generated_set;

bool can_generate() { return generated_set().has_value(); }

bool can_generate(Micro micro, DType dtype) { return can_generate() && VectorCode::has(micro, dtype); }

bool can_generate_reading(DType from, DType to) { return can_generate() && VectorCode::converts(from, to); }

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

bool can_generate_reading(DType, DType) { return false; }

std::shared_ptr<const GeneratedCode> generate(const VectorCode&) {
  invariant(false, "machine code cannot be generated here");
  return nullptr;
}

}  // namespace chainrule::detail

#endif
