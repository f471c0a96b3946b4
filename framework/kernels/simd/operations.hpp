// The micro-operations (framework/graph/elementwise.hpp) on batches. Not installed.
//
// Each functor is written once over `auto` vectors. Where a function of xsimd is inexact for some arguments (its
// exponentials flush small results and overflow early, its logarithm does not know denormal numbers), a vector that
// holds such an argument is computed by libm, element by element: the fast path stays fast and the rest is right.
// Nor is xsimd's != used, which with AVX is false for NaN, nor its negation, floor and ceil as they are, which lose the
// sign of a zero for some instruction sets.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

#include <chainrule/framework/kernels/simd/batch.hpp>
#include <chainrule/framework/kernels/simd/machine.hpp>
#include <chainrule/framework/kernels/vector_math.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

template <class M, class T>
Batch<T> flag(M mask, Batch<T> one) {
  return xsimd::select(mask, one, Batch<T>(T(0)));
}

#if !defined(__AVX2__)
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

template <class T>
Batch<T> vector_exp(Batch<T> x) {
  return within(
      x, single<T> ? -87 : -708, single<T> ? 88 : 709, [](auto v) { return xsimd::exp(v); },
      [](T v) { return std::exp(v); });
}
#endif

#define CHAINRULE_MICRO(name, parameters, body) \
  struct name {                                 \
    template <class B>                          \
    static B apply parameters body              \
  };

#if defined(__AVX2__)
// A function of framework/kernels/vector_math.hpp.
#define CHAINRULE_VECTOR_MATH(Name, function) \
  CHAINRULE_MICRO(Name, (B x), {              \
    Vectors<typename B::value_type> m;        \
    return kernels::function(m, x);           \
  })
#endif

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
CHAINRULE_VECTOR_MATH(Erf, erf)
CHAINRULE_VECTOR_MATH(Exp, exp)
CHAINRULE_VECTOR_MATH(Expm1, expm1)
CHAINRULE_VECTOR_MATH(Tanh, tanh)
CHAINRULE_VECTOR_MATH(Sigmoid, sigmoid)
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
#if defined(__AVX2__)
CHAINRULE_VECTOR_MATH(Log, log)
CHAINRULE_VECTOR_MATH(Log1p, log1p)
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
#if defined(__AVX2__)
CHAINRULE_VECTOR_MATH(Sin, sin)
CHAINRULE_VECTOR_MATH(Cos, cos)
CHAINRULE_MICRO(Pow, (B x, B y), {
  Vectors<typename B::value_type> m;
  return kernels::pow(m, x, y);
})
#else
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
#endif
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
CHAINRULE_MICRO(Maximum, (B a, B b), { return maximum(a, b); })
CHAINRULE_MICRO(Minimum, (B a, B b), { return minimum(a, b); })
CHAINRULE_MICRO(Less, (B a, B b), { return flag(a < b, B(typename B::value_type(1))); })
CHAINRULE_MICRO(LessEqual, (B a, B b), { return flag(a <= b, B(typename B::value_type(1))); })
CHAINRULE_MICRO(Equal, (B a, B b), { return flag(a == b, B(typename B::value_type(1))); })
CHAINRULE_MICRO(NotEqual, (B a, B b), {
  using T = typename B::value_type;
  return xsimd::select(a == b, B(T(0)), B(T(1)));
})
CHAINRULE_MICRO(Select, (B c, B a, B b), { return xsimd::select(c == B(typename B::value_type(0)), b, a); })
#undef CHAINRULE_VECTOR_MATH
#undef CHAINRULE_MICRO

}  // namespace

}  // namespace chainrule::kernels::CHAINRULE_ARCH
