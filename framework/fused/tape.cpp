#include <chainrule/framework/fused/tape.hpp>

#include <algorithm>

#include <fmt/core.h>

namespace chainrule::detail {

namespace {

constexpr std::size_t never = 0;
// Slots while they are collected; only then are the registers counted, and the others come behind them.
constexpr Slot number_base = 1U << 24;
constexpr Slot direct_base = 2U << 24;
constexpr Slot output_base = 3U << 24;

kernels::MicroRun micro_run(DType dtype, Micro micro, unsigned scalars) {
  const auto m = static_cast<std::size_t>(micro);
  kernels::MicroRun found = nullptr;
  if (dtype == float32) found = kernels::table<float>().micro[m][scalars];
  if (dtype == float64) found = kernels::table<double>().micro[m][scalars];
  if (dtype == int64) found = kernels::integer_micro<std::int64_t>(m, scalars);
  if (dtype == int32) found = kernels::integer_micro<std::int32_t>(m, scalars);
  if (dtype == uint8) found = kernels::integer_micro<std::uint8_t>(m, scalars);
  invariant(found != nullptr, fmt::format("micro-operation {} does not exist for {}", m, name(dtype)));
  return found;
}

class Assembler {
 public:
  Assembler(const Flat& flat, const std::vector<Way>& ways,
            const std::vector<std::pair<std::size_t, std::size_t>>& in_place)
      : flat_(flat),
        ways_(ways),
        instructions_(flat.instructions.size()),
        last_of_instruction_(instructions_, never),
        last_of_external_(flat.externals.size(), never),
        written_by_(instructions_, flat.outputs.size()),
        deferred_(flat.outputs.size(), 0),
        sums_of_(instructions_),
        slot_of_instruction_(instructions_, 0),
        slot_of_external_(flat.externals.size(), 0),
        ready_(flat.externals.size(), 0),
        in_place_(in_place) {
    find_last_readings();
    choose_writers(in_place);
  }

  Tape make() {
    for (std::size_t i = 0; i < instructions_;) {
      std::size_t end = i;
      while (end < instructions_ && can_generate(flat_.instructions[end].micro, flat_.dtype)) ++end;
      if (end > i) {
        add_code(i, end);
        i = end;
      } else {
        add(i++);
      }
    }
    for (std::size_t o = 0; o < flat_.outputs.size(); ++o)
      if (deferred_[o]) add_deferred(flat_.outputs[o]);
    number_slots();
    for (const VectorCode& code : codes_) tape_.codes.push_back(generate(code));
    for (Operation& op : tape_.operations)
      if (op.kind == Operation::Kind::code) op.code = tape_.codes[op.index]->run();
    return std::move(tape_);
  }

 private:
  // Last reading of each source, as instruction number + 1.
  void find_last_readings() {
    for (std::size_t i = 0; i < instructions_; ++i) {
      for (int k = 0; k < arity(flat_.instructions[i].micro); ++k) {
        const Source s = flat_.instructions[i].operands[k];
        if (s.from == Source::From::instruction) last_of_instruction_[s.index] = i + 1;
        if (s.from == Source::From::input) last_of_external_[s.index] = i + 1;
      }
    }
    for (std::size_t s = 0; s < flat_.sums.size(); ++s) sums_of_[flat_.sums[s].instruction].push_back(s);
  }

  // An output is written by its own instruction, unless it is bool, shares one with an earlier output, or would
  // overwrite an input that is read later. Such a one is copied at the end.
  void choose_writers(const std::vector<std::pair<std::size_t, std::size_t>>& in_place) {
    const auto overwrites_too_early = [&](const FlatOutput& output) {
      for (const auto& [written, slot] : in_place) {
        if (written != output.output) continue;
        for (std::size_t e = 0; e < flat_.externals.size(); ++e)
          if (!flat_.externals[e].generator && flat_.externals[e].slots[0] == slot &&
              last_of_external_[e] > output.instruction + 1)
            return true;
      }
      return false;
    };
    for (std::size_t o = 0; o < flat_.outputs.size(); ++o) {
      const FlatOutput& output = flat_.outputs[o];
      deferred_[o] = output.dtype == boolean || written_by_[output.instruction] != flat_.outputs.size() ||
                             overwrites_too_early(output)
                         ? 1
                         : 0;
      if (!deferred_[o]) written_by_[output.instruction] = o;
    }
    for (std::size_t o = 0; o < flat_.outputs.size(); ++o)
      if (deferred_[o]) last_of_instruction_[flat_.outputs[o].instruction] = instructions_ + 1;
  }

  Slot take() {
    if (!free_.empty()) {
      const Slot r = free_.back();
      free_.pop_back();
      return r;
    }
    return static_cast<Slot>(tape_.registers++);
  }

