// Functions of vectors as sequences of simple instructions. Not installed.
//
// They are written once over a machine M. One M computes with a processor's vectors (simd/machine.hpp), another records
// the instructions, from which machine code is made for a whole fused group (fused/vector_code.hpp): both give the same
// bits. None has branches, so that what an element becomes does not depend on its neighbours, and infinities, NaN,
// overflow and denormal results come out right. Only sine and cosine leave arguments to libm, lane by lane: those
// beyond a million or, in float, 65,536, from which multiples of pi / 2 cannot be taken off by three products.
//
// M has types T (float or double), V (a vector of them) and Mask (of lanes), and
//   number(x)                      every lane x
//   add, sub, mul, div, sqrt       as IEEE 754 has them
//   min(a, b), max(a, b)           b where either is NaN or both are zeros
//   fma(a, b, c), nfma(a, b, c)    a b + c and c - a b, rounded once
//   round(x), floor(x), ceil(x)    to an integer; round to the nearest, ties to even
//   scale(x, n)                    x 2^floor(n), rounded once
//   mantissa(x), exponent(x)       |x| = mantissa(x) 2^(exponent(x) - exponent(mantissa(x))), the mantissa in [3/4,
//   3/2) and
//                                  NaN for x < 0; of 0 and infinity it is 1 and the exponent infinite
//   bit_and, bit_or, bit_xor, bit_andnot(a, b)    of the lanes' bits; the last is ~a & b
//   less, less_equal, equal        Masks, false for NaN
//   is_nan(x), not_less_equal(a, b)               Masks; the second true for NaN
//   select(mask, a, b)             a where the mask is set
//   sin_of(mask, x, y), cos_of(mask, x, y)        libm's function of x where the mask is set, and y elsewhere
#pragma once

#include <cstddef>
#include <limits>

