// A plan in the making, which the files of this folder complete one after the other. Not installed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include <chainrule/framework/plan/plan.hpp>

namespace chainrule::detail {

// What runs as one step.
using Unit = std::uint32_t;
inline constexpr Unit no_unit = ~Unit{0};

struct UnitData {
  FusedGroup group;
  bool fused = false;
  std::optional<NodeId> product;  // of which the group reads the rows as they are made: one of its inputs
  bool may_throw = false;
  bool once = false;             // needs nothing but sizes
  std::vector<NodeId> inputs;    // values read, through reshapes: the nodes whose memory it is; the product's come last
  std::uint32_t waits = 0;       // for units whose values it reads
  bool overwrites = false;       // writes variables in place
  std::uint32_t anti_waits = 0;  // for units that have to read them first
};

// A list of units for each unit (or variable): a graph of many thousands has no memory to spare for as many vectors.
class UnitLists {
 public:
  void resize(std::size_t lists) { first_.resize(lists, no_entry); }
  void add(std::size_t list, Unit unit) {
    entries_.push_back({unit, first_[list]});
    first_[list] = static_cast<std::uint32_t>(entries_.size() - 1);
  }
  // The last added first.
  template <class F>
  void for_each(std::size_t list, F f) const {
    for (std::uint32_t i = first_[list]; i != no_entry; i = entries_[i].next) f(entries_[i].unit);
  }
  [[nodiscard]] bool empty(std::size_t list) const { return first_[list] == no_entry; }
  [[nodiscard]] bool starts_with(std::size_t list, Unit unit) const {
    return first_[list] != no_entry && entries_[first_[list]].unit == unit;
  }

 private:
  static constexpr std::uint32_t no_entry = ~std::uint32_t{0};
  struct Entry {
    Unit unit;
    std::uint32_t next;
  };
  std::vector<std::uint32_t> first_;
  std::vector<Entry> entries_;
};

// Bytes that a value takes of the arena: whole cache lines.
constexpr std::size_t rounded(std::size_t bytes) { return (bytes / 64 + (bytes % 64 != 0 || bytes == 0 ? 1 : 0)) * 64; }

struct Arrangement {
  Arrangement(const Compiled& of, const Sizes& with) : compiled(of), graph(*of.computation.graph.data()), sizes(with) {
    invariant(compiled.groups.size() == graph.nodes.size(), "a plan is made of groups of another graph");
  }

  const Compiled& compiled;
  const GraphData& graph;
  const Sizes& sizes;
  bool rides = true;  // whether groups may follow products block by block

  // Of make_units():
  std::vector<NodeId> base;             // by node, whose memory it has: a reshape its input's
  std::vector<Unit> unit_of;            // by node
  std::vector<char> read_by_generator;  // by node: inputs of what groups make for themselves
  std::vector<UnitData> units;
  UnitLists readers;           // by unit: those that must come later, since they read what it writes
  std::vector<NodeId> unread;  // further outputs, or first ones, that nobody reads

  // Of assign_results(), and then of assign_memory():
  std::vector<Storage> storage;  // by node
  UnitLists anti_readers;        // by unit: those whose anti_waits it counts down
  std::vector<Buffer> buffers;

  // Of order_units():
  std::vector<Unit> order;

  // Of put_side_by_side(): the steps that run beside each other, by step; `last` is 0 where one runs alone, and what
  // is missing does.
  struct Beside {
    std::uint32_t first = 0;
    std::uint32_t last = 0;
  };
  std::vector<Beside> beside;
  // Of those that run at the same time as a step, itself included.
  [[nodiscard]] std::size_t first_beside(std::size_t step) const {
    return step < beside.size() && beside[step].last != 0 ? beside[step].first : step;
  }
  [[nodiscard]] std::size_t last_beside(std::size_t step) const {
    return step < beside.size() && beside[step].last != 0 ? beside[step].last : step;
  }

  [[nodiscard]] std::size_t bytes_of(NodeId id) const {
    const NodeType& type = graph.node(id).type;
    return static_cast<std::size_t>(count(evaluate(type.shape, sizes))) * size_of(type.dtype);
  }

  // The input to which a unit's kernel adds, if it is one that does.
  [[nodiscard]] std::optional<std::size_t> adds_to(Unit u) const {
    if (units[u].fused) return {};
    return graph.node(units[u].group.nodes.front()).op->forward.adds_to;
  }

  // Whether a unit adds to what lies there, and reads nothing else of it.
  [[nodiscard]] bool accumulates_in(Unit u, const Storage& place) const {
    const std::optional<std::size_t> to = adds_to(u);
    if (!to) return false;
    for (std::size_t i = 0; i < units[u].inputs.size(); ++i)
      if ((storage[units[u].inputs[i]] == place) != (i == *to)) return false;
    return true;
  }
};

// ---- in this order

// The units, what they read and write, and which of them wait for which (units.cpp).
void make_units(Arrangement& a);
// Which results are written straight to where they belong, and which units depend on sizes alone (results.cpp).
void assign_results(Arrangement& a);
// When each unit runs: by the graph, unless another order needs less memory; updates as soon as their variables have
// been read (order.cpp).
void order_units(Arrangement& a);
// Which of them run at the same time, on several threads, and so next to each other (side_by_side.cpp).
void put_side_by_side(Arrangement& a);
// Where the other values lie: in buffers, which values that live one after the other share (memory.cpp).
void assign_memory(Arrangement& a);
// The steps in their order, those that are alike made once, and buffers for their scratch memory (steps.cpp).
std::vector<PlannedStep> make_steps(Arrangement& a);

}  // namespace chainrule::detail
