// How a fused group reads operands that do not have its shape or dtype. Not installed.
#pragma once

#include <vector>

#include <chainrule/framework/graph/op.hpp>

namespace chainrule::detail {

// An array read as a larger or differently typed one.
struct View {
  Dims shape;
  Dims strides;
};

// Writes elements [begin, begin + n) of a view of `from`, in row-major order, to `out`.
using Load = void (*)(const View& view, const void* from, std::int64_t begin, std::int64_t n, void* out);
Load load_of(DType from, DType to);

// Neighbouring axes along which all views move as one are joined; never the last one where `keep_last` says so.
void collapse(Dims& shape, std::vector<Dims>& strides, bool keep_last);

}  // namespace chainrule::detail
