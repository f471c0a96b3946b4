#include <chainrule/framework/kernels/libm.hpp>

#include <bit>
#include <cmath>

namespace chainrule::kernels {

namespace {

template <class T, class F>
void each(const T* x, T* y, std::uint32_t lanes, F f) {
  for (; lanes != 0; lanes &= lanes - 1) {
    const int i = std::countr_zero(lanes);
    y[i] = f(x[i]);
  }
}

}  // namespace

template <class T>
void sin_of_lanes(const T* x, T* y, std::uint32_t lanes) {
  each(x, y, lanes, [](T v) { return std::sin(v); });
}

template <class T>
void cos_of_lanes(const T* x, T* y, std::uint32_t lanes) {
  each(x, y, lanes, [](T v) { return std::cos(v); });
}

template void sin_of_lanes(const float* x, float* y, std::uint32_t lanes);
template void sin_of_lanes(const double* x, double* y, std::uint32_t lanes);
template void cos_of_lanes(const float* x, float* y, std::uint32_t lanes);
template void cos_of_lanes(const double* x, double* y, std::uint32_t lanes);

}  // namespace chainrule::kernels
