// Normalization of weights: the length of a weight apart from its direction, and weights of spectral norm 1.
#pragma once

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule {

// g * v / ||v||, the Euclidean norm taken over the axes of v, or over all of them; g has the shape of what is left:
// weight normalization (Salimans and Kingma 2016). Of a dense layer's v {in, out} over {0} with g {out}, of a
// convolution's {out, in, ...} over all but axis 0 with g {out}.
// Where ||v||^2 is 0 there is no direction: the result is 0, and so are the slopes. (In float32 that is below about
// 1e-23, and the square overflows from 2e19.) Floating only, both of one dtype. Throws Error for an axis out of range
// or given twice, or another shape of g.
Value weight_norm(Value v, Value g, const AxisList& axes = {}, Location at = Location::here());

struct SpectralNormOptions {
  std::int64_t axis = 0;        // the rows of the matrix as which w is read; the other axes, in order, are its columns
  std::int64_t iterations = 1;  // of the power method in each run
};

// w / (u^T w v), with w read as a matrix and u {rows} and v {columns} near its first singular vectors, so that the
// result has a spectral norm near 1: spectral normalization (Miyato, Kataoka, Koyama and Yoshida 2018).
// In training, u and v are first improved by `iterations` steps of the power method, v = w^T u / ||w^T u|| and then
// u = w v / ||w v||. Variables become these in programs that update; where several norms share them, one after the
// other in the order in which the norms were built. Of constants or inputs each run improves what it is given. In
// inference, and with 0 iterations, u and v are used as they are: so train, or iterate, before. Start u as random
// numbers (v is then whatever the first step makes of them).
// To gradients u and v are constants. (Once the power method has converged, the first derivative is that of w divided
// by its largest singular value.) Where w^T u or w v is 0 the vector stays as it was; where u^T w v is 0, so are the
// result and its slopes.
// Floating only, all of one dtype. Throws Error for other shapes of u or v, an axis out of range, negative iterations,
// or where only one of u and v is a variable.
Value spectral_norm(Value w, Value u, Value v, const SpectralNormOptions& options = {}, Location at = Location::here());

}  // namespace chainrule
