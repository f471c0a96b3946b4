// How a product is computed: which tiles, what is packed, and how it is cut in parts. Not installed.
//
// C is cut in panels of a few vectors of columns, and in tiles of a few rows; both as evenly as it goes, so that one
// product needs four functions at most (tiles of two heights, panels of two widths) and one more where the last panel
// is masked. B is read in place, unless it is transposed, or lies in memory so that rows fall on the same sets of the
// first-level cache: then a panel's elements of one block of terms are packed just before they are used. A is read in
// place, too, but for such rows: it is broadcast element by element, so that a strided one costs nothing.
//
// For several threads C is cut in parts; or where it is small and sums are long, the sums are cut in their blocks.
//
// Or the product is swapped: C^T = B^T A^T is computed and put into C transposed. So it is where C's few columns would
// leave much of a vector unused, or where B, transposed, is so much larger than A that it costs less to pack A.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/products/product.hpp>
#include <chainrule/framework/products/tile.hpp>

namespace chainrule::products {

class Scheme {
 public:
  // For a product that is not empty.
  Scheme(const Product& product, DType dtype, kernels::X86 set);

  // C of A and B; `workspace` is memory of workspace() bytes, of the calling thread, which the library's threads have
  // scratch() bytes of (thread_pool.hpp).
  void run(const void* a, const void* b, void* c, void* workspace) const;
  // The same on this thread alone, which needs only scratch() bytes.
  void run_alone(const void* a, const void* b, void* c, void* workspace) const;
  [[nodiscard]] std::size_t workspace() const { return scratch() + blocks_bytes_; }
  [[nodiscard]] std::size_t scratch() const;
  // Whether run() may use several threads.
  [[nodiscard]] bool may_be_cut() const { return may_be_cut_; }
  // Whether each run copies an operand to where it is read fast.
  [[nodiscard]] bool packs() const { return packs_a_ || packs_b_; }
  // "tiles of 13 x 32, B packed"
  [[nodiscard]] std::string describe() const;

 private:
  // C in parts of so many tiles and panels, but for those at the end.
  struct Grid {
    std::int64_t tiles = 1;
    std::int64_t panels = 1;
    std::int64_t down = 1;
    std::int64_t across = 1;
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

  // Tiles below each other, of a product that is computed where it lies and in one piece. Offsets are in bytes.
  struct Plain {
    TileRun code = nullptr;
    std::ptrdiff_t a = 0;
    std::ptrdiff_t b = 0;
    std::ptrdiff_t c = 0;
    std::ptrdiff_t a_tile = 0;
    std::int64_t tiles = 0;
  };

  // What of B is packed for a panel of C and a block of terms, and where to.
  struct Panel {
    std::int64_t index;
    Range terms;
    const char* b;
    char* packed;
  };

  static constexpr std::size_t most_plain = 4;

  void choose_tiles(const Product& product);
  void choose_mask();
  void choose_packing();
  void choose_parts();
  void choose_blocks(const Product& product, DType dtype);
  void find_code();
  void find_plain();
  [[nodiscard]] Grid cut(int threads) const;

  [[nodiscard]] Operands operands(const void* a, const void* b, void* c, void* workspace) const;
  void run_blocks(const void* a, const void* b, void* c, void* workspace) const;
  void run_grid_part(const Grid& grid, std::int64_t part, const Operands& at) const;
  void run_plain(const char* a, const char* b, char* c) const;
  void run_part(Range tiles, Range panels, const Operands& at) const;
  void set_a(Range tiles, Range terms, const Operands& at, TileCall& call) const;
  [[nodiscard]] std::int64_t panel_bytes() const;
  [[nodiscard]] std::int64_t width_of(std::int64_t panel) const;
  void pack_b(const Panel& panel, Range terms) const;
  void set_fetch(const Panel& next, Range terms, TileCall& call) const;
  void run_tiles(std::int64_t panel, Range tiles, TileCall& call, const Panel* next) const;
  void put(Range tiles, Range panels, const TileCall& call, const Operands& at) const;

  Product p_;  // what is computed: that of the transposes where swapped
  bool single_;
  kernels::X86 set_;
  std::ptrdiff_t element_;
  std::int64_t lanes_;
  bool swapped_ = false;
  bool packs_a_ = false;
  bool packs_b_ = false;
  bool gathers_b_ = false;
  bool transposes_b_ = false;  // in the tiles
  bool beside_ = false;        // the sums of blocks are kept in the workspace, not in C
  bool may_be_cut_ = false;
  bool fetches_ = false;  // lines into the caches ahead of their use
  Split rows_;            // in tiles
  Split vectors_;         // in panels
  Grid whole_;            // as one thread cuts it, for the caches
  // The workspace: packed B (the panel in use and the next one), sums, packed A.
  std::size_t b_bytes_ = 0;
  std::size_t sums_bytes_ = 0;
  std::size_t a_bytes_ = 0;
  // Where C is small and the sums are long, the sums of blocks of terms are products of their own, for several threads:
  // all of these blocks, and the last one. Their results are behind the rest of the workspace.
  std::shared_ptr<const Scheme> block_;
  std::shared_ptr<const Scheme> last_block_;
  std::int64_t blocks_ = 0;
  std::size_t blocks_bytes_ = 0;
  // By whether the tile is one of the larger ones, and the panel; and the last panel's.
  TileRun code_[2][2] = {};
  TileRun last_[2] = {};
  Plain plain_[most_plain];
  std::size_t plains_ = 0;  // or all is done by run_part()
  double alpha_ = 1;        // or a float in its place
  std::int64_t mask_[4] = {};
  std::uint64_t bits_ = 0;
};

}  // namespace chainrule::products
