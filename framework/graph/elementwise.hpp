// The language in which elementwise ops are written.
//
// An elementwise op is one functor over `auto` operands: `auto operator()(auto x) const { return x / (1 +
// simd::abs(x)); }`. The functor is run once, on simd::Traced operands, which record it as a short program of
// micro-operations. The library has every micro-operation as a vector kernel for each instruction set and floating
// dtype, so an op written in a user's file, whatever flags that file is compiled with, runs in float32 and float64 at
// full width and fuses with its neighbours in the graph.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace chainrule {

// The micro-operations, by number of operands. Booleans are 1 and 0 in the type of the computation.
enum class Micro : std::uint8_t {
  // one operand
  copy,
  neg,
  abs,
  sign,
  square,
  sqrt,
  exp,
  expm1,
  log,
  log1p,
  sin,
  cos,
  tanh,
  sigmoid,
  erf,
  floor,
  ceil,
  logical_not,
  // two operands
  add,
  sub,
  mul,
  div,
  maximum,
  minimum,
  pow,
  less,
  less_equal,
  equal,
  not_equal,
  // three operands: c != 0 ? a : b
  select,
};
inline constexpr std::size_t micro_count = static_cast<std::size_t>(Micro::select) + 1;

// Whether int64, int32 and uint8 have it, too. (Their results wrap around.)
constexpr bool has_integers(Micro micro) {
  switch (micro) {
    case Micro::sqrt:
    case Micro::exp:
    case Micro::expm1:
    case Micro::log:
    case Micro::log1p:
    case Micro::sin:
    case Micro::cos:
    case Micro::tanh:
    case Micro::sigmoid:
    case Micro::erf:
    case Micro::floor:
    case Micro::ceil:
    case Micro::div:
    case Micro::pow: return false;
    default: return true;
  }
}

constexpr int arity(Micro micro) { return micro >= Micro::select ? 3 : micro >= Micro::add ? 2 : 1; }

// A recorded functor. Operands of an instruction are inputs, numbers, attributes of the node, or earlier results.
struct MicroProgram {
  struct Operand {
    enum class Kind : std::uint8_t { input, number, attribute, result } kind = Kind::number;
    std::uint16_t index = 0;  // of the input, attribute or result
    double number = 0;
  };
  struct Instruction {
    Micro micro;
    Operand operands[3];
  };
  std::size_t inputs = 0;
  std::vector<std::string> attributes;
  std::vector<Instruction> instructions;
  Operand result;
};

namespace simd {

// An operand that records what is done with it into the program of this thread's current trace.
class Traced {
 public:
  Traced(double number) : operand_{MicroProgram::Operand::Kind::number, 0, number} {}  // NOLINT: 1 + x
  explicit Traced(MicroProgram::Operand operand) : operand_(operand) {}
  [[nodiscard]] MicroProgram::Operand operand() const { return operand_; }

