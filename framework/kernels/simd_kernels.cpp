// Vector kernels, compiled once for each instruction set (see vector_table.hpp).
//
// Each functor is written once over `auto` vectors. Where a function of xsimd is inexact for some arguments (its
// exponentials flush small results and overflow early, its logarithm does not know denormal numbers), a vector that
// holds such an argument is computed by libm, element by element: the fast path stays fast and the rest is right.
// Nor is xsimd's != used, which with AVX is false for NaN, nor its negation, floor and ceil as they are, which lose the
// sign of a zero for some instruction sets.
#include <chainrule/framework/kernels/vector_table.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include <xsimd/xsimd.hpp>

#include <chainrule/framework/kernels/vector_math.hpp>

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

template <class M, class T>
Batch<T> flag(M mask, Batch<T> one) {
  return xsimd::select(mask, one, Batch<T>(T(0)));
}

// `vector` for the elements of x in [low, high], `scalar` for the others: what an element becomes does not depend on
// its neighbours. 1 lies in every such range.
template <class T, class V, class S>
Batch<T> within(Batch<T> x, double low, double high, V vector, S scalar) {
  const auto inside = (x >= Batch<T>(T(low))) & (x <= Batch<T>(T(high)));
  if (xsimd::all(inside)) return vector(x);
  T in[width<T>];
  T out[width<T>];
  x.store_unaligned(in);
  vector(xsimd::select(inside, x, Batch<T>(T(1)))).store_unaligned(out);
  for (std::size_t i = 0; i < width<T>; ++i)
    if (!(in[i] >= T(low) && in[i] <= T(high))) out[i] = scalar(in[i]);
  return load(out);
}

// f(x) of a function with f(0) = 0, and f(-0) = -0.
template <class T>
Batch<T> keep_zero(Batch<T> x, Batch<T> f) {
  return xsimd::select(x == Batch<T>(T(0)), x, f);
}

#if !defined(__AVX2__)
template <class T>
Batch<T> vector_exp(Batch<T> x) {
  return within(
      x, single<T> ? -87 : -708, single<T> ? 88 : 709, [](auto v) { return xsimd::exp(v); },
      [](T v) { return std::exp(v); });
}
#endif

// With AVX-512 and AVX2 the functions that generated code has are the same ones (fused/generate.cpp).
#if defined(__AVX2__)
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
  static V select(Mask mask, V a, V b) { return CHAINRULE_INTRINSIC(mask_blend, mask, b, a); }
#else
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

 private:
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
#endif

#define CHAINRULE_MICRO(name, parameters, body) \
  struct name {                                 \
    template <class B>                          \
    static B apply parameters body              \
  };

