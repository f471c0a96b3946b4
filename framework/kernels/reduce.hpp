// Reduction kernels. Not installed.
#pragma once

#include <vector>

#include <chainrule/framework/graph/op.hpp>
#include <chainrule/framework/kernels/lines.hpp>

namespace chainrule::kernels {

enum class Reduction : std::uint8_t { sum, max, min };

// A kernel over the flagged axes of a shape. Floating sums are pairwise: along rows in blocks of 256 by several
// accumulators, across rows in blocks of 64, halves above (Higham, "Accuracy and Stability of Numerical Algorithms",
// 4.2), so that the error grows with log n. Large ones are cut in parts for threads, and their results reduced again:
// by sizes alone, so that the bits are the same for every number of threads. Sums of integers are int64.
KernelRun make_reduction(Reduction kind, DType dtype, const Dims& shape, const std::vector<char>& reduced,
                         std::size_t& workspace);

// A kernel of the index of the first greatest element of each line, or of its first NaN where it has one.
KernelRun make_argmax(DType dtype, const Lines& lines, std::size_t& workspace);

}  // namespace chainrule::kernels
