// Fused groups: elementwise nodes of one shape and the sums over them, run tile by tile.
//
// The nodes' micro-programs are strung together into one list of instructions (flat.cpp) over registers (tape.cpp),
// each register a tile of a few hundred elements that stays in the first-level cache. For each tile of the shape the
// whole list runs, each instruction one call of a vector kernel (kernels/vector_table.hpp); inputs are read and outputs
// written once. Where machine code can be made (generate.cpp), runs of instructions become one operation, which keeps
// what is between them in the processor's registers.
//
// An input that is broadcast along rows or columns, and a sum along either, makes the group run row by row where rows
// are long. Where they are short, tiles hold several rows, whole ones if there is a sum along either.
//
// Tiles form chunks, which is what threads share. The bounds of both follow from the shape and the group alone, and
// sums are made of one partial sum a tile (over columns: a chunk), which are added in a fixed order at the end: the
// result has the same bits for every number of threads.
#include <algorithm>
#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/fused/flat.hpp>
#include <chainrule/framework/fused/tape.hpp>
#include <chainrule/framework/fused/views.hpp>

namespace chainrule::detail {

namespace {

constexpr std::size_t level1_bytes = 32'768;
constexpr std::int64_t longest_tile = 512;
constexpr std::int64_t longest_generated_tile = 2048;
constexpr std::int64_t shortest_tile = 128;
constexpr std::int64_t long_row_of_kernels = 128;
constexpr std::int64_t long_generated_row = 32;
// So many chunks, but for the bounds below: of some microseconds of work; where there are sums over columns, whose bits
// depend on them, of some elements, so that a group that makes more on the way has the same ones.
constexpr std::int64_t wished_chunks = 64;
constexpr double shortest_chunk = 4'000;  // nanoseconds
constexpr double longest_chunk = 16'000;
constexpr std::int64_t fewest_elements_of_chunk = 2048;
constexpr std::int64_t most_elements_of_chunk = 16'384;
// Sums over columns add so many rows one after the other; fewer would make the partial sums large.
constexpr std::int64_t most_rows_of_chunk = 64;
constexpr std::int64_t fewest_rows_of_chunk = 8;
// Up to so many tiles have their addresses kept in a table.
constexpr std::int64_t most_kept_tiles = 8;
// Nanoseconds from which waking a thread pays.
constexpr double worth_a_thread = 10'000;

class FusedStep final : public ChunkedGroup {
 public:
  FusedStep(Flat flat, const FusedGroup& group, bool whole_lines = false)
      : dtype_(flat.dtype),
        element_(size_of(flat.dtype)),
        size_(count(flat.shape)),
        instructions_(flat.instructions.size()),
        tile_(group.tile) {
    columns_ = flat.shape.empty() ? 1 : flat.shape.back();
    for (std::size_t axis = 0; axis + 1 < flat.shape.rank(); ++axis) lines_ *= flat.shape[axis];
    // The bits of a sum over everything depend on the tiles, and must not on who runs the group.
    for (const FlatSum& sum : flat.sums) {
      whole_lines = whole_lines || sum.over == SumOver::all;
      line_sums_ = line_sums_ || sum.over != SumOver::all;
      column_sums_ = column_sums_ || sum.over == SumOver::columns;
    }
    cost_ = cost_of_element(flat);
    const std::vector<Way> ways = choose_ways(flat);
    tape_ = assemble(flat, ways, group.in_place);
    keep_numbers(flat.numbers);
    externals_ = std::move(flat.externals);
    if (size_ > 0) {
      choose_tiles(whole_lines);
      choose_chunks();
    }
    for (const FlatSum& sum : flat.sums) add_sum(sum);
    const auto& operations = tape_.operations;
    if (operations.size() == 1 && operations[0].kind == Operation::Kind::code && tiles_of_row_ == 1)
      only_code_ = tape_.codes[operations[0].index]->run_rows();
    if (parallel_) reserve_scratch(scratch_bytes());
  }