  Slot external_slot(std::size_t e) {
    if (ready_[e]) return slot_of_external_[e];
    ready_[e] = 1;
    const External& external = flat_.externals[e];
    if (ways_[e] == Way::loaded) {
      Operation load;
      load.kind = external.generator ? Operation::Kind::generate : Operation::Kind::load;
      load.out = take();
      load.index = e;
      tape_.operations.push_back(load);
      return slot_of_external_[e] = load.out;
    }
    const auto slot = static_cast<Slot>(direct_base + tape_.direct.size());
    const auto element = static_cast<std::int64_t>(size_of(external.type.dtype));
    tape_.direct.push_back({slot, e, external.slots[0], element, ways_[e] == Way::scalar});
    return slot_of_external_[e] = slot;
  }

  Slot slot_of(Source s) {
    switch (s.from) {
      case Source::From::input: return external_slot(s.index);
      case Source::From::number: return static_cast<Slot>(number_base + s.index);
      case Source::From::instruction: break;
    }
    return slot_of_instruction_[s.index];
  }

  [[nodiscard]] bool is_scalar(Source s) const {
    return s.from == Source::From::number || (s.from == Source::From::input && ways_[s.index] == Way::scalar);
  }

  // Of a source that is no single element.
  [[nodiscard]] DType dtype_in_memory(Source s) const {
    return s.from == Source::From::input && ways_[s.index] == Way::direct ? flat_.externals[s.index].type.dtype
                                                                          : flat_.dtype;
  }

  // Gives a register back once instruction i has read it for the last time.
  void release(Source s, std::size_t i) {
    if (s.from == Source::From::instruction && last_of_instruction_[s.index] == i + 1)
      release(slot_of_instruction_[s.index]);
    if (s.from == Source::From::input && ways_[s.index] == Way::loaded && last_of_external_[s.index] == i + 1)
      release(slot_of_external_[s.index]);
  }
  void release(Slot slot) {
    if (slot < number_base) free_.push_back(slot);
  }

  Slot add_output(const FlatOutput& output) {
    const auto slot = static_cast<Slot>(output_base + tape_.outputs.size());
    tape_.outputs.push_back({slot, output.output, size_of(output.dtype)});
    return slot;
  }

  void add(std::size_t i) {
    const Instruction& instruction = flat_.instructions[i];
    const bool stored = written_by_[i] != flat_.outputs.size();
    if (last_of_instruction_[i] == never && !stored && sums_of_[i].empty()) return;  // nobody reads it
    const int n = arity(instruction.micro);
    Operation op;
    unsigned scalars = 0;
    Slot* operand_slots[] = {&op.a, &op.b, &op.c};
    for (int k = 0; k < n; ++k) {
      *operand_slots[k] = slot_of(instruction.operands[k]);
      if (is_scalar(instruction.operands[k])) scalars |= 1U << k;
    }
    for (int k = n; k < 3; ++k) *operand_slots[k] = op.a;
    for (int k = 0; k < n; ++k) {
      bool repeated = false;
      for (int j = 0; j < k; ++j) repeated = repeated || instruction.operands[j] == instruction.operands[k];
      if (!repeated) release(instruction.operands[k], i);
    }
    op.out = stored ? add_output(flat_.outputs[written_by_[i]]) : take();
    slot_of_instruction_[i] = op.out;
    op.run = micro_run(flat_.dtype, instruction.micro, scalars);
    tape_.operations.push_back(op);
    add_sums(i);
  }

  void add_sums(std::size_t i) {
    const Slot from = slot_of_instruction_[i];
    for (const std::size_t s : sums_of_[i]) {
      Operation sum;
      sum.kind = Operation::Kind::sum;
      sum.a = sum.b = sum.c = sum.out = from;
      sum.index = s;
      tape_.operations.push_back(sum);
    }
    if (last_of_instruction_[i] == never) release(from);  // only sums have read it
  }

  // Instructions [begin, end) as machine code.
  void add_code(std::size_t begin, std::size_t end) {
    VectorCode code(flat_.dtype);
    const std::vector<std::uint32_t> values = record(code, begin, end);
    const std::vector<std::size_t> stored = store_results(code, values, begin, end);
    if (stored.empty()) return;
    Operation op;
    op.kind = Operation::Kind::code;
    op.index = codes_.size();
    codes_.push_back(std::move(code));
    tape_.operations.push_back(op);

    // Only now, so that no result is written to what is still to be read.
    release_read(begin, end);
    for (const std::size_t i : stored) {
      if (sums_of_[i].empty()) continue;
      if (last_of_instruction_[i] <= end) last_of_instruction_[i] = never;
      add_sums(i);
    }
  }

