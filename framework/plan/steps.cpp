#include <chainrule/framework/plan/arrangement.hpp>

#include <bit>
#include <unordered_map>

#include <chainrule/framework/fused/riding.hpp>
#include <chainrule/framework/graph/node_facts.hpp>

namespace chainrule::detail {

namespace {

class StepMaker {
 public:
  explicit StepMaker(Arrangement& a) : a_(a) {}

  std::vector<PlannedStep> make() {
    place_.assign(a_.graph.nodes.size(), 0);
    steps_.reserve(a_.order.size());
    for (std::size_t step = 0; step < a_.order.size(); ++step) {
      UnitData& unit = a_.units[a_.order[step]];
      PlannedStep planned;
      planned.fused = unit.fused;
      planned.product = unit.product;
      planned.step = make_step(a_.order[step], step);
      for (const NodeId from : unit.inputs) planned.inputs.push_back(a_.storage[from]);
      for (const NodeId id : unit.group.outputs) planned.outputs.push_back(a_.storage[id]);
      for (const NodeId id : unit.inputs)
        if (id != unit.product) planned.bytes += a_.bytes_of(id);
      for (const NodeId id : unit.group.outputs) planned.bytes += a_.bytes_of(id);
      planned.once = unit.once;
      planned.beside = a_.first_beside(step) != step;
      if (planned.step.workspace > 0) {
        planned.workspace = a_.buffers.size();
        a_.buffers.push_back({rounded(planned.step.workspace), a_.first_beside(step), a_.last_beside(step), 0});
      }
      planned.group = std::move(unit.group);
      steps_.push_back(std::move(planned));
    }
    return std::move(steps_);
  }

 private:
  // Units that are alike but for where their operands lie are made ready once: the layers of a deep network, the
  // updates of its parameters.
  struct Words {
    std::size_t operator()(const std::vector<std::uint64_t>& words) const {
      std::uint64_t h = words.size();
      for (const std::uint64_t word : words) h = ((h ^ (h >> 29)) + word) * 0xBF58476D1CE4E5B9u;
      return static_cast<std::size_t>(h ^ (h >> 32));
    }
    std::size_t operator()(const Attributes& attributes) const { return attributes.hash(); }
  };

  // All that a unit's step is made from, operands by their positions.
  const std::vector<std::uint64_t>& recipe(Unit u) {
    const UnitData& unit = a_.units[u];
    recipe_ = {unit.fused ? 1U : 0U, unit.group.nodes.size(), unit.group.inputs.size(), unit.group.outputs.size(),
               static_cast<std::uint64_t>(unit.group.tile)};
    unit.fused ? add_group(u) : add_single(unit.group);
    if (unit.product) {
      const NodeData& product = a_.graph.node(*unit.product);
      add_use(product);
      for (const NodeId input : product.inputs) add_type(a_.graph.node(input));
      recipe_.push_back(place_[*unit.product]);
    }
    return recipe_;
  }

  void add_single(const FusedGroup& single) {
    const NodeData& node = a_.graph.node(single.nodes.front());
    add_use(node);
    for (const NodeId input : node.inputs) add_type(a_.graph.node(input));
    for (const NodeId output : single.outputs) add_type(a_.graph.node(output));
    add_location(node);
  }

  void add_group(Unit u) {
    const FusedGroup& group = a_.units[u].group;
    for (std::size_t i = 0; i < group.inputs.size(); ++i) {
      place_[group.inputs[i]] = i;
      add_type(a_.graph.node(group.inputs[i]));
    }
    for (std::size_t i = 0; i < group.nodes.size(); ++i) {
      const NodeData& node = a_.graph.node(group.nodes[i]);
      add_use(node);
      for (const NodeId input : node.inputs) add_operand(u, input);
      place_[group.nodes[i]] = i;
    }
    for (const NodeId output : group.outputs) recipe_.push_back(place_[output]);
    for (const auto& [output, input] : group.in_place) recipe_.push_back(output << 32 | input);
  }

  // Of a node of a group: another one, an input, a constant, or what a generator makes of inputs.
  void add_operand(Unit u, NodeId id) {
    const FusedGroup::Nodes& inputs = a_.units[u].group.inputs;
    const bool listed = place_[id] < inputs.size() && inputs[place_[id]] == id;
    if (a_.unit_of[id] == u) {
      recipe_.push_back(2 * place_[id]);
    } else if (listed) {
      recipe_.push_back(2 * place_[id] + 1);
    } else if (const Array* constant = inlined_constant(a_.graph, id)) {
      add_type(a_.graph.node(id));
      recipe_.push_back(std::bit_cast<std::uint64_t>((*constant)[0]));
    } else {
      const NodeData& generator = a_.graph.node(id);
      add_use(generator);
      add_location(generator);
      for (const NodeId input : generator.inputs) recipe_.push_back(place_[input]);
    }
  }

  void add_use(const NodeData& node) {
    add_pointer(node.op);
    add_type(node);
    recipe_.push_back(
        node.attributes.empty() ? 0 : attributes_.try_emplace(node.attributes, attributes_.size() + 1).first->second);
    recipe_.push_back(node.inputs.size());
  }

  void add_type(const NodeData& node) {
    add_pointer(&static_cast<const Shape&>(node.type.shape));
    recipe_.push_back(static_cast<std::uint64_t>(node.type.dtype));
  }

  // For errors of a run.
  void add_location(const NodeData& node) {
    add_pointer(node.at.file);
    recipe_.push_back(static_cast<std::uint64_t>(node.at.line));
  }

  void add_pointer(const void* p) { recipe_.push_back(reinterpret_cast<std::uintptr_t>(p)); }

  Step make_step(Unit u, std::size_t step) {
    const auto [it, added] = made_.try_emplace(recipe(u), step);
    if (!added) return steps_[it->second].step;
    const FusedGroup& group = a_.units[u].group;
    if (a_.units[u].product) return make_riding_step(a_.graph, *a_.units[u].product, group, a_.sizes);
    return a_.units[u].fused ? make_fused_step(a_.graph, group, a_.sizes)
                             : make_kernel_step(a_.graph, group.nodes.front(), a_.sizes);
  }

  std::vector<PlannedStep> steps_;
  std::unordered_map<std::vector<std::uint64_t>, std::size_t, Words> made_;  // by recipe: the first such step
  std::unordered_map<Attributes, std::size_t, Words> attributes_;            // numbered
  std::vector<std::uint64_t> recipe_;
  std::vector<std::size_t> place_;  // of a node in its unit, or of an input in the unit's inputs
  Arrangement& a_;
};

}  // namespace

std::vector<PlannedStep> make_steps(Arrangement& a) { return StepMaker(a).make(); }

}  // namespace chainrule::detail
