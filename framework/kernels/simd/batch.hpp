// A batch: as many elements as a vector of this instruction set has, with its loads and stores. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>

#include <xsimd/xsimd.hpp>

#if defined(__aarch64__)
// For arm64 xsimd 8 divides and takes square roots of float as for 32-bit ARM: by estimates that round wrongly, and to
// NaN for the square root of infinity. So for all that uses them, xsimd's own functions too:
template <>
inline xsimd::batch<float>& xsimd::batch<float>::operator/=(const xsimd::batch<float>& other) noexcept {
  return *this = vdivq_f32(*this, other);
}
template <>
inline xsimd::batch<float> xsimd::sqrt(const xsimd::batch<float>& x) noexcept {
  return vsqrtq_f32(x);
}
#endif

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

template <class T>
using Batch = xsimd::batch<T>;

template <class T>
constexpr std::size_t width = Batch<T>::size;

template <class T>
Batch<T> load(const T* p) {
  return Batch<T>::load_unaligned(p);
}

#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr std::int32_t part_mask32[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
constexpr std::int64_t part_mask64[8] = {-1, -1, -1, -1};
#endif

// The first `count` < width elements at p; nothing beyond them is read. The other lanes are `rest`.
template <class T>
Batch<T> load_part(const T* p, std::size_t count, T rest) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_mask_loadu_ps(_mm512_set1_ps(rest), static_cast<__mmask16>((1U << count) - 1), p);
  else
    return _mm512_mask_loadu_pd(_mm512_set1_pd(rest), static_cast<__mmask8>((1U << count) - 1), p);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part_mask32 + 8 - count));
    return _mm256_blendv_ps(_mm256_set1_ps(rest), _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
  } else {
    const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part_mask64 + 4 - count));
    return _mm256_blendv_pd(_mm256_set1_pd(rest), _mm256_maskload_pd(p, mask), _mm256_castsi256_pd(mask));
  }
#else
  T padded[width<T>];
  for (std::size_t k = 0; k < width<T>; ++k) padded[k] = k < count ? p[k] : rest;
  return load(padded);
#endif
}

template <class T>
void store_part(Batch<T> value, T* p, std::size_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1U << count) - 1), value);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1U << count) - 1), value);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    _mm256_maskstore_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part_mask32 + 8 - count)), value);
  else
    _mm256_maskstore_pd(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part_mask64 + 4 - count)), value);
#else
  T padded[width<T>];
  value.store_unaligned(padded);
  for (std::size_t k = 0; k < count; ++k) p[k] = padded[k];
#endif
}

template <class T>
constexpr bool single = sizeof(T) == 4;

template <class T>
struct Interleaved {
  Batch<T> low;   // a[0], b[0], a[1], b[1], ... of the first halves
  Batch<T> high;  // and of the second ones
};

template <class T>
Interleaved<T> interleave(Batch<T> a, Batch<T> b) {
#if defined(__AVX512F__)
  if constexpr (single<T>) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    return {_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)};
  } else {
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    const __m512i high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
    return {_mm512_permutex2var_pd(a, low, b), _mm512_permutex2var_pd(a, high, b)};
  }
#elif defined(__AVX2__)
  // In each half of a register
  const Batch<T> low = xsimd::zip_lo(a, b);
  const Batch<T> high = xsimd::zip_hi(a, b);
  if constexpr (single<T>) {
    return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
  } else {
    return {_mm256_permute2f128_pd(low, high, 0x20), _mm256_permute2f128_pd(low, high, 0x31)};
  }
#else
  return {xsimd::zip_lo(a, b), xsimd::zip_hi(a, b)};
#endif
}

// Either NaN makes NaN: a where a is greater or NaN, else b.
template <class T>
Batch<T> maximum(Batch<T> a, Batch<T> b) {
  return xsimd::select((a > b) | xsimd::isnan(a), a, b);
}

template <class T>
Batch<T> minimum(Batch<T> a, Batch<T> b) {
  return xsimd::select((a < b) | xsimd::isnan(a), a, b);
}

// The second half of the lanes onto the first, and so on: F::combine of two vectors, F::combine_one of two elements.
template <class T, class F>
T across(Batch<T> x) {
#if defined(__AVX512F__)
  if constexpr (single<T>) {
    x = F::combine(x, Batch<T>(_mm512_shuffle_f32x4(x, x, 0x4E)));
    x = F::combine(x, Batch<T>(_mm512_shuffle_f32x4(x, x, 0xB1)));
    x = F::combine(x, Batch<T>(_mm512_permute_ps(x, 0x4E)));
    x = F::combine(x, Batch<T>(_mm512_permute_ps(x, 0xB1)));
    return _mm512_cvtss_f32(x);
  } else {
    x = F::combine(x, Batch<T>(_mm512_shuffle_f64x2(x, x, 0x4E)));
    x = F::combine(x, Batch<T>(_mm512_shuffle_f64x2(x, x, 0xB1)));
    x = F::combine(x, Batch<T>(_mm512_permute_pd(x, 0x55)));
    return _mm512_cvtsd_f64(x);
  }
#elif defined(__AVX2__)
  if constexpr (single<T>) {
    x = F::combine(x, Batch<T>(_mm256_permute2f128_ps(x, x, 0x01)));
    x = F::combine(x, Batch<T>(_mm256_permute_ps(x, 0x4E)));
    x = F::combine(x, Batch<T>(_mm256_permute_ps(x, 0xB1)));
    return _mm256_cvtss_f32(x);
  } else {
    x = F::combine(x, Batch<T>(_mm256_permute2f128_pd(x, x, 0x01)));
    x = F::combine(x, Batch<T>(_mm256_permute_pd(x, 0x5)));
    return _mm256_cvtsd_f64(x);
  }
#else
  constexpr std::size_t w = width<T>;
  T parts[w];
  x.store_unaligned(parts);
  for (std::size_t half = w / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) parts[i] = F::combine_one(parts[i], parts[i + half]);
  return parts[0];
#endif
}

}  // namespace

}  // namespace chainrule::kernels::CHAINRULE_ARCH
