// Batches as the machine that framework/kernels/vector_math.hpp is written over: with AVX-512 and AVX2 the functions
// that generated code has are the same ones (fused/vector_code.cpp). Not installed.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include <chainrule/framework/kernels/libm.hpp>
#include <chainrule/framework/kernels/simd/batch.hpp>

#if defined(__AVX2__)

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

template <class Type>
struct Vectors {
  using T = Type;
  using V = Batch<T>;

// prefix_f_ps for float, prefix_f_pd for double
#define CHAINRULE_BY_TYPE(f, ...) \
  [&] {                           \
    if constexpr (single<T>) {    \
      return f##ps(__VA_ARGS__);  \
    } else {                      \
      return f##pd(__VA_ARGS__);  \
    }                             \
  }()
#if defined(__AVX512F__)
  using Mask = std::conditional_t<single<T>, __mmask16, __mmask8>;
#define CHAINRULE_INTRINSIC(f, ...) CHAINRULE_BY_TYPE(_mm512_##f##_, __VA_ARGS__)
#else
  using Mask = V;
#define CHAINRULE_INTRINSIC(f, ...) CHAINRULE_BY_TYPE(_mm256_##f##_, __VA_ARGS__)
#endif
  static V number(double x) { return V(static_cast<T>(x)); }
  static V add(V a, V b) { return a + b; }
  static V sub(V a, V b) { return a - b; }
  static V mul(V a, V b) { return a * b; }
  static V div(V a, V b) { return a / b; }
  static V min(V a, V b) { return CHAINRULE_INTRINSIC(min, a, b); }
  static V max(V a, V b) { return CHAINRULE_INTRINSIC(max, a, b); }
  static V fma(V a, V b, V c) { return CHAINRULE_INTRINSIC(fmadd, a, b, c); }
  static V nfma(V a, V b, V c) { return CHAINRULE_INTRINSIC(fnmadd, a, b, c); }
  static V bit_and(V a, V b) { return a & b; }
  static V bit_or(V a, V b) { return a | b; }
  static V bit_xor(V a, V b) { return a ^ b; }
  static V bit_andnot(V a, V b) { return CHAINRULE_INTRINSIC(andnot, a, b); }
  static Mask less(V a, V b) { return compare<_CMP_LT_OQ>(a, b); }
  static Mask less_equal(V a, V b) { return compare<_CMP_LE_OQ>(a, b); }
  static Mask equal(V a, V b) { return compare<_CMP_EQ_OQ>(a, b); }
  static Mask is_nan(V a) { return compare<_CMP_UNORD_Q>(a, a); }
#if defined(__AVX512F__)
  static V round(V a) { return CHAINRULE_INTRINSIC(roundscale, a, _MM_FROUND_TO_NEAREST_INT); }
  static V scale(V a, V n) { return CHAINRULE_INTRINSIC(scalef, a, n); }
  static V mantissa(V a) { return CHAINRULE_INTRINSIC(getmant, a, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan); }
  static V exponent(V a) { return CHAINRULE_INTRINSIC(getexp, a); }
  static V floor(V a) { return CHAINRULE_INTRINSIC(roundscale, a, _MM_FROUND_TO_NEG_INF); }
  static V select(Mask mask, V a, V b) { return CHAINRULE_INTRINSIC(mask_blend, mask, b, a); }
#else
  static V floor(V a) { return CHAINRULE_INTRINSIC(round, a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  // By the bits of |a|, which denormal numbers are made normal for.
  static V mantissa(V a) {
    const V bits = single<T> ? of_bits(0x007FFFFF) : of_bits(0x000FFFFFFFFFFFFF);
    const V near_one = (normal(a).value & bits) | number(1);
    const V y = select(compare<_CMP_NLT_UQ>(near_one, number(1.5)), mul(near_one, number(0.5)), near_one);
    return y | compare<_CMP_NGE_UQ>(a, number(0));
  }
  static V exponent(V a) {
    const auto [value, denormal] = normal(a);
    V e;
    if constexpr (single<T>) {
      e = _mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_castps_si256(value), 23));
    } else {
      const V whole(_mm256_castsi256_pd(_mm256_srli_epi64(_mm256_castpd_si256(value), 52)));
      e = sub(whole | number(0x1p52), number(0x1p52));
    }
    e = sub(sub(e, number(single<T> ? 127 : 1023)), denormal & number(single<T> ? 23 : 52));
    e = select(equal(value, number(0)), number(-std::numeric_limits<double>::infinity()), e);
    return select(compare<_CMP_NLT_UQ>(value, number(std::numeric_limits<double>::infinity())), value, e);
  }
  static V round(V a) { return CHAINRULE_INTRINSIC(round, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // As the product with two powers, of n / 2 and of the rest; a is near 1, so that only the second is rounded.
  static V scale(V a, V n) {
    if constexpr (single<T>) {
      const __m256i whole = _mm256_cvtps_epi32(n);
      const __m256i half = _mm256_srai_epi32(whole, 1);
      const auto power = [](__m256i k) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k, _mm256_set1_epi32(127)), 23));
      };
      return _mm256_mul_ps(_mm256_mul_ps(a, power(half)), power(_mm256_sub_epi32(whole, half)));
    } else {
      const __m128i whole = _mm256_cvtpd_epi32(n);
      const __m128i half = _mm_srai_epi32(whole, 1);
      const auto power = [](__m128i k) {
        return _mm256_castsi256_pd(
            _mm256_slli_epi64(_mm256_add_epi64(_mm256_cvtepi32_epi64(k), _mm256_set1_epi64x(1023)), 52));
      };
      return _mm256_mul_pd(_mm256_mul_pd(a, power(half)), power(_mm_sub_epi32(whole, half)));
    }
  }
  static V select(Mask mask, V a, V b) { return CHAINRULE_INTRINSIC(blendv, b, a, mask); }
