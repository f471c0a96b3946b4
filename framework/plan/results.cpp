#include <chainrule/framework/plan/arrangement.hpp>

#include <chainrule/framework/graph/node_facts.hpp>

namespace chainrule::detail {

namespace {

class ResultPlacer {
 public:
  explicit ResultPlacer(Arrangement& a) : a_(a) {}

  void assign() {
    assign_results();
    find_once();
  }

 private:
  void assign_results() {
    const std::size_t n = a_.graph.nodes.size();
    a_.storage.assign(n, {});
    const Values& results = a_.compiled.computation.results;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = a_.graph.node(id);
      if (node.op == &input_op()) a_.storage[id] = {Storage::Kind::feed, node.payload};
      if (node.op == &variable_op()) a_.storage[id] = {Storage::Kind::variable, node.payload};
      if (node.op == &constant_op()) a_.storage[id] = {Storage::Kind::constant, node.payload};
    }
    for (const NodeId id : a_.unread)
      if (a_.graph.node(a_.graph.owner(id)).op->forward.skips_unread) a_.storage[id] = {Storage::Kind::unread, 0};
    for (std::size_t i = 0; i < a_.compiled.outputs; ++i) {
      const NodeId from = a_.base[results[i].id()];
      if (a_.storage[from].kind == Storage::Kind::none) a_.storage[from] = {Storage::Kind::output, i};
    }
    // Units that read each variable.
    const std::size_t variables = a_.graph.leaves->variables.size();
    UnitLists readers;
    readers.resize(variables);
    for (Unit u = 0; u < a_.units.size(); ++u)
      for (const NodeId from : a_.units[u].inputs)
        if (a_.storage[from].kind == Storage::Kind::variable && !readers.starts_with(a_.storage[from].index, u))
          readers.add(a_.storage[from].index, u);
    // A variable that is itself a result is read when all steps have run, and must still be what it was.
    std::vector<char> read_at_the_end(variables, 0);
    for (const Value result : results)
      if (const NodeId from = a_.base[result.id()];
          a_.unit_of[from] == no_unit && a_.storage[from].kind == Storage::Kind::variable)
        read_at_the_end[a_.storage[from].index] = 1;
    a_.anti_readers.resize(a_.units.size());
    for (std::size_t i = 0; i < a_.compiled.updated.size(); ++i) {
      const NodeId from = a_.base[results[a_.compiled.outputs + i].id()];
      const Unit u = a_.unit_of[from];
      if (read_at_the_end[a_.compiled.updated[i]]) continue;
      if (a_.storage[from].kind != Storage::Kind::none || u == no_unit) continue;
      if (a_.units[u].fused ? !a_.graph.node(from).op->forward.micro || !reads_plainly(u, a_.compiled.updated[i])
                            : !a_.accumulates_in(u, {Storage::Kind::variable, a_.compiled.updated[i]}))
        continue;
      a_.storage[from] = {Storage::Kind::variable, a_.compiled.updated[i]};
      a_.units[u].overwrites = true;
      readers.for_each(a_.compiled.updated[i], [&](Unit reader) {
        if (reader == u) return;
        a_.anti_readers.add(reader, u);
        ++a_.units[u].anti_waits;
      });
    }
    wait_for_what_may_throw();
  }

  // That comes before anything is overwritten.
  void wait_for_what_may_throw() {
    std::vector<Unit> throwing;
    for (Unit u = 0; u < a_.units.size(); ++u)
      if (a_.units[u].may_throw) throwing.push_back(u);
    for (Unit u = 0; u < a_.units.size(); ++u)
      if (a_.units[u].overwrites)
        for (const Unit t : throwing) {
          a_.anti_readers.add(t, u);
          ++a_.units[u].anti_waits;
        }
  }

  // Units whose inputs are constants or such units. (What a run could overwrite between two runs is not theirs.)
  void find_once() {
    for (UnitData& unit : a_.units) {
      unit.once = !unit.may_throw;
      for (const NodeId from : unit.inputs)
        unit.once = unit.once && (a_.unit_of[from] == no_unit ? a_.storage[from].kind == Storage::Kind::constant
                                                              : a_.units[a_.unit_of[from]].once);
      for (const NodeId id : unit.group.outputs)
        unit.once = unit.once &&
                    (a_.storage[id].kind == Storage::Kind::none || a_.storage[id].kind == Storage::Kind::unread) &&
                    !a_.graph.node(id).op->forward.generator;
    }
  }

  // Whether a fused unit reads a variable, if it does, element by element at the place that it writes. (A generator in
  // it may read all of it for each tile.)
  [[nodiscard]] bool reads_plainly(Unit u, std::size_t variable) const {
    const NodeData& first = a_.graph.node(a_.units[u].group.nodes.front());
    const DType dtype = compute_dtype(a_.graph, a_.units[u].group.nodes.front());
    for (std::size_t i = 0; i < a_.units[u].inputs.size(); ++i) {
      const NodeId from = a_.units[u].inputs[i];
      if (!(a_.storage[from] == Storage{Storage::Kind::variable, variable})) continue;
      if (i >= a_.units[u].group.inputs.size()) return false;  // the product reads it
      const NodeData& read = a_.graph.node(a_.units[u].group.inputs[i]);
      if (!(read.type.shape == first.type.shape) || read.type.dtype != dtype || a_.read_by_generator[from])
        return false;
    }
    return true;
  }

  Arrangement& a_;
};

}  // namespace

void assign_results(Arrangement& a) { ResultPlacer(a).assign(); }

}  // namespace chainrule::detail