namespace chainrule::kernels {

template <class T>
struct MathConstants;

// The polynomials are minimax ones by relative error, with coefficients rounded to the type: for |r| <= log(2) / 2
//   exp(r) = 1 + r + r^2 (c[0] + c[1] r + ...), made for exp (exp_terms) and for exp - 1 (expm1_terms), and
//   tanh(x) = x + x^3 (c[0] + c[1] x^2 + ...) for |x| <= small_tanh, and
//   log((1 + s) / (1 - s)) = 2 s + s^3 (c[0] + c[1] s^2 + ...) for |s| <= 1/5, and
//   sin(r) = r + r^3 (c[0] + c[1] r^2 + ...) and cos(r) = 1 - r^2 / 2 + r^4 (d[0] + d[1] r^2 + ...) for |r| <= pi / 4
//   and a little more, and
//   erf(x) = x + x (c[0] + c[1] x^2 + ...) for |x| <= small_erf and 1 - exp(d[0] + d[1] x + ...) for x up to
//   highest_erf.
template <>
struct MathConstants<float> {
  static constexpr double whole = 0x1.8p23;         // numbers near it are integers
  static constexpr double log2_high = 0x1.62e4p-1;  // so short that its products with integers here are exact
  static constexpr double log2_low = 0x1.7f7d1cf79abcap-20;
  static constexpr double lowest_exp = -104;  // exp of what is less is 0
  static constexpr double highest_exp = 89;   // and of what is more infinite
  static constexpr double lowest_expm1 = -17.5;
  static constexpr double exp_terms[] = {0x1.fffffap-2, 0x1.555492p-3, 0x1.555a26p-5, 0x1.123984p-7, 0x1.694cbap-10};
  static constexpr double expm1_terms[] = {0x1.fffffep-2, 0x1.5554bp-3, 0x1.555716p-5, 0x1.122798p-7, 0x1.6b735cp-10};
  static constexpr double small_tanh = 0.66;
  static constexpr double tanh_terms[] = {-0x1.555552p-2, 0x1.110feep-3,  -0x1.b9d7dep-5,
                                          0x1.629bb2p-6,  -0x1.077afep-7, 0x1.09021ap-9};
  static constexpr double log_terms[] = {0x1.555556p-1, 0x1.99992cp-2, 0x1.246afep-2, 0x1.df6cb2p-3};
  static constexpr double half_pi[] = {0x1.921fb6p+0, -0x1.777a5cp-25, -0x1.ee59dap-50};  // its sum, to 75 bits
  static constexpr double far = 65'536;                                                   // what is beyond is libm's
  static constexpr double sin_terms[] = {-0x1.555556p-3, 0x1.11110ep-7, -0x1.a012a2p-13, 0x1.6d6c48p-19};
  static constexpr double cos_terms[] = {0x1.555554p-5, -0x1.6c123p-10, 0x1.9b8446p-16};
  // 1 / (5 + 2 k) u^k; -log(5/4) and -log(3/4) as sums of two
  static constexpr double pow_terms[] = {1.0 / 5, 1.0 / 7, 1.0 / 9};
  static constexpr double third_low = -0x1.555556p-27;
  static constexpr double log_four_fifths[] = {-0x1.c8ff7cp-3, -0x1.e6a688p-29};
  static constexpr double log_four_thirds[] = {0x1.269622p-2, -0x1.d9648ep-27};
  static constexpr double small_erf = 1;
  static constexpr double highest_erf = 3.95;  // erf of what is more is 1
  static constexpr double erf_terms[] = {0x1.06eba8p-3, -0x1.81274p-2,   0x1.ce2d34p-4, -0x1.b7fc22p-6,
                                         0x1.541988p-8, -0x1.a472e2p-11, 0x1.4a95b2p-14};
  static constexpr double log_erfc_terms[] = {0x1.41a996p-13, -0x1.21202ap0,   -0x1.446acep-1,
                                              -0x1.b9fb4cp-4, 0x1.96884cp-6,   -0x1.070564p-8,
                                              0x1.9378eep-12, -0x1.9db35ep-17, -0x1.63dffcp-21};
};

template <>
struct MathConstants<double> {
  static constexpr double whole = 0x1.8p52;
  static constexpr double log2_high = 0x1.62e42feep-1;
  static constexpr double log2_low = 0x1.a39ef35793c76p-33;
  static constexpr double lowest_exp = -746;
  static constexpr double highest_exp = 710;
  static constexpr double lowest_expm1 = -38;
  static constexpr double exp_terms[] = {0x1.000000000000ap-1,  0x1.55555555554fep-3,  0x1.55555555506b3p-5,
                                         0x1.1111111126b33p-7,  0x1.6c16c1847a2ap-10,  0x1.a01a012ff45bcp-13,
                                         0x1.a0199954481e6p-16, 0x1.71df18d322b53p-19, 0x1.28ae083e01ffdp-22,
                                         0x1.ad9332c2b3e29p-26};
  static constexpr double expm1_terms[] = {0x1p-1,
                                           0x1.5555555555559p-3,
                                           0x1.555555555554dp-5,
                                           0x1.111111110f657p-7,
                                           0x1.6c16c16c1aafdp-10,
                                           0x1.a01a01b0020c7p-13,
                                           0x1.a01a018e0ee55p-16,
                                           0x1.71ddf81434994p-19,
                                           0x1.27e5133c6969p-22,
                                           0x1.af5f2250cf585p-26,
                                           0x1.1f1a2d3a759dcp-29};
  static constexpr double small_tanh = 0.66;
  static constexpr double tanh_terms[] = {-0x1.5555555555549p-2,  0x1.11111111101f6p-3,  -0x1.ba1ba1b94c9a4p-5,
                                          0x1.664f48562b7f2p-6,   -0x1.226e2fb9b07dfp-7, 0x1.d6d2e71f18a0bp-9,
                                          -0x1.7d96b6b575c19p-10, 0x1.34df12f6ebc3bp-11, -0x1.ef38f2366223fp-13,
                                          0x1.79da96abde1bp-14,   -0x1.e291c935819ap-16, 0x1.6d1b09e308de5p-18};
  static constexpr double log_terms[] = {0x1.5555555555555p-1, 0x1.9999999999ff6p-2, 0x1.24924923cf0e3p-2,
                                         0x1.c71c72ee39818p-3, 0x1.745ca894f2e2bp-3, 0x1.3b2a4ce5d7548p-3,
                                         0x1.0e83f6cb94d9ep-3, 0x1.16d5b074c19ap-3};
  static constexpr double half_pi[] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110};
  static constexpr double far = 1'048'576;
  static constexpr double sin_terms[] = {-0x1.5555555555554p-3, 0x1.1111111110942p-7,   -0x1.a01a019df5d9ep-13,
                                         0x1.71de36e5b0c89p-19, -0x1.ae5f59b5473f3p-26, 0x1.5dcd9febfa03dp-33};
  static constexpr double cos_terms[] = {0x1.5555555555555p-5,   -0x1.6c16c16c1682ep-10, 0x1.a01a019f07b63p-16,
                                         -0x1.27e4f9bf57804p-22, 0x1.1eeb102c5d4c0p-29,  -0x1.904019e2f6241p-37};
  static constexpr double pow_terms[] = {1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17};
  static constexpr double third_low = 0x1.5555555555555p-56;
  static constexpr double log_four_fifths[] = {-0x1.c8ff7c79a9a22p-3, 0x1.4f689f8434012p-57};
  static constexpr double log_four_thirds[] = {0x1.269621134db92p-2, 0x1.e0efadd9db02bp-56};
  static constexpr double small_erf = 1;
  static constexpr double highest_erf = 5.95;
  static constexpr double erf_terms[] = {0x1.06eba8214db69p-3,   -0x1.812746b0379e6p-2,  0x1.ce2f21a042b27p-4,
                                         -0x1.b82ce31284a2cp-6,  0x1.565bcd0db034cp-8,   -0x1.c02db3d8d1963p-11,
                                         0x1.f9a3219c50ffcp-14,  -0x1.f4d1decc413e9p-17, 0x1.b9deebb68bd9p-20,
                                         -0x1.5f1d02e4fc846p-23, 0x1.f7a1dcde20a27p-27,  -0x1.3863ed2c19caep-30,
                                         0x1.056757aeb95eep-34};
  static constexpr double log_erfc_terms[] = {
      -0x1.3133ee36206bep-24, -0x1.20dd685b4a831p0,   -0x1.45f382582d40cp-1,  -0x1.a4e9802eb780ap-4,
      0x1.390ce71e87505p-6,   0x1.f3191c00fae77p-13,  -0x1.c33e72fd009f6p-10, 0x1.3a522923044cfp-11,
      -0x1.0cfa114fc1de9p-16, -0x1.699c04f56d7f7p-14, 0x1.b4368917bab75p-15,  -0x1.3dee80481e02ep-16,
      0x1.4f97b23ea5f91p-18,  -0x1.0b4f3dc8afc18p-20, 0x1.4137010b44e7dp-23,  -0x1.1bb4667b24e3dp-26,
      0x1.5c70ff2db7a12p-30,  -0x1.0a0f66a767fa9p-34, 0x1.7c851564182dfp-40};
};