  [[nodiscard]] std::size_t workspace() const { return size_ == 0 ? 0 : scratch_bytes() + partial_bytes_; }

  [[nodiscard]] std::int64_t tile() const override { return tile_; }
  [[nodiscard]] std::int64_t chunks() const override { return chunks_; }
  [[nodiscard]] std::int64_t elements_of_chunk() const override {
    if (!by_row_) return tiles_of_chunk_ * tile_;
    return tiles_of_chunk_ % tiles_of_row_ == 0 ? tiles_of_chunk_ / tiles_of_row_ * row_ : size_;
  }
  [[nodiscard]] double nanoseconds() const { return static_cast<double>(size_) * cost_; }
  [[nodiscard]] std::int64_t parts() const { return parallel_ ? chunks_ : 1; }

  // Pointers: the slots of all tiles, or none.
  [[nodiscard]] std::size_t table() const {
    const std::int64_t tiles = rows_ * tiles_of_row_;
    return size_ > 0 && chunks_ == 1 && tiles <= most_kept_tiles ? static_cast<std::size_t>(tiles) * tape_.slots : 0;
  }

  void prepare(const StepBuffers& buffers) const {
    char* scratch = static_cast<char*>(buffers.workspace);
    auto** at = reinterpret_cast<char**>(buffers.table);
    for_each_tile(0, [&](const Place& place, const Dims& row_index) {
      set_own_slots(at, scratch + tape_.slots * sizeof(char*));
      set_slots(at, buffers, place, row_index);
      at += tape_.slots;
    });
  }

  [[nodiscard]] std::string describe() const override {
    const std::int64_t tiles = rows_ * tiles_of_row_;
    std::string out = fmt::format("{} instructions, {} tile{} of up to {}", instructions_, tiles, tiles == 1 ? "" : "s",
                                  std::min(row_, tile_));
    std::size_t bytes = 0;
    for (const auto& code : tape_.codes) bytes += code->bytes();
    if (bytes > 0) out += fmt::format(", {} bytes of generated code", bytes);
    if (parallel_) out += fmt::format(", {} chunks", chunks_);
    return out;
  }

  void run(const StepBuffers& buffers) const {
    if (size_ == 0) {
      for (const Sum& sum : sums_) std::memset(buffers.outputs[sum.output], 0, sum.bytes);
      return;
    }
    char* scratch = static_cast<char*>(buffers.workspace);
    char* partials = scratch + scratch_bytes();
    if (parallel_) {
      parallel_for(
          static_cast<std::size_t>(chunks_),
          [&](std::size_t chunk, void* own) {
            run_chunk(buffers, static_cast<std::int64_t>(chunk), own ? static_cast<char*>(own) : scratch, partials);
          },
          [this](std::size_t chunk) {  // in tiles
            return std::min(tiles_of_chunk_,
                            rows_ * tiles_of_row_ - static_cast<std::int64_t>(chunk) * tiles_of_chunk_);
          });
    } else {
      for (std::int64_t chunk = 0; chunk < chunks_; ++chunk) run_chunk(buffers, chunk, scratch, partials);
    }
    finish(buffers, partials);
  }

  // The same from a table.
  void run_kept(const StepBuffers& buffers) const {
    auto** at = reinterpret_cast<char**>(buffers.table);
    if (only_code_) {
      return only_code_(at, static_cast<std::size_t>(row_), static_cast<std::size_t>(rows_), tape_.slots);
    }
    char* scratch = static_cast<char*>(buffers.workspace);
    const Sums sums{scratch + tape_.slots * sizeof(char*) + tape_.registers * register_bytes_,
                    scratch + scratch_bytes()};
    begin_sums(0, sums.partials);
    Place place;
    for (; place.row < rows_; ++place.row)
      for (place.begin = 0; place.begin < row_; place.begin += tile_) {
        place.n = static_cast<std::size_t>(std::min(row_ - place.begin, tile_));
        run_operations(at, buffers, place, sums);
        at += tape_.slots;
        ++place.tile;
      }
    finish(buffers, sums.partials);
  }

