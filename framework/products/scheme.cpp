#include <chainrule/framework/products/scheme.hpp>

#include <algorithm>
#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/products/pack.hpp>

namespace chainrule::products {

namespace {

// Rows of C of a part, as bytes of their column in A's block of terms: these stay in the second-level cache while the
// panels pass by. And bytes of a row of C.
constexpr std::int64_t part_column = 1920;
constexpr std::int64_t part_row = 4096;
// The same where sums of several blocks need memory of their own, since C's is in use.
constexpr std::int64_t part_column_beside = 960;
constexpr std::int64_t part_row_beside = 1024;
// Rows this many bytes apart fall on the same sets of the first-level cache.
constexpr std::int64_t set_stride = 4096;
// B is packed from this size, for it is read once for each row of tiles; and where there are so many rows of C.
constexpr std::int64_t large_b = 1'500'000;
constexpr std::int64_t worth_packing = 48;
// Multiplications that are worth another thread's while: some microseconds.
constexpr std::int64_t worth_a_part = 1'000'000;
constexpr int parts_of_thread = 3;

// Cycles that a tile takes, about, for one term and to begin and end: what decides between tiles. Two multiplications
// or two loads fit in one, and a multiplication has to wait four for the one before it.
double cost(std::int64_t rows, std::int64_t vectors, std::int64_t terms) {
  const auto r = static_cast<double>(rows);
  const auto v = static_cast<double>(vectors);
  const double term = std::max({r * v / 2, (r + v) / 2 * 1.08, 4.0});
  const double ends = 12 + r * v;
  return term * static_cast<double>(terms) + ends;
}

}  // namespace

Scheme::Scheme(const Product& product, DType dtype, kernels::X86 set)
    : p_(product),
      single_(dtype == float32),
      set_(set),
      element_(single_ ? 4 : 8),
      lanes_(products::lanes(set, single_)) {
  const std::int64_t over = p_.n % lanes_;
  bits_ = (std::uint64_t{1} << over) - 1;
  std::memset(mask_, 0xFF, static_cast<std::size_t>(std::min(over * element_, std::int64_t{sizeof mask_})));
  const auto alpha = static_cast<float>(p_.alpha);
  single_ ? std::memcpy(&alpha_, &alpha, sizeof alpha) : std::memcpy(&alpha_, &p_.alpha, sizeof p_.alpha);
  choose_tiles();
  choose_packing();
  find_code();
}

void Scheme::choose_tiles() {
  const std::int64_t vectors = (p_.n + lanes_ - 1) / lanes_;
  const std::int64_t terms = std::min(p_.k, block_terms);
  double least = 0;
  for (int width = 1; width <= most_vectors && width <= vectors; ++width) {
    const Split panels = Split::of(vectors, width);
    const int widest = static_cast<int>(panels.size + (panels.larger > 0 ? 1 : 0));
    const int last = static_cast<int>(panels.size);
    const int most = std::min(most_rows(set_, widest, false), most_rows(set_, last, p_.n % lanes_ != 0));
    if (widest != width || most == 0) continue;
    const Split rows = Split::of(p_.m, most);
    double sum = 0;
    for (const int higher : {0, 1})
      for (const int wider : {0, 1}) {
        const std::int64_t tiles = higher == 1 ? rows.larger : rows.pieces - rows.larger;
        const std::int64_t of_width = wider == 1 ? panels.larger : panels.pieces - panels.larger;
        sum += static_cast<double>(tiles * of_width) * cost(rows.size + higher, panels.size + wider, terms);
      }
    // Many rows of A that fall on the same cache sets are in each other's way.
    if (!p_.transpose_a && p_.lda * element_ >= set_stride)
      sum *= 1 + 0.02 * static_cast<double>(std::max(0, most - 6));
    // A wide panel shares the first-level cache with less of A.
    if (width > 3 && terms > 128) sum *= 1.015;
    if (least > 0 && sum >= least) continue;
    least = sum;
    rows_ = rows;
    vectors_ = panels;
  }
}

void Scheme::choose_packing() {
  const std::int64_t width = (vectors_.size + (vectors_.larger > 0 ? 1 : 0)) * lanes_;
  const std::int64_t row = p_.ldb * element_;
  packs_ =
      p_.transpose_b || (p_.m >= worth_packing && p_.n > width && (row % set_stride == 0 || p_.k * row >= large_b));
  const std::int64_t terms = std::min(p_.k, block_terms);
  if (packs_) pack_bytes_ = static_cast<std::size_t>(terms * width * element_);
  const bool beside = p_.adds && p_.k > block_terms;
  const std::int64_t rows = rows_.size + (rows_.larger > 0 ? 1 : 0);
  most_tiles_ = std::max<std::int64_t>(1, (beside ? part_column_beside : part_column) / element_ / rows);
  most_panels_ = std::max<std::int64_t>(1, (beside ? part_row_beside : part_row) / element_ / width);
  const Grid grid = whole();
  if (beside) sums_bytes_ = static_cast<std::size_t>(grid.tiles * rows * grid.panels * width * element_);
}

void Scheme::find_code() {
  TileShape shape{set_, single_, p_.transpose_a, false, 1, 1};
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
    last_[higher] = tile(shape);
  }
}

// ---- parts

Scheme::Grid Scheme::whole() const {
  const std::int64_t down = (rows_.pieces - 1) / most_tiles_ + 1;
  const std::int64_t across = (vectors_.pieces - 1) / most_panels_ + 1;
  return {(rows_.pieces - 1) / down + 1, (vectors_.pieces - 1) / across + 1, down, across};
}

bool Scheme::may_be_cut() const {
  return static_cast<double>(p_.m) * static_cast<double>(p_.n) * static_cast<double>(p_.k) >= 2.0 * worth_a_part &&
         rows_.pieces * vectors_.pieces > 1;
}

