// Micro-operations over runs of elements.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>

#include <chainrule/framework/kernels/simd/batch.hpp>
#include <chainrule/framework/kernels/simd/operations.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

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

// The loops of one micro-operation, by which operands are a single element.
using Row = MicroRun[8];

template <class T, class F>
void fill_unary(Row& row) {
  if constexpr (requires { F::one(T(0)); }) {
    row[0] = unary_by_one<T, F, false>;
    row[1] = unary_by_one<T, F, true>;
  } else {
    row[0] = unary<T, F, false>;
    row[1] = unary<T, F, true>;
  }
}

template <class T, class F>
void fill_binary(Row& row) {
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
void fill_ternary(Row& row) {
  row[0] = ternary<T, F, false, false, false>;
  row[1] = ternary<T, F, true, false, false>;
  row[2] = ternary<T, F, false, true, false>;
  row[3] = ternary<T, F, true, true, false>;
  row[4] = ternary<T, F, false, false, true>;
  row[5] = ternary<T, F, true, false, true>;
  row[6] = ternary<T, F, false, true, true>;
  row[7] = ternary<T, F, true, true, true>;
}

// A row for each of F; what is behind them.
template <class T, class... F>
Row* fill_unaries(Row* rows) {
  (fill_unary<T, F>(*rows++), ...);
  return rows;
}

template <class T, class... F>
Row* fill_binaries(Row* rows) {
  (fill_binary<T, F>(*rows++), ...);
  return rows;
}

}  // namespace

template <class T>
void fill_micro_operations(VectorTable<T>& table) {
  // The order of enum Micro.
  auto* rows = fill_unaries<T, Copy, Neg, Abs, Sign, Square, Sqrt, Exp, Expm1, Log, Log1p, Sin, Cos, Tanh, Sigmoid, Erf,
                            Floor, Ceil, LogicalNot>(table.micro);
  rows = fill_binaries<T, Add, Sub, Mul, Div, Maximum, Minimum, Pow, Less, LessEqual, Equal, NotEqual>(rows);
  fill_ternary<T, Select>(*rows);
}
template void fill_micro_operations(VectorTable<float>& table);
template void fill_micro_operations(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