CHAINRULE_MICRO(Copy, (B x), { return x; })
CHAINRULE_MICRO(Neg, (B x), { return x ^ B(typename B::value_type(-0.0)); })
CHAINRULE_MICRO(Abs, (B x), { return xsimd::abs(x); })
CHAINRULE_MICRO(Sign, (B x), {
  using T = typename B::value_type;
  // x itself is the answer for 0 and NaN
  return xsimd::select(x > B(T(0)), B(T(1)), xsimd::select(x < B(T(0)), B(T(-1)), x));
})
CHAINRULE_MICRO(Square, (B x), { return x * x; })
CHAINRULE_MICRO(Sqrt, (B x), { return xsimd::sqrt(x); })
#if defined(__AVX2__)
CHAINRULE_MICRO(Erf, (B x), {
  Vectors<typename B::value_type> m;
  return kernels::erf(m, x);
})
CHAINRULE_MICRO(Exp, (B x), {
  Vectors<typename B::value_type> m;
  return kernels::exp(m, x);
})
CHAINRULE_MICRO(Expm1, (B x), {
  Vectors<typename B::value_type> m;
  return kernels::expm1(m, x);
})
CHAINRULE_MICRO(Tanh, (B x), {
  Vectors<typename B::value_type> m;
  return kernels::tanh(m, x);
})
CHAINRULE_MICRO(Sigmoid, (B x), {
  Vectors<typename B::value_type> m;
  return kernels::sigmoid(m, x);
})
#else
struct Erf {
  template <class T>
  static T one(T x) {
    return std::erf(x);
  }
};
CHAINRULE_MICRO(Exp, (B x), { return vector_exp(x); })
CHAINRULE_MICRO(Expm1, (B x), {
  using T = typename B::value_type;
  return within(
      x, -30, single<T> ? 80 : 700, [](auto v) { return keep_zero(v, xsimd::expm1(v)); },
      [](T v) { return std::expm1(v); });
})
CHAINRULE_MICRO(Tanh, (B x), {
  using T = typename B::value_type;
  // Beyond 20 it is 1 in both dtypes.
  const B clipped = xsimd::min(xsimd::max(x, B(T(-20))), B(T(20)));
  return xsimd::select(xsimd::isnan(x), x, xsimd::tanh(clipped));
})
CHAINRULE_MICRO(Sigmoid, (B x), {
  using T = typename B::value_type;
  // exp of a negative number never overflows, and keeps the small end exact
  const B e = vector_exp(-xsimd::abs(x));
  return xsimd::select(x >= B(T(0)), B(T(1)), e) / (B(T(1)) + e);
})
#endif
#if defined(__AVX512F__)
CHAINRULE_MICRO(Log, (B x), {
  Vectors<typename B::value_type> m;
  return kernels::log(m, x);
})
CHAINRULE_MICRO(Log1p, (B x), {
  Vectors<typename B::value_type> m;
  return kernels::log1p(m, x);
})
#else
CHAINRULE_MICRO(Log, (B x), {
  using T = typename B::value_type;
  return within(
      x, double(std::numeric_limits<T>::min()), double(std::numeric_limits<T>::max()),
      [](auto v) { return xsimd::log(v); }, [](T v) { return std::log(v); });
})
CHAINRULE_MICRO(Log1p, (B x), {
  using T = typename B::value_type;
  return within(
      x, -0.5, single<T> ? 1e30 : 1e300, [](auto v) { return keep_zero(v, xsimd::log1p(v)); },
      [](T v) { return std::log1p(v); });
})
#endif
CHAINRULE_MICRO(Sin, (B x), {
  using T = typename B::value_type;
  return within(
      x, -1000, 1000, [](auto v) { return xsimd::sin(v); }, [](T v) { return std::sin(v); });
})
CHAINRULE_MICRO(Cos, (B x), {
  using T = typename B::value_type;
  return within(
      x, -1000, 1000, [](auto v) { return xsimd::cos(v); }, [](T v) { return std::cos(v); });
})
// By libm, one element after the other.
struct Pow {
  template <class T>
  static T one(T x, T y) {
    return std::pow(x, y);
  }
};
CHAINRULE_MICRO(Floor, (B x), { return xsimd::copysign(xsimd::floor(x), x); })
CHAINRULE_MICRO(Ceil, (B x), { return xsimd::copysign(xsimd::ceil(x), x); })
CHAINRULE_MICRO(LogicalNot, (B x), {
  using T = typename B::value_type;
  return flag(x == B(T(0)), B(T(1)));
})
CHAINRULE_MICRO(Add, (B a, B b), { return a + b; })
CHAINRULE_MICRO(Sub, (B a, B b), { return a - b; })
CHAINRULE_MICRO(Mul, (B a, B b), { return a * b; })
CHAINRULE_MICRO(Div, (B a, B b), { return a / b; })
// Either NaN makes NaN: a where a is greater or NaN, else b.
CHAINRULE_MICRO(Maximum, (B a, B b), { return xsimd::select((a > b) | xsimd::isnan(a), a, b); })
CHAINRULE_MICRO(Minimum, (B a, B b), { return xsimd::select((a < b) | xsimd::isnan(a), a, b); })
CHAINRULE_MICRO(Less, (B a, B b), { return flag(a < b, B(typename B::value_type(1))); })
CHAINRULE_MICRO(LessEqual, (B a, B b), { return flag(a <= b, B(typename B::value_type(1))); })
CHAINRULE_MICRO(Equal, (B a, B b), { return flag(a == b, B(typename B::value_type(1))); })
CHAINRULE_MICRO(NotEqual, (B a, B b), {
  using T = typename B::value_type;
  return xsimd::select(a == b, B(T(0)), B(T(1)));
})
CHAINRULE_MICRO(Select, (B c, B a, B b), { return xsimd::select(c == B(typename B::value_type(0)), b, a); })
#undef CHAINRULE_MICRO

