// Activations: elementwise functions of one floating value, and of the halves of one. (The randomized leaky ReLU is
// with dropout, in random.hpp.)
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
// -log(1 + exp(-x)), the logarithm of sigmoid(x), right for every x; slope sigmoid(-x)
Value log_sigmoid(Value x, Location at = Location::here());
Value softsign(Value x, Location at = Location::here());  // x / (1 + |x|)
// x above 0, alpha * (exp(x / alpha) - 1) elsewhere: elu with the slope 1 on both sides of 0 for every alpha > 0
// (Barron 2017). Another alpha throws Error.
Value celu(Value x, double alpha = 1, Location at = Location::here());

// x times a gate between 0 and 1. Values and slopes are right, digits included, wherever they can be represented.
Value silu(Value x, Location at = Location::here());  // x sigmoid(x), also called swish (Elfwing, Uchibe and Doya 2017)
// x P(x) with the standard normal distribution P, x / 2 (1 + erf(x / sqrt(2))), whose tail is not lost beside the 1;
// and its approximation x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016). PyTorch's forms
// "none" and "tanh".
Value gelu(Value x, Location at = Location::here());
Value gelu_tanh(Value x, Location at = Location::here());
Value mish(Value x, Location at = Location::here());  // x tanh(log(1 + exp(x))) (Misra 2019)

// Pieces of straight lines and parabolas. Where two meet the slope is that of the outer one (PyTorch's rule; that of
// clip is 1).
// min(max(x, low), high); NaN for NaN. low > high throws Error.
Value hardtanh(Value x, double low = -1, double high = 1, Location at = Location::here());
Value relu6(Value x, Location at = Location::here());        // min(max(x, 0), 6)
Value hardsigmoid(Value x, Location at = Location::here());  // min(max(x + 3, 0), 6) / 6
Value hardswish(Value x, Location at = Location::here());    // x hardsigmoid(x) (Howard et al. 2019)

// The first half of x along an axis times sigmoid, silu or gelu of the second (Dauphin et al. 2017, Shazeer 2020). An
// extent that is not twice another, as a number or by its name, throws Error.
Value glu(Value x, std::int64_t axis = -1, Location at = Location::here());
Value swiglu(Value x, std::int64_t axis = -1, Location at = Location::here());
Value geglu(Value x, std::int64_t axis = -1, Location at = Location::here());

}  // namespace chainrule