// c[0] + c[1] r + c[2] r^2 + ..., by Horner's rule.
template <class M, std::size_t n>
typename M::V polynomial(M& m, typename M::V r, const double (&c)[n]) {
  auto p = m.number(c[n - 1]);
  for (std::size_t i = n - 1; i-- > 0;) p = m.fma(p, r, m.number(c[i]));
  return p;
}

template <class M>
typename M::V negative(M& m, typename M::V x) {
  return m.bit_xor(x, m.number(-0.0));
}

template <class M>
typename M::V magnitude(M& m, typename M::V x) {
  return m.bit_andnot(m.number(-0.0), x);
}

// x = n log(2) + r with an integer n and |r| <= log(2) / 2, a little more.
template <class M>
struct Reduced {
  typename M::V n;
  typename M::V r;
};

template <class M>
Reduced<M> reduce_by_log2(M& m, typename M::V x) {
  using C = MathConstants<typename M::T>;
  // What is added and taken off again leaves no digits behind the point.
  const auto whole = m.number(C::whole);
  const auto n = m.sub(m.fma(x, m.number(1.4426950408889634), whole), whole);
  return {n, m.nfma(n, m.number(C::log2_low), m.nfma(n, m.number(C::log2_high), x))};
}

// exp(x) for x >= lowest_exp, or NaN
template <class M>
typename M::V exp_of_large(M& m, typename M::V x) {
  const auto [n, r] = reduce_by_log2(m, x);
  const auto p = polynomial(m, r, MathConstants<typename M::T>::exp_terms);
  const auto one = m.number(1);
  return m.scale(m.fma(m.fma(p, r, one), r, one), n);
}

// exp(x)
template <class M>
typename M::V exp(M& m, typename M::V x) {
  using C = MathConstants<typename M::T>;
  // NaN passes minima and maxima as their second operand.
  return exp_of_large(m, m.min(m.number(C::highest_exp), m.max(m.number(C::lowest_exp), x)));
}

