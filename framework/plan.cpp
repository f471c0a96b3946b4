#include <chainrule/framework/plan.hpp>

#include <algorithm>
#include <bit>
#include <map>
#include <queue>
#include <unordered_map>

#include <fmt/core.h>

namespace chainrule::detail {

namespace {

using Unit = std::uint32_t;
constexpr Unit no_unit = ~Unit{0};

std::size_t rounded(std::size_t bytes) { return (bytes / 64 + (bytes % 64 != 0 || bytes == 0 ? 1 : 0)) * 64; }

class Planner {
 public:
  Planner(const Compiled& compiled, const Sizes& sizes)
      : compiled_(compiled), graph_(*compiled.computation.graph.data()), sizes_(sizes) {}

  Plan make() {
    make_units();
    assign_results();
    find_once();
    order_units();
    assign_storage();
    make_steps();
    add_copies();
    plan_.arena_bytes = place_buffers(plan_.buffers);
    plan_.lower_bound = largest_overlap(plan_.buffers);
    return std::move(plan_);
  }

 private:
  struct UnitData {
    FusedGroup group;
    bool fused = false;
    bool may_throw = false;
    bool once = false;             // needs nothing but sizes
    std::vector<NodeId> inputs;    // values read, through reshapes: the nodes whose memory it is
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

  // A reshape has its input's memory.
  [[nodiscard]] NodeId base(NodeId id) const { return base_[id]; }

  [[nodiscard]] std::size_t bytes_of(NodeId id) const {
    const NodeType& type = graph_.node(id).type;
    return static_cast<std::size_t>(count(evaluate(type.shape, sizes_))) * size_of(type.dtype);
  }

  [[nodiscard]] bool is_leaf(NodeId id) const {
    const Op* op = graph_.node(id).op;
    return op == &input_op() || op == &variable_op() || op == &constant_op();
  }

  // ---- units: what runs as one step

  void make_units() {
    const std::size_t n = graph_.nodes.size();
    static const Op* const reshape = find_op("reshape");
    base_.resize(n);
    unit_of_.assign(n, no_unit);
    std::vector<char> read_by_kernel(n, 0);
    for (const Value result : compiled_.computation.results) read_by_kernel[result.id()] = 1;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = graph_.node(id);
      base_[id] = node.op == reshape ? base_[node.inputs[0]] : id;
      if (compiled_.groups[id] == 0)
        for (const NodeId input : node.inputs) read_by_kernel[input] = 1;
    }
    for (NodeId id = 0; id < n; ++id)
      if (read_by_kernel[id]) read_by_kernel[base_[id]] = 1;

    // Numbered first, then made: they are too large to be moved about.
    std::vector<Unit> unit_of_group;
    Unit units = 0;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = graph_.node(id);
      if (is_leaf(id) || base_[id] != id) continue;
      // A mask that only fused groups read is made inside of them.
      if (node.op->forward.generator && !read_by_kernel[id]) continue;
      const std::uint32_t group = compiled_.groups[id];
      if (group == 0) {
        unit_of_[id] = units++;
        continue;
      }
      if (unit_of_group.size() <= group) unit_of_group.resize(group + 1, no_unit);
      if (unit_of_group[group] == no_unit) unit_of_group[group] = units++;
      unit_of_[id] = unit_of_group[group];
    }
    units_.resize(units);
    for (NodeId id = 0; id < n; ++id) {
      if (unit_of_[id] == no_unit) continue;
      UnitData& unit = units_[unit_of_[id]];
      unit.fused = compiled_.groups[id] != 0;
      unit.group.nodes.push_back(id);
      unit.may_throw = unit.may_throw || graph_.node(id).op->forward.may_throw;
    }