// ---- loops over n elements

// One operand: a run of elements, or a single one held in a register.
template <class T, bool Scalar>
struct Operand {
  const T* p;
  Batch<T> held;
  explicit Operand(const void* from)
      : p(static_cast<const T*>(from)), held(Scalar ? Batch<T>(*static_cast<const T*>(from)) : Batch<T>(T(0))) {}
  [[nodiscard]] Batch<T> at(std::size_t i) const {
    if constexpr (Scalar) return held;
    return load(p + i);
  }
  // The last `count` < width elements; the others are 1, which no micro-operation minds.
  [[nodiscard]] Batch<T> tail(std::size_t i, std::size_t count) const {
    if constexpr (Scalar) return held;
    return load_part(p + i, count, T(1));
  }
};

// The elements behind the last whole vector.
template <class T>
void store_rest(Batch<T> value, T* out, std::size_t count, bool whole) {
  if (whole) {
    value.store_unaligned(out);
  } else {
    store_part<T>(value, out, count);
  }
}

template <class T, class F, bool A>
void unary_by_one(void* out, const void* a, const void* /*b*/, const void* /*c*/, std::size_t n_and_flag) {
  auto* to = static_cast<T*>(out);
  const auto* x = static_cast<const T*>(a);
  for (std::size_t i = 0; i < (n_and_flag & ~whole_lines); ++i) to[i] = F::one(x[A ? 0 : i]);
}

template <class T, class F, bool A, bool B>
void binary_by_one(void* out, const void* a, const void* b, const void* /*c*/, std::size_t n_and_flag) {
  auto* to = static_cast<T*>(out);
  const auto* x = static_cast<const T*>(a);
  const auto* y = static_cast<const T*>(b);
  for (std::size_t i = 0; i < (n_and_flag & ~whole_lines); ++i) to[i] = F::one(x[A ? 0 : i], y[B ? 0 : i]);
}

template <class T, class F, bool A>
void unary(void* out, const void* a, const void* /*b*/, const void* /*c*/, std::size_t n_and_flag) {
  const bool whole = (n_and_flag & whole_lines) != 0;
  const std::size_t n = n_and_flag & ~whole_lines;
  auto* to = static_cast<T*>(out);
  const Operand<T, A> x(a);
  std::size_t i = 0;
  for (; i + width<T> <= n; i += width<T>) F::apply(x.at(i)).store_unaligned(to + i);
  if (i < n) store_rest<T>(F::apply(x.tail(i, n - i)), to + i, n - i, whole);
}

template <class T, class F, bool A, bool B>
void binary(void* out, const void* a, const void* b, const void* /*c*/, std::size_t n_and_flag) {
  const bool whole = (n_and_flag & whole_lines) != 0;
  const std::size_t n = n_and_flag & ~whole_lines;
  auto* to = static_cast<T*>(out);
  const Operand<T, A> x(a);
  const Operand<T, B> y(b);
  std::size_t i = 0;
  for (; i + width<T> <= n; i += width<T>) F::apply(x.at(i), y.at(i)).store_unaligned(to + i);
  if (i < n) store_rest<T>(F::apply(x.tail(i, n - i), y.tail(i, n - i)), to + i, n - i, whole);
}

template <class T, class F, bool A, bool B, bool C>
void ternary(void* out, const void* a, const void* b, const void* c, std::size_t n_and_flag) {
  const bool whole = (n_and_flag & whole_lines) != 0;
  const std::size_t n = n_and_flag & ~whole_lines;
  auto* to = static_cast<T*>(out);
  const Operand<T, A> x(a);
  const Operand<T, B> y(b);
  const Operand<T, C> z(c);
  std::size_t i = 0;
  for (; i + width<T> <= n; i += width<T>) F::apply(x.at(i), y.at(i), z.at(i)).store_unaligned(to + i);
  if (i < n) store_rest<T>(F::apply(x.tail(i, n - i), y.tail(i, n - i), z.tail(i, n - i)), to + i, n - i, whole);
}

// ---- reductions

// Sums are made of blocks of up to 256 elements, and the blocks are added pairwise.
constexpr std::size_t block = 256;

