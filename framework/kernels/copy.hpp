// Kernels that move elements. Not installed.
#pragma once

#include <functional>

#include <chainrule/framework/graph/op.hpp>

namespace chainrule::kernels {

// A view of an array: the element at index (i, j, ...) lies at offset + i * strides[0] + j * strides[1] + ...
struct Strided {
  std::int64_t offset = 0;
  Dims strides;
};

using ViewOf = std::function<Strided(const KernelCall&)>;

// output = input, element by element in row-major order.
Forward copy_elements();
// output[i, j, ...] = view of the input at (i, j, ...).
Forward strided_copy(ViewOf view_of_input);
// output = 0, then view of the output at (i, j, ...) = input[i, j, ...].
Forward strided_scatter(ViewOf view_of_output);
// output = input 0, then view of the output at (i, j, ...) += input 1 at [i, j, ...]. Floating; Forward::adds_to is 0.
Forward strided_add(ViewOf view_of_output);
// The inputs side by side along attribute "axis".
Forward concat();
// Of several outputs: the input cut along attribute "axis" into theirs.
Forward split();

}  // namespace chainrule::kernels