    std::vector<char> is_output(n, 0);
    std::vector<Unit> seen_by(n, no_unit);  // the unit that listed a value last
    const auto list = [&](Unit unit, NodeId id, bool of_generator, auto&& self) -> void {
      const NodeId from = base(id);
      if (!of_generator && inlined_constant(graph_, id)) return;  // a number in the instructions
      if (seen_by[id] == unit) return;
      seen_by[id] = unit;
      if (graph_.node(from).op->forward.generator && unit_of_[from] == no_unit) {
        for (const NodeId input : graph_.node(from).inputs) self(unit, input, true, self);
        return;
      }
      units_[unit].group.inputs.push_back(id);
      units_[unit].inputs.push_back(from);
    };
    for (Unit u = 0; u < units_.size(); ++u) {
      for (const NodeId id : units_[u].group.nodes) {
        if (!units_[u].fused) {
          // A kernel reads by position, repeated inputs included.
          for (const NodeId input : graph_.node(id).inputs) {
            units_[u].group.inputs.push_back(input);
            units_[u].inputs.push_back(base(input));
          }
        } else {
          for (const NodeId input : graph_.node(id).inputs)
            if (unit_of_[base(input)] != u || base(input) != input) list(u, input, false, list);
        }
      }
      for (const NodeId from : units_[u].inputs)
        if (unit_of_[from] != no_unit && unit_of_[from] != u) is_output[from] = 1;
    }
    for (const Value result : compiled_.computation.results) is_output[base(result.id())] = 1;
    for (NodeId id = 0; id < n; ++id)
      if (is_output[id] && unit_of_[id] != no_unit) units_[unit_of_[id]].group.outputs.push_back(id);
    readers_.resize(units_.size());
    for (Unit u = 0; u < units_.size(); ++u)
      for (const NodeId from : units_[u].inputs) {
        const Unit before = unit_of_[from];
        if (before == no_unit || before == u || readers_.starts_with(before, u)) continue;
        readers_.add(before, u);
        ++units_[u].waits;
      }
  }

  // ---- results: which are written straight to where they belong

  void assign_results() {
    const std::size_t n = graph_.nodes.size();
    storage_.assign(n, {});
    const Values& results = compiled_.computation.results;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = graph_.node(id);
      if (node.op == &input_op()) storage_[id] = {Storage::Kind::feed, node.payload};
      if (node.op == &variable_op()) storage_[id] = {Storage::Kind::variable, node.payload};
      if (node.op == &constant_op()) storage_[id] = {Storage::Kind::constant, node.payload};
    }
    for (std::size_t i = 0; i < compiled_.outputs; ++i) {
      const NodeId from = base(results[i].id());
      if (storage_[from].kind == Storage::Kind::none) storage_[from] = {Storage::Kind::output, i};
    }
    // Units that read each variable.
    const std::size_t variables = graph_.leaves->variables.size();
    UnitLists readers;
    readers.resize(variables);
    for (Unit u = 0; u < units_.size(); ++u)
      for (const NodeId from : units_[u].inputs)
        if (storage_[from].kind == Storage::Kind::variable && !readers.starts_with(storage_[from].index, u))
          readers.add(storage_[from].index, u);
    // A variable that is itself a result is read when all steps have run, and must still be what it was.
    std::vector<char> read_at_the_end(variables, 0);
    for (const Value result : results)
      if (const NodeId from = base(result.id());
          unit_of_[from] == no_unit && storage_[from].kind == Storage::Kind::variable)
        read_at_the_end[storage_[from].index] = 1;
    anti_readers_.resize(units_.size());
    for (std::size_t i = 0; i < compiled_.updated.size(); ++i) {
      const NodeId from = base(results[compiled_.outputs + i].id());
      const Unit u = unit_of_[from];
      if (read_at_the_end[compiled_.updated[i]]) continue;
      if (storage_[from].kind != Storage::Kind::none || u == no_unit || !units_[u].fused) continue;
      if (!graph_.node(from).op->forward.micro || !reads_plainly(u, compiled_.updated[i])) continue;
      storage_[from] = {Storage::Kind::variable, compiled_.updated[i]};
      units_[u].overwrites = true;
      readers.for_each(compiled_.updated[i], [&](Unit reader) {
        if (reader == u) return;
        anti_readers_.add(reader, u);
        ++units_[u].anti_waits;
      });
    }
    // What may throw comes before anything is overwritten.
    std::vector<Unit> throwing;
    for (Unit u = 0; u < units_.size(); ++u)
      if (units_[u].may_throw) throwing.push_back(u);
    for (Unit u = 0; u < units_.size(); ++u)
      if (units_[u].overwrites)
        for (const Unit t : throwing) {
          anti_readers_.add(t, u);
          ++units_[u].anti_waits;
        }
  }