struct SumOf {
  template <class B>
  static B combine(B a, B b) {
    return a + b;
  }
  template <class T>
  static T combine_one(T a, T b) {
    return a + b;
  }
  template <class T>
  static T start() {
    return T(0);
  }
};
struct MaxOf {
  template <class B>
  static B combine(B a, B b) {
    return Maximum::apply(a, b);
  }
  template <class T>
  static T combine_one(T a, T b) {
    return a > b || a != a ? a : b;
  }
  template <class T>
  static T start() {
    return -std::numeric_limits<T>::infinity();
  }
};
struct MinOf {
  template <class B>
  static B combine(B a, B b) {
    return Minimum::apply(a, b);
  }
  template <class T>
  static T combine_one(T a, T b) {
    return a < b || a != a ? a : b;
  }
  template <class T>
  static T start() {
    return std::numeric_limits<T>::infinity();
  }
};

template <class T, class F>
Batch<T> reduce_block(const T* x, std::size_t n) {
  constexpr std::size_t w = width<T>;
  const Batch<T> start(F::template start<T>());
  Batch<T> acc[4] = {start, start, start, start};
  std::size_t i = 0;
  for (; i + 4 * w <= n; i += 4 * w)
    for (std::size_t k = 0; k < 4; ++k) acc[k] = F::combine(acc[k], load(x + i + k * w));
  for (; i + w <= n; i += w) acc[0] = F::combine(acc[0], load(x + i));
  if (i < n) {
    acc[1] = F::combine(acc[1], load_part(x + i, n - i, F::template start<T>()));
  }
  return F::combine(F::combine(acc[0], acc[1]), F::combine(acc[2], acc[3]));
}

template <class T, class F>
Batch<T> reduce_pairwise(const T* x, std::size_t n) {
  if (n <= block) return reduce_block<T, F>(x, n);
  const std::size_t half = (n / 2 + block - 1) / block * block;
  return F::combine(reduce_pairwise<T, F>(x, half), reduce_pairwise<T, F>(x + half, n - half));
}

template <class T, class F>
T reduce(const T* x, std::size_t n) {
  constexpr std::size_t w = width<T>;
  T parts[w];
  reduce_pairwise<T, F>(x, n).store_unaligned(parts);
  for (std::size_t half = w / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) parts[i] = F::combine_one(parts[i], parts[i + half]);
  return parts[0];
}

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

// As many lines at a time as a vector has lanes: the second halves of their vectors are combined with the first, of two
// lines in one vector, and so on, till one vector has them all, in order.
template <class T, class F>
void reduce_lines(const T* x, std::size_t lines, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  const Batch<T> start(F::template start<T>());
  std::size_t i = 0;
  for (; i + w <= lines; i += w) {
    Batch<T> held[w];
    const T* line = x + i * columns;
    for (std::size_t k = 0; k < w; ++k, line += columns)
      held[k] = columns < w ? F::combine(start, load_part(line, columns, F::template start<T>()))
                            : reduce_pairwise<T, F>(line, columns);
    for (std::size_t half = w / 2; half > 0; half /= 2) {
      for (std::size_t k = 0; k < half; ++k) {
        const auto [low, high] = interleave<T>(held[k], held[k + half]);
        held[k] = F::combine(low, high);
      }
    }
    held[0].store_unaligned(out + i);
  }
  for (; i < lines; ++i) out[i] = reduce<T, F>(x + i * columns, columns);
}

template <class T>
void repeat(const T* x, std::size_t lines, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  const T* const end = out + lines * columns;
  for (std::size_t i = 0; i < lines; ++i, out += columns) {
    const Batch<T> value(x[i]);
    std::size_t k = 0;
    // The next line takes back what is written behind this one.
    for (; k < columns && out + k + w <= end; k += w) value.store_unaligned(out + k);
    for (; k < columns; ++k) out[k] = x[i];
  }
}

// Rows onto each other, `count` neighbouring vectors of them: blocks of up to 64 rows one row after the other, and the
// blocks pairwise.
template <class T, class F, std::size_t count, class Read>
void reduce_row_block(const T* x, std::size_t rows, std::size_t columns, Read read, Batch<T>* out) {
  Batch<T> held[count];  // in registers: nothing else knows its address
  for (auto& h : held) h = Batch<T>(F::template start<T>());
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t k = 0; k < count; ++k) held[k] = F::combine(held[k], read(x + i * columns + k * width<T>));
  for (std::size_t k = 0; k < count; ++k) out[k] = held[k];
}

