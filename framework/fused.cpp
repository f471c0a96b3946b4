// Fused groups: elementwise nodes of one shape, run tile by tile.
//
// The nodes' micro-programs are strung together into one list of instructions over registers, each register a tile of
// a few hundred elements that stays in the first-level cache. For each tile of the shape the whole list runs, each
// instruction one call of a vector kernel (kernels/vector_table.hpp); inputs are read and outputs written once. No code
// is generated, and yet it is some 1.4 times the time of a loop written by hand.
//
// An input takes one of four ways into an instruction:
//   direct     it has the group's shape and dtype: the instruction reads its memory
//   scalar     it is one element: the kernel's variant for a single operand
//   by row     it is constant or contiguous along the innermost axis, and that is long: the group then runs row by row,
//              and for each row it is one of the two above
//   loaded     otherwise (short rows, another dtype, a generator): an element-by-element load into a register
#include <algorithm>
#include <cstring>
#include <map>

#include <fmt/core.h>

#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/framework/step.hpp>

namespace chainrule::detail {

namespace {

using Kind = MicroProgram::Operand::Kind;

constexpr std::size_t level1_bytes = 32 * 1024;
constexpr std::size_t longest_tile = 512;
constexpr std::size_t shortest_tile = 128;
constexpr std::int64_t long_row = 128;
constexpr std::size_t most_generator_inputs = 4;

// ---- the list of instructions

// Where an operand comes from.
struct Source {
  enum class From : std::uint8_t { input, number, instruction } from = From::number;
  std::size_t index = 0;  // of the group's operand, the table of numbers, or the instruction
  friend bool operator==(const Source&, const Source&) = default;
};

struct Instruction {
  Micro micro;
  Source operands[3];
};

// An operand from outside the group.
struct External {
  TensorType type;
  RangeRun generator;              // makes the elements, where the value is a generator's
  std::vector<std::size_t> slots;  // in StepBuffers::inputs: one, or those of the generator's inputs
};

struct Flat {
  DType dtype;
  Dims shape;
  std::vector<External> externals;
  std::vector<double> numbers;
  std::vector<Instruction> instructions;
  std::vector<Source> outputs;  // the instruction whose result each output is
  std::vector<DType> output_dtypes;
};

Flat flatten(const GraphData& graph, const FusedGroup& group, const Sizes& sizes) {
  Flat flat;
  flat.dtype = compute_dtype(graph, group.nodes.front());
  flat.shape = evaluate(graph.node(group.nodes.front()).type.shape, sizes);
  std::map<NodeId, Source> value_of;
  std::map<NodeId, std::size_t> slot_of;
  for (std::size_t i = 0; i < group.inputs.size(); ++i) slot_of.emplace(group.inputs[i], i);

  const auto number = [&](double x) {
    for (std::size_t i = 0; i < flat.numbers.size(); ++i)
      if (std::memcmp(&flat.numbers[i], &x, sizeof x) == 0) return Source{Source::From::number, i};
    flat.numbers.push_back(x);
    return Source{Source::From::number, flat.numbers.size() - 1};
  };
  const auto source_of = [&](NodeId id) -> Source {
    if (const auto it = value_of.find(id); it != value_of.end()) return it->second;
    const NodeData& node = graph.node(id);
    const Array* constant = constant_value({const_cast<GraphData*>(&graph), id});
    Source made;
    if (constant && constant->size() == 1) {
      made = number((*constant)[0]);
    } else {
      External external{{node.type.dtype, evaluate(node.type.shape, sizes)}, {}, {}};
      const auto slot = slot_of.find(id);
      if (slot != slot_of.end()) {
        external.slots.push_back(slot->second);
      } else {
        invariant(bool(node.op->forward.generator), "a fused group does not list one of its inputs");
        const Attributes attributes = evaluate_attributes(node.attributes, sizes);
        KernelCall call{{}, external.type, attributes, node.op->name, node.at};
        external.generator = node.op->forward.generator(call);
        for (const NodeId input : node.inputs) external.slots.push_back(slot_of.at(input));
        invariant(external.slots.size() <= most_generator_inputs, "a generator of too many inputs");
      }
      flat.externals.push_back(std::move(external));
      made = {Source::From::input, flat.externals.size() - 1};
    }
    value_of.emplace(id, made);
    return made;
  };

  for (const NodeId id : group.nodes) {
    const NodeData& node = graph.node(id);
    const MicroProgram& program = *node.op->forward.micro;
    std::vector<Source> results;
    const auto resolve = [&](const MicroProgram::Operand& operand) -> Source {
      switch (operand.kind) {
        case Kind::input: return source_of(node.inputs[operand.index]);
        case Kind::number: return number(operand.number);
        case Kind::attribute: return number(node.attributes.number(program.attributes[operand.index]));
        case Kind::result: break;
      }
      return results[operand.index];
    };
    for (const auto& step : program.instructions) {
      Instruction made{step.micro, {}};
      for (int i = 0; i < arity(step.micro); ++i) made.operands[i] = resolve(step.operands[i]);
      if (step.micro == Micro::copy) {
        const Source from = made.operands[0];
        // To bool: anything but 0 is true. Otherwise a copy is its operand.
        if (node.type.dtype == boolean && node.inputs.size() == 1 && graph.node(node.inputs[0]).type.dtype != boolean) {
          made = {Micro::not_equal, {from, number(0), {}}};
        } else {
          results.push_back(from);
          continue;
        }
      }
      flat.instructions.push_back(made);
      results.push_back({Source::From::instruction, flat.instructions.size() - 1});
    }
    value_of[id] = results[program.result.index];
  }
  for (const NodeId id : group.outputs) {
    Source source = value_of.at(id);
    if (source.from != Source::From::instruction) {
      // An operand or number that is passed on. It gets an instruction like all others, whose order says what is read
      // before another output overwrites it.
      flat.instructions.push_back({Micro::copy, {source, {}, {}}});
      source = {Source::From::instruction, flat.instructions.size() - 1};
    }
    flat.outputs.push_back(source);
    flat.output_dtypes.push_back(graph.node(id).type.dtype);
  }
  return flat;
}

// ---- loads

// Reads an array as a larger or differently typed one: elements [begin, begin + n) of the group's shape.
struct View {
  Dims shape;
  Dims strides;
};

template <class From, class T>
void load_view(const View& view, const From* from, std::int64_t begin, std::int64_t n, T* out) {
  Dims index = Dims::filled(view.shape.rank(), 0);
  std::int64_t offset = 0;
  std::int64_t rest = begin;
  for (std::size_t axis = view.shape.rank(); axis-- > 0;) {
    index[axis] = rest % view.shape[axis];
    rest /= view.shape[axis];
    offset += index[axis] * view.strides[axis];
  }
  const std::size_t last = view.shape.rank() - 1;
  const std::int64_t stride = view.strides[last];
  while (n > 0) {
    const std::int64_t run = std::min(n, view.shape[last] - index[last]);
    if (stride == 0) {
      std::fill_n(out, run, static_cast<T>(from[offset]));
    } else {
      for (std::int64_t i = 0; i < run; ++i) out[i] = static_cast<T>(from[offset + i * stride]);
    }
    out += run;
    n -= run;
    offset += run * stride;
    index[last] += run;
    for (std::size_t axis = last; n > 0; --axis) {  // carry
      if (index[axis] < view.shape[axis]) break;
      offset -= index[axis] * view.strides[axis];
      index[axis] = 0;
      if (axis == 0) break;
      ++index[axis - 1];
      offset += view.strides[axis - 1];
    }
  }
}

using Load = void (*)(const View&, const void*, std::int64_t, std::int64_t, void*);

Load load_of(DType from, DType to) {
  Load load = nullptr;
  visit_dtype(from, [&](auto f) {
    visit_dtype(to, [&](auto t) {
      using F = decltype(f);
      using T = decltype(t);
      if constexpr (!std::is_same_v<T, bool>)
        load = [](const View& view, const void* source, std::int64_t begin, std::int64_t n, void* out) {
          load_view(view, static_cast<const F*>(source), begin, n, static_cast<T*>(out));
        };
    });
  });
  return load;
}

// Neighbouring axes along which all views move as one are joined.
void collapse(Dims& shape, std::vector<Dims>& strides) {
  Dims joined;
  std::vector<Dims> joined_strides(strides.size());
  for (std::size_t axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == 1) continue;
    const bool join = !joined.empty() && [&] {
      for (std::size_t v = 0; v < strides.size(); ++v)
        if (joined_strides[v].back() != strides[v][axis] * shape[axis]) return false;
      return true;
    }();
    if (join) {
      joined.back() *= shape[axis];
      for (std::size_t v = 0; v < strides.size(); ++v) joined_strides[v].back() = strides[v][axis];
    } else {
      joined.push_back(shape[axis]);
      for (std::size_t v = 0; v < strides.size(); ++v) joined_strides[v].push_back(strides[v][axis]);
    }
  }
  if (joined.empty()) {
    joined.push_back(1);
    for (auto& s : joined_strides) s.push_back(0);
  }
  shape = joined;
  strides = joined_strides;
}

// ---- the step

using Slot = std::uint32_t;
using kernels::MicroRun;

class FusedStep {
 public:
  FusedStep(Flat flat, const std::vector<std::pair<std::size_t, std::size_t>>& in_place)
      : dtype_(flat.dtype), element_(size_of(flat.dtype)), size_(count(flat.shape)) {
    externals_ = std::move(flat.externals);
    choose_ways(flat.shape);
    keep_numbers(flat.numbers);
    assign(flat, in_place);
  }

