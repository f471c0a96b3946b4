// Softmax, its logarithm and cross-entropies by class, line by line: each line is read from memory once and written
// once, what is between stays in the caches. Not installed.
//
// A line's greatest element is taken off before its exponentials are added up, pairwise (kernels/reduce.hpp), so that
// none overflows. Threads share lines, so results have the same bits for every number of them.
#pragma once

#include <cstdint>

#include <chainrule/framework/kernels/lines.hpp>

namespace chainrule::kernels {

// y = exp(x) / sum(exp(x)), or the logarithm of that.
template <class T>
void softmax(const Lines& lines, const T* x, T* y);
template <class T>
void log_softmax(const Lines& lines, const T* x, T* y);
// Softmax of lines that are the rows of matrices with `queries` rows; a line that is all -infinity becomes 0. Causal:
// in row i the elements behind the i-th are taken for -infinity, whatever they are. y may be x.
template <class T>
void attention_weights(const Lines& lines, std::int64_t queries, bool causal, const T* x, T* y);

// Lines in row-major order have a class each, an element of theirs.
template <class T>
struct ClassCosts {
  const T* z = nullptr;
  const std::int64_t* classes = nullptr;  // below the extent of the axis
  const T* weight = nullptr;              // of each line's slope; null where there is no slope
  T* cost = nullptr;                      // -log softmax(z) of the class; or null
  T* slope = nullptr;                     // weight (softmax(z) - 1 for the class); or null
};
template <class T>
void class_costs(const Lines& lines, const ClassCosts<T>& costs);

}  // namespace chainrule::kernels
