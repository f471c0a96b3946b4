// Arithmetic with NumPy's broadcasting: + - * /, maximum, minimum, pow, negation.
//
// Operands are values, numbers, arrays or dimensions (at least one of them a value of the graph); both sides have
// one dtype, float32, float64 or, but for division and pow, int64. Shapes that do not broadcast throw Error.
#pragma once

#include <chainrule/framework/graph.hpp>

namespace chainrule {

Value add(Operand a, Operand b);
Value sub(Operand a, Operand b);
Value mul(Operand a, Operand b);
Value div(Operand a, Operand b);  // floating only
Value neg(Operand x);

// The greater / lesser of both, NaN if either is NaN (numpy.maximum). Where they are equal the gradient goes half to
// each side (PyTorch's rule).
Value maximum(Operand a, Operand b);
Value minimum(Operand a, Operand b);

// a to the power of b as C's pow: pow(x, 0) = 1, pow of a negative number to a fraction is NaN. d/da = b a^(b-1), 0
// where b is 0; d/db = a^b log a, 0 where a is 0 and b >= 0. Floating only.
Value pow(Operand a, Operand b);

inline Value operator+(Operand a, Operand b) { return add(a, b); }
inline Value operator-(Operand a, Operand b) { return sub(a, b); }
inline Value operator*(Operand a, Operand b) { return mul(a, b); }
inline Value operator/(Operand a, Operand b) { return div(a, b); }
inline Value operator-(Operand x) { return neg(x); }

namespace detail {

// Applies a two-operand op after resolving its operands against each other.
Value apply_operands(const Op& op, const Operand& a, const Operand& b);

}  // namespace detail

}  // namespace chainrule
