#include <chainrule/framework/products/blas_core.hpp>

#include <cblas.h>

#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <fmt/core.h>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::products {

namespace {

enum class Level : std::uint8_t { unknown, sse, avx, avx2, avx512 };

// OpenBLAS's cores for x86-64 by the widest instructions of their kernels. One that is made for a single core spells it
// in capitals.
Level level_of(std::string_view core) {
  struct Core {
    std::string_view name;
    Level level;
  };
  static constexpr Core cores[] = {{"prescott", Level::sse},      {"core2", Level::sse},
                                   {"penryn", Level::sse},        {"dunnington", Level::sse},
                                   {"atom", Level::sse},          {"nehalem", Level::sse},
                                   {"opteron", Level::sse},       {"opteron_sse3", Level::sse},
                                   {"barcelona", Level::sse},     {"bobcat", Level::sse},
                                   {"nano", Level::sse},          {"generic", Level::sse},
                                   {"sandybridge", Level::avx},   {"bulldozer", Level::avx},
                                   {"piledriver", Level::avx},    {"steamroller", Level::avx},
                                   {"excavator", Level::avx2},    {"haswell", Level::avx2},
                                   {"zen", Level::avx2},          {"skylakex", Level::avx512},
                                   {"cooperlake", Level::avx512}, {"sapphirerapids", Level::avx512}};
  std::string small;
  for (const char c : core) small += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const Core& known : cores)
    if (known.name == small) return known.level;
  return Level::unknown;
}

// "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH NO_AFFINITY Haswell MAX_THREADS=64"
Blas from_configuration(std::string_view text, std::string_view core) {
  const std::size_t space = text.find(' ');
  const std::string_view rest = space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
  return {std::string(rest.substr(0, rest.find(' '))), std::string(core),
          text.find("DYNAMIC_ARCH") != std::string_view::npos};
}

bool may_warn() {
  const char* wish = std::getenv("CHAINRULE_BLAS_WARNING");
  const std::string_view asked = wish ? wish : "";
  if (!asked.empty() && asked != "0" && asked != "1")
    throw Error(Location{}, "CHAINRULE_BLAS_WARNING", fmt::format("requires 0 or 1, got '{}'", asked));
  return asked != "0";
}

}  // namespace

const Blas& blas() {
  static const Blas linked = from_configuration(openblas_get_config(), openblas_get_corename());
  return linked;
}

std::string advice_on_core(const Blas& blas, std::string_view processor) {
  const Level core = level_of(blas.core);
  const Level best = processor == "avx512" ? Level::avx512 : processor == "avx2" ? Level::avx2 : Level::unknown;
  if (core == Level::unknown || core >= best) return {};
  const std::string_view set = best == Level::avx512 ? "AVX-512" : "AVX2";
  const std::string_view better = best == Level::avx512 ? "SkylakeX" : "Haswell";
  const std::string what =
      fmt::format("OpenBLAS {} computes matrix products with its kernels for {}, though this processor has {}",
                  blas.version, blas.core, set);
  if (blas.has_cores)
    return fmt::format("{}: OPENBLAS_CORETYPE={} in the environment makes it use those that fit", what, better);
  return fmt::format("{}: it was built for this one core, so install one built with DYNAMIC_ARCH=1", what);
}

void warn_of_slow_core() {
  static const bool once = [] {
    if (!may_warn()) return true;
    const std::string advice = advice_on_core(blas(), kernels::best_tables().name);
    if (advice.empty()) return true;
    const std::string line = fmt::format("chainrule: {} (CHAINRULE_BLAS_WARNING=0 silences this)\n", advice);
    std::fputs(line.c_str(), stderr);
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace chainrule::products
