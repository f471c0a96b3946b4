// Vector kernels, compiled once for each instruction set (see vector_table.hpp).
//
// Each functor is written once over `auto` vectors. Where a function of xsimd is inexact for some arguments (its
// exponentials flush small results and overflow early, its logarithm does not know denormal numbers), a vector that
// holds such an argument is computed by libm, element by element: the fast path stays fast and the rest is right.
// Nor is xsimd's != used, which with AVX is false for NaN, nor its negation, floor and ceil as they are, which lose the
// sign of a zero for some instruction sets.
#include <chainrule/framework/kernels/vector_table.hpp>

#include <cmath>
#include <cstring>
#include <limits>

#include <xsimd/xsimd.hpp>

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

template <class T, class F>
Batch<T> lanes(F f, Batch<T> x) {
  T in[width<T>];
  x.store_unaligned(in);
  for (std::size_t i = 0; i < width<T>; ++i) in[i] = f(in[i]);
  return load(in);
}

template <class T, class F>
Batch<T> lanes(F f, Batch<T> x, Batch<T> y) {
  T a[width<T>];
  T b[width<T>];
  x.store_unaligned(a);
  y.store_unaligned(b);
  for (std::size_t i = 0; i < width<T>; ++i) a[i] = f(a[i], b[i]);
  return load(a);
}

template <class T>
constexpr bool single = sizeof(T) == 4;

template <class M, class T>
Batch<T> flag(M mask, Batch<T> one) {
  return xsimd::select(mask, one, Batch<T>(T(0)));
}

// `vector` where all of x lies in [low, high], else `scalar` for each element.
template <class T, class V, class S>
Batch<T> within(Batch<T> x, double low, double high, V vector, S scalar) {
  if (xsimd::all((x >= Batch<T>(T(low))) & (x <= Batch<T>(T(high))))) return vector(x);
  return lanes<T>(scalar, x);
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
CHAINRULE_MICRO(Exp, (B x), { return vector_exp(x); })
CHAINRULE_MICRO(Expm1, (B x), {
  using T = typename B::value_type;
  return within(
      x, -30, single<T> ? 80 : 700, [](auto v) { return keep_zero(v, xsimd::expm1(v)); },
      [](T v) { return std::expm1(v); });
})
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
CHAINRULE_MICRO(Erf, (B x), {
  using T = typename B::value_type;
  return lanes<T>([](T v) { return std::erf(v); }, x);
})
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
CHAINRULE_MICRO(Pow, (B a, B b), {
  using T = typename B::value_type;
  return lanes<T>([](T x, T y) { return std::pow(x, y); }, a, b);
})
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
    T padded[width<T>];
    for (std::size_t k = 0; k < width<T>; ++k) padded[k] = T(1);
    std::memcpy(padded, p + i, count * sizeof(T));
    return load(padded);
  }
};

template <class T>
void store_tail(Batch<T> value, T* out, std::size_t count) {
  T padded[width<T>];
  value.store_unaligned(padded);
  std::memcpy(out, padded, count * sizeof(T));
}

template <class T, class F, bool A>
void unary(void* out, const void* a, const void* /*b*/, const void* /*c*/, std::size_t n) {
  auto* to = static_cast<T*>(out);
  const Operand<T, A> x(a);
  std::size_t i = 0;
  for (; i + width<T> <= n; i += width<T>) F::apply(x.at(i)).store_unaligned(to + i);
  if (i < n) store_tail<T>(F::apply(x.tail(i, n - i)), to + i, n - i);
}

template <class T, class F, bool A, bool B>
void binary(void* out, const void* a, const void* b, const void* /*c*/, std::size_t n) {
  auto* to = static_cast<T*>(out);
  const Operand<T, A> x(a);
  const Operand<T, B> y(b);
  std::size_t i = 0;
  for (; i + width<T> <= n; i += width<T>) F::apply(x.at(i), y.at(i)).store_unaligned(to + i);
  if (i < n) store_tail<T>(F::apply(x.tail(i, n - i), y.tail(i, n - i)), to + i, n - i);
}

template <class T, class F, bool A, bool B, bool C>
void ternary(void* out, const void* a, const void* b, const void* c, std::size_t n) {
  auto* to = static_cast<T*>(out);
  const Operand<T, A> x(a);
  const Operand<T, B> y(b);
  const Operand<T, C> z(c);
  std::size_t i = 0;
  for (; i + width<T> <= n; i += width<T>) F::apply(x.at(i), y.at(i), z.at(i)).store_unaligned(to + i);
  if (i < n) store_tail<T>(F::apply(x.tail(i, n - i), y.tail(i, n - i), z.tail(i, n - i)), to + i, n - i);
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
    T padded[w];
    for (std::size_t k = 0; k < w; ++k) padded[k] = F::template start<T>();
    std::memcpy(padded, x + i, (n - i) * sizeof(T));
    acc[1] = F::combine(acc[1], load(padded));
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
  // Halves onto halves, through padded vectors so that one definition of the operation serves.
  for (std::size_t half = w / 2; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) {
      T a[w] = {};
      T b[w] = {};
      a[0] = parts[i];
      b[0] = parts[i + half];
      T c[w];
      F::combine(load(a), load(b)).store_unaligned(c);
      parts[i] = c[0];
    }
  }
  return parts[0];
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
    const auto part = [left](const T* p) {
      T padded[width<T>] = {};
      std::memcpy(padded, p, left * sizeof(T));
      return load(padded);
    };
    reduce_rows_pairwise<T, F, 1>(x + j, rows, columns, part, &result);
    store_tail<T>(result, out + j, left);
  }
}

// ---- the table

template <class T, class F>
void fill_unary(MicroRun* row) {
  row[0] = unary<T, F, false>;
  row[1] = unary<T, F, true>;
}

template <class T, class F>
void fill_binary(MicroRun* row) {
  row[0] = binary<T, F, false, false>;
  row[1] = binary<T, F, true, false>;
  row[2] = binary<T, F, false, true>;
  row[3] = binary<T, F, true, true>;
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
  t.sum_rows = reduce_rows<T, SumOf>;
  t.max_rows = reduce_rows<T, MaxOf>;
  t.min_rows = reduce_rows<T, MinOf>;
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