// exp(x) - 1, exact near 0
template <class M>
typename M::V expm1(M& m, typename M::V x) {
  using C = MathConstants<typename M::T>;
  const auto inside = m.min(m.number(C::highest_exp), m.max(m.number(C::lowest_expm1), x));
  const auto [n, r] = reduce_by_log2(m, inside);
  const auto one = m.number(1);
  // 2^n (exp(r) - 1 + (1 - 2^-n)), where r + (1 - 2^-n) is mostly exact
  const auto start = m.add(r, m.sub(one, m.scale(one, negative(m, n))));
  const auto y = m.scale(m.fma(m.mul(r, r), polynomial(m, r, C::expm1_terms), start), n);
  return m.select(m.equal(x, m.number(0)), x, y);
}

// log(u) + c for a c that is small beside u. With u = 2^e (1 + f), s = f / (2 + f) and R = s^2 (2/3 + ...) it is
// e log(2) + f - (f^2 / 2 - s (f^2 / 2 + R)): the freely distributable fdlibm's way to lose nothing.
template <class M>
typename M::V log_plus(M& m, typename M::V u, typename M::V c) {
  using C = MathConstants<typename M::T>;
  const auto mantissa = m.mantissa(u);
  const auto e = m.sub(m.exponent(u), m.exponent(mantissa));
  const auto f = m.sub(mantissa, m.number(1));
  const auto s = m.div(f, m.add(m.number(2), f));
  const auto z = m.mul(s, s);
  const auto half_square = m.mul(m.mul(m.number(0.5), f), f);
  const auto r = m.fma(z, polynomial(m, z, C::log_terms), half_square);
  const auto low = m.fma(s, r, m.fma(e, m.number(C::log2_low), c));
  return m.fma(e, m.number(C::log2_high), m.sub(f, m.sub(half_square, low)));
}

// log(x)
template <class M>
typename M::V log(M& m, typename M::V x) {
  return log_plus(m, x, m.number(0));
}

// log(1 + x) = log(u) + (x - (u - 1)) / u for u = 1 + x rounded
template <class M>
typename M::V log1p(M& m, typename M::V x) {
  const auto one = m.number(1);
  const auto u = m.add(one, x);
  const auto c = m.div(m.sub(x, m.sub(u, one)), u);
  // Of 0 and infinity log(u) is all.
  const auto y = log_plus(m, u, m.select(m.is_nan(c), m.number(0), c));
  return m.select(m.equal(x, m.number(0)), x, y);
}

// tanh(x): near 0 by a polynomial, elsewhere 1 - 2 q for q = e / (1 + e) and e = exp(-2 |x|), with the sign of x. Its
// slope, op sech2, makes e and q by the same instructions, which vector code has once.
template <class M>
typename M::V tanh(M& m, typename M::V x) {
  using C = MathConstants<typename M::T>;
  const auto positive = magnitude(m, x);
  const auto one = m.number(1);
  const auto e = exp(m, m.mul(m.number(-2), positive));
  const auto large = m.nfma(m.number(2), m.div(e, m.add(one, e)), one);
  const auto square = m.mul(positive, positive);
  const auto small = m.fma(m.mul(square, positive), polynomial(m, square, C::tanh_terms), positive);
  const auto y = m.select(m.less(positive, m.number(C::small_tanh)), small, large);
  return m.bit_or(y, m.bit_and(x, m.number(-0.0)));
}

// erf(x): near 0 by a polynomial, elsewhere 1 - exp(log(erfc(|x|))) with the sign of x
template <class M>
typename M::V erf(M& m, typename M::V x) {
  using C = MathConstants<typename M::T>;
  const auto positive = m.min(m.number(C::highest_erf), magnitude(m, x));
  const auto small = m.fma(positive, polynomial(m, m.mul(positive, positive), C::erf_terms), positive);
  const auto large = m.sub(m.number(1), exp_of_large(m, polynomial(m, positive, C::log_erfc_terms)));
  const auto y = m.select(m.less(positive, m.number(C::small_erf)), small, large);
  return m.bit_or(y, m.bit_and(x, m.number(-0.0)));
}

// 1 / (1 + exp(-x)): the exponential is of a negative number, so that it never overflows and the small end is exact.
// sigmoid(x) and sigmoid(-x), y = 1 / (1 + e) and e / (1 + e) = e - e^2 y, have all but the choice in common.
template <class M>
typename M::V sigmoid(M& m, typename M::V x) {
  using C = MathConstants<typename M::T>;
  const auto e = exp_of_large(m, m.max(m.number(C::lowest_exp), negative(m, magnitude(m, x))));
  const auto one = m.number(1);
  const auto y = m.div(one, m.add(one, e));
  return m.select(m.less_equal(m.number(0), x), y, m.nfma(e, m.mul(e, y), e));
}