#endif
  static V sin_of(Mask mask, V x, V y) { return of_lanes(sin_of_lanes<T>, mask, x, y); }
  static V cos_of(Mask mask, V x, V y) { return of_lanes(cos_of_lanes<T>, mask, x, y); }

 private:
  static V of_lanes(void (*run)(const T* x, T* y, std::uint32_t lanes), Mask mask, V x, V y) {
#if defined(__AVX512F__)
    const std::uint32_t lanes = mask;
#else
    const auto lanes = static_cast<std::uint32_t>(CHAINRULE_INTRINSIC(movemask, mask));
#endif
    if (lanes == 0) return y;
    T in[width<T>];
    T out[width<T>];
    x.store_unaligned(in);
    y.store_unaligned(out);
    run(in, out, lanes);
    return load(out);
  }

#if !defined(__AVX512F__)
  static V of_bits(std::uint64_t bits) {
    if constexpr (single<T>) {
      return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<std::int32_t>(bits)));
    } else {
      return _mm256_castsi256_pd(_mm256_set1_epi64x(static_cast<std::int64_t>(bits)));
    }
  }
  struct Normal {
    V value;  // |a|, or 2^23 or 2^52 times that
    Mask denormal;
  };
  static Normal normal(V a) {
    const V positive = bit_andnot(number(-0.0), a);
    const Mask denormal = less(positive, number(single<T> ? 0x1p-126 : 0x1p-1022));
    return {select(denormal, mul(positive, number(single<T> ? 0x1p23 : 0x1p52)), positive), denormal};
  }
#endif

  template <int predicate>
  static Mask compare(V a, V b) {
#if defined(__AVX512F__)
    if constexpr (single<T>) {
      return _mm512_cmp_ps_mask(a, b, predicate);
    } else {
      return _mm512_cmp_pd_mask(a, b, predicate);
    }
#else
    return CHAINRULE_INTRINSIC(cmp, a, b, predicate);
#endif
  }
#undef CHAINRULE_INTRINSIC
#undef CHAINRULE_BY_TYPE
};

}  // namespace

}  // namespace chainrule::kernels::CHAINRULE_ARCH

#endif
