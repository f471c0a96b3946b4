#include <chainrule/framework/plan/arrangement.hpp>

#include <chainrule/framework/fused/flat.hpp>
#include <chainrule/framework/fused/riding.hpp>
#include <chainrule/framework/graph/node_facts.hpp>

namespace chainrule::detail {

namespace {

class UnitMaker {
 public:
  explicit UnitMaker(Arrangement& a) : a_(a) {}

  void make() {
    number_units();
    a_.units.resize(count_);
    const std::size_t n = a_.graph.nodes.size();
    for (NodeId id = 0; id < n; ++id) {
      if (a_.unit_of[id] == no_unit) continue;
      if (a_.graph.node(id).further_output) continue;
      UnitData& unit = a_.units[a_.unit_of[id]];
      unit.may_throw = unit.may_throw || a_.graph.node(id).op->forward.may_throw;
      if (rides_on_[id] != 0) {
        unit.product = id;
        continue;
      }
      unit.fused = a_.compiled.groups[id] != 0;
      if (a_.compiled.groups[id] < a_.compiled.tiles.size())
        unit.group.tile = a_.compiled.tiles[a_.compiled.groups[id]];
      unit.group.nodes.push_back(id);
    }
    std::vector<Unit> seen_by(n, no_unit);
    a_.read_by_generator.assign(n, 0);
    for (Unit u = 0; u < a_.units.size(); ++u) list_inputs(u, seen_by);
    list_outputs();
    list_readers();
  }

 private:
  [[nodiscard]] bool is_leaf(NodeId id) const {
    const Op* op = a_.graph.node(id).op;
    return op == &input_op() || op == &variable_op() || op == &constant_op();
  }

  // The nodes whose memory others are, and the values that must lie in memory: all but what each of its readers makes
  // for itself.
  [[nodiscard]] std::vector<char> find_bases() {
    static const Op* const reshape = find_op("reshape");
    const std::size_t n = a_.graph.nodes.size();
    a_.base.resize(n);
    std::vector<char> stored(n, 0);
    for (const Value result : a_.compiled.computation.results) stored[result.id()] = 1;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = a_.graph.node(id);
      a_.base[id] = node.op == reshape ? a_.base[node.inputs[0]] : id;
      for (const NodeId input : node.inputs)
        if (!makes_for_itself(id, input)) stored[input] = 1;
    }
    for (NodeId id = 0; id < n; ++id)
      if (stored[id]) stored[a_.base[id]] = 1;
    return stored;
  }

  // Whether a node reads a generator's value as its group makes it: tile by tile, in the group's shape and dtype.
  [[nodiscard]] bool makes_for_itself(NodeId reader, NodeId id) const {
    const NodeData& node = a_.graph.node(id);
    if (!node.op->forward.generator || node.op->forward.may_throw || node.inputs.size() > most_generator_inputs)
      return false;
    return a_.compiled.groups[reader] != 0 && node.type.shape == a_.graph.node(reader).type.shape &&
           node.type.dtype == compute_dtype(a_.graph, reader);
  }

  // By node, the group that reads a product's rows as they are made: the only one that reads it, element by element. Of
  // several such products the last.
  void find_riders() {
    const std::size_t n = a_.graph.nodes.size();
    constexpr std::uint32_t several = ~std::uint32_t{0};
    rides_on_.assign(n, 0);
    if (!a_.rides) return;
    std::vector<std::uint32_t> reader(n, 0);  // the group, 0 for none, or several
    for (NodeId id = 0; id < n; ++id)
      for (const NodeId input : a_.graph.node(id).inputs) {
        const std::uint32_t group = a_.compiled.groups[id];
        const bool plainly = group != 0 && a_.graph.node(id).op->forward.micro &&
                             a_.graph.node(input).type.shape == a_.graph.node(id).type.shape &&
                             a_.graph.node(input).type.dtype == compute_dtype(a_.graph, id);
        reader[input] = plainly && (reader[input] == 0 || reader[input] == group) ? group : several;
      }
    for (const Value result : a_.compiled.computation.results) reader[result.id()] = several;
    std::vector<NodeId> product_of_group;
    for (NodeId id = 0; id < n; ++id) {
      const std::uint32_t group = reader[id];
      if (group == 0 || group == several || a_.compiled.groups[id] != 0 || is_leaf(id) ||
          !worth_riding(a_.graph, id, a_.sizes))
        continue;
      if (product_of_group.size() <= group) product_of_group.resize(group + 1, no_node);
      if (product_of_group[group] != no_node) rides_on_[product_of_group[group]] = 0;
      product_of_group[group] = id;
      rides_on_[id] = group;
    }
  }