 private:
  MicroProgram::Operand operand_;
};

namespace detail {

Traced record(Micro micro, Traced a);
Traced record(Micro micro, Traced a, Traced b);
Traced record(Micro micro, Traced a, Traced b, Traced c);

}  // namespace detail

inline Traced operator+(Traced a, Traced b) { return detail::record(Micro::add, a, b); }
inline Traced operator-(Traced a, Traced b) { return detail::record(Micro::sub, a, b); }
inline Traced operator*(Traced a, Traced b) { return detail::record(Micro::mul, a, b); }
inline Traced operator/(Traced a, Traced b) { return detail::record(Micro::div, a, b); }
inline Traced operator-(Traced a) { return detail::record(Micro::neg, a); }
inline Traced operator+(Traced a) { return a; }
// Comparisons give 1 or 0; use select to choose by them. With NaN all but != are false.
inline Traced operator<(Traced a, Traced b) { return detail::record(Micro::less, a, b); }
inline Traced operator<=(Traced a, Traced b) { return detail::record(Micro::less_equal, a, b); }
inline Traced operator>(Traced a, Traced b) { return detail::record(Micro::less, b, a); }
inline Traced operator>=(Traced a, Traced b) { return detail::record(Micro::less_equal, b, a); }
inline Traced operator==(Traced a, Traced b) { return detail::record(Micro::equal, a, b); }
inline Traced operator!=(Traced a, Traced b) { return detail::record(Micro::not_equal, a, b); }
inline Traced operator&&(Traced a, Traced b) {
  return detail::record(Micro::mul, detail::record(Micro::not_equal, a, 0.0), detail::record(Micro::not_equal, b, 0.0));
}
inline Traced operator||(Traced a, Traced b) {
  return detail::record(Micro::maximum, detail::record(Micro::not_equal, a, 0.0),
                        detail::record(Micro::not_equal, b, 0.0));
}
inline Traced operator!(Traced a) { return detail::record(Micro::logical_not, a); }

// The functions, for traced operands and, so that a functor can be tried on numbers, for double.
inline Traced abs(Traced x) { return detail::record(Micro::abs, x); }
inline double abs(double x) { return std::abs(x); }
inline Traced sign(Traced x) { return detail::record(Micro::sign, x); }  // -1, 0 or 1; NaN for NaN
inline double sign(double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : x; }
inline Traced square(Traced x) { return detail::record(Micro::square, x); }
inline double square(double x) { return x * x; }
inline Traced sqrt(Traced x) { return detail::record(Micro::sqrt, x); }
inline double sqrt(double x) { return std::sqrt(x); }
inline Traced exp(Traced x) { return detail::record(Micro::exp, x); }
inline double exp(double x) { return std::exp(x); }
inline Traced expm1(Traced x) { return detail::record(Micro::expm1, x); }  // exp(x) - 1, right near 0
inline double expm1(double x) { return std::expm1(x); }
inline Traced log(Traced x) { return detail::record(Micro::log, x); }
inline double log(double x) { return std::log(x); }
inline Traced log1p(Traced x) { return detail::record(Micro::log1p, x); }  // log(1 + x), right near 0
inline double log1p(double x) { return std::log1p(x); }
inline Traced sin(Traced x) { return detail::record(Micro::sin, x); }
inline double sin(double x) { return std::sin(x); }
inline Traced cos(Traced x) { return detail::record(Micro::cos, x); }
inline double cos(double x) { return std::cos(x); }
inline Traced tanh(Traced x) { return detail::record(Micro::tanh, x); }
inline double tanh(double x) { return std::tanh(x); }
inline Traced sigmoid(Traced x) { return detail::record(Micro::sigmoid, x); }  // 1 / (1 + exp(-x))
inline double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
inline Traced erf(Traced x) { return detail::record(Micro::erf, x); }
inline double erf(double x) { return std::erf(x); }
inline Traced floor(Traced x) { return detail::record(Micro::floor, x); }
inline double floor(double x) { return std::floor(x); }
inline Traced ceil(Traced x) { return detail::record(Micro::ceil, x); }
inline double ceil(double x) { return std::ceil(x); }
inline Traced pow(Traced x, Traced y) { return detail::record(Micro::pow, x, y); }
inline double pow(double x, double y) { return std::pow(x, y); }
// NaN if either operand is NaN, as numpy.maximum.
inline Traced max(Traced x, Traced y) { return detail::record(Micro::maximum, x, y); }
inline double max(double x, double y) { return x > y || x != x ? x : y; }
inline Traced min(Traced x, Traced y) { return detail::record(Micro::minimum, x, y); }
inline double min(double x, double y) { return x < y || x != x ? x : y; }
// condition ? a : b, element by element; both are computed.
inline Traced select(Traced condition, Traced a, Traced b) { return detail::record(Micro::select, condition, a, b); }
inline double select(bool condition, double a, double b) { return condition ? a : b; }

}  // namespace simd

namespace detail {

// Starts a trace, and ends it in its destructor (also when the functor throws).
class Trace {
 public:
  Trace(std::size_t inputs, std::vector<std::string> attributes);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  [[nodiscard]] simd::Traced operand(std::size_t i) const;  // inputs first, then attributes
  MicroProgram finish(simd::Traced result);

 private:
  MicroProgram program_;
  MicroProgram* outer_;
};

template <class F, std::size_t... I>
MicroProgram trace(const F& f, std::size_t inputs, std::vector<std::string> attributes, std::index_sequence<I...>) {
  Trace recording(inputs, std::move(attributes));
  return recording.finish(simd::Traced(f(recording.operand(I)...)));
}

template <class F, std::size_t N, class... T>
constexpr std::size_t operands_of() {
  static_assert(N <= 8, "an elementwise functor takes 1 to 8 operands of type auto");
  if constexpr (std::is_invocable_v<const F&, T...>) {
    return N;
  } else {
    return operands_of<F, N + 1, T..., simd::Traced>();
  }
}

}  // namespace detail

}  // namespace chainrule
