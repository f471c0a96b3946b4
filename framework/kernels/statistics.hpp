// Kernels of the statistics that normalizations take, and of those of their gradients. Not installed.
#pragma once

#include <chainrule/framework/graph/op.hpp>

namespace chainrule::kernels {

// An array {outer, parts, inner}, of which each part is taken by itself: `outer` runs of `inner` elements.
struct Parts {
  std::int64_t outer = 1;
  std::int64_t parts = 1;
  std::int64_t inner = 1;

  // The axes [first, last) are those of the parts.
  Parts(const Dims& shape, std::size_t first, std::size_t last) {
    for (std::size_t i = 0; i < shape.rank(); ++i) (i < first ? outer : i < last ? parts : inner) *= shape[i];
  }
};

// Inputs {x}, outputs {mean, variance} of each part, the biased one; NaN of nothing. An array is read once: a piece is
// summed, and then, while it is in the nearest cache, its squared distances from its own mean. Pieces are put together
// in double (T.F. Chan, G.H. Golub and R.J. LeVeque, "Algorithms for computing the sample variance", 1983), so that
// the mean is rounded once, and the variance of any offset is right.
KernelRun make_statistics(DType dtype, const Parts& parts, std::size_t& workspace);

// Inputs {x, dy, center of each part} and, where each part is one run, maybe {w}, which that is weighted by; outputs
// sum(w dy) and sum(w dy (x - center)) of each part.
KernelRun make_centered_sums(DType dtype, const Parts& parts, bool weighted, std::size_t& workspace);

}  // namespace chainrule::kernels