  // Numbered first, then made: they are too large to be moved about.
  void number_units() {
    const std::vector<char> stored = find_bases();
    find_riders();
    const std::size_t n = a_.graph.nodes.size();
    a_.unit_of.assign(n, no_unit);
    std::vector<Unit> unit_of_group;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = a_.graph.node(id);
      if (is_leaf(id) || a_.base[id] != id) continue;
      if (node.further_output) {
        a_.unit_of[id] = a_.unit_of[node.inputs[0]];
        continue;
      }
      if (node.op->forward.generator && !stored[id]) continue;  // made inside of the groups that read it
      const std::uint32_t group = rides_on_[id] != 0 ? rides_on_[id] : a_.compiled.groups[id];
      if (group == 0) {
        a_.unit_of[id] = count_++;
        continue;
      }
      if (unit_of_group.size() <= group) unit_of_group.resize(group + 1, no_unit);
      if (unit_of_group[group] == no_unit) unit_of_group[group] = count_++;
      a_.unit_of[id] = unit_of_group[group];
    }
  }

  // `seen_by`: the unit that listed a value last.
  void list_inputs(Unit u, std::vector<Unit>& seen_by) {
    UnitData& unit = a_.units[u];
    const auto list = [&](NodeId id, bool of_generator, auto&& self) -> void {
      const NodeId from = a_.base[id];
      if (!of_generator && inlined_constant(a_.graph, id)) return;  // a number in the instructions
      if (of_generator) a_.read_by_generator[from] = 1;
      if (seen_by[id] == u) return;
      seen_by[id] = u;
      if (a_.graph.node(from).op->forward.generator && a_.unit_of[from] == no_unit) {
        for (const NodeId input : a_.graph.node(from).inputs) self(input, true, self);
        return;
      }
      unit.group.inputs.push_back(id);
      unit.inputs.push_back(from);
    };
    for (const NodeId id : unit.group.nodes) {
      for (const NodeId input : a_.graph.node(id).inputs) {
        if (!unit.fused) {  // a kernel reads by position, repeated inputs included
          unit.group.inputs.push_back(input);
          unit.inputs.push_back(a_.base[input]);
        } else if (a_.unit_of[a_.base[input]] != u || a_.base[input] != input || input == unit.product) {
          list(input, false, list);
        }
      }
    }
    if (unit.product)
      for (const NodeId input : a_.graph.node(*unit.product).inputs) unit.inputs.push_back(a_.base[input]);
  }

  void list_outputs() {
    const std::size_t n = a_.graph.nodes.size();
    std::vector<char> is_output(n, 0);
    for (Unit u = 0; u < a_.units.size(); ++u)
      for (const NodeId from : a_.units[u].inputs)
        if (a_.unit_of[from] != no_unit && a_.unit_of[from] != u) is_output[from] = 1;
    for (const Value result : a_.compiled.computation.results) is_output[a_.base[result.id()]] = 1;
    for (NodeId id = 0; id < n; ++id) {
      if (a_.unit_of[id] == no_unit) continue;
      // A kernel writes by position.
      const NodeData& owner = a_.graph.node(a_.graph.owner(id));
      if (is_output[id] || owner.op->has_several_outputs()) a_.units[a_.unit_of[id]].group.outputs.push_back(id);
      if (!is_output[id] && owner.op->has_several_outputs()) a_.unread.push_back(id);
    }
  }

  void list_readers() {
    a_.readers.resize(a_.units.size());
    for (Unit u = 0; u < a_.units.size(); ++u)
      for (const NodeId from : a_.units[u].inputs) {
        const Unit before = a_.unit_of[from];
        if (before == no_unit || before == u || a_.readers.starts_with(before, u)) continue;
        a_.readers.add(before, u);
        ++a_.units[u].waits;
      }
  }

  static constexpr NodeId no_node = ~NodeId{0};

  std::vector<std::uint32_t> rides_on_;  // by node: 0 or a group
  Unit count_ = 0;
  Arrangement& a_;
};

}  // namespace

void make_units(Arrangement& a) { UnitMaker(a).make(); }

}  // namespace chainrule::detail