  // Units whose inputs are constants or such units. (What a run could overwrite between two runs is not theirs.)
  void find_once() {
    for (UnitData& unit : units_) {
      unit.once = !unit.may_throw;
      for (const NodeId from : unit.inputs)
        unit.once = unit.once && (unit_of_[from] == no_unit ? storage_[from].kind == Storage::Kind::constant
                                                            : units_[unit_of_[from]].once);
      for (const NodeId id : unit.group.outputs)
        unit.once = unit.once && storage_[id].kind == Storage::Kind::none && !graph_.node(id).op->forward.generator;
    }
  }

  // Whether a fused unit reads a variable, if it does, element by element at the place that it writes.
  [[nodiscard]] bool reads_plainly(Unit u, std::size_t variable) const {
    const NodeData& first = graph_.node(units_[u].group.nodes.front());
    const DType dtype = compute_dtype(graph_, units_[u].group.nodes.front());
    for (std::size_t i = 0; i < units_[u].inputs.size(); ++i) {
      const NodeId from = units_[u].inputs[i];
      if (!(storage_[from] == Storage{Storage::Kind::variable, variable})) continue;
      const NodeData& read = graph_.node(units_[u].group.inputs[i]);
      if (!(read.type.shape == first.type.shape) || read.type.dtype != dtype) return false;
    }
    return true;
  }

  // ---- order: by the graph, but updates as soon as their variables have been read

  void order_units() {
    struct Ready {
      bool operator()(const std::pair<int, Unit>& a, const std::pair<int, Unit>& b) const { return a > b; }
    };
    std::priority_queue<std::pair<int, Unit>, std::vector<std::pair<int, Unit>>, Ready> ready;
    const auto push = [&](Unit u) {
      if (units_[u].waits != 0 || units_[u].anti_waits != 0) return;
      ready.emplace(units_[u].once ? 0 : units_[u].overwrites ? 1 : 2, u);
    };
    std::vector<char> done(units_.size(), 0);
    for (Unit u = 0; u < units_.size(); ++u) push(u);
    while (order_.size() < units_.size()) {
      if (ready.empty()) {
        // Two updates each wait to overwrite what the other has yet to read: one writes elsewhere, and is copied.
        Unit stuck = 0;
        while (stuck < units_.size() && (done[stuck] || units_[stuck].waits != 0 || units_[stuck].anti_waits == 0))
          ++stuck;
        invariant(stuck < units_.size(), "the steps of a program wait for each other");
        units_[stuck].anti_waits = 0;
        give_up_overwriting(stuck);
        push(stuck);
        continue;
      }
      const Unit u = ready.top().second;
      ready.pop();
      done[u] = 1;
      order_.push_back(u);
      readers_.for_each(u, [&](Unit reader) {
        --units_[reader].waits;
        push(reader);
      });
      anti_readers_.for_each(u, [&](Unit writer) {
        if (units_[writer].anti_waits == 0) return;  // it gave up
        if (--units_[writer].anti_waits == 0) push(writer);
      });
    }
  }

  void give_up_overwriting(Unit u) {
    for (const NodeId id : units_[u].group.outputs)
      if (storage_[id].kind == Storage::Kind::variable) storage_[id] = {};
    units_[u].overwrites = false;
  }

  // ---- memory