template <class T, class F, std::size_t count, class Read>
void reduce_rows_pairwise(const T* x, std::size_t rows, std::size_t columns, Read read, Batch<T>* out) {
  constexpr std::size_t rows_at_once = 64;
  if (rows <= rows_at_once) return reduce_row_block<T, F, count>(x, rows, columns, read, out);
  const std::size_t half = (rows / 2 + rows_at_once - 1) / rows_at_once * rows_at_once;
  Batch<T> other[count];
  reduce_rows_pairwise<T, F, count>(x, half, columns, read, out);
  reduce_rows_pairwise<T, F, count>(x + half * columns, rows - half, columns, read, other);
  for (std::size_t k = 0; k < count; ++k) out[k] = F::combine(out[k], other[k]);
}

template <class T, class F>
void reduce_rows(const T* x, std::size_t rows, std::size_t columns, T* out) {
  constexpr std::size_t w = width<T>;
  constexpr std::size_t stripe = 4;  // vectors held in registers
  const auto whole = [](const T* p) { return load(p); };
  std::size_t j = 0;
  for (; j + stripe * w <= columns; j += stripe * w) {
    Batch<T> result[stripe];
    reduce_rows_pairwise<T, F, stripe>(x + j, rows, columns, whole, result);
    for (std::size_t k = 0; k < stripe; ++k) result[k].store_unaligned(out + j + k * w);
  }
  Batch<T> result;
  for (; j + w <= columns; j += w) {
    reduce_rows_pairwise<T, F, 1>(x + j, rows, columns, whole, &result);
    result.store_unaligned(out + j);
  }
  if (j < columns) {
    const std::size_t left = columns - j;
    const auto part = [left](const T* p) { return load_part(p, left, T(0)); };
    reduce_rows_pairwise<T, F, 1>(x + j, rows, columns, part, &result);
    store_part<T>(result, out + j, left);
  }
}

// ---- random masks

// Philox 4x32-10 (framework/core/philox.hpp) of blocks [first, first + mask_blocks), and the elements of the mask. One
// block lies in each 64-bit lane, its words in registers of their own, whose upper halves are of no consequence: the
// product of lower halves is one instruction. The lanes' order is that in which the words come together again at the
// end.
#if defined(__AVX512F__)
constexpr std::size_t mask_blocks = 8;

template <class T>
void mask_of_blocks(std::uint64_t first, std::uint32_t threshold, std::uint64_t seed, std::uint32_t stream,
                    std::uint32_t step, T* out) {
  const __m512i index =
      _mm512_add_epi64(_mm512_set1_epi64(static_cast<long long>(first)), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
  __m512i c0 = index;
  __m512i c1 = _mm512_srli_epi64(index, 32);
  __m512i c2 = _mm512_set1_epi64(stream);
  __m512i c3 = _mm512_set1_epi64(step);
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53);
  const __m512i m1 = _mm512_set1_epi64(0xCD9E8D57);
  __m512i k0 = _mm512_set1_epi64(static_cast<std::uint32_t>(seed));
  __m512i k1 = _mm512_set1_epi64(static_cast<std::uint32_t>(seed >> 32));
  for (int round = 0; round < 10; ++round) {
    const __m512i p0 = _mm512_mul_epu32(m0, c0);
    const __m512i p1 = _mm512_mul_epu32(m1, c2);
    c0 = _mm512_xor_si512(_mm512_xor_si512(_mm512_srli_epi64(p1, 32), c1), k0);
    c2 = _mm512_xor_si512(_mm512_xor_si512(_mm512_srli_epi64(p0, 32), c3), k1);
    c1 = p1;
    c3 = p0;
    k0 = _mm512_add_epi64(k0, _mm512_set1_epi64(0x9E3779B9));
    k1 = _mm512_add_epi64(k1, _mm512_set1_epi64(0xBB67AE85));
  }
  const __m512i low = _mm512_set1_epi64(0xFFFFFFFF);
  const __m512i w01 = _mm512_or_si512(_mm512_and_si512(c0, low), _mm512_slli_epi64(c1, 32));
  const __m512i w23 = _mm512_or_si512(_mm512_and_si512(c2, low), _mm512_slli_epi64(c3, 32));
  const __m512i words[2] = {_mm512_unpacklo_epi64(w01, w23), _mm512_unpackhi_epi64(w01, w23)};
  const __m512i bound = _mm512_set1_epi32(static_cast<int>(threshold));
  for (std::size_t half = 0; half < 2; ++half) {
    const __mmask16 kept = _mm512_cmplt_epu32_mask(_mm512_srli_epi32(words[half], 8), bound);
    if constexpr (sizeof(T) == 4) {
      _mm512_storeu_ps(out + 16 * half, _mm512_maskz_mov_ps(kept, _mm512_set1_ps(1)));
    } else {
      const __m512d one = _mm512_set1_pd(1);
      _mm512_storeu_pd(out + 16 * half, _mm512_maskz_mov_pd(static_cast<__mmask8>(kept), one));
      _mm512_storeu_pd(out + 16 * half + 8, _mm512_maskz_mov_pd(static_cast<__mmask8>(kept >> 8), one));
    }
  }
}
#elif defined(__AVX2__)
constexpr std::size_t mask_blocks = 4;

