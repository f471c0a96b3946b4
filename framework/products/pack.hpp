// B's elements for one panel, brought together in the order in which tiles read them. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chainrule::products {

// to[p * width + j] = from[p * stride + j] for p < terms and j < columns, and 0 for the other j below width.
void pack_rows(const char* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns, std::int64_t width,
               std::size_t element, char* to);

// The same for a B that is transposed: to[p * width + j] = from[j * stride + p]. Strides in elements.
void pack_transposed(const float* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns,
                     std::int64_t width, float* to);
void pack_transposed(const double* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns,
                     std::int64_t width, double* to);

}  // namespace chainrule::products