  void assign_storage() {
    const std::size_t n = graph_.nodes.size();
    std::vector<std::size_t> last_read(n, 0);
    for (std::size_t step = 0; step < order_.size(); ++step)
      for (const NodeId from : units_[order_[step]].inputs) last_read[from] = step;
    // Final copies read at the very end.
    for (const Value result : compiled_.computation.results) last_read[base(result.id())] = order_.size();

    for (std::size_t step = 0; step < order_.size(); ++step) {
      UnitData& unit = units_[order_[step]];
      for (std::size_t o = 0; o < unit.group.outputs.size(); ++o) {
        const NodeId id = unit.group.outputs[o];
        if (storage_[id].kind != Storage::Kind::none) continue;
        const std::size_t last = unit.once ? order_.size() : std::max(step, last_read[id]);
        const std::size_t reused = unit.fused ? dying_input(unit, id, step, last_read) : no_input;
        if (reused != no_input) {
          storage_[id] = storage_[unit.inputs[reused]];
          taken_.push_back(unit.inputs[reused]);
          plan_.buffers[storage_[id].index].last = last;
        } else {
          storage_[id] = {Storage::Kind::arena, plan_.buffers.size()};
          plan_.buffers.push_back({rounded(bytes_of(id)), unit.once ? 0 : step, last, 0});
        }
      }
      taken_.clear();
      if (!unit.fused) continue;
      for (std::size_t o = 0; o < unit.group.outputs.size(); ++o)
        for (std::size_t i = 0; i < unit.inputs.size(); ++i)
          if (storage_[unit.group.outputs[o]] == storage_[unit.inputs[i]]) unit.group.in_place.emplace_back(o, i);
    }
  }

  // An input of a fused unit whose memory an output can have: read for the last time here, element by element.
  std::size_t dying_input(const UnitData& unit, NodeId output, std::size_t step,
                          const std::vector<std::size_t>& last_read) const {
    const NodeData& first = graph_.node(unit.group.nodes.front());
    const DType dtype = compute_dtype(graph_, unit.group.nodes.front());
    if (graph_.node(output).type.dtype != dtype || !graph_.node(output).op->forward.micro) return no_input;
    for (std::size_t i = 0; i < unit.inputs.size(); ++i) {
      const NodeId from = unit.inputs[i];
      const NodeData& read = graph_.node(unit.group.inputs[i]);
      if (storage_[from].kind != Storage::Kind::arena || last_read[from] != step) continue;
      if (units_[unit_of_[from]].once) continue;
      if (std::find(taken_.begin(), taken_.end(), from) != taken_.end()) continue;
      if (read.type.dtype != dtype || !(read.type.shape == first.type.shape)) continue;
      // Another way of reading the same memory (a reshape of it, broadcast) forbids it.
      bool once = true;
      for (std::size_t k = 0; k < unit.inputs.size(); ++k)
        once = once && (k == i || !(storage_[unit.inputs[k]] == storage_[from]));
      if (once) return i;
    }
    return no_input;
  }

