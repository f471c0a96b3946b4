// Arithmetic with NumPy's broadcasting: + - * /, maximum, minimum, pow, negation.
//
// Operands are values, numbers, arrays or dimensions (at least one of them a value of the graph); both sides have
// one dtype, float32, float64 or, but for division and pow, int64. Shapes that do not broadcast throw Error.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

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

// a to the power of b as C's pow: pow(x, 0) = 1, pow of a negative number to a fraction is NaN. d/da = b a^(b-1), 0 at
// a = b = 0; d/db = a^b log a, 0 where a is 0 and b >= 0, NaN where a is negative. Of both all derivatives in a are
// right to any order. Floating only.
// A power is within a unit in the last place (ULP), and computed one element after the other. But where b is one number
// that a program finds constant, from -8 to 8 and whole or half of a whole one, it is made of products, of a or 1 / a
// and its square root: it costs what these do, and is within |b| + 1 ULP, of a negative b within 2 |b| + 2.
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