  [[nodiscard]] std::size_t scratch_bytes() const override {
    return tape_.slots * sizeof(char*) + (tape_.registers + (line_sums_ ? 1 : 0)) * register_bytes_;
  }
  [[nodiscard]] std::size_t partial_bytes() const override { return partial_bytes_; }

  // A run allocates nothing: the addresses of all slots lie before the registers' tiles.
  void run_chunk(const StepBuffers& buffers, std::int64_t chunk, char* scratch, char* partials) const override {
    auto** at = reinterpret_cast<char**>(scratch);
    char* tiles = scratch + tape_.slots * sizeof(char*);
    set_own_slots(at, tiles);
    begin_sums(chunk, partials);
    const Sums sums{tiles + tape_.registers * register_bytes_, partials};
    for_each_tile(chunk, [&](const Place& place, const Dims& row_index) {
      set_slots(at, buffers, place, row_index);
      run_operations(at, buffers, place, sums);
    });
  }

  void finish(const StepBuffers& buffers, const char* partials) const override {
    for (const Sum& sum : sums_) {
      if (dtype_ == float32) {
        finish_sum<float>(sum, buffers, partials);
      } else {
        finish_sum<double>(sum, buffers, partials);
      }
    }
  }

 private:
  struct Sum {
    SumOver over;
    std::size_t output;
    std::size_t bytes;     // of the output
    std::size_t partials;  // offset of the partial sums in the workspace's second part
    bool direct = false;   // no partial sums: each is whole as soon as it is made
    kernels::MicroRun add = nullptr;
  };

  // ---- made once

  // Decides how each input is read, and whether the group runs row by row.
  std::vector<Way> choose_ways(const Flat& flat) {
    const std::size_t n = flat.externals.size();
    std::vector<Dims> strides;
    for (const External& e : flat.externals)
      strides.push_back(e.generator ? row_major_strides(flat.shape) : broadcast_strides(e.type.shape, flat.shape));
    strides.push_back(row_major_strides(flat.shape));  // of the outputs
    // Operands that are broadcast are read where they lie if the group runs by rows, else copied to a register first.
    const bool broadcasts = std::any_of(flat.externals.begin(), flat.externals.end(), [&](const External& e) {
      const std::int64_t elements = count(e.type.shape);
      return !e.generator && e.type.dtype == dtype_ && elements != 1 && elements != size_;
    });
    const std::int64_t long_row = broadcasts && can_generate() ? long_generated_row : long_row_of_kernels;
    Dims joined = flat.shape;
    if (size_ > 0) collapse(joined, strides, line_sums_ && columns_ >= long_row);

    const Dims whole = strides.back();
    by_row_ =
        line_sums_ ? size_ > 0 && columns_ >= long_row : broadcasts && joined.rank() > 1 && joined.back() >= long_row;
    rows_ = by_row_ ? size_ / joined.back() : 1;
    row_ = by_row_ ? joined.back() : size_;
    for (std::size_t axis = 0; by_row_ && axis + 1 < joined.rank(); ++axis) row_shape_.push_back(joined[axis]);

    std::vector<Way> ways;
    for (std::size_t i = 0; i < n; ++i) {
      const External& e = flat.externals[i];
      const bool plain = !e.generator && e.type.dtype == dtype_;
      const std::int64_t inner = strides[i].empty() ? 0 : strides[i].back();
      const bool one = count(e.type.shape) == 1;
      Way way = Way::loaded;
      const bool in_place = strides[i] == whole || (by_row_ && inner == 1);
      if (plain && (one || (by_row_ && inner == 0)))
        way = Way::scalar;
      else if (in_place && (plain || (!e.generator && !one && can_generate_reading(e.type.dtype, dtype_))))
        way = Way::direct;
      ways.push_back(way);
      views_.push_back({joined, strides[i]});
      loads_.push_back(e.generator ? nullptr : load_of(e.type.dtype, dtype_));
      Dims row_strides;
      for (std::size_t axis = 0; by_row_ && axis + 1 < joined.rank(); ++axis) row_strides.push_back(strides[i][axis]);
      row_strides_.push_back(row_strides);
    }
    return ways;
  }