  [[nodiscard]] std::size_t workspace() const { return registers_ * tile_ * element_ + slots_ * sizeof(char*); }

  [[nodiscard]] std::string describe() const {
    const std::int64_t tile = static_cast<std::int64_t>(tile_);
    const std::int64_t tiles = rows_ * ((row_ + tile - 1) / tile);
    return fmt::format("{} instructions, {} tile{} of up to {}", operations_.size(), tiles, tiles == 1 ? "" : "s",
                       std::min<std::int64_t>(row_, tile));
  }

  void run(const StepBuffers& buffers) const {
    if (size_ == 0) return;
    // The pointers of all slots, then the registers' tiles, in the workspace: a run allocates nothing.
    auto** at = static_cast<char**>(buffers.workspace);
    char* tiles = static_cast<char*>(buffers.workspace) + slots_ * sizeof(char*);
    for (std::size_t r = 0; r < registers_; ++r) at[r] = tiles + r * tile_ * element_;
    for (std::size_t i = 0; i < number_count_; ++i)
      at[registers_ + i] = const_cast<char*>(numbers_.data() + i * element_);
    Dims row_index = Dims::filled(row_shape_.rank(), 0);
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t begin = 0; begin < row_; begin += static_cast<std::int64_t>(tile_)) {
        const auto n = static_cast<std::size_t>(std::min(row_ - begin, static_cast<std::int64_t>(tile_)));
        for (const Direct& d : direct_)
          at[d.slot] = static_cast<char*>(const_cast<void*>(buffers.inputs[d.input])) +
                       (row_offset(d.row_strides, row_index) + begin * d.stride) * static_cast<std::int64_t>(element_);
        for (const Output& o : outputs_)
          at[o.slot] = static_cast<char*>(buffers.outputs[o.output]) +
                       (row * row_ + begin) * static_cast<std::int64_t>(o.element);
        for (const Operation& op : operations_) op_run(op, at, buffers, row * row_ + begin, n);
      }
      for (std::size_t axis = row_shape_.rank(); axis-- > 0;) {
        if (++row_index[axis] < row_shape_[axis]) break;
        row_index[axis] = 0;
      }
    }
  }

 private:
  enum class Way : std::uint8_t { direct, scalar, loaded };

  struct Operation {
    enum class Kind : std::uint8_t { micro, load, generate, to_bool } kind = Kind::micro;
    MicroRun run = nullptr;
    Slot out = 0;
    Slot a = 0;
    Slot b = 0;
    Slot c = 0;
    std::size_t external = 0;
  };
  // An input read where it lies; stride 0 for a single element of the row.
  struct Direct {
    Slot slot;
    std::size_t input;
    std::int64_t stride;
    Dims row_strides;
  };
  struct Output {
    Slot slot;
    std::size_t output;
    std::size_t element;
  };

  static std::int64_t row_offset(const Dims& strides, const Dims& index) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < strides.rank(); ++i) offset += strides[i] * index[i];
    return offset;
  }

  void op_run(const Operation& op, char** at, const StepBuffers& buffers, std::int64_t begin, std::size_t n) const {
    switch (op.kind) {
      case Operation::Kind::micro: op.run(at[op.out], at[op.a], at[op.b], at[op.c], n); return;
      case Operation::Kind::load:
        loads_[op.external](views_[op.external], buffers.inputs[externals_[op.external].slots[0]], begin,
                            static_cast<std::int64_t>(n), at[op.out]);
        return;
      case Operation::Kind::generate: {
        const External& e = externals_[op.external];
        const void* inputs[most_generator_inputs] = {};
        for (std::size_t i = 0; i < e.slots.size(); ++i) inputs[i] = buffers.inputs[e.slots[i]];
        e.generator(inputs, at[op.out], begin, begin + static_cast<std::int64_t>(n));
        return;
      }
      case Operation::Kind::to_bool: {
        auto* to = reinterpret_cast<bool*>(at[op.out]);
        visit_dtype(dtype_, [&](auto t) {
          const auto* from = reinterpret_cast<const decltype(t)*>(at[op.a]);
          for (std::size_t i = 0; i < n; ++i) to[i] = from[i] != 0;
        });
        return;
      }
    }
  }

  // Decides how each input is read, and whether the group runs row by row.
  void choose_ways(const Dims& shape) {
    const std::size_t n = externals_.size();
    Dims joined = shape;
    std::vector<Dims> strides;
    for (const External& e : externals_)
      strides.push_back(e.generator ? row_major_strides(shape) : broadcast_strides(e.type.shape, shape));
    strides.push_back(row_major_strides(shape));  // of the outputs
    if (size_ > 0) collapse(joined, strides);

    const Dims whole = strides.back();
    bool any_broadcast = false;
    for (std::size_t i = 0; i < n; ++i)
      any_broadcast = any_broadcast || (!externals_[i].generator && externals_[i].type.dtype == dtype_ &&
                                        count(externals_[i].type.shape) != 1 && !(strides[i] == whole));
    by_row_ = any_broadcast && joined.rank() > 1 && joined.back() >= long_row;
    rows_ = by_row_ ? size_ / joined.back() : 1;
    row_ = by_row_ ? joined.back() : size_;
    for (std::size_t axis = 0; by_row_ && axis + 1 < joined.rank(); ++axis) row_shape_.push_back(joined[axis]);

    for (std::size_t i = 0; i < n; ++i) {
      const External& e = externals_[i];
      const bool plain = !e.generator && e.type.dtype == dtype_;
      const std::int64_t inner = strides[i].empty() ? 0 : strides[i].back();
      const bool one = count(e.type.shape) == 1;
      Way way = Way::loaded;
      if (plain && (one || (by_row_ && inner == 0)))
        way = Way::scalar;
      else if (plain && (strides[i] == whole || (by_row_ && inner == 1)))
        way = Way::direct;
      ways_.push_back(way);
      views_.push_back({joined, strides[i]});
      loads_.push_back(e.generator ? nullptr : load_of(e.type.dtype, dtype_));
      Dims row_strides;
      for (std::size_t axis = 0; by_row_ && axis + 1 < joined.rank(); ++axis) row_strides.push_back(strides[i][axis]);
      row_strides_.push_back(row_strides);
    }
  }

  void keep_numbers(const std::vector<double>& numbers) {
    number_count_ = numbers.size();
    numbers_.resize(numbers.size() * element_);
    visit_dtype(dtype_, [&](auto t) {
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        const auto value = static_cast<decltype(t)>(numbers[i]);
        std::memcpy(numbers_.data() + i * element_, &value, sizeof value);
      }
    });
  }

  // Slots: registers, numbers, direct inputs, outputs. Registers are handed out by last use.
  void assign(const Flat& flat, const std::vector<std::pair<std::size_t, std::size_t>>& in_place) {
    const std::size_t instructions = flat.instructions.size();
    constexpr std::size_t never = 0;
    // Last reading of each source, as instruction number + 1; outputs that must wait are read after the last one.
    std::vector<std::size_t> last_of_instruction(instructions, never);
    std::vector<std::size_t> last_of_external(externals_.size(), never);
    for (std::size_t i = 0; i < instructions; ++i) {
      for (int k = 0; k < arity(flat.instructions[i].micro); ++k) {
        const Source s = flat.instructions[i].operands[k];
        if (s.from == Source::From::instruction) last_of_instruction[s.index] = i + 1;
        if (s.from == Source::From::input) last_of_external[s.index] = i + 1;
      }
    }
    // An output is written by its own instruction, unless it is bool, shares one with an earlier output, or would
    // overwrite an input that is read later.
    std::vector<std::size_t> writes(instructions, flat.outputs.size());
    std::vector<char> deferred(flat.outputs.size(), 0);
    for (std::size_t o = 0; o < flat.outputs.size(); ++o) {
      const std::size_t i = flat.outputs[o].index;
      bool later = flat.output_dtypes[o] == boolean || writes[i] != flat.outputs.size();
      for (const auto& [output, slot] : in_place) {
        if (output != o) continue;
        for (std::size_t e = 0; e < externals_.size(); ++e)
          if (!externals_[e].generator && externals_[e].slots[0] == slot) later = later || last_of_external[e] > i + 1;
      }
      deferred[o] = later ? 1 : 0;
      if (!later) writes[i] = o;
    }
    for (std::size_t o = 0; o < flat.outputs.size(); ++o)
      if (deferred[o]) last_of_instruction[flat.outputs[o].index] = instructions + 1;

    // Slots of registers come first but are counted last: collect with register numbers, then shift the others.
    constexpr Slot number_base = 1u << 24;
    constexpr Slot direct_base = 2u << 24;
    constexpr Slot output_base = 3u << 24;
    std::vector<Slot> free_registers;
    const auto take = [&]() -> Slot {
      if (!free_registers.empty()) {
        const Slot r = free_registers.back();
        free_registers.pop_back();
        return r;
      }
      return static_cast<Slot>(registers_++);
    };
    std::vector<Slot> slot_of_instruction(instructions, 0);
    std::vector<Slot> slot_of_external(externals_.size(), 0);
    std::vector<char> ready(externals_.size(), 0);
    const auto external_slot = [&](std::size_t e) -> Slot {
      if (ready[e]) return slot_of_external[e];
      ready[e] = 1;
      if (ways_[e] == Way::loaded) {
        Operation load;
        load.kind = externals_[e].generator ? Operation::Kind::generate : Operation::Kind::load;
        load.out = take();
        load.external = e;
        operations_.push_back(load);
        return slot_of_external[e] = load.out;
      }
      const auto slot = static_cast<Slot>(direct_base + direct_.size());
      direct_.push_back({slot, externals_[e].slots[0], ways_[e] == Way::scalar ? 0 : 1, row_strides_[e]});
      return slot_of_external[e] = slot;
    };
    const auto slot_of = [&](Source s) -> Slot {
      switch (s.from) {
        case Source::From::input: return external_slot(s.index);
        case Source::From::number: return static_cast<Slot>(number_base + s.index);
        case Source::From::instruction: break;
      }
      return slot_of_instruction[s.index];
    };
    const auto is_scalar = [&](Source s) {
      return s.from == Source::From::number || (s.from == Source::From::input && ways_[s.index] == Way::scalar);
    };
    const auto release = [&](Source s, std::size_t i) {
      if (s.from == Source::From::instruction && last_of_instruction[s.index] == i + 1 &&
          slot_of_instruction[s.index] < number_base)
        free_registers.push_back(slot_of_instruction[s.index]);
      if (s.from == Source::From::input && ways_[s.index] == Way::loaded && last_of_external[s.index] == i + 1)
        free_registers.push_back(slot_of_external[s.index]);
    };
    const auto add_output = [&](std::size_t o) -> Slot {
      const auto slot = static_cast<Slot>(output_base + outputs_.size());
      outputs_.push_back({slot, o, size_of(flat.output_dtypes[o])});
      return slot;
    };

    for (std::size_t i = 0; i < instructions; ++i) {
      const Instruction& instruction = flat.instructions[i];
      if (last_of_instruction[i] == never && writes[i] == flat.outputs.size()) continue;  // nobody reads it
      const int n = arity(instruction.micro);
      Operation op;
      unsigned scalars = 0;
      Slot* operand_slots[] = {&op.a, &op.b, &op.c};
      for (int k = 0; k < n; ++k) {
        *operand_slots[k] = slot_of(instruction.operands[k]);
        if (is_scalar(instruction.operands[k])) scalars |= 1u << k;
      }
      for (int k = n; k < 3; ++k) *operand_slots[k] = op.a;
      for (int k = 0; k < n; ++k) {
        bool repeated = false;
        for (int j = 0; j < k; ++j) repeated = repeated || instruction.operands[j] == instruction.operands[k];
        if (!repeated) release(instruction.operands[k], i);
      }
      op.out = writes[i] != flat.outputs.size() ? add_output(writes[i]) : take();
      slot_of_instruction[i] = op.out;
      op.run = micro_run(instruction.micro, scalars);
      operations_.push_back(op);
    }
    for (std::size_t o = 0; o < flat.outputs.size(); ++o) {
      if (!deferred[o]) continue;
      Operation op;
      op.a = slot_of_instruction[flat.outputs[o].index];
      if (flat.output_dtypes[o] == boolean) {
        op.kind = Operation::Kind::to_bool;
      } else {
        op.run = micro_run(Micro::copy, 0);
      }
      op.b = op.c = op.a;
      op.out = add_output(o);
      operations_.push_back(op);
    }

    const auto place = [&](Slot s) -> Slot {
      if (s < number_base) return s;
      const auto registers = static_cast<Slot>(registers_);
      const auto numbers = static_cast<Slot>(number_count_);
      if (s < direct_base) return registers + (s - number_base);
      if (s < output_base) return registers + numbers + (s - direct_base);
      return registers + numbers + static_cast<Slot>(direct_.size()) + (s - output_base);
    };
    for (Operation& op : operations_)
      for (Slot* s : {&op.out, &op.a, &op.b, &op.c}) *s = place(*s);
    for (Direct& d : direct_) d.slot = place(d.slot);
    for (Output& o : outputs_) o.slot = place(o.slot);
    slots_ = registers_ + number_count_ + direct_.size() + outputs_.size();
    slots_ = (slots_ + 7) / 8 * 8;  // the tiles behind start on a cache line

    const std::size_t live = std::max<std::size_t>(1, registers_ + direct_.size() + outputs_.size());
    tile_ = std::clamp(level1_bytes / 4 * 3 / live / element_ / 64 * 64, shortest_tile, longest_tile);
    tile_ = std::min(tile_, static_cast<std::size_t>((std::max<std::int64_t>(row_, 1) + 63) / 64 * 64));
  }

  [[nodiscard]] MicroRun micro_run(Micro micro, unsigned scalars) const {
    const auto m = static_cast<std::size_t>(micro);
    MicroRun found = nullptr;
    if (dtype_ == float32) found = kernels::table<float>().micro[m][scalars];
    if (dtype_ == float64) found = kernels::table<double>().micro[m][scalars];
    if (dtype_ == int64) found = kernels::integer_micro(m, scalars);
    invariant(found != nullptr, fmt::format("micro-operation {} does not exist for {}", m, name(dtype_)));
    return found;
  }

  DType dtype_;
  std::size_t element_;
  std::int64_t size_;
  bool by_row_ = false;
  std::int64_t rows_ = 1;
  std::int64_t row_ = 0;
  Dims row_shape_;
  std::vector<External> externals_;
  std::vector<Way> ways_;
  std::vector<View> views_;
  std::vector<Load> loads_;
  std::vector<Dims> row_strides_;
  std::vector<char> numbers_;
  std::size_t number_count_ = 0;
  std::vector<Operation> operations_;
  std::vector<Direct> direct_;
  std::vector<Output> outputs_;
  std::size_t registers_ = 0;
  std::size_t slots_ = 0;
  std::size_t tile_ = 0;
};

}  // namespace

Step make_fused_step(const GraphData& graph, const FusedGroup& group, const Sizes& sizes) {
  auto step = std::make_shared<const FusedStep>(flatten(graph, group, sizes), group.in_place);
  return {[step](const StepBuffers& buffers) { step->run(buffers); }, step->workspace()};
}

std::string describe_fused_step(const GraphData& graph, const FusedGroup& group, const Sizes& sizes) {
  return FusedStep(flatten(graph, group, sizes), group.in_place).describe();
}

}  // namespace chainrule::detail
