// Numbers as they are printed. Not installed.
#pragma once

#include <cmath>
#include <limits>

namespace chainrule::detail {

// x, or a NaN without a sign: 0 / 0 has one on x86, and would be printed as "-nan".
template <class T>
T printed(T x) {
  return std::isnan(x) ? std::numeric_limits<T>::quiet_NaN() : x;
}

}  // namespace chainrule::detail
