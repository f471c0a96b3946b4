#include <chainrule/framework/plan/arrangement.hpp>

#include <algorithm>

#include <chainrule/framework/graph/node_facts.hpp>

namespace chainrule::detail {

namespace {

class MemoryPlanner {
 public:
  explicit MemoryPlanner(Arrangement& a) : a_(a) {}

  void assign() {
    const std::size_t n = a_.graph.nodes.size();
    std::vector<std::size_t> last_read(n, 0);
    for (std::size_t step = 0; step < a_.order.size(); ++step)
      for (const NodeId from : a_.units[a_.order[step]].inputs) last_read[from] = a_.last_beside(step);
    // Final copies read at the very end.
    for (const Value result : a_.compiled.computation.results) last_read[a_.base[result.id()]] = a_.order.size();

    for (std::size_t step = 0; step < a_.order.size(); ++step) {
      UnitData& unit = a_.units[a_.order[step]];
      for (std::size_t o = 0; o < unit.group.outputs.size(); ++o) {
        const NodeId id = unit.group.outputs[o];
        if (a_.storage[id].kind != Storage::Kind::none) continue;
        const std::size_t last = unit.once ? a_.order.size() : std::max(a_.last_beside(step), last_read[id]);
        const std::size_t reused = unit.fused ? dying_input(unit, id, step, last_read) : dying_sum(step, last_read);
        if (reused != no_input) {
          a_.storage[id] = a_.storage[unit.inputs[reused]];
          taken_.push_back(unit.inputs[reused]);
          a_.buffers[a_.storage[id].index].last = last;
        } else {
          a_.storage[id] = {Storage::Kind::arena, a_.buffers.size()};
          a_.buffers.push_back({rounded(a_.bytes_of(id)), unit.once ? 0 : a_.first_beside(step), last, 0});
        }
      }
      taken_.clear();
      if (!unit.fused) continue;
      for (std::size_t o = 0; o < unit.group.outputs.size(); ++o)
        for (std::size_t i = 0; i < unit.group.inputs.size(); ++i)
          if (a_.storage[unit.group.outputs[o]] == a_.storage[unit.inputs[i]]) unit.group.in_place.emplace_back(o, i);
    }
  }

 private:
  // Whether a step is the last to read a value, and none beside it does.
  [[nodiscard]] bool dies(NodeId value, std::size_t step, const std::vector<std::size_t>& last_read) const {
    if (last_read[value] != a_.last_beside(step)) return false;
    for (std::size_t other = a_.first_beside(step); other <= a_.last_beside(step); ++other) {
      const std::vector<NodeId>& read = a_.units[a_.order[other]].inputs;
      if (other != step && std::find(read.begin(), read.end(), value) != read.end()) return false;
    }
    return true;
  }

  // What a kernel adds to, where that is read for the last time here.
  [[nodiscard]] std::size_t dying_sum(std::size_t step, const std::vector<std::size_t>& last_read) const {
    const Unit u = a_.order[step];
    const std::optional<std::size_t> i = a_.adds_to(u);
    if (!i) return no_input;
    const NodeId to = a_.units[u].inputs[*i];
    if (a_.storage[to].kind != Storage::Kind::arena || !dies(to, step, last_read)) return no_input;
    if (a_.units[a_.unit_of[to]].once && !a_.units[u].once) return no_input;  // the next run reads it again
    return a_.accumulates_in(u, a_.storage[to]) ? *i : no_input;
  }

  // An input of a fused unit whose memory an output can have: read for the last time here, element by element.
  [[nodiscard]] std::size_t dying_input(const UnitData& unit, NodeId output, std::size_t step,
                                        const std::vector<std::size_t>& last_read) const {
    const NodeData& first = a_.graph.node(unit.group.nodes.front());
    const DType dtype = compute_dtype(a_.graph, unit.group.nodes.front());
    if (a_.graph.node(output).type.dtype != dtype || !a_.graph.node(output).op->forward.micro) return no_input;
    for (std::size_t i = 0; i < unit.group.inputs.size(); ++i) {
      const NodeId from = unit.inputs[i];
      const NodeData& read = a_.graph.node(unit.group.inputs[i]);
      if (a_.storage[from].kind != Storage::Kind::arena || !dies(from, step, last_read) || a_.read_by_generator[from])
        continue;
      if (a_.units[a_.unit_of[from]].once) continue;
      if (std::find(taken_.begin(), taken_.end(), from) != taken_.end()) continue;
      if (read.type.dtype != dtype || !(read.type.shape == first.type.shape)) continue;
      // Another way of reading the same memory (a reshape of it, broadcast) forbids it.
      bool once = true;
      for (std::size_t k = 0; k < unit.inputs.size(); ++k)
        once = once && (k == i || !(a_.storage[unit.inputs[k]] == a_.storage[from]));
      if (once) return i;
    }
    return no_input;
  }

  static constexpr std::size_t no_input = ~std::size_t{0};

  std::vector<NodeId> taken_;
  Arrangement& a_;
};

}  // namespace

void assign_memory(Arrangement& a) { MemoryPlanner(a).assign(); }

}  // namespace chainrule::detail