// |x| = n pi / 2 + r, for |x| <= far: the first difference is exact, as its terms are multiples of the last bits of 1.
template <class M>
struct Turned {
  typename M::V n;
  typename M::V sin;  // of r
  typename M::V cos;
};

template <class M>
Turned<M> turn(M& m, typename M::V positive) {
  using C = MathConstants<typename M::T>;
  const auto n = m.round(m.mul(positive, m.number(0.6366197723675814)));
  auto r = positive;
  for (const double part : C::half_pi) r = m.nfma(n, m.number(part), r);
  const auto z = m.mul(r, r);
  const auto one = m.number(1);
  const auto sine = m.fma(m.mul(r, z), polynomial(m, z, C::sin_terms), r);
  const auto half = m.mul(m.number(0.5), z);
  const auto high = m.sub(one, half);
  // 1 - r^2 / 2 with what its rounding has lost
  const auto cosine = m.add(high, m.fma(m.mul(z, z), polynomial(m, z, C::cos_terms), m.sub(m.sub(one, high), half)));
  return {n, sine, cosine};
}

// Sine where n is even, cosine where it is odd, negative where n / 2 rounded down is odd.
template <class M>
typename M::V by_quarter(M& m, typename M::V n, typename M::V even, typename M::V odd) {
  const auto half = m.number(0.5);
  const auto pairs = m.mul(n, half);
  const auto whole_pairs = m.floor(pairs);
  const auto turns = m.mul(whole_pairs, half);
  const auto value = m.select(m.less(whole_pairs, pairs), odd, even);
  return m.bit_xor(value, m.select(m.less(m.floor(turns), turns), m.number(-0.0), m.number(0)));
}

// sin(x), of either sign that of |x| with the sign of x
template <class M>
typename M::V sin(M& m, typename M::V x) {
  const auto positive = magnitude(m, x);
  const auto [n, sine, cosine] = turn(m, positive);
  const auto y = m.bit_xor(by_quarter(m, n, sine, cosine), m.bit_and(x, m.number(-0.0)));
  return m.sin_of(m.less(m.number(MathConstants<typename M::T>::far), positive), x, y);
}

// cos(x) = sin(|x| + pi / 2)
template <class M>
typename M::V cos(M& m, typename M::V x) {
  const auto positive = magnitude(m, x);
  const auto [n, sine, cosine] = turn(m, positive);
  const auto y = by_quarter(m, m.add(n, m.number(1)), sine, cosine);
  return m.cos_of(m.less(m.number(MathConstants<typename M::T>::far), positive), x, y);
}

// The unevaluated sum of two numbers, the second as small as the rounding of the first.
template <class M>
struct Two {
  typename M::V high;
  typename M::V low;
};

// a + b exactly, where b is 0 or |a| >= |b|
template <class M>
Two<M> exact_sum(M& m, typename M::V a, typename M::V b) {
  const auto high = m.add(a, b);
  return {high, m.add(m.sub(a, high), b)};
}

template <class M>
Two<M> exact_product(M& m, typename M::V a, typename M::V b) {
  const auto high = m.mul(a, b);
  return {high, m.fma(a, b, negative(m, high))};
}

template <class M>
Two<M> product(M& m, Two<M> a, Two<M> b) {
  const auto [high, low] = exact_product(m, a.high, b.high);
  return {high, m.fma(a.high, b.low, m.fma(a.low, b.high, low))};
}