  // ---- steps and copies

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
    const UnitData& unit = units_[u];
    recipe_ = {unit.fused ? 1U : 0U, unit.group.nodes.size(), unit.group.inputs.size(), unit.group.outputs.size()};
    const auto add_pointer = [&](const void* p) { recipe_.push_back(reinterpret_cast<std::uintptr_t>(p)); };
    const auto add_type = [&](const NodeData& node) {
      add_pointer(&static_cast<const Shape&>(node.type.shape));
      recipe_.push_back(static_cast<std::uint64_t>(node.type.dtype));
    };
    const auto add_use = [&](const NodeData& node) {
      add_pointer(node.op);
      add_type(node);
      recipe_.push_back(
          node.attributes.empty() ? 0 : attributes_.try_emplace(node.attributes, attributes_.size() + 1).first->second);
      recipe_.push_back(node.inputs.size());
    };
    const auto add_location = [&](const NodeData& node) {  // for errors of a run
      add_pointer(node.at.file);
      recipe_.push_back(static_cast<std::uint64_t>(node.at.line));
    };
    if (!unit.fused) {
      const NodeData& node = graph_.node(unit.group.nodes.front());
      add_use(node);
      for (const NodeId input : node.inputs) add_type(graph_.node(input));
      add_location(node);
      return recipe_;
    }
    const FusedGroup::Nodes& inputs = unit.group.inputs;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      place_[inputs[i]] = i;
      add_type(graph_.node(inputs[i]));
    }
    const auto is_listed = [&](NodeId id) { return place_[id] < inputs.size() && inputs[place_[id]] == id; };
    for (std::size_t i = 0; i < unit.group.nodes.size(); ++i) {
      const NodeData& node = graph_.node(unit.group.nodes[i]);
      add_use(node);
      for (const NodeId input : node.inputs) {
        if (unit_of_[input] == u) {
          recipe_.push_back(2 * place_[input]);
        } else if (is_listed(input)) {
          recipe_.push_back(2 * place_[input] + 1);
        } else if (const Array* constant = inlined_constant(graph_, input)) {
          add_type(graph_.node(input));
          recipe_.push_back(std::bit_cast<std::uint64_t>((*constant)[0]));
        } else {  // a generator
          const NodeData& generator = graph_.node(input);
          add_use(generator);
          add_location(generator);
          for (const NodeId of_it : generator.inputs) recipe_.push_back(place_[of_it]);
        }
      }
      place_[unit.group.nodes[i]] = i;
    }
    for (const NodeId output : unit.group.outputs) recipe_.push_back(place_[output]);
    for (const auto& [output, input] : unit.group.in_place) recipe_.push_back(output << 32 | input);
    return recipe_;
  }

  Step make_step(Unit u, std::size_t step) {
    const auto [it, added] = made_.try_emplace(recipe(u), step);
    if (!added) return plan_.steps[it->second].step;
    const FusedGroup& group = units_[u].group;
    return units_[u].fused ? make_fused_step(graph_, group, sizes_)
                           : make_kernel_step(graph_, group.nodes.front(), sizes_);
  }

  void make_steps() {
    place_.assign(graph_.nodes.size(), 0);
    plan_.steps.reserve(order_.size());
    for (std::size_t step = 0; step < order_.size(); ++step) {
      UnitData& unit = units_[order_[step]];
      PlannedStep planned;
      planned.fused = unit.fused;
      planned.step = make_step(order_[step], step);
      for (const NodeId from : unit.inputs) planned.inputs.push_back(storage_[from]);
      for (const NodeId id : unit.group.outputs) planned.outputs.push_back(storage_[id]);
      for (const NodeId id : unit.group.inputs) planned.bytes += bytes_of(id);
      for (const NodeId id : unit.group.outputs) planned.bytes += bytes_of(id);
      planned.once = unit.once;
      if (planned.step.workspace > 0) {
        planned.workspace = plan_.buffers.size();
        plan_.buffers.push_back({rounded(planned.step.workspace), step, step, 0});
      }
      planned.group = std::move(unit.group);
      plan_.steps.push_back(std::move(planned));
    }
  }

  void add_copies() {
    const Values& results = compiled_.computation.results;
    for (std::size_t i = 0; i < results.size(); ++i) {
      const NodeId from = base(results[i].id());
      const Storage to = i < compiled_.outputs
                             ? Storage{Storage::Kind::output, i}
                             : Storage{Storage::Kind::variable, compiled_.updated[i - compiled_.outputs]};
      if (i < compiled_.outputs) plan_.outputs.push_back({results[i].dtype(), evaluate(results[i].shape(), sizes_)});
      if (!(storage_[from] == to)) plan_.copies.push_back({storage_[from], to, bytes_of(results[i].id())});
    }
    // An update that copies a variable must find it as it was: copies from variables go before copies into them, by
    // way of the arena where two variables change places.
    for (FinalCopy& copy : plan_.copies) {
      if (copy.from.kind != Storage::Kind::variable || copy.to.kind != Storage::Kind::variable) continue;
      const std::size_t step = order_.size();
      plan_.buffers.push_back({rounded(copy.bytes), step, step, 0});
      const Storage between{Storage::Kind::arena, plan_.buffers.size() - 1};
      first_copies_.push_back({copy.from, between, copy.bytes});
      copy.from = between;
    }
    std::stable_partition(plan_.copies.begin(), plan_.copies.end(),
                          [](const FinalCopy& c) { return c.to.kind != Storage::Kind::variable; });
    plan_.copies.insert(plan_.copies.begin(), first_copies_.begin(), first_copies_.end());
  }

  static constexpr std::size_t no_input = ~std::size_t{0};

  const Compiled& compiled_;
  const GraphData& graph_;
  const Sizes& sizes_;
  Plan plan_;
  std::vector<NodeId> base_;
  std::vector<Unit> unit_of_;
  std::vector<UnitData> units_;
  UnitLists readers_;       // by unit: those that must come later, since they read what it writes
  UnitLists anti_readers_;  // by unit: those whose anti_waits it counts down
  std::vector<Storage> storage_;
  std::vector<Unit> order_;
  std::vector<NodeId> taken_;
  std::vector<FinalCopy> first_copies_;
  std::unordered_map<std::vector<std::uint64_t>, std::size_t, Words> made_;  // by recipe: the first such step
  std::unordered_map<Attributes, std::size_t, Words> attributes_;            // numbered
  std::vector<std::uint64_t> recipe_;
  std::vector<std::size_t> place_;  // of a node in its unit, or of an input in the unit's inputs
};

