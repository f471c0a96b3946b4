// How a product is computed: which tiles, what is packed, and how it is cut in parts. Not installed.
//
// C is cut in panels of a few vectors of columns, and in tiles of a few rows; both as evenly as it goes, so that one
// product needs four functions at most (tiles of two heights, panels of two widths) and one more where the last panel
// is masked. B is read in place, unless it is transposed, or lies in memory so that rows fall on the same sets of the
// first-level cache: then a panel's elements of one block of terms are packed just before they are used. A is read in
// place: it is broadcast element by element, so that a strided one costs nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/products/product.hpp>
#include <chainrule/framework/products/tile.hpp>

namespace chainrule::products {

class Scheme {
 public:
  // For a product that is not empty.
  Scheme(const Product& product, DType dtype, kernels::X86 set);

  // C of A and B; `workspace` is memory of workspace() bytes, of the calling thread.
  void run(const void* a, const void* b, void* c, void* workspace) const;
  // The same on this thread alone.
  void run_alone(const void* a, const void* b, void* c, void* workspace) const;
  [[nodiscard]] std::size_t workspace() const { return pack_bytes_ + sums_bytes_; }
  // Whether some number of threads would cut it.
  [[nodiscard]] bool may_be_cut() const;
  // "tiles of 13 x 32, B packed"
  [[nodiscard]] std::string describe() const;

 private:
  // A cut of C in parts: tiles and panels of each, but those at the end.
  struct Grid {
    std::int64_t tiles;
    std::int64_t panels;
    std::int64_t down;
    std::int64_t across;
    [[nodiscard]] std::int64_t parts() const { return down * across; }
  };
  struct Operands {
    const char* a;
    const char* b;
    char* c;
    char* workspace;
  };
  struct Range {
    std::int64_t begin;
    std::int64_t end;
  };

  void choose_tiles();
  void choose_packing();
  void find_code();
  [[nodiscard]] Grid whole() const;
  [[nodiscard]] Grid cut(int threads) const;

  void run_part(const Grid& grid, std::int64_t part, const Operands& at) const;
  void set_b(std::int64_t panel, Range terms, const Operands& at, TileCall& call) const;
  void run_tiles(std::int64_t panel, Range tiles, TileCall& call) const;

  Product p_;
  bool single_;
  kernels::X86 set_;
  std::ptrdiff_t element_;
  std::int64_t lanes_;
  Split rows_;     // in tiles
  Split vectors_;  // in panels
  bool packs_ = false;
  std::size_t pack_bytes_ = 0;
  std::size_t sums_bytes_ = 0;
  std::int64_t most_tiles_ = 1;  // of a part
  std::int64_t most_panels_ = 1;
  // By whether the tile is one of the larger ones, and the panel; and the last panel's.
  TileRun code_[2][2] = {};
  TileRun last_[2] = {};
  double alpha_ = 1;  // or a float in its place
  alignas(32) std::int64_t mask_[4] = {};
  std::uint64_t bits_ = 0;
};

}  // namespace chainrule::products