  void keep_numbers(const std::vector<double>& numbers) {
    numbers_.resize(numbers.size() * element_);
    visit_dtype(dtype_, [&](auto t) {
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        const auto value = cast_number<decltype(t)>(numbers[i]);
        std::memcpy(numbers_.data() + i * element_, &value, sizeof value);
      }
    });
  }

  // One that is given was chosen here for the same group in another plan.
  void choose_tiles(bool whole_lines) {
    // Generated code keeps the registers that it can in the processor's, and what it reads and writes passes by.
    const bool generated = !tape_.codes.empty();
    const std::size_t live = tape_.registers + (generated ? 0 : tape_.direct.size() + tape_.outputs.size());
    const std::size_t fitting = level1_bytes / 4 * 3 / std::max<std::size_t>(1, live) / element_ / 64 * 64;
    if (tile_ == 0) {
      tile_ = std::clamp(static_cast<std::int64_t>(fitting), shortest_tile,
                         generated ? longest_generated_tile : longest_tile);
      if (whole_lines && !by_row_ && columns_ <= tile_) tile_ = tile_ / columns_ * columns_;
    }
    if (line_sums_ && !by_row_) tile_ = tile_ / columns_ * columns_;
    tile_ = std::min(tile_, row_);
    tiles_of_row_ = (row_ + tile_ - 1) / tile_;
    lines_of_tile_ = by_row_ ? 1 : tile_ / columns_;
    // Whole cache lines; behind the registers one for the sums of a tile's columns.
    register_bytes_ = (static_cast<std::size_t>(tile_) * element_ + 63) / 64 * 64;
  }

  void choose_chunks() {
    const std::int64_t tiles = rows_ * tiles_of_row_;
    const auto within = [&](double least, double most) {
      return static_cast<std::int64_t>(std::clamp(static_cast<double>(size_) / wished_chunks, least, most));
    };
    const std::int64_t wished = column_sums_ ? within(fewest_elements_of_chunk, most_elements_of_chunk)
                                             : within(shortest_chunk / cost_, longest_chunk / cost_);
    std::int64_t of_chunk = std::max<std::int64_t>(1, wished / tile_);
    if (column_sums_) {  // whole rows
      const std::int64_t rows_of_tile = by_row_ ? 1 : tile_ / columns_;
      const std::int64_t rows = by_row_ ? std::clamp(wished / columns_, fewest_rows_of_chunk, most_rows_of_chunk)
                                        : std::max(wished / columns_, fewest_rows_of_chunk);
      of_chunk = by_row_ ? rows * tiles_of_row_ : (rows + rows_of_tile - 1) / rows_of_tile;
    }
    tiles_of_chunk_ = of_chunk;
    chunks_ = (tiles + of_chunk - 1) / of_chunk;
    parallel_ = chunks_ > 1 && nanoseconds() >= worth_a_thread;
  }

  void add_sum(const FlatSum& flat) {
    Sum sum{flat.over, flat.output, element_, partial_bytes_};
    std::int64_t partials = 0;
    switch (flat.over) {
      case SumOver::all:
        sum.direct = rows_ * tiles_of_row_ == 1;
        partials = sum.direct ? 0 : rows_ * tiles_of_row_;
        break;
      case SumOver::rows:
        sum.bytes = static_cast<std::size_t>(lines_) * element_;
        sum.direct = !by_row_ || tiles_of_row_ == 1;
        partials = sum.direct ? 0 : rows_ * tiles_of_row_;
        break;
      case SumOver::columns:
        sum.bytes = static_cast<std::size_t>(columns_) * element_;
        sum.add = dtype_ == float32 ? kernels::table<float>().micro[static_cast<std::size_t>(Micro::add)][0]
                                    : kernels::table<double>().micro[static_cast<std::size_t>(Micro::add)][0];
        partials = chunks_ * columns_;
        break;
    }
    partial_bytes_ += (static_cast<std::size_t>(partials) * element_ + 63) / 64 * 64;
    sums_.push_back(sum);
  }

