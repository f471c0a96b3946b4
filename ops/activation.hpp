// Activations: elementwise functions of one floating value.
#pragma once

#include <chainrule/framework/graph.hpp>

namespace chainrule {

Value relu(Value x, Location at = Location::here());  // max(x, 0); slope 0 at 0; NaN stays NaN
// x above 0, slope * x elsewhere, and that slope at 0 (Maas, Hannun and Ng 2013).
Value leaky_relu(Value x, double slope = 0.01, Location at = Location::here());
Value sigmoid(Value x, Location at = Location::here());   // 1 / (1 + exp(-x)), right for every x
Value softplus(Value x, Location at = Location::here());  // log(1 + exp(x)), right for every x

}  // namespace chainrule
