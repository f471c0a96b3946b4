// Transposes, by square blocks in registers.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>
#include <cstdint>

#include <chainrule/framework/kernels/simd/batch.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

// Row k of the block in b[k]. Each round interleaves the vectors of the first half with those of the second; after
// log2(w) of them each element is in its place.
template <class T>
void transpose_block(Batch<T>* b) {
  constexpr std::size_t w = width<T>;
  for (std::size_t round = w; round > 1; round /= 2) {
    Batch<T> next[w];
    for (std::size_t k = 0; k < w / 2; ++k) {
      const auto [low, high] = interleave<T>(b[k], b[k + w / 2]);
      next[2 * k] = low;
      next[2 * k + 1] = high;
    }
    for (std::size_t k = 0; k < w; ++k) b[k] = next[k];
  }
}

template <class T, bool streams>
void whole_block(const T* from, std::size_t from_stride, T* to, std::size_t to_stride) {
  constexpr std::size_t w = width<T>;
  Batch<T> b[w];
  for (std::size_t k = 0; k < w; ++k) b[k] = load(from + k * from_stride);
  transpose_block<T>(b);
  for (std::size_t k = 0; k < w; ++k) {
    if constexpr (streams) {
      stream<T>(b[k], to + k * to_stride);
    } else {
      b[k].store_unaligned(to + k * to_stride);
    }
  }
}

template <class T>
void part_of_block(const T* from, std::size_t from_stride, T* to, std::size_t to_stride, std::size_t rows,
                   std::size_t columns) {
  constexpr std::size_t w = width<T>;
  Batch<T> b[w];
  for (std::size_t k = 0; k < w; ++k) {
    if (k >= columns) {
      b[k] = Batch<T>(T(0));
    } else {
      b[k] = rows < w ? load_part(from + k * from_stride, rows, T(0)) : load(from + k * from_stride);
    }
  }
  transpose_block<T>(b);
  for (std::size_t k = 0; k < rows; ++k) {
    if (columns < w) {
      store_part<T>(b[k], to + k * to_stride, columns);
    } else {
      b[k].store_unaligned(to + k * to_stride);
    }
  }
}

template <class T, bool streams>
void transpose_blocks(const T* from, std::size_t from_stride, T* to, std::size_t to_stride, std::size_t rows,
                      std::size_t columns) {
  constexpr std::size_t w = width<T>;
  for (std::size_t j = 0; j < columns; j += w) {
    for (std::size_t i = 0; i < rows; i += w) {
      const T* f = from + j * from_stride + i;
      T* t = to + i * to_stride + j;
      if (i + w <= rows && j + w <= columns) {
        whole_block<T, streams>(f, from_stride, t, to_stride);
      } else {
        part_of_block<T>(f, from_stride, t, to_stride, rows - i < w ? rows - i : w, columns - j < w ? columns - j : w);
      }
    }
  }
}

template <class T>
void transpose(const T* from, std::size_t from_stride, T* to, std::size_t to_stride, std::size_t rows,
               std::size_t columns, bool streams) {
#if defined(__AVX2__)
  constexpr std::size_t bytes = width<T> * sizeof(T);
  if (streams && reinterpret_cast<std::uintptr_t>(to) % bytes == 0 && to_stride % width<T> == 0) {
    transpose_blocks<T, true>(from, from_stride, to, to_stride, rows, columns);
    _mm_sfence();  // other threads may read it
    return;
  }
#else
  static_cast<void>(streams);
#endif
  transpose_blocks<T, false>(from, from_stride, to, to_stride, rows, columns);
}

}  // namespace

template <class T>
void fill_transposes(VectorTable<T>& table) {
  table.transpose = transpose<T>;
}
template void fill_transposes(VectorTable<float>& table);
template void fill_transposes(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