  // ---- run

  // The tile that runs.
  struct Place {
    std::int64_t chunk = 0;
    std::int64_t tile = 0;
    std::int64_t row = 0;
    std::int64_t begin = 0;  // in the row
    std::size_t n = 0;
  };
  // Where sums are gathered: those of a tile's columns, and all partial ones.
  struct Sums {
    char* columns;
    char* partials;
  };

  // Calls f(place, row_index) for the tiles of a chunk; the index is that of the row, without the last axis.
  template <class F>
  void for_each_tile(std::int64_t chunk, F f) const {
    Place place;
    place.chunk = chunk;
    place.tile = chunk * tiles_of_chunk_;
    const std::int64_t end = std::min(place.tile + tiles_of_chunk_, rows_ * tiles_of_row_);
    Dims row_index = Dims::filled(row_shape_.rank(), 0);
    if (chunk > 0) {  // divisions take as long as a small group
      place.row = place.tile / tiles_of_row_;
      place.begin = place.tile % tiles_of_row_ * tile_;
      std::int64_t rest = place.row;
      for (std::size_t axis = row_shape_.rank(); axis-- > 0; rest /= row_shape_[axis])
        row_index[axis] = rest % row_shape_[axis];
    }
    for (; place.tile < end; ++place.tile) {
      place.n = static_cast<std::size_t>(std::min(row_ - place.begin, tile_));
      f(place, row_index);
      place.begin += tile_;
      if (place.begin < row_) continue;
      place.begin = 0;
      ++place.row;
      for (std::size_t axis = row_shape_.rank(); axis-- > 0;) {
        if (++row_index[axis] < row_shape_[axis]) break;
        row_index[axis] = 0;
      }
    }
  }

  // Of registers and numbers.
  void set_own_slots(char** at, char* tiles) const {
    for (std::size_t r = 0; r < tape_.registers; ++r) at[r] = tiles + r * register_bytes_;
    for (std::size_t i = 0; i < tape_.numbers; ++i)
      at[tape_.registers + i] = const_cast<char*>(numbers_.data() + i * element_);
  }

  // Of operands that are read where they lie, and of outputs.
  void set_slots(char** at, const StepBuffers& buffers, const Place& place, const Dims& row_index) const {
    for (const DirectOperand& d : tape_.direct) {
      std::int64_t offset = d.scalar ? 0 : place.begin;
      const Dims& strides = row_strides_[d.external];
      for (std::size_t i = 0; i < strides.rank(); ++i) offset += strides[i] * row_index[i];
      at[d.slot] = static_cast<char*>(const_cast<void*>(buffers.inputs[d.input])) + offset * d.element;
    }
    for (const TapeOutput& o : tape_.outputs)
      at[o.slot] = static_cast<char*>(buffers.outputs[o.output]) +
                   (place.row * row_ + place.begin) * static_cast<std::int64_t>(o.element);
  }

  void begin_sums(std::int64_t chunk, char* partials) const {
    for (const Sum& sum : sums_)
      if (sum.over == SumOver::columns)
        std::memset(partials + sum.partials + static_cast<std::size_t>(chunk) * sum.bytes, 0, sum.bytes);
  }

