// A fused group as what runs for each tile: operations over slots. Not installed.
#pragma once

#include <vector>

#include <chainrule/framework/fused/flat.hpp>
#include <chainrule/framework/fused/generate.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::detail {

// How an operand from outside is read.
enum class Way : std::uint8_t {
  direct,  // where it lies: along a row it is contiguous, and has the group's dtype or one that generated code converts
  scalar,  // where it lies: along a row it is one element
  loaded,  // element by element into a register: another dtype, short rows, a generator
};

// The order of slots is: registers, numbers, operands read where they lie, outputs.
struct Operation {
  // code: generated, for several instructions
  enum class Kind : std::uint8_t { micro, code, load, generate, to_bool, sum } kind = Kind::micro;
  union {
    kernels::MicroRun run = nullptr;
    GeneratedRun code;
  };
  Slot out = 0;
  Slot a = 0;
  Slot b = 0;
  Slot c = 0;
  std::size_t index = 0;  // load, generate: of the external; sum: of the sum
};

// An operand that is read where it lies.
struct DirectOperand {
  Slot slot;
  std::size_t external;
  std::size_t input;  // in StepBuffers::inputs
  std::int64_t element;
  bool scalar;
};

struct TapeOutput {
  Slot slot;
  std::size_t output;  // in StepBuffers::outputs
  std::size_t element;
};

struct Tape {
  std::vector<Operation> operations;
  std::vector<DirectOperand> direct;
  std::vector<TapeOutput> outputs;
  std::vector<std::shared_ptr<const GeneratedCode>> codes;  // kept for the operations
  std::size_t registers = 0;
  std::size_t numbers = 0;
  std::size_t slots = 0;  // rounded up, so that the tiles behind a table of them start on a cache line
};

// `ways` by external; `in_place` as in FusedGroup. Where machine code can be made, each run of instructions that have
// it becomes one operation.
Tape assemble(const Flat& flat, const std::vector<Way>& ways,
              const std::vector<std::pair<std::size_t, std::size_t>>& in_place);

}  // namespace chainrule::detail