std::string Scheme::describe() const {
  return fmt::format("tiles of {} x {}{}", rows_.size + (rows_.larger > 0 ? 1 : 0),
                     (vectors_.size + (vectors_.larger > 0 ? 1 : 0)) * lanes_, packs_ ? ", B packed" : "");
}

Scheme::Grid Scheme::cut(int threads) const {
  Grid grid = whole();
  if (threads == 1 || !may_be_cut()) return grid;
  const std::int64_t width = (vectors_.size + 1) * lanes_;
  for (;;) {
    const std::int64_t rows = grid.tiles * (rows_.size + 1);
    const std::int64_t columns = grid.panels * width;
    if (grid.parts() >= std::int64_t{parts_of_thread} * threads || rows * columns * p_.k < 2 * worth_a_part)
      return grid;
    // What is packed is packed for each part that is above another one.
    const bool rather_columns = grid.panels > 1 && (packs_ ? rows <= 4 * columns : rows <= columns);
    if (rather_columns || (grid.tiles == 1 && grid.panels > 1)) {
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

void Scheme::run(const void* a, const void* b, void* c, void* workspace) const {
  if (num_threads() == 1 || !may_be_cut()) return run_alone(a, b, c, workspace);
  const Grid grid = cut(num_threads());
  detail::parallel_for(static_cast<std::size_t>(grid.parts()), [&](std::size_t part, void* own) {
    run_part(grid, static_cast<std::int64_t>(part),
             {static_cast<const char*>(a), static_cast<const char*>(b), static_cast<char*>(c),
              static_cast<char*>(own ? own : workspace)});
  });
}

void Scheme::run_alone(const void* a, const void* b, void* c, void* workspace) const {
  const Grid grid = whole();
  for (std::int64_t part = 0; part < grid.parts(); ++part)
    run_part(grid, part,
             {static_cast<const char*>(a), static_cast<const char*>(b), static_cast<char*>(c),
              static_cast<char*>(workspace)});
}

// Parts that are below each other follow each other.
void Scheme::run_part(const Grid& grid, std::int64_t part, const Operands& at) const {
  const std::int64_t first_tile = part % grid.down * grid.tiles;
  const std::int64_t first_panel = part / grid.down * grid.panels;
  const Range tiles{first_tile, std::min(first_tile + grid.tiles, rows_.pieces)};
  const Range panels{first_panel, std::min(first_panel + grid.panels, vectors_.pieces)};
  const std::int64_t row = rows_.begin(tiles.begin);
  const bool beside = p_.adds && p_.k > block_terms;
  TileCall call{};
  call.a_stride = p_.lda * element_;
  call.c_stride = p_.ldc * element_;
  call.sums_stride =
      beside ? (vectors_.begin(panels.end) - vectors_.begin(panels.begin)) * lanes_ * element_ : call.c_stride;
  call.mask = mask_;
  call.bits = bits_;
  call.alpha = &alpha_;
  for (std::int64_t begin = 0; begin < p_.k; begin += block_terms) {
    const Range terms{begin, std::min(begin + block_terms, p_.k)};
    call.terms = terms.end - terms.begin;
    call.flags = (p_.adds ? tile_adds : 0U) | (begin > 0 ? tile_continues : 0U) | (terms.end == p_.k ? tile_ends : 0U);
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const std::int64_t column = vectors_.begin(panel) * lanes_;
      call.a = at.a + (p_.transpose_a ? begin * p_.lda + row : row * p_.lda + begin) * element_;
      call.c = at.c + (row * p_.ldc + column) * element_;
      call.sums =
          beside ? at.workspace + pack_bytes_ + (column - vectors_.begin(panels.begin) * lanes_) * element_ : call.c;
      set_b(panel, terms, at, call);
      run_tiles(panel, tiles, call);
    }
  }
}

// Where the panel's part of B lies; what is packed is packed here.
void Scheme::set_b(std::int64_t panel, Range terms, const Operands& at, TileCall& call) const {
  const std::int64_t column = vectors_.begin(panel) * lanes_;
  const char* from = at.b + (p_.transpose_b ? column * p_.ldb + terms.begin : terms.begin * p_.ldb + column) * element_;
  if (!packs_) {
    call.b = from;
    call.b_stride = p_.ldb * element_;
    return;
  }
  const std::int64_t width = (vectors_.size + (vectors_.is_larger(panel) ? 1 : 0)) * lanes_;
  const std::int64_t columns = std::min(width, p_.n - column);
  call.b = at.workspace;
  call.b_stride = width * element_;
  if (!p_.transpose_b) {
    pack_rows(from, p_.ldb, call.terms, columns, width, static_cast<std::size_t>(element_), at.workspace);
  } else if (single_) {
    pack_transposed(reinterpret_cast<const float*>(from), p_.ldb, call.terms, columns, width,
                    reinterpret_cast<float*>(at.workspace));
  } else {
    pack_transposed(reinterpret_cast<const double*>(from), p_.ldb, call.terms, columns, width,
                    reinterpret_cast<double*>(at.workspace));
  }
}

void Scheme::run_tiles(std::int64_t panel, Range tiles, TileCall& call) const {
  const bool last = panel == vectors_.pieces - 1;
  const std::int64_t middle = std::clamp(rows_.larger, tiles.begin, tiles.end);
  for (const int higher : {1, 0}) {
    call.tiles = higher == 1 ? middle - tiles.begin : tiles.end - middle;
    if (call.tiles == 0) continue;
    const TileRun code = last && bits_ != 0 ? last_[higher] : code_[higher][vectors_.is_larger(panel) ? 1 : 0];
    code(&call);
  }
}

}  // namespace chainrule::products