  void run_operations(char** at, const StepBuffers& buffers, const Place& place, const Sums& sums) const {
    for (const Operation& op : tape_.operations) {
      if (op.kind == Operation::Kind::micro) {
        op.run(at[op.out], at[op.a], at[op.b], at[op.c],
               op.out < tape_.registers ? place.n | kernels::whole_lines : place.n);
      } else if (op.kind == Operation::Kind::code) {
        op.code(at, place.n);
      } else {
        run_other(op, at, buffers, place, sums);
      }
    }
  }

  void run_other(const Operation& op, char** at, const StepBuffers& buffers, const Place& place,
                 const Sums& sums) const {
    const std::int64_t begin = place.row * row_ + place.begin;
    const auto n = static_cast<std::int64_t>(place.n);
    switch (op.kind) {
      case Operation::Kind::micro:
      case Operation::Kind::code: return;
      case Operation::Kind::load:
        loads_[op.index](views_[op.index], buffers.inputs[externals_[op.index].slots[0]], begin, n, at[op.out]);
        return;
      case Operation::Kind::generate: {
        const External& e = externals_[op.index];
        const void* inputs[most_generator_inputs] = {};
        for (std::size_t i = 0; i < e.slots.size(); ++i) inputs[i] = buffers.inputs[e.slots[i]];
        e.generator(inputs, at[op.out], begin, begin + n);
        return;
      }
      case Operation::Kind::to_bool: {
        auto* to = reinterpret_cast<bool*>(at[op.out]);
        visit_dtype(dtype_, [&](auto t) {
          const auto* from = reinterpret_cast<const decltype(t)*>(at[op.a]);
          for (std::size_t i = 0; i < place.n; ++i) to[i] = from[i] != 0;
        });
        return;
      }
      case Operation::Kind::sum:
        if (dtype_ == float32) {
          add_tile<float>(sums_[op.index], at[op.a], buffers, place, sums);
        } else {
          add_tile<double>(sums_[op.index], at[op.a], buffers, place, sums);
        }
        return;
    }
  }

  template <class T>
  void add_tile(const Sum& sum, const char* tile, const StepBuffers& buffers, const Place& place,
                const Sums& sums) const {
    const auto& table = kernels::table<T>();
    const T* x = reinterpret_cast<const T*>(tile);
    T* out = static_cast<T*>(buffers.outputs[sum.output]);
    T* partials = reinterpret_cast<T*>(sums.partials + sum.partials);
    const auto columns = static_cast<std::size_t>(columns_);
    // Divisions take as long as a small group.
    const bool whole = by_row_ || static_cast<std::int64_t>(place.n) == tile_;
    const std::size_t lines = whole ? static_cast<std::size_t>(lines_of_tile_) : place.n / columns;
    switch (sum.over) {
      case SumOver::all: (sum.direct ? out : partials + place.tile)[0] = table.sum(x, place.n); return;
      case SumOver::rows:
        if (by_row_) {
          (sum.direct ? out + place.row : partials + place.tile)[0] = table.sum(x, place.n);
          return;
        }
        out += place.tile * lines_of_tile_;
        table.sum_lines(x, lines, columns, out);
        return;
      case SumOver::columns: {
        T* held = partials + place.chunk * columns_;
        if (by_row_) {
          held += place.begin;
          sum.add(held, held, x, x, place.n);
          return;
        }
        T* own = reinterpret_cast<T*>(sums.columns);
        table.sum_rows(x, lines, columns, own);
        sum.add(held, held, own, own, columns);
        return;
      }
    }
  }

  // From the partial sums to the sum.
  template <class T>
  void finish_sum(const Sum& sum, const StepBuffers& buffers, const char* partials_of_all) const {
    if (sum.direct) return;
    const auto& table = kernels::table<T>();
    T* out = static_cast<T*>(buffers.outputs[sum.output]);
    const T* partials = reinterpret_cast<const T*>(partials_of_all + sum.partials);
    const auto tiles = static_cast<std::size_t>(tiles_of_row_);
    const auto rows = static_cast<std::size_t>(rows_);
    switch (sum.over) {
      case SumOver::all: *out = table.sum(partials, rows * tiles); return;
      case SumOver::rows: table.sum_lines(partials, rows, tiles, out); return;
      case SumOver::columns:
        table.sum_rows(partials, static_cast<std::size_t>(chunks_), static_cast<std::size_t>(columns_), out);
        return;
    }
  }

