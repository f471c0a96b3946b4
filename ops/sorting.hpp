// Order along an axis.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// Elements in order, and where they came from (int64, below the extent of the axis).
struct Sorted {
  Value values;
  Value indices;
};

// The elements along an axis, smallest first, or with `descending` greatest first. Equal ones stay in their order
// (-0 equals 0), NaN are last either way, where NumPy has them. Of numbers of any dtype. The gradient of the values
// goes to the elements that they came from; where elements are equal, that is a subgradient.
Sorted sort(Value x, std::int64_t axis = -1, bool descending = false, Location at = Location::here());
// The indices of sort(): numpy.argsort(kind="stable").
Value argsort(Value x, std::int64_t axis = -1, bool descending = false, Location at = Location::here());

// The k greatest elements along an axis, the greatest first, or with `largest` false the k smallest, the smallest
// first: the first k of sort(). Throws Error for a k below 0 or above the extent (in a run, where that is a symbol).
Sorted topk(Value x, std::int64_t k, std::int64_t axis = -1, bool largest = true, Location at = Location::here());

}  // namespace chainrule
