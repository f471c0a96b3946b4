// Activations: elementwise functions of one floating value. (The randomized leaky ReLU is with dropout, in random.hpp.)
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

Value relu(Value x, Location at = Location::here());  // max(x, 0); slope 0 at 0; NaN stays NaN
// x above 0, slope * x elsewhere, and that slope at 0 (Maas, Hannun and Ng 2013).
Value leaky_relu(Value x, double slope = 0.01, Location at = Location::here());
// x above 0, slope * x elsewhere, with a slope that is a value of the graph, usually a parameter: of any shape that
// broadcasts to x's (He, Zhang, Ren and Sun 2015). At 0 the slope's side. Throws Error where it does not broadcast to
// x.
Value prelu(Value x, Operand slope, Location at = Location::here());
// x above 0, alpha * (exp(x) - 1) elsewhere; slope alpha at 0 (Clevert, Unterthiner and Hochreiter 2016).
Value elu(Value x, double alpha = 1, Location at = Location::here());
// 1.0507 * elu(x, 1.67326): activations keep mean 0 and variance 1 from layer to layer (Klambauer et al. 2017).
Value selu(Value x, Location at = Location::here());
Value sigmoid(Value x, Location at = Location::here());   // 1 / (1 + exp(-x)), right for every x
Value softplus(Value x, Location at = Location::here());  // log(1 + exp(x)), right for every x

}  // namespace chainrule
