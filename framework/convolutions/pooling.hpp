// The kernels of pooling: maxima over windows, and linear maps along an axis. Not installed.
#pragma once

#include <cstdint>
#include <vector>

#include <chainrule/framework/graph/op.hpp>

namespace chainrule::convolutions {

// Over x {N, C, spatial...}, with attributes window, stride, padding (those before each spatial axis, then those
// behind) and dilation; or with "outputs", numbers of windows as even as they go. Padding is less than everything. Of
// equal elements the first in row-major order counts; the first NaN counts before all others.
//
// y of x: the greatest of each window.
Forward max_windows();
// Of (x, v), v like x: v's element where x's greatest is. 0 of a window that is nothing but padding.
Forward gather_from_maxima();
// Of (x, dy): zeros, to which dy's elements are added where x's greatest are. The adjoint in v and dy.
Forward scatter_to_maxima();

// Along attribute "axis": output i is the sum of weight * input at index for the terms of row i.
struct Term {
  std::int64_t index;
  double weight;
};
using Terms = std::vector<std::vector<Term>>;
// Which terms, from the extents of inputs and outputs.
using TermsOf = Terms (*)(const Attributes& attributes, std::int64_t inputs, std::int64_t outputs);
Forward weighted_sums(TermsOf terms);
// Its adjoint: from outputs to inputs.
Forward transposed_weighted_sums(TermsOf terms);

// x {N, C, spatial...} -> {N, C taps, outputs}: the elements of each window as a column; zeros for padding. Attributes
// window, stride, padding, dilation.
Forward unfold();
// The adjoint, to attribute "extents": the elements of all columns, added up.
Forward fold();

}  // namespace chainrule::convolutions
