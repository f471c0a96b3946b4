// Comparisons (bool values), logic on them, and the choice by them.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// Elementwise with broadcasting; operands of one dtype, floating or int64. With NaN all but not_equal are false.
Value less(Operand a, Operand b);
Value less_equal(Operand a, Operand b);
Value greater(Operand a, Operand b);
Value greater_equal(Operand a, Operand b);
Value equal(Operand a, Operand b);
Value not_equal(Operand a, Operand b);

inline Value operator<(Operand a, Operand b) { return less(a, b); }
inline Value operator<=(Operand a, Operand b) { return less_equal(a, b); }
inline Value operator>(Operand a, Operand b) { return greater(a, b); }
inline Value operator>=(Operand a, Operand b) { return greater_equal(a, b); }

// Of bool values, with broadcasting.
Value logical_and(Value a, Value b, Location at = Location::here());
Value logical_or(Value a, Value b, Location at = Location::here());
Value logical_not(Value a, Location at = Location::here());

// Which numbers are NaN, infinite, or neither; of floating values.
Value isnan(Value x, Location at = Location::here());
Value isinf(Value x, Location at = Location::here());
Value isfinite(Value x, Location at = Location::here());

// condition ? a : b, element by element and broadcast (numpy.where).
//
// The side that is not chosen gets the gradient 0, but its own derivative is still multiplied by that 0: where it is
// infinite or NaN the product is NaN. So where(x > 0, sqrt(x), 0) has the slope NaN at 0, whose sqrt has an infinite
// one. Keep the argument away from there by a second where, inside: where(x > 0, sqrt(where(x > 0, x, 1)), 0).
Value where(Value condition, Operand a, Operand b);

}  // namespace chainrule
