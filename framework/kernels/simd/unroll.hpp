// Loops that the compiler may not keep. Not installed.
#pragma once

#include <type_traits>
#include <utility>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

#define CHAINRULE_INLINE __attribute__((always_inline))

// f of 0, 1, ... count - 1, as constants (std::integral_constant): arrays that only such numbers index are kept in
// registers.
template <auto count, class F>
CHAINRULE_INLINE inline void unrolled(F f) {
  using T = decltype(count);
  [&]<T... i>(std::integer_sequence<T, i...>) CHAINRULE_INLINE { (f(std::integral_constant<T, i>{}), ...); }
  (std::make_integer_sequence<T, count>{});
}

}  // namespace

}  // namespace chainrule::kernels::CHAINRULE_ARCH
