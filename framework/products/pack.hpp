// Pieces of matrices brought into the order in which tiles read them, and results back. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chainrule::products {

// Strides are in elements, T is float or double.

// to[p * width + j] = from[p * stride + j] for p < terms and j < columns.
template <class T>
void pack_rows(const T* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns, std::int64_t width,
               T* to);

// to[(t * terms + p) * rows + i] = from[p * stride + t * rows + i] for t < tiles, p < terms and i < rows.
template <class T>
void pack_tiles(const T* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t tiles, std::int64_t rows, T* to);

// to[p * width + j] = from[j * stride + p] for p < terms and j < columns. Width is a multiple of the elements of 32
// bytes; what is behind a line's columns, up to such a multiple, is overwritten.
template <class T>
void pack_transposed(const T* from, std::ptrdiff_t stride, std::int64_t terms, std::int64_t columns, std::int64_t width,
                     T* to);

// to[j * to_stride + i] = alpha * from[i * stride + j] for i < rows and j < columns; or where it adds, the fused
// multiply-add of that to what is there.
template <class T>
void put_transposed(const T* from, std::ptrdiff_t stride, std::int64_t rows, std::int64_t columns, T alpha, bool adds,
                    T* to, std::ptrdiff_t to_stride);

// The sum of `count` matrices that lie row after row and behind each other, `next` elements apart, added in order, and
// alpha times it into C; or where it adds, the fused multiply-add of that to what is there.
template <class T>
void put_sum(const T* from, std::ptrdiff_t next, std::int64_t count, std::int64_t rows, std::int64_t columns, T alpha,
             bool adds, T* to, std::ptrdiff_t to_stride);

}  // namespace chainrule::products
