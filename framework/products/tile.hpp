// Machine code for tiles of a product. Not installed.
//
// A tile is a few rows of C times a few vectors of its columns, all of it in registers while one block of terms is
// summed. Sizes of the tile are part of the code, everything else is an argument: so all products of a process share a
// few hundred functions at most, made when first asked for.
#pragma once

#include <cstddef>
#include <cstdint>

#include <chainrule/framework/kernels/machine_code.hpp>

namespace chainrule::products {

struct TileShape {
  kernels::X86 set = kernels::X86::avx512;
  bool single = false;       // float32, else float64
  bool transpose_a = false;  // A's rows lie as columns
  bool masked = false;       // the last vector is only in part within the matrix
  int rows = 1;
  int vectors = 1;
  // B is transposed and has so many columns, at most most_gathered(): they are read in place. (One vector, masked.)
  int gathered = 0;
  // B is transposed, and its columns are in the registers before they are multiplied. Where masked, the last vector
  // begins as much further left as it would be too wide, and what counts are its last elements.
  bool transposes = false;
};

// Elements of a vector.
int lanes(kernels::X86 set, bool single);
// The most rows that a tile so many vectors wide may have; 0: it may not be so wide.
int most_rows(kernels::X86 set, int vectors, bool masked);
inline constexpr int most_vectors = 8;
// The same for tiles that transpose, and as many terms as they take at a time: there have to be that many.
int most_rows_transposing(kernels::X86 set, bool single, bool transpose_a, int vectors);
inline constexpr int most_vectors_transposing = 2;
int terms_transposed(bool single);
int most_gathered(bool single);

// What is to be done with the sums of a block of terms.
enum TileFlags : std::uint32_t {
  tile_continues = 1,  // the sums of the blocks before it are in `sums`
  tile_ends = 2,       // c becomes alpha times the sum; else the sum goes to `sums`
  tile_adds = 4,       // and c is added
  // While it is summed, lines are fetched into the caches: those of the sums and, into the second-level one, others. Of
  // terms there are more than rows and fetch_rows.
  tile_fetches = 8,
};

// One call computes `tiles` tiles, one below the other. Strides are in bytes. The code advances a, c and sums to the
// tile that would be next. (Laid out as the code reads it.)
struct TileCall {
  const void* a;
  std::ptrdiff_t a_stride;  // from one row in memory to the next
  std::ptrdiff_t a_tile;    // from one tile's rows to the next's
  const void* b;
  std::ptrdiff_t b_stride;
  void* c;
  std::ptrdiff_t c_stride;
  void* sums;
  std::ptrdiff_t sums_stride;
  std::int64_t terms;
  std::int64_t tiles;
  const void* mask;    // AVX2: a vector of ones for the last vector's elements, then zeros
  std::uint64_t bits;  // AVX-512: a bit for each of those elements
  const void* alpha;   // a number of the product's dtype
  std::uint64_t flags;
  // For tile_fetches: rows of as many lines as the tile is wide, the same ones for each tile.
  const void* fetch;
  std::ptrdiff_t fetch_stride;
  std::int64_t fetch_rows;
  // For tiles that transpose and are masked: bytes from where the last vector begins in B and C to where it would.
  std::ptrdiff_t b_shift;
  std::ptrdiff_t c_shift;
};

using TileRun = void (*)(TileCall*);

// Safe for threads. Throws std::runtime_error where the system gives no memory that may be executed.
TileRun tile(const TileShape& shape);

}  // namespace chainrule::products
