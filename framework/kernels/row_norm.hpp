// Kernels that normalize rows. Not installed.
#pragma once

#include <chainrule/framework/graph/op.hpp>

namespace chainrule::kernels {

struct RowNorm {
  std::int64_t rows;
  std::int64_t columns;
  double epsilon;
  bool centered;  // whether the mean is taken off
};

// Inputs {x} and maybe {gamma} and {beta}: gamma z + beta with z = (x - mean) / sqrt(variance + epsilon) of each row,
// or x / sqrt(mean(x^2) + epsilon). A row is read once, and written once while it is in a cache near by.
KernelRun make_row_norm(DType dtype, const RowNorm& norm, std::size_t inputs);

// Inputs {x, dy} and maybe {gamma}, outputs {dx, dgamma, dbeta}: the gradients. With g = gamma dy,
// dx = (g - mean(g) - z mean(g z)) / sqrt(variance + epsilon), without mean(g) where no mean is taken off; the others
// are sums of dy z and dy over the rows, some rows one after the other, and these sums pairwise.
KernelRun make_row_norm_gradient(DType dtype, const RowNorm& norm, bool weighted, std::size_t& workspace);

}  // namespace chainrule::kernels
