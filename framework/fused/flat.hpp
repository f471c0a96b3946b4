// A fused group as one list of instructions. Not installed.
#pragma once

#include <optional>
#include <vector>

#include <chainrule/framework/fused/fused_step.hpp>
#include <chainrule/framework/graph/node_facts.hpp>

namespace chainrule::detail {

inline constexpr std::size_t most_generator_inputs = 4;

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

// A value that is stored whole: the instruction that computes it, and its number in StepBuffers::outputs.
struct FlatOutput {
  std::size_t instruction;
  std::size_t output;
  DType dtype;
};

// A sum over the elements of an instruction's result.
struct FlatSum {
  std::size_t instruction;
  std::size_t output;
  SumOver over;
};

struct Flat {
  DType dtype;
  Dims shape;
  std::vector<External> externals;
  std::vector<double> numbers;
  std::vector<Instruction> instructions;
  std::vector<FlatOutput> outputs;
  std::vector<FlatSum> sums;
};

Flat flatten(const GraphData& graph, const FusedGroup& group, const Sizes& sizes);

// About how many nanoseconds an element of the group takes a thread: what is computed, and what is read and written.
double cost_of_element(const Flat& flat);

}  // namespace chainrule::detail