template <class T>
void mask_of_blocks(std::uint64_t first, std::uint32_t threshold, std::uint64_t seed, std::uint32_t stream,
                    std::uint32_t step, T* out) {
  const __m256i index =
      _mm256_add_epi64(_mm256_set1_epi64x(static_cast<long long>(first)), _mm256_setr_epi64x(0, 2, 1, 3));
  __m256i c0 = index;
  __m256i c1 = _mm256_srli_epi64(index, 32);
  __m256i c2 = _mm256_set1_epi64x(stream);
  __m256i c3 = _mm256_set1_epi64x(step);
  const __m256i m0 = _mm256_set1_epi64x(0xD2511F53);
  const __m256i m1 = _mm256_set1_epi64x(0xCD9E8D57);
  __m256i k0 = _mm256_set1_epi64x(static_cast<std::uint32_t>(seed));
  __m256i k1 = _mm256_set1_epi64x(static_cast<std::uint32_t>(seed >> 32));
  for (int round = 0; round < 10; ++round) {
    const __m256i p0 = _mm256_mul_epu32(m0, c0);
    const __m256i p1 = _mm256_mul_epu32(m1, c2);
    c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1), k0);
    c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3), k1);
    c1 = p1;
    c3 = p0;
    k0 = _mm256_add_epi64(k0, _mm256_set1_epi64x(0x9E3779B9));
    k1 = _mm256_add_epi64(k1, _mm256_set1_epi64x(0xBB67AE85));
  }
  const __m256i low = _mm256_set1_epi64x(0xFFFFFFFF);
  const __m256i w01 = _mm256_or_si256(_mm256_and_si256(c0, low), _mm256_slli_epi64(c1, 32));
  const __m256i w23 = _mm256_or_si256(_mm256_and_si256(c2, low), _mm256_slli_epi64(c3, 32));
  const __m256i words[2] = {_mm256_unpacklo_epi64(w01, w23), _mm256_unpackhi_epi64(w01, w23)};
  const __m256i bound = _mm256_set1_epi32(static_cast<int>(threshold));
  for (std::size_t half = 0; half < 2; ++half) {
    const __m256 kept = _mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, _mm256_srli_epi32(words[half], 8)));
    const __m256 ones = _mm256_and_ps(kept, _mm256_set1_ps(1));
    if constexpr (sizeof(T) == 4) {
      _mm256_storeu_ps(out + 8 * half, ones);
    } else {
      _mm256_storeu_pd(out + 8 * half, _mm256_cvtps_pd(_mm256_castps256_ps128(ones)));
      _mm256_storeu_pd(out + 8 * half + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(ones, 1)));
    }
  }
}
#else
constexpr std::size_t mask_blocks = 1;

template <class T>
void mask_of_blocks(std::uint64_t first, std::uint32_t threshold, std::uint64_t seed, std::uint32_t stream,
                    std::uint32_t step, T* out) {
  std::uint32_t c[4] = {static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(first >> 32), stream, step};
  auto k0 = static_cast<std::uint32_t>(seed);
  auto k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c[0] = static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0;
    c[2] = static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1;
    c[1] = static_cast<std::uint32_t>(p1);
    c[3] = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  for (std::size_t k = 0; k < 4; ++k) out[k] = (c[k] >> 8) < threshold ? T(1) : T(0);
}
#endif

