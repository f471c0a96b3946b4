#include <chainrule/framework/products/scheme.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <unistd.h>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/products/pack.hpp>

namespace chainrule::products {

namespace {

// Bytes of a row of A's block of terms times rows of a part, where the second-level cache has a megabyte or more: it
// stays there while panels pass by. And bytes of a row of C.
constexpr std::int64_t part_rows_bytes = 2080;
constexpr std::int64_t part_columns_bytes = 16'384;
// The most memory for sums that cannot be kept in C, about.
constexpr std::int64_t sums_bytes = 196'608;
// What a panel of B may take of the first-level cache.
constexpr std::int64_t first_cache = 32'768;
// Rows that are multiples of this apart fall on the same sets of the first-level cache.
constexpr std::int64_t set_stride = 4096;
// B is packed from this size, for it is read once for each row of tiles.
constexpr std::int64_t large_b = 2'000'000;
// A is packed for so many columns of C, B for so many rows.
constexpr std::int64_t columns_worth_packing = 128;
constexpr std::int64_t rows_worth_packing = 48;
// Rows of A that lie so many bytes apart or more are far where each of them is one term's. Multiples of few_sets fall
// on a quarter of the first-level cache's sets at most, and operands and C of large_product bytes are not in the second
// level: then A is packed, for so many columns.
constexpr std::int64_t far_rows = 2048;
constexpr std::int64_t few_sets = 1024;
constexpr std::int64_t large_product = 3'000'000;
constexpr std::int64_t columns_worth_packing_far_a = 128;
// The least terms of a panel that are packed at a time.
constexpr std::int64_t least_packed_terms = 32;
// Elements between the rows of A that are packed: some lines of the cache, so that they fall on different sets.
constexpr std::int64_t gap_of_a = 16;
// Multiplications that are worth another thread's while: some microseconds.
constexpr std::int64_t worth_a_part = 1'000'000;
constexpr int parts_of_thread = 3;
constexpr int few_threads = 4;
constexpr std::int64_t long_part = 4'000'000;  // multiplications
constexpr std::int64_t fewest_tiles = 4;       // of a part, for B's sake
// The same for additions of sums.
constexpr std::int64_t worth_a_sum = 65'536;
// Sums are cut in their blocks of terms where C has so many elements at most, and of all blocks so many bytes.
constexpr std::int64_t small_result = 16'384;
constexpr std::int64_t most_bytes_of_blocks = 4'194'304;

// Cycles that a tile takes, about, for its terms and to begin and end. Two multiplications or two loads fit in one (a
// vector that lies on two lines of the cache counts twice), and a multiplication has to wait four for the one before
// it. Each row of C is a further place in memory.
double cycles_of_tile(std::int64_t rows, std::int64_t vectors, std::int64_t terms) {
  const auto r = static_cast<double>(rows);
  const auto v = static_cast<double>(vectors);
  const double term = std::max({r * v / 2, (r + 2 * v) / 2, 4.0});
  return term * static_cast<double>(terms) + 12 + r * (v + 3);
}

// Bytes of the second-level cache, a megabyte at most.
std::int64_t second_cache() {
  static const std::int64_t bytes = [] {
    const long known = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return known > 0 ? std::clamp<std::int64_t>(known, 262'144, 1'048'576) : 1'048'576;
  }();
  return bytes;
}

// The same for a tile that transposes B: for each vector and term there are some moves more.
double cycles_of_transposing_tile(kernels::X86 set, std::int64_t rows, std::int64_t vectors, std::int64_t terms) {
  const auto v = static_cast<double>(vectors);
  const double moves = set == kernels::X86::avx512 ? 2.5 : 1.5;
  const double term = std::max(static_cast<double>(rows) * v / 2 + moves * v, 4.0);
  return term * static_cast<double>(terms) + 12 + static_cast<double>(rows) * (v + 3);
}

// To pack so many bytes, of what is transposed; and to put them into C.
double cycles_of_transposing(std::int64_t bytes) { return static_cast<double>(bytes) * 0.18; }
double cycles_of_putting(std::int64_t bytes) { return static_cast<double>(bytes) * 0.15; }

bool shares_sets(std::int64_t row_bytes) { return row_bytes % set_stride == 0; }

// Transposed, A is read a row in memory for each term, and no prefetcher reaches far rows: these have to stay in the
// caches.
bool worth_packing_a(const Product& p, std::int64_t element) {
  if (p.m == 1) return false;
  const std::int64_t row = p.lda * element;
  if (shares_sets(row)) return p.n >= columns_worth_packing;
  const std::int64_t all = (p.m * p.k + p.k * p.n + p.m * p.n) * element;
  return p.transpose_a && row >= far_rows && (row % few_sets == 0 || all >= large_product) &&
         p.n >= columns_worth_packing_far_a;
}

struct Tiling {
  Split rows;
  Split vectors;
  double cycles = 0;
  bool transposes = false;  // B, in the tiles
};

// The tiles that cost least.
Tiling best_tiling(const Product& p, kernels::X86 set, bool single) {
  const std::int64_t lanes = products::lanes(set, single);
  const std::int64_t element = single ? 4 : 8;
  const std::int64_t vectors = (p.n + lanes - 1) / lanes;
  Tiling best;
  for (int width = 1; width <= most_vectors && width <= vectors; ++width) {
    const Split panels = Split::of(vectors, width);
    if (panels.largest() != width) continue;
    const int most =
        std::min(most_rows(set, width, false), most_rows(set, static_cast<int>(panels.size), p.n % lanes != 0));
    if (most == 0) continue;
    const Split rows = Split::of(p.m, most);
    double cycles = 0;
    for (const int higher : {0, 1})
      for (const int wider : {0, 1})
        cycles += static_cast<double>(rows.count(higher == 1) * panels.count(wider == 1)) *
                  cycles_of_tile(rows.size + higher, panels.size + wider, p.k);
    // Many rows of A that fall on the same cache sets are in each other's way. So are rows of B, of a panel that is too
    // large.
    if (!p.transpose_a && shares_sets(p.lda * element) && !worth_packing_a(p, element))
      cycles *= 1 + 0.02 * std::max(0, most - 6);
    const auto panel = static_cast<double>(width * lanes * element * std::min(p.k, block_terms));
    cycles *= 1 + 0.03 * std::max(0.0, panel / static_cast<double>(first_cache) - 1);
    if (best.cycles > 0 && cycles >= best.cycles) continue;
    best = {rows, panels, cycles};
  }
  if (p.transpose_b) best.cycles += cycles_of_transposing(p.n * p.k * element);
  return best;
}

// The same, or tiles that transpose B, where they are as high as C.
Tiling best_of_all(const Product& p, kernels::X86 set, bool single) {
  Tiling best = best_tiling(p, set, single);
  const std::int64_t lanes = products::lanes(set, single);
  if (!p.transpose_b || p.n < lanes || p.k < terms_transposed(single)) return best;
  for (int width = 1; width <= most_vectors_transposing; ++width) {
    const Split panels = Split::of((p.n + lanes - 1) / lanes, width);
    if (panels.largest() != width) continue;
    if (p.m > most_rows_transposing(set, single, p.transpose_a, width)) continue;
    const Split rows = Split::of(p.m, p.m);
    double cycles = 0;
    for (const int wider : {0, 1})
      cycles += static_cast<double>(panels.count(wider == 1)) *
                cycles_of_transposing_tile(set, p.m, panels.size + wider, p.k);
    if (cycles < best.cycles) best = {rows, panels, cycles, true};
  }
  return best;
}

Product swapped(const Product& p) {
  Product out = p;
  out.transpose_a = !p.transpose_b;
  out.transpose_b = !p.transpose_a;
  std::swap(out.m, out.n);
  std::swap(out.lda, out.ldb);
  return out;
}

}  // namespace

Scheme::Scheme(const Product& product, DType dtype, kernels::X86 set)
    : p_(product),
      single_(dtype == float32),
      set_(set),
      element_(single_ ? 4 : 8),
      lanes_(products::lanes(set, single_)) {
  choose_tiles(product);
  choose_mask();
  const auto alpha = static_cast<float>(p_.alpha);
  single_ ? std::memcpy(&alpha_, &alpha, sizeof alpha) : std::memcpy(&alpha_, &p_.alpha, sizeof p_.alpha);
  choose_packing();
  choose_parts();
  choose_blocks(product, dtype);
  find_code();
  find_plain();
}

void Scheme::choose_tiles(const Product& product) {
  Tiling tiling = best_of_all(product, set_, single_);
  const Product other = swapped(product);
  const Tiling of_other = best_of_all(other, set_, single_);
  const double put = cycles_of_putting(product.m * product.n * element_);
  // By a clear margin: the count is a rough one.
  swapped_ = 1.1 * of_other.cycles + put < tiling.cycles;
  if (swapped_) {
    p_ = other;
    tiling = of_other;
  }
  rows_ = tiling.rows;
  vectors_ = tiling.vectors;
  transposes_b_ = tiling.transposes;
  // What is read for one tile only need not be packed.
  gathers_b_ = p_.transpose_b && !transposes_b_ && p_.n <= most_gathered(single_) && rows_.pieces == 1;
}

// Which elements of the last vector are the matrix's: the first ones, or where tiles transpose the last ones.
void Scheme::choose_mask() {
  const std::int64_t over = p_.n % lanes_;
  if (over == 0) return;
  const std::int64_t others = transposes_b_ ? lanes_ - over : 0;
  bits_ = ((std::uint64_t{1} << over) - 1) << others;
  if (set_ == kernels::X86::avx2)
    std::memset(reinterpret_cast<char*>(mask_) + others * element_, 0xFF, static_cast<std::size_t>(over * element_));
}

void Scheme::choose_packing() {
  const std::int64_t width = vectors_.largest() * lanes_;
  const std::int64_t row = p_.ldb * element_;
  packs_b_ = p_.transpose_b
                 ? !gathers_b_ && !transposes_b_
                 : (p_.m >= rows_worth_packing && p_.n > width && (shares_sets(row) || p_.k * row >= large_b));
  packs_a_ = worth_packing_a(p_, element_);
  if (packs_b_) b_bytes_ = static_cast<std::size_t>(2 * panel_bytes());
}

void Scheme::choose_parts() {
  const std::int64_t rows = rows_.largest();
  const std::int64_t width = vectors_.largest() * lanes_;
  beside_ = swapped_ || (p_.adds && p_.k > block_terms);
  fetches_ = p_.m * p_.n * element_ > first_cache / 2;
  const std::int64_t row_bytes = beside_ ? part_rows_bytes / 2 : part_rows_bytes * second_cache() / 1'048'576;
  const std::int64_t most_tiles = std::clamp<std::int64_t>(row_bytes / element_ / rows, 1, rows_.pieces);
  const std::int64_t column_bytes = beside_ ? sums_bytes / (most_tiles * rows) : part_columns_bytes;
  const std::int64_t most_panels = std::clamp<std::int64_t>(column_bytes / element_ / width, 1, vectors_.pieces);
  whole_.down = (rows_.pieces - 1) / most_tiles + 1;
  whole_.across = (vectors_.pieces - 1) / most_panels + 1;
  whole_.tiles = (rows_.pieces - 1) / whole_.down + 1;
  whole_.panels = (vectors_.pieces - 1) / whole_.across + 1;
  if (packs_a_) {
    const std::int64_t terms = std::min(p_.k, block_terms);
    const std::int64_t most_rows = whole_.tiles * rows;
    const std::int64_t elements = p_.transpose_a ? terms * most_rows : most_rows * (terms + gap_of_a);
    a_bytes_ = static_cast<std::size_t>(elements * element_);
  }
  if (beside_) sums_bytes_ = static_cast<std::size_t>(whole_.tiles * rows * whole_.panels * width * element_);
  may_be_cut_ = rows_.pieces * vectors_.pieces > 1 &&
                static_cast<double>(p_.m) * static_cast<double>(p_.n) * static_cast<double>(p_.k) >= 2.0 * worth_a_part;
}

void Scheme::choose_blocks(const Product& product, DType dtype) {
  const std::int64_t elements = product.m * product.n;
  const std::int64_t blocks = (product.k + block_terms - 1) / block_terms;
  const bool worth_it = static_cast<double>(elements) * static_cast<double>(product.k) >= 2.0 * worth_a_part;
  if (blocks < 4 || !worth_it || elements > small_result || elements * blocks * element_ > most_bytes_of_blocks) return;
  Product one = product;
  one.k = block_terms;
  one.ldc = product.n;
  one.alpha = 1;
  one.adds = false;
  block_ = std::make_shared<const Scheme>(one, dtype, set_);
  one.k = product.k - (blocks - 1) * block_terms;
  last_block_ = std::make_shared<const Scheme>(one, dtype, set_);
  blocks_ = blocks;
  blocks_bytes_ = static_cast<std::size_t>(elements * blocks * element_);
  may_be_cut_ = true;
}

std::size_t Scheme::scratch() const {
  const std::size_t own = b_bytes_ + sums_bytes_ + a_bytes_;
  return block_ ? std::max({own, block_->scratch(), last_block_->scratch()}) : own;
}

void Scheme::find_code() {
  TileShape shape{set_, single_, p_.transpose_a, false, 1, 1};
  shape.transposes = transposes_b_;
  for (const int higher : {0, 1}) {
    if (higher == 1 && rows_.larger == 0) continue;
    shape.rows = static_cast<int>(rows_.size + higher);
    shape.masked = false;
    for (const int wider : {0, 1}) {
      const std::int64_t smaller = vectors_.pieces - vectors_.larger - (bits_ != 0 ? 1 : 0);
      if ((wider == 1 ? vectors_.larger : smaller) == 0) continue;
      shape.vectors = static_cast<int>(vectors_.size + wider);
      code_[higher][wider] = tile(shape);
    }
    if (bits_ == 0) continue;
    shape.masked = true;
    shape.vectors = static_cast<int>(vectors_.size);
    shape.gathered = gathers_b_ ? static_cast<int>(p_.n) : 0;
    last_[higher] = tile(shape);
  }
}

// Small products spend as long on finding out what to call as on the calls.
void Scheme::find_plain() {
  const bool plain = !swapped_ && !packs_a_ && !packs_b_ && !p_.transpose_b && !fetches_ && !beside_ &&
                     p_.k <= block_terms && whole_.parts() == 1;
  if (!plain) return;
  std::size_t n = 0;
  for (std::int64_t panel = 0; panel < vectors_.pieces; ++panel)
    for (const int higher : {1, 0}) {
      if (rows_.count(higher == 1) == 0) continue;
      if (n == most_plain) return;
      const bool last = panel == vectors_.pieces - 1 && bits_ != 0;
      const std::int64_t row = higher == 1 ? 0 : rows_.begin(rows_.larger);
      const std::int64_t column = vectors_.begin(panel) * lanes_;
      const std::int64_t row_of_a = p_.transpose_a ? element_ : p_.lda * element_;
      plain_[n++] = {last ? last_[higher] : code_[higher][vectors_.is_larger(panel) ? 1 : 0],
                     row * row_of_a,
                     column * element_,
                     (row * p_.ldc + column) * element_,
                     (rows_.size + higher) * row_of_a,
                     rows_.count(higher == 1)};
    }
  plains_ = n;
}

// ---- parts

std::string Scheme::describe() const {
  return fmt::format("tiles of {} x {}{}{}{}", rows_.largest(), vectors_.largest() * lanes_,
                     packs_a_ ? ", A packed" : "",
                     packs_b_        ? ", B packed"
                     : transposes_b_ ? ", B transposed in them"
                                     : "",
                     swapped_ ? ", swapped" : "");
}

// In more parts than there are threads, so that one that is late does not hold up the others by much; but short parts,
// whose beginnings would cost more than that, in about as many as there are; and so where A is packed for each part, as
// long as the threads are few: of many, one is late nearly always (its core is shared with another process).
//
// Where C has more rows than columns, in rows: so they lie together, and whoever reads C next, range by range, mostly
// finds what the same thread made. But not in a few tiles each, for a panel of B is read for each part. Where that is
// packed, columns rather than rows; where A is packed, in parts as square as can be.
Scheme::Grid Scheme::cut(int threads) const {
  Grid grid = whole_;
  for (;;) {
    const std::int64_t rows = grid.tiles * rows_.largest();
    const std::int64_t columns = grid.panels * vectors_.largest() * lanes_;
    const std::int64_t work = rows * columns * p_.k;
    const std::int64_t rounds = (grid.parts() - 1) / threads + 1;
    const bool even = 8 * grid.parts() >= 7 * rounds * threads;
    if (grid.parts() >= std::int64_t{parts_of_thread} * threads || work < 2 * worth_a_part ||
        (even && ((packs_a_ && threads <= few_threads) || work < 2 * long_part)))
      return grid;
    const bool rather_columns =
        packs_a_ || packs_b_ ? rows <= (packs_b_ ? 4 : 1) * columns : p_.m < p_.n || grid.tiles < 2 * fewest_tiles;
    if (grid.panels > 1 && (rather_columns || grid.tiles == 1)) {
      grid.panels = (grid.panels + 1) / 2;
    } else if (grid.tiles > 1) {
      grid.tiles = (grid.tiles + 1) / 2;
    } else {
      return grid;
    }
    grid.down = (rows_.pieces - 1) / grid.tiles + 1;
    grid.across = (vectors_.pieces - 1) / grid.panels + 1;
  }
}

Scheme::Operands Scheme::operands(const void* a, const void* b, void* c, void* workspace) const {
  const auto* left = static_cast<const char*>(a);
  const auto* right = static_cast<const char*>(b);
  return {swapped_ ? right : left, swapped_ ? left : right, static_cast<char*>(c), static_cast<char*>(workspace)};
}

void Scheme::run(const void* a, const void* b, void* c, void* workspace) const {
  if (!may_be_cut_ || num_threads() == 1) return run_alone(a, b, c, workspace);
  const Grid grid = cut(num_threads());
  if (grid.parts() < 2 * num_threads() && blocks_ > grid.parts()) return run_blocks(a, b, c, workspace);
  detail::parallel_for(
      static_cast<std::size_t>(grid.parts()),
      [&](std::size_t part, void* own) {
        run_grid_part(grid, static_cast<std::int64_t>(part), operands(a, b, c, own ? own : workspace));
      },
      [&](std::size_t part) {  // its size, in tiles and panels
        const auto of = static_cast<std::int64_t>(part);
        return std::min(grid.tiles, rows_.pieces - of % grid.down * grid.tiles) *
               std::min(grid.panels, vectors_.pieces - of / grid.down * grid.panels);
      });
}

void Scheme::run_plain(const char* a, const char* b, char* c) const {
  TileCall call;
  call.a_stride = p_.lda * element_;
  call.b_stride = p_.ldb * element_;
  call.c_stride = call.sums_stride = p_.ldc * element_;
  call.terms = p_.k;
  call.mask = mask_;
  call.bits = bits_;
  call.alpha = &alpha_;
  call.flags = tile_ends | (p_.adds ? tile_adds : 0U);
  call.fetch_rows = 0;
  for (std::size_t i = 0; i < plains_; ++i) {
    const Plain& plain = plain_[i];
    call.a = a + plain.a;
    call.a_tile = plain.a_tile;
    call.b = b + plain.b;
    call.c = call.sums = c + plain.c;
    call.tiles = plain.tiles;
    plain.code(&call);
  }
}

// Each block's sums beside C, and those added in order: the same sums as run_alone()'s.
void Scheme::run_blocks(const void* a, const void* b, void* c, void* workspace) const {
  const Product p = swapped_ ? swapped(p_) : p_;
  const std::int64_t block_of_a = block_terms * (p.transpose_a ? p.lda : 1) * element_;
  const std::int64_t block_of_b = block_terms * (p.transpose_b ? 1 : p.ldb) * element_;
  const std::int64_t block_of_c = p.m * p.n * element_;
  char* sums = static_cast<char*>(workspace) + scratch();
  detail::parallel_for(static_cast<std::size_t>(blocks_), [&](std::size_t part, void* own) {
    const auto i = static_cast<std::int64_t>(part);
    const Scheme& scheme = i + 1 < blocks_ ? *block_ : *last_block_;
    scheme.run_alone(static_cast<const char*>(a) + i * block_of_a, static_cast<const char*>(b) + i * block_of_b,
                     sums + i * block_of_c, own ? own : workspace);
  });
  const auto put = [&]<class T>(T) {
    T alpha;
    std::memcpy(&alpha, &alpha_, sizeof alpha);
    const std::int64_t rows = std::max<std::int64_t>(1, worth_a_sum / (blocks_ * p.n));
    const std::int64_t parts = (p.m + rows - 1) / rows;
    detail::parallel_for(static_cast<std::size_t>(parts), [&](std::size_t part, void*) {
      const std::int64_t row = static_cast<std::int64_t>(part) * rows;
      put_sum(reinterpret_cast<const T*>(sums) + row * p.n, p.m * p.n, blocks_, std::min(rows, p.m - row), p.n, alpha,
              p.adds, static_cast<T*>(c) + row * p.ldc, p.ldc);
    });
  };
  single_ ? put(float{}) : put(double{});
}

void Scheme::run_alone(const void* a, const void* b, void* c, void* workspace) const {
  if (plains_ > 0) return run_plain(static_cast<const char*>(a), static_cast<const char*>(b), static_cast<char*>(c));
  const Operands at = operands(a, b, c, workspace);
  if (whole_.parts() == 1) return run_part({0, rows_.pieces}, {0, vectors_.pieces}, at);
  for (std::int64_t part = 0; part < whole_.parts(); ++part) run_grid_part(whole_, part, at);
}

// Parts that are below each other follow each other.
void Scheme::run_grid_part(const Grid& grid, std::int64_t part, const Operands& at) const {
  const std::int64_t tile = part % grid.down * grid.tiles;
  const std::int64_t panel = part / grid.down * grid.panels;
  run_part({tile, std::min(tile + grid.tiles, rows_.pieces)}, {panel, std::min(panel + grid.panels, vectors_.pieces)},
           at);
}

std::int64_t Scheme::panel_bytes() const {
  return std::min(p_.k, block_terms) * vectors_.largest() * lanes_ * element_;
}

void Scheme::run_part(Range tiles, Range panels, const Operands& at) const {
  const std::int64_t row = rows_.begin(tiles.begin);
  const std::int64_t first_column = vectors_.begin(panels.begin) * lanes_;
  TileCall call{};
  call.c_stride = p_.ldc * element_;
  call.sums_stride = beside_ ? vectors_.begin(panels.end) * lanes_ * element_ - first_column * element_ : call.c_stride;
  call.mask = mask_;
  call.bits = bits_;
  if (transposes_b_ && bits_ != 0) {
    const std::int64_t others = lanes_ - p_.n % lanes_;
    call.b_shift = others * p_.ldb * element_;
    call.c_shift = others * element_;
  }
  call.alpha = &alpha_;
  // While a panel is used the next one is packed, beside it.
  char* packed = at.workspace;
  char* next_packed = at.workspace + panel_bytes();
  const auto terms_from = [&](std::int64_t begin) { return Range{begin, std::min(begin + block_terms, p_.k)}; };
  if (packs_b_) pack_b({panels.begin, terms_from(0), at.b, packed}, terms_from(0));
  for (std::int64_t begin = 0; begin < p_.k; begin += block_terms) {
    const Range terms = terms_from(begin);
    call.terms = terms.end - terms.begin;
    call.flags = (p_.adds ? tile_adds : 0U) | (begin > 0 ? tile_continues : 0U) |
                 (terms.end == p_.k && !swapped_ ? tile_ends : 0U);
    set_a(tiles, terms, at, call);
    const void* a = call.a;
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const std::int64_t column = vectors_.begin(panel) * lanes_;
      call.a = a;
      call.c = at.c + (row * p_.ldc + column) * element_;
      call.sums = beside_ ? at.workspace + b_bytes_ + (column - first_column) * element_ : call.c;
      call.b = packs_b_ ? packed : at.b + (terms.begin * p_.ldb + column) * element_;
      call.b_stride = packs_b_ ? width_of(panel) * element_ : p_.ldb * element_;
      if (gathers_b_ || transposes_b_) call.b = at.b + (column * p_.ldb + terms.begin) * element_;
      std::optional<Panel> next;
      if (packs_b_ && panel + 1 < panels.end) {
        next = {panel + 1, terms, at.b, next_packed};
      } else if (packs_b_ && terms.end < p_.k) {
        next = {panels.begin, terms_from(terms.end), at.b, next_packed};
      }
      run_tiles(panel, tiles, call, next ? &*next : nullptr);
      std::swap(packed, next_packed);
    }
  }
  if (swapped_) put(tiles, panels, call, at);
}

// Where the part's rows of A lie; what is packed is packed here.
void Scheme::set_a(Range tiles, Range terms, const Operands& at, TileCall& call) const {
  const std::int64_t row = rows_.begin(tiles.begin);
  const char* from = at.a + (p_.transpose_a ? terms.begin * p_.lda + row : row * p_.lda + terms.begin) * element_;
  call.a = from;
  call.a_stride = p_.lda * element_;
  if (!packs_a_) return;
  char* to = at.workspace + b_bytes_ + sums_bytes_;
  call.a = to;
  const auto pack = [&]<class T>(T) {
    const T* source = reinterpret_cast<const T*>(from);
    T* packed = reinterpret_cast<T*>(to);
    if (p_.transpose_a) {
      const std::int64_t middle = std::clamp(rows_.larger, tiles.begin, tiles.end);
      pack_tiles(source, p_.lda, call.terms, middle - tiles.begin, rows_.size + 1, packed);
      const std::int64_t larger = (middle - tiles.begin) * (rows_.size + 1);
      pack_tiles(source + larger, p_.lda, call.terms, tiles.end - middle, rows_.size, packed + larger * call.terms);
    } else {
      call.a_stride = (call.terms + gap_of_a) * element_;
      pack_rows(source, p_.lda, rows_.begin(tiles.end) - row, call.terms, call.terms + gap_of_a, packed);
    }
  };
  single_ ? pack(float{}) : pack(double{});
}

std::int64_t Scheme::width_of(std::int64_t panel) const {
  return (vectors_.size + (vectors_.is_larger(panel) ? 1 : 0)) * lanes_;
}

// Of the panel's block of terms those in `terms`.
void Scheme::pack_b(const Panel& panel, Range terms) const {
  const std::int64_t column = vectors_.begin(panel.index) * lanes_;
  const std::int64_t width = width_of(panel.index);
  const std::int64_t columns = std::min(width, p_.n - column);
  const auto pack = [&]<class T>(T) {
    const T* b = reinterpret_cast<const T*>(panel.b);
    T* to = reinterpret_cast<T*>(panel.packed) + (terms.begin - panel.terms.begin) * width;
    if (p_.transpose_b) {
      pack_transposed(b + column * p_.ldb + terms.begin, p_.ldb, terms.end - terms.begin, columns, width, to);
    } else {
      pack_rows(b + terms.begin * p_.ldb + column, p_.ldb, terms.end - terms.begin, columns, width, to);
    }
  };
  single_ ? pack(float{}) : pack(double{});
}

// Lets the tile's code fetch into the cache what of the next panel is packed after it.
void Scheme::set_fetch(const Panel& next, Range terms, TileCall& call) const {
  const std::int64_t column = vectors_.begin(next.index) * lanes_;
  call.fetch = next.b + (p_.transpose_b ? column * p_.ldb + terms.begin : terms.begin * p_.ldb + column) * element_;
  call.fetch_stride = p_.ldb * element_;
  call.fetch_rows = p_.transpose_b ? std::min(width_of(next.index), p_.n - column) : terms.end - terms.begin;
}

void Scheme::run_tiles(std::int64_t panel, Range tiles, TileCall& call, const Panel* next) const {
  const bool last = panel == vectors_.pieces - 1;
  // The next panel is packed in as many pieces as there are tiles, but not in less than a few lines of memory each.
  const std::int64_t to_pack = next ? next->terms.end - next->terms.begin : 0;
  const std::int64_t piece =
      std::max(least_packed_terms, (to_pack + tiles.end - tiles.begin - 1) / (tiles.end - tiles.begin));
  std::int64_t packed = 0;
  for (std::int64_t tile = tiles.begin; tile < tiles.end;) {
    const bool higher = tile < rows_.larger;
    const std::int64_t rows = rows_.size + (higher ? 1 : 0);
    const bool packs = packed < to_pack;
    const std::int64_t end = packs ? tile + 1 : higher ? std::min(rows_.larger, tiles.end) : tiles.end;
    Range terms{};
    call.fetch_rows = 0;
    if (packs) {
      terms = {next->terms.begin + packed, next->terms.begin + std::min(packed + piece, to_pack)};
      if (fetches_) set_fetch(*next, terms, call);
      if (call.fetch_rows + rows >= call.terms) call.fetch_rows = 0;
    }
    call.flags = fetches_ && call.terms > rows ? call.flags | tile_fetches : call.flags & ~std::uint64_t{tile_fetches};
    if (packs_a_ && p_.transpose_a) call.a_stride = rows * element_;
    call.a_tile = !p_.transpose_a ? rows * call.a_stride : packs_a_ ? rows * call.terms * element_ : rows * element_;
    call.tiles = end - tile;
    const TileRun code =
        last && bits_ != 0 ? last_[higher ? 1 : 0] : code_[higher ? 1 : 0][vectors_.is_larger(panel) ? 1 : 0];
    code(&call);
    if (packs) pack_b(*next, terms);
    packed += piece;
    tile = end;
  }
}

// The sums of a swapped product into C.
void Scheme::put(Range tiles, Range panels, const TileCall& call, const Operands& at) const {
  const std::int64_t row = rows_.begin(tiles.begin);
  const std::int64_t column = vectors_.begin(panels.begin) * lanes_;
  const std::int64_t rows = rows_.begin(tiles.end) - row;
  const std::int64_t columns = std::min(vectors_.begin(panels.end) * lanes_, p_.n) - column;
  const auto put = [&]<class T>(T) {
    T alpha;
    std::memcpy(&alpha, &alpha_, sizeof alpha);
    put_transposed(reinterpret_cast<const T*>(at.workspace + b_bytes_), call.sums_stride / element_, rows, columns,
                   alpha, p_.adds, reinterpret_cast<T*>(at.c) + column * p_.ldc + row, p_.ldc);
  };
  single_ ? put(float{}) : put(double{});
}

}  // namespace chainrule::products
