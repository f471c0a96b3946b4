// The node-by-node interpreter that compiled programs are compared with.
//
// It evaluates each node of the user's graph by itself, as it was built: no passes, no planner, no fused or generated
// code, no arena, no threads. A micro program is run element by element, by elementwise.hpp's words; a kernel in memory
// of exactly the size of its operands, with guards around them; a composite by its expansion.
//
// How far rounding may take a program from it is found by experiment (Monte Carlo arithmetic, Parker 1997): an
// interpreter that perturbs moves each rounded result by some units in the last place at random. What a few of these
// make of the graph shows how far apart two right evaluations can be, and what hangs by a hair (a comparison of nearly
// equal numbers, the floor of a whole one). What a kernel rounds on its way - sums in another order - is as if what it
// reads had been off, so that is moved too: a sum that cancels is as uncertain as its terms are large. Results that no
// rounding can touch are not moved: copies, and sums and products of coarse numbers.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <chainrule/framework/graph/op.hpp>
#include <chainrule/framework/run/program.hpp>

#include "../random.hpp"

namespace chainrule::fuzz {

class Interpreter {
 public:
  struct Perturbation {
    double ulps = 0;
    std::uint64_t seed = 0;
    bool together = false;  // all elements of a node by the same: equal elements have equal errors, which add up
  };
  // Expansions of composites are appended to the graph.
  Interpreter(Graph graph, Mode mode, Sizes sizes, Perturbation perturbation);
  Interpreter(Graph graph, Mode mode, Sizes sizes) : Interpreter(std::move(graph), mode, std::move(sizes), {}) {}

  // The numbers of an input or variable.
  void give(Value leaf, const Array& array);
  // The numbers of a value. Throws Error where a kernel does (an index out of range, the maximum of nothing), and
  // std::logic_error where a node is not as the rules of ops want it.
  const Array& value(Value value);
  // Whether a value was asked for, by whoever uses this or for another value, or came with one that was. (Nothing is
  // but what is needed: of a by_mode one side.)
  bool needed(Value value);

 private:
  struct Entry {
    std::shared_ptr<const Array> array;
    bool exact = false;
    bool asked_for = false;
  };
  Entry& entry(Value value) { return entries_.size() > value.id() ? entries_[value.id()] : grown(value); }
  Entry& grown(Value value);
  // All outputs of a node, of a composite this one.
  void evaluate(Value value);
  void evaluate_expansion(Value value);
  [[nodiscard]] Values read_by(const Node& node) const;
  void evaluate_micro(const Node& node, Array& out, bool& exact);
  void evaluate_kernel(const Node& node, std::vector<Array>& outputs, bool moves_inputs);
  void perturb(Array& array, bool& exact);
  void move_all(Array& array);
  [[nodiscard]] double moved(double x, DType dtype);

  Graph graph_;
  Mode mode_;
  Sizes sizes_;
  Perturbation perturbation_;
  double of_node_ = 0;  // what its elements are moved by together, from -1 to 1
  Random random_;
  std::vector<Entry> entries_;
  std::unordered_map<std::uint32_t, Values> expansions_;  // of composites, by id
};

}  // namespace chainrule::fuzz