template <class T>
void keep_mask(T* out, std::uint64_t begin, std::size_t n, std::uint32_t threshold, std::uint64_t seed,
               std::uint32_t stream, std::uint32_t step) {
  constexpr std::size_t many = 4 * mask_blocks;
  while (n > 0) {
    const std::size_t skip = begin % 4;
    const std::size_t count = n < many - skip ? n : many - skip;
    if (count == many) {
      mask_of_blocks<T>(begin / 4, threshold, seed, stream, step, out);
    } else {
      T values[many];
      mask_of_blocks<T>(begin / 4, threshold, seed, stream, step, values);
      std::memcpy(out, values + skip, count * sizeof(T));
    }
    out += count;
    begin += count;
    n -= count;
  }
}

// ---- the table

template <class T, class F>
void fill_unary(MicroRun* row) {
  if constexpr (requires { F::one(T(0)); }) {
    row[0] = unary_by_one<T, F, false>;
    row[1] = unary_by_one<T, F, true>;
  } else {
    row[0] = unary<T, F, false>;
    row[1] = unary<T, F, true>;
  }
}

template <class T, class F>
void fill_binary(MicroRun* row) {
  if constexpr (requires { F::one(T(0), T(0)); }) {
    row[0] = binary_by_one<T, F, false, false>;
    row[1] = binary_by_one<T, F, true, false>;
    row[2] = binary_by_one<T, F, false, true>;
    row[3] = binary_by_one<T, F, true, true>;
  } else {
    row[0] = binary<T, F, false, false>;
    row[1] = binary<T, F, true, false>;
    row[2] = binary<T, F, false, true>;
    row[3] = binary<T, F, true, true>;
  }
}

template <class T, class F>
void fill_ternary(MicroRun* row) {
  row[0] = ternary<T, F, false, false, false>;
  row[1] = ternary<T, F, true, false, false>;
  row[2] = ternary<T, F, false, true, false>;
  row[3] = ternary<T, F, true, true, false>;
  row[4] = ternary<T, F, false, false, true>;
  row[5] = ternary<T, F, true, false, true>;
  row[6] = ternary<T, F, false, true, true>;
  row[7] = ternary<T, F, true, true, true>;
}

template <class T, class... F>
void fill_unaries(MicroRun (*rows)[8]) {
  std::size_t i = 0;
  (fill_unary<T, F>(rows[i++]), ...);
}

template <class T, class... F>
void fill_binaries(MicroRun (*rows)[8]) {
  std::size_t i = 0;
  (fill_binary<T, F>(rows[i++]), ...);
}

template <class T>
VectorTable<T> make_table() {
  VectorTable<T> t{};
  // The order of enum Micro.
  fill_unaries<T, Copy, Neg, Abs, Sign, Square, Sqrt, Exp, Expm1, Log, Log1p, Sin, Cos, Tanh, Sigmoid, Erf, Floor, Ceil,
               LogicalNot>(t.micro);
  fill_binaries<T, Add, Sub, Mul, Div, Maximum, Minimum, Pow, Less, LessEqual, Equal, NotEqual>(t.micro + 18);
  fill_ternary<T, Select>(t.micro[29]);
  t.sum = reduce<T, SumOf>;
  t.max = reduce<T, MaxOf>;
  t.min = reduce<T, MinOf>;
  t.sum_lines = reduce_lines<T, SumOf>;
  t.max_lines = reduce_lines<T, MaxOf>;
  t.min_lines = reduce_lines<T, MinOf>;
  t.repeat = repeat<T>;
  t.sum_rows = reduce_rows<T, SumOf>;
  t.max_rows = reduce_rows<T, MaxOf>;
  t.min_rows = reduce_rows<T, MinOf>;
  t.keep_mask = keep_mask<T>;
  return t;
}

#define CHAINRULE_STRING(x) #x
#define CHAINRULE_NAME(x) CHAINRULE_STRING(x)

}  // namespace

const VectorTables& tables() {
  static const VectorTables all{CHAINRULE_NAME(CHAINRULE_ARCH), make_table<float>(), make_table<double>()};
  return all;
}

}  // namespace chainrule::kernels::CHAINRULE_ARCH
