// The vector kernels that convolutions are made of (framework/convolutions/). Not installed.
#pragma once

#include <cstdint>

namespace chainrule::kernels {

// Where elements [k * n, (k + 1) * n), with n of them in 32 bytes, of a row lie that is not one run: at starts[k].
struct Segments {
  const std::int64_t* starts = nullptr;  // null: one run, element k at k
  bool in_pairs = false;                 // whether segments 2k and 2k + 1 are one run
};

// c[i, q] = sum over p of a[p, i] b[p, q], or that added to what c holds, for a few rows i and any number of columns q.
// Each sum is one chain of fused multiply-adds, s = fma(a, b, s) from s = 0 in order of p, so its bits depend neither
// on the rows and columns of a call nor, where the processor has that instruction, on the width of vectors.
template <class T>
struct SumsOfProducts {
  const T* a;                     // [terms][rows]
  const T* b;                     // row p begins at b + b_offsets[p]
  const std::int64_t* b_offsets;  // in elements
  Segments b_segments;            // where there are some, columns are whole ones
  std::int64_t terms;
  T* c;  // row i begins at c + c_offsets[i]
  const std::int64_t* c_offsets;
  std::int64_t columns;
  bool adds;
};

// Lane l of sums[i, j] += the sum over images and columns q, with q % lanes = l, of a[image, i, q] b[image, j, q]: 64
// bytes of lanes, whatever the vectors' width. Each lane's sum is one chain, in order of images and then columns.
template <class T>
struct LanesOfProducts {
  const T* a;          // row i of an image begins at a + image * a_image + i * a_row
  std::int64_t a_row;  // in elements
  std::int64_t a_image;
  const T* b;  // row j at b + image * b_image + b_offsets[j]
  const std::int64_t* b_offsets;
  std::int64_t b_image;
  Segments b_segments;  // as above
  std::int64_t images;
  std::int64_t columns;
  T* sums;  // of (i, j) at sums + (i * sums_row + j) * lanes
  std::int64_t sums_row;
};

// c[i, k] += the sum over p = (o, q) of a[i, o, q] b[p, k], for a few rows i and vectors of k. Each sum is one chain of
// fused multiply-adds in order of p, and is then added.
template <class T>
struct SumsOfPlaces {
  const T* a;
  const std::int64_t* a_offsets;  // row i begins at a + a_offsets[i]; q goes on by 1 and o by a_line
  std::int64_t a_line;
  const T* b;
  std::int64_t b_row;  // in elements, from one p to the next
  std::int64_t lines;  // o
  std::int64_t terms;  // q
  T* c;
  std::int64_t c_row;
};

// Rows of `columns` elements: zeros, but for those of [begin, end), which are from[0], from[step], ...
template <class T>
struct SpreadRows {
  const T* from;
  std::int64_t from_row;  // in elements, from one row to the next
  std::int64_t step;
  T* to;
  std::int64_t to_row;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t begin;
  std::int64_t end;
};

// Column i of a row of `to`, for i of [begin, end): the sum over taps s of copies[s][q] with
// q * step + s * dilation - before = i, where there is such a q of [first, last); in order of s.
template <class T>
struct CollectedRows {
  const T* copies;    // the first row of the first copy: element q lies at q - first
  std::int64_t copy;  // in elements, from one copy to the next
  std::int64_t from_row;
  std::int64_t taps;
  std::int64_t step;
  std::int64_t dilation;
  std::int64_t before;
  std::int64_t first;
  std::int64_t last;
  T* to;  // column 0 of the first row
  std::int64_t to_row;
  std::int64_t rows;
  std::int64_t begin;
  std::int64_t end;
};

// A tap of the windows of a row of outputs: output i, of [begin, end), has x[offset + i * step] in its window.
struct WindowTap {
  std::int64_t offset;
  std::int64_t begin;
  std::int64_t end;
};

// Maxima over windows, for rows of outputs whose windows have the same taps.
template <class T>
struct MaximaOfRows {
  const T* x;
  std::int64_t x_row;  // in elements, from the windows of one row of outputs to those of the next
  const WindowTap* taps;
  int count;  // of taps, at most most_window_taps
  std::int64_t step;
  std::int64_t rows;
  std::int64_t columns;
  // Taps 2t and 2t + 1 are neighbours that all outputs have, with a step of 2.
  bool in_pairs;
  T* y;  // row after row
};

// dx, laid out as x, += dy where x's window has its first greatest element, or NaN, in order of outputs' rows and taps.
template <class T>
struct ScatterToMaxima {
  MaximaOfRows<T> windows;  // y is not used
  const T* dy;
  T* dx;
  // No element is in two windows, and these are in pairs: then the elements of dx that are in windows are written,
  // whatever is there.
  bool writes;
};

template <class T>
struct WindowTable {
  static constexpr int most_rows = 13;
  static constexpr int most_lane_rows = 8;
  static constexpr int most_lane_columns = 3;
  static constexpr int most_place_rows = 8;
  static constexpr int most_place_vectors = 3;
  static constexpr int most_window_taps = 64;
  static constexpr std::int64_t lanes = 64 / sizeof(T);
  // By number of rows, up to `rows`, and how many columns are computed at once.
  int rows;
  void (*sums[most_rows + 1])(const SumsOfProducts<T>& call);
  std::int64_t columns[most_rows + 1];
  // By number of rows i, up to `lane_rows`, and of rows j.
  int lane_rows;
  void (*lane_sums[most_lane_rows + 1][most_lane_columns + 1])(const LanesOfProducts<T>& call);
  // By number of rows, up to `place_rows`, and of vectors of so many elements, up to `place_vectors`.
  int place_rows;
  int place_vectors;
  std::int64_t vector;
  void (*places[most_place_rows + 1][most_place_vectors + 1])(const SumsOfPlaces<T>& call);
  void (*spread)(const SpreadRows<T>& call);
  void (*collect)(const CollectedRows<T>& call);
  // to[i * step] += from[i] for i < n
  void (*add)(const T* from, std::int64_t n, T* to, std::int64_t step);
  void (*maxima)(const MaximaOfRows<T>& call);
  void (*scatter_to_maxima)(const ScatterToMaxima<T>& call);
  bool can_write;  // whether that may be asked for ScatterToMaxima::writes
  // Of maxima over windows, one tap of n outputs: x[i * step] is an element of output i's window.
  //   best[i] = that, where it is greater or NaN
  void (*max)(const T* x, std::int64_t step, std::int64_t n, T* best);
  //   to[i * step] += rest[i] and rest[i] = 0, where it is the best, or NaN
  void (*max_scatter)(const T* x, std::int64_t step, std::int64_t n, const T* best, T* rest, T* to);
  //   out[i] = from[i * step] and open[i] = 0, where it is the best, or NaN, and open[i] is not 0
  void (*max_gather)(const T* x, const T* from, std::int64_t step, std::int64_t n, const T* best, T* open, T* out);
};

}  // namespace chainrule::kernels
