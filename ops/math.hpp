// Elementwise functions of one floating value; the output has its shape and dtype.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

Value square(Value x, Location at = Location::here());  // x * x; int64 too
Value sqrt(Value x, Location at = Location::here());    // NaN below 0; infinite slope at 0
Value exp(Value x, Location at = Location::here());
Value expm1(Value x, Location at = Location::here());  // exp(x) - 1, right near 0
Value log(Value x, Location at = Location::here());    // -inf at 0, NaN below
Value log1p(Value x, Location at = Location::here());  // log(1 + x), right near 0
Value sin(Value x, Location at = Location::here());
Value cos(Value x, Location at = Location::here());
Value tan(Value x, Location at = Location::here());
Value tanh(Value x, Location at = Location::here());
Value erf(Value x, Location at = Location::here());    // 2/sqrt(pi) * the integral of exp(-t^2) from 0 to x
Value abs(Value x, Location at = Location::here());    // slope 0 at 0; int64 too
Value sign(Value x, Location at = Location::here());   // -1, 0 or 1; slope 0
Value floor(Value x, Location at = Location::here());  // slope 0
Value ceil(Value x, Location at = Location::here());   // slope 0

// min(max(x, low), high), NaN for NaN; slope 1 between and at the bounds, 0 beyond. low > high throws Error.
Value clip(Value x, Number low, Number high, Location at = Location::here());

}  // namespace chainrule