// log(x) to ten bits more than twelve beyond the type, for x >= 0: so exact that a power, whose exponent is up to a
// thousand times that, has its last bit right but for one. Of 0 and infinity `high` is right and `low` NaN.
//
// x = 2^e m / c with a c of 5/4, 1 or 3/4 that brings m near 1, so near that f = m - 1 is exact. With s = f / (2 + f)
// and u = s^2 the logarithm of m is 2 s (1 + u (1/3 + u (1/5 + ...))).
template <class M>
Two<M> exact_log(M& m, typename M::V x) {
  using C = MathConstants<typename M::T>;
  const auto mantissa = m.mantissa(x);
  const auto e = m.sub(m.exponent(x), m.exponent(mantissa));
  const auto below = m.less(mantissa, m.number(0.9));
  const auto above = m.less(m.number(1.15), mantissa);
  const auto choose = [&](double if_below, double if_above, double otherwise) {
    return m.select(below, m.number(if_below), m.select(above, m.number(if_above), m.number(otherwise)));
  };
  const auto f = m.fma(mantissa, choose(1.25, 0.75, 1), m.number(-1));
  const auto two = m.number(2);
  const Two<M> t = exact_sum(m, two, f);
  const auto inverse = m.div(m.number(1), t.high);
  const auto quotient = m.mul(f, inverse);
  const auto left = m.nfma(quotient, t.low, m.nfma(quotient, t.high, f));
  const Two<M> s = {quotient, m.mul(left, inverse)};
  const Two<M> u = product(m, s, s);
  const auto rest = m.mul(u.high, polynomial(m, u.high, C::pow_terms));
  const Two<M> sum = exact_sum(m, m.number(1.0 / 3), rest);
  const Two<M> w = product(m, u, {sum.high, m.add(sum.low, m.number(C::third_low))});
  const Two<M> twice = {m.mul(two, s.high), m.mul(two, s.low)};
  const Two<M> p = product(m, twice, w);
  const Two<M> of_m = exact_sum(m, twice.high, p.high);
  const auto c_high = choose(C::log_four_fifths[0], C::log_four_thirds[0], 0);
  const auto c_low = choose(C::log_four_fifths[1], C::log_four_thirds[1], 0);
  const Two<M> start = exact_sum(m, m.mul(e, m.number(C::log2_high)), c_high);
  const Two<M> high = exact_sum(m, start.high, of_m.high);
  const auto low = m.add(m.add(p.low, twice.low), m.fma(e, m.number(C::log2_low), c_low));
  return {high.high, m.add(high.low, m.add(start.low, m.add(of_m.low, low)))};
}

// x to the power of y, with all that C99 says of zeros, infinities, NaN and negative x (its annex F, 9.4.4): exp(y
// log|x|) with the sign that an odd y gives.
template <class M>
typename M::V pow(M& m, typename M::V x, typename M::V y) {
  using C = MathConstants<typename M::T>;
  const auto zero = m.number(0);
  const auto one = m.number(1);
  const auto positive = magnitude(m, x);
  const Two<M> log = exact_log(m, positive);
  const auto z = m.mul(y, log.high);
  const auto beyond = m.fma(y, log.low, m.fma(y, log.high, negative(m, z)));
  // Where the result is 0 or infinite what is beyond may be NaN.
  const auto z_low = m.select(m.less(magnitude(m, z), m.number(-C::lowest_exp)), beyond, zero);
  const auto z_high = m.min(m.number(C::highest_exp), m.max(m.number(C::lowest_exp), z));
  const auto n = m.round(m.mul(z_high, m.number(1.4426950408889634)));
  const Two<M> r = exact_sum(m, m.nfma(n, m.number(C::log2_high), z_high), m.nfma(n, m.number(C::log2_low), z_low));
  const auto curved = m.fma(m.mul(r.high, r.high), polynomial(m, r.high, C::expm1_terms), r.low);
  const auto power = m.scale(m.add(one, m.add(r.high, curved)), n);
  const auto of_one = m.select(m.equal(positive, one), one, power);
  // Of negative x: whole exponents only, but for -infinity and -0.
  const auto half = m.mul(y, m.number(0.5));
  const auto whole = m.equal(m.floor(y), y);
  const auto sign = m.select(whole, m.select(m.less(m.floor(half), half), m.bit_and(x, m.number(-0.0)), zero), zero);
  const auto with_sign = m.bit_or(of_one, sign);
  const auto least = m.number(-std::numeric_limits<typename M::T>::max());
  const auto nan = m.number(std::numeric_limits<double>::quiet_NaN());
  const auto of_negative = m.select(whole, with_sign, nan);
  const auto finite = m.select(m.less(x, zero), m.select(m.less_equal(least, x), of_negative, with_sign), with_sign);
  return m.select(m.equal(y, zero), one, m.select(m.equal(x, one), one, finite));
}

// Either NaN makes NaN: a where a is greater or NaN, else b.
template <class M>
typename M::V maximum(M& m, typename M::V a, typename M::V b) {
  return m.select(m.is_nan(a), a, m.max(a, b));
}

template <class M>
typename M::V minimum(M& m, typename M::V a, typename M::V b) {
  return m.select(m.is_nan(a), a, m.min(a, b));
}

}  // namespace chainrule::kernels
