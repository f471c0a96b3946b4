#include <chainrule/framework/plan.hpp>

#include <algorithm>
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
    bool once = false;           // needs nothing but sizes
    std::vector<NodeId> inputs;  // values read, through reshapes: the nodes whose memory it is
    std::vector<Unit> readers;   // units that must come later
    std::uint32_t waits = 0;
    // Variables that this unit writes in place, and the units that still have to read them first.
    std::vector<std::size_t> overwrites;
    std::uint32_t anti_waits = 0;
    std::vector<Unit> anti_readers;  // units whose anti_waits this one counts down
  };

  // A reshape has its input's memory.
  [[nodiscard]] NodeId base(NodeId id) const { return base_[id]; }

  [[nodiscard]] std::size_t bytes_of(NodeId id) const {
    const Type& type = graph_.node(id).type;
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

    std::vector<Unit> unit_of_group;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = graph_.node(id);
      if (is_leaf(id) || base_[id] != id) continue;
      // A mask that only fused groups read is made inside of them.
      if (node.op->forward.generator && !read_by_kernel[id]) continue;
      const std::uint32_t group = compiled_.groups[id];
      Unit unit = no_unit;
      if (group != 0) {
        if (unit_of_group.size() <= group) unit_of_group.resize(group + 1, no_unit);
        unit = unit_of_group[group];
      }
      if (unit == no_unit) {
        unit = static_cast<Unit>(units_.size());
        units_.emplace_back();
        units_.back().fused = group != 0;
        if (group != 0) unit_of_group[group] = unit;
      }
      units_[unit].group.nodes.push_back(id);
      units_[unit].may_throw = units_[unit].may_throw || node.op->forward.may_throw;
      unit_of_[id] = unit;
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
    for (Unit u = 0; u < units_.size(); ++u) {
      std::vector<Unit> before;
      for (const NodeId from : units_[u].inputs)
        if (unit_of_[from] != no_unit && unit_of_[from] != u) before.push_back(unit_of_[from]);
      std::sort(before.begin(), before.end());
      before.erase(std::unique(before.begin(), before.end()), before.end());
      for (const Unit b : before) units_[b].readers.push_back(u);
      units_[u].waits = static_cast<std::uint32_t>(before.size());
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
    std::unordered_map<std::size_t, std::vector<Unit>> readers;
    for (Unit u = 0; u < units_.size(); ++u)
      for (const NodeId from : units_[u].inputs)
        if (storage_[from].kind == Storage::Kind::variable) {
          auto& list = readers[storage_[from].index];
          if (list.empty() || list.back() != u) list.push_back(u);
        }
    // A variable that is itself a result is read when all steps have run, and must still be what it was.
    std::vector<std::size_t> read_at_the_end;
    for (const Value result : results)
      if (const NodeId from = base(result.id());
          unit_of_[from] == no_unit && storage_[from].kind == Storage::Kind::variable)
        read_at_the_end.push_back(storage_[from].index);
    for (std::size_t i = 0; i < compiled_.updated.size(); ++i) {
      const NodeId from = base(results[compiled_.outputs + i].id());
      const Unit u = unit_of_[from];
      if (std::find(read_at_the_end.begin(), read_at_the_end.end(), compiled_.updated[i]) != read_at_the_end.end())
        continue;
      if (storage_[from].kind != Storage::Kind::none || u == no_unit || !units_[u].fused) continue;
      if (!graph_.node(from).op->forward.micro || !reads_plainly(u, compiled_.updated[i])) continue;
      storage_[from] = {Storage::Kind::variable, compiled_.updated[i]};
      units_[u].overwrites.push_back(compiled_.updated[i]);
      for (const Unit reader : readers[compiled_.updated[i]])
        if (reader != u) {
          units_[reader].anti_readers.push_back(u);
          ++units_[u].anti_waits;
        }
    }
    // What may throw comes before anything is overwritten.
    std::vector<Unit> throwing;
    for (Unit u = 0; u < units_.size(); ++u)
      if (units_[u].may_throw) throwing.push_back(u);
    for (Unit u = 0; u < units_.size(); ++u)
      if (!units_[u].overwrites.empty())
        for (const Unit t : throwing) {
          units_[t].anti_readers.push_back(u);
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
      ready.emplace(units_[u].once ? 0 : units_[u].overwrites.empty() ? 2 : 1, u);
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
      for (const Unit reader : units_[u].readers) {
        --units_[reader].waits;
        push(reader);
      }
      for (const Unit writer : units_[u].anti_readers) {
        if (units_[writer].anti_waits == 0) continue;  // it gave up
        if (--units_[writer].anti_waits == 0) push(writer);
      }
    }
  }

  void give_up_overwriting(Unit u) {
    for (const NodeId id : units_[u].group.outputs)
      if (storage_[id].kind == Storage::Kind::variable) storage_[id] = {};
    units_[u].overwrites.clear();
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

  void make_steps() {
    for (std::size_t step = 0; step < order_.size(); ++step) {
      UnitData& unit = units_[order_[step]];
      PlannedStep planned;
      planned.fused = unit.fused;
      planned.step = unit.fused ? make_fused_step(graph_, unit.group, sizes_)
                                : make_kernel_step(graph_, unit.group.nodes.front(), sizes_);
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
  std::vector<Storage> storage_;
  std::vector<Unit> order_;
  std::vector<NodeId> taken_;
  std::vector<FinalCopy> first_copies_;
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
  const auto list = [&](const std::vector<Storage>& all) {
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
