// Lanes of vectors by libm, where a vector function is for ordinary arguments only. Not installed.
#pragma once

#include <cstdint>

namespace chainrule::kernels {

// y[i] = sin(x[i]), or cos(x[i]), for the lanes whose bits are set. Vector kernels and generated code call the same.
template <class T>
void sin_of_lanes(const T* x, T* y, std::uint32_t lanes);
template <class T>
void cos_of_lanes(const T* x, T* y, std::uint32_t lanes);

}  // namespace chainrule::kernels