  DType dtype_;
  std::size_t element_;
  std::int64_t size_;
  std::size_t instructions_;
  std::int64_t lines_ = 1;    // all extents but the last
  std::int64_t columns_ = 1;  // the last one
  bool line_sums_ = false;    // along rows or columns
  bool column_sums_ = false;
  double cost_ = 0;  // of an element
  bool by_row_ = false;
  std::int64_t rows_ = 1;
  std::int64_t row_ = 0;
  Dims row_shape_;
  std::int64_t tile_ = 0;
  std::int64_t tiles_of_row_ = 0;
  std::int64_t tiles_of_chunk_ = 0;
  std::int64_t chunks_ = 0;
  bool parallel_ = false;
  std::size_t register_bytes_ = 0;
  std::size_t partial_bytes_ = 0;
  std::vector<External> externals_;
  std::vector<View> views_;
  std::vector<Load> loads_;
  std::vector<Dims> row_strides_;
  std::vector<char> numbers_;
  Tape tape_;
  std::vector<Sum> sums_;
  GeneratedRunRows only_code_ = nullptr;  // all that there is to do for a row
  std::int64_t lines_of_tile_ = 0;        // where tiles hold whole lines, for sums along them
};

}  // namespace

Step make_fused_step(const GraphData& graph, const FusedGroup& group, const Sizes& sizes) {
  auto step = std::make_shared<const FusedStep>(flatten(graph, group, sizes), group);
  Step out{StepRun::of<&FusedStep::run>(step),
           step->workspace(),
           0,
           step->tile(),
           step->nanoseconds(),
           step->parts(),
           step->table()};
  if (out.table > 0) {
    out.prepare = StepRun::of<&FusedStep::prepare>(step);
    out.run_kept = StepRun::of<&FusedStep::run_kept>(step);
  }
  return out;
}

std::shared_ptr<const ChunkedGroup> make_chunked_group(const GraphData& graph, const FusedGroup& group,
                                                       const Sizes& sizes) {
  return std::make_shared<const FusedStep>(flatten(graph, group, sizes), group, true);
}

std::string describe_fused_step(const GraphData& graph, const FusedGroup& group, const Sizes& sizes) {
  return FusedStep(flatten(graph, group, sizes), group).describe();
}

Step make_node_step(const GraphData& graph, NodeId id, const Sizes& sizes) {
  const NodeData& node = graph.node(id);
  if (!node.op->forward.micro) return make_kernel_step(graph, id, sizes);
  return make_fused_step(graph, {{id}, {node.inputs.begin(), node.inputs.end()}, {id}, {}}, sizes);
}

std::vector<Array> evaluate_all(const Node& node, const std::vector<const Array*>& inputs) {
  std::vector<Array> out;
  std::vector<void*> outputs;
  for (const Value output : node.outputs()) {
    out.emplace_back(output.dtype(), chainrule::evaluate(output.shape(), Sizes{}));
    outputs.push_back(out.back().raw());
  }
  std::vector<const void*> pointers;
  pointers.reserve(inputs.size());
  for (const Array* input : inputs) pointers.push_back(input->raw());
  const Step step = make_node_step(*node.graph_data(), node.id(), Sizes{});
  const Array workspace(boolean, Dims{static_cast<std::int64_t>(step.workspace)});
  step.run({pointers.data(), outputs.data(), const_cast<void*>(workspace.raw())});
  return out;
}

Array evaluate(const Node& node, const std::vector<const Array*>& inputs) {
  return std::move(evaluate_all(node, inputs)[0]);
}

}  // namespace chainrule::detail