std::string print(const Storage& s, const Plan& plan, const GraphData& graph) {
  switch (s.kind) {
    case Storage::Kind::feed: return graph.leaves->inputs[s.index].name;
    case Storage::Kind::variable: return graph.leaves->variables[s.index].name;
    case Storage::Kind::constant: return "constant";
    case Storage::Kind::output: return fmt::format("output {}", s.index);
    case Storage::Kind::arena: return fmt::format("[{}+{}]", plan.buffers[s.index].offset, plan.buffers[s.index].bytes);
    case Storage::Kind::none: break;
  }
  return "?";
}

}  // namespace

Plan make_plan(const Compiled& compiled, const Sizes& sizes) { return Planner(compiled, sizes).make(); }

std::string Plan::title(const PlannedStep& step, const passes::Computation& c, const Sizes& sizes) const {
  const GraphData& graph = *c.graph.data();
  const NodeData& first = graph.node(step.group.nodes.front());
  std::string ops;
  for (const NodeId id : step.group.nodes) ops += fmt::format("{}{}", ops.empty() ? "" : " ", graph.node(id).op->name);
  return fmt::format("{}{}  {} {}", step.fused ? "fused " : "", ops,
                     name(step.fused ? compute_dtype(graph, step.group.nodes.front()) : first.type.dtype),
                     to_string(evaluate(first.type.shape, sizes)));
}

std::string Plan::explain(const passes::Computation& c, const Sizes& sizes) const {
  const GraphData& graph = *c.graph.data();
  std::string out = fmt::format("plan for {}\n", sizes.all().empty() ? "fixed sizes" : sizes.to_string());
  const auto list = [&](const auto& all) {
    std::string text;
    for (const Storage& s : all) text += fmt::format("{}{}", text.empty() ? "" : ", ", print(s, *this, graph));
    return text;
  };
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const PlannedStep& step = steps[i];
    out += fmt::format("step {}{}: {}\n", i, step.once ? ", once" : "", title(step, c, sizes));
    if (step.fused) out += fmt::format("    {}\n", describe_fused_step(graph, step.group, sizes));
    out += fmt::format("    reads {}\n    writes {}\n", list(step.inputs), list(step.outputs));
    if (step.workspace != PlannedStep::none)
      out += fmt::format("    workspace {}\n", print({Storage::Kind::arena, step.workspace}, *this, graph));
  }
  for (const FinalCopy& copy : copies)
    out += fmt::format("copy {} to {}, {} bytes\n", print(copy.from, *this, graph), print(copy.to, *this, graph),
                       copy.bytes);
  for (std::size_t i = 0; i < buffers.size(); ++i)
    out += fmt::format("buffer {}: {} bytes at {}, steps {} to {}\n", i, buffers[i].bytes, buffers[i].offset,
                       buffers[i].first, buffers[i].last);
  out += fmt::format("arena: {} bytes, lower bound {} bytes, ratio {:.3f}\n", arena_bytes, lower_bound,
                     lower_bound == 0 ? 1.0 : static_cast<double>(arena_bytes) / static_cast<double>(lower_bound));
  return out;
}

}  // namespace chainrule::detail