  // The values of instructions [begin, end) in a code.
  std::vector<std::uint32_t> record(VectorCode& code, std::size_t begin, std::size_t end) {
    std::vector<std::uint32_t> values;
    const auto read = [&](Source s) -> std::uint32_t {
      if (s.from == Source::From::instruction && s.index >= begin) return values[s.index - begin];
      if (s.from == Source::From::number) return code.number(number_base, s.index, flat_.numbers[s.index]);
      return is_scalar(s) ? code.scalar(slot_of(s)) : code.stream(slot_of(s), dtype_in_memory(s));
    };
    for (std::size_t i = begin; i < end; ++i) {
      const Instruction& instruction = flat_.instructions[i];
      std::uint32_t operands[3] = {};
      for (int k = 0; k < arity(instruction.micro); ++k) operands[k] = read(instruction.operands[k]);
      values.push_back(code.micro(instruction.micro, operands[0], operands[1], operands[2]));
    }
    return values;
  }

  // Of what is an output, is summed or is read later; returns by which instructions.
  std::vector<std::size_t> store_results(VectorCode& code, const std::vector<std::uint32_t>& values, std::size_t begin,
                                         std::size_t end) {
    std::vector<std::size_t> stored;
    for (std::size_t i = begin; i < end; ++i) {
      const bool output = written_by_[i] != flat_.outputs.size();
      if (!output && last_of_instruction_[i] <= end && sums_of_[i].empty()) continue;
      slot_of_instruction_[i] = output ? add_output(flat_.outputs[written_by_[i]]) : take();
      code.store(values[i - begin], slot_of_instruction_[i], !output,
                 output ? overwritten(flat_.outputs[written_by_[i]]) : VectorStore::none);
      stored.push_back(i);
    }
    return stored;
  }

  // What instructions [begin, end) have read for the last time.
  void release_read(std::size_t begin, std::size_t end) {
    for (std::size_t i = 0; i < begin; ++i)
      if (last_of_instruction_[i] > begin && last_of_instruction_[i] <= end) release(slot_of_instruction_[i]);
    for (std::size_t e = 0; e < ways_.size(); ++e)
      if (ways_[e] == Way::loaded && last_of_external_[e] > begin && last_of_external_[e] <= end)
        release(slot_of_external_[e]);
  }

  // The slot of the operand whose memory an output takes.
  [[nodiscard]] Slot overwritten(const FlatOutput& output) const {
    for (const auto& [written, input] : in_place_) {
      if (written != output.output) continue;
      for (std::size_t e = 0; e < flat_.externals.size(); ++e)
        if (ready_[e] && ways_[e] != Way::loaded && flat_.externals[e].slots[0] == input) return slot_of_external_[e];
    }
    return VectorStore::none;
  }

  void add_deferred(const FlatOutput& output) {
    Operation op;
    op.a = op.b = op.c = slot_of_instruction_[output.instruction];
    if (output.dtype == boolean) {
      op.kind = Operation::Kind::to_bool;
    } else {
      op.run = micro_run(flat_.dtype, Micro::copy, 0);
    }
    op.out = add_output(output);
    tape_.operations.push_back(op);
  }

  void number_slots() {
    tape_.numbers = flat_.numbers.size();
    const auto registers = static_cast<Slot>(tape_.registers);
    const auto numbers = static_cast<Slot>(tape_.numbers);
    const auto place = [&](Slot& s) {
      if (s >= output_base) {
        s = registers + numbers + static_cast<Slot>(tape_.direct.size()) + (s - output_base);
      } else if (s >= direct_base) {
        s = registers + numbers + (s - direct_base);
      } else if (s >= number_base) {
        s = registers + (s - number_base);
      }
    };
    for (Operation& op : tape_.operations)
      for (Slot* s : {&op.out, &op.a, &op.b, &op.c}) place(*s);
    for (VectorCode& code : codes_)
      code.renumber_slots([&](Slot s) {
        place(s);
        return s;
      });
    for (DirectOperand& d : tape_.direct) place(d.slot);
    for (TapeOutput& o : tape_.outputs) place(o.slot);
    tape_.slots = tape_.registers + tape_.numbers + tape_.direct.size() + tape_.outputs.size();
    tape_.slots = (tape_.slots + 7) / 8 * 8;
  }

  const Flat& flat_;
  const std::vector<Way>& ways_;
  std::size_t instructions_;
  Tape tape_;
  std::vector<std::size_t> last_of_instruction_;
  std::vector<std::size_t> last_of_external_;
  std::vector<std::size_t> written_by_;  // the number in flat_.outputs, by instruction
  std::vector<char> deferred_;
  std::vector<std::vector<std::size_t>> sums_of_;
  std::vector<Slot> slot_of_instruction_;
  std::vector<Slot> slot_of_external_;
  std::vector<char> ready_;
  std::vector<Slot> free_;
  const std::vector<std::pair<std::size_t, std::size_t>>& in_place_;
  std::vector<VectorCode> codes_;
};

}  // namespace

Tape assemble(const Flat& flat, const std::vector<Way>& ways,
              const std::vector<std::pair<std::size_t, std::size_t>>& in_place) {
  return Assembler(flat, ways, in_place).make();
}

}  // namespace chainrule::detail
