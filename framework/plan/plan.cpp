#include <chainrule/framework/plan/plan.hpp>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <queue>
#include <span>
#include <unordered_map>

#include <fmt/core.h>

#include <chainrule/framework/fused/flat.hpp>

namespace chainrule::detail {

namespace {

using Unit = std::uint32_t;
constexpr Unit no_unit = ~Unit{0};

std::size_t rounded(std::size_t bytes) { return (bytes / 64 + (bytes % 64 != 0 || bytes == 0 ? 1 : 0)) * 64; }

class Planner {
 public:
  Planner(const Compiled& compiled, const Sizes& sizes)
      : compiled_(compiled), graph_(*compiled.computation.graph.data()), sizes_(sizes) {
    invariant(compiled.groups.size() == graph_.nodes.size(), "a plan is made of groups of another graph");
  }

  Plan make() {
    arrange();
    make_steps();
    add_copies();
    plan_.arena_bytes = place_buffers(plan_.buffers);
    plan_.lower_bound = largest_overlap(plan_.buffers);
    return std::move(plan_);
  }

  passes::Execution execution() {
    arrange();
    add_copies();
    const std::size_t n = graph_.nodes.size();
    passes::Execution out;
    out.base = base_;
    out.step.assign(n, passes::Execution::never);
    out.bytes.assign(n, 0);
    out.once.assign(n, 0);
    out.steps = static_cast<std::uint32_t>(order_.size());
    std::vector<std::uint32_t> step_of(units_.size(), 0);
    for (std::uint32_t step = 0; step < out.steps; ++step) step_of[order_[step]] = step;
    for (NodeId id = 0; id < n; ++id) {
      const Unit unit = unit_of_[base_[id]];
      if (unit == no_unit) continue;
      out.step[id] = step_of[unit];
      out.once[id] = units_[unit].once ? 1 : 0;
      if (storage_[id].kind == Storage::Kind::arena) out.bytes[id] = rounded(bytes_of(id));
    }
    std::size_t peak = 0;
    out.peak_bytes = largest_overlap(plan_.buffers, &peak);
    out.peak = static_cast<std::uint32_t>(peak);
    return out;
  }

 private:
  // All but the steps' code and the buffers' offsets.
  void arrange() {
    make_units();
    assign_results();
    find_once();
    order_units();
    assign_storage();
  }

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
    number_units();
    units_.resize(count_);
    const std::size_t n = graph_.nodes.size();
    for (NodeId id = 0; id < n; ++id) {
      if (unit_of_[id] == no_unit) continue;
      UnitData& unit = units_[unit_of_[id]];
      unit.fused = compiled_.groups[id] != 0;
      if (compiled_.groups[id] < compiled_.tiles.size()) unit.group.tile = compiled_.tiles[compiled_.groups[id]];
      unit.group.nodes.push_back(id);
      unit.may_throw = unit.may_throw || graph_.node(id).op->forward.may_throw;
    }
    std::vector<Unit> seen_by(n, no_unit);
    read_by_generator_.assign(n, 0);
    for (Unit u = 0; u < units_.size(); ++u) list_inputs(u, seen_by);
    list_outputs();
    list_readers();
  }

  // The nodes whose memory others are, and the values that must lie in memory: all but what each of its readers makes
  // for itself.
  [[nodiscard]] std::vector<char> find_bases() {
    static const Op* const reshape = find_op("reshape");
    const std::size_t n = graph_.nodes.size();
    base_.resize(n);
    std::vector<char> stored(n, 0);
    for (const Value result : compiled_.computation.results) stored[result.id()] = 1;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = graph_.node(id);
      base_[id] = node.op == reshape ? base_[node.inputs[0]] : id;
      for (const NodeId input : node.inputs)
        if (!makes_for_itself(id, input)) stored[input] = 1;
    }
    for (NodeId id = 0; id < n; ++id)
      if (stored[id]) stored[base_[id]] = 1;
    return stored;
  }

  // Whether a node reads a generator's value as its group makes it: tile by tile, in the group's shape and dtype.
  [[nodiscard]] bool makes_for_itself(NodeId reader, NodeId id) const {
    const NodeData& node = graph_.node(id);
    if (!node.op->forward.generator || node.op->forward.may_throw || node.inputs.size() > most_generator_inputs)
      return false;
    return compiled_.groups[reader] != 0 && node.type.shape == graph_.node(reader).type.shape &&
           node.type.dtype == compute_dtype(graph_, reader);
  }

  // Numbered first, then made: they are too large to be moved about.
  void number_units() {
    const std::vector<char> stored = find_bases();
    const std::size_t n = graph_.nodes.size();
    unit_of_.assign(n, no_unit);
    std::vector<Unit> unit_of_group;
    for (NodeId id = 0; id < n; ++id) {
      const NodeData& node = graph_.node(id);
      if (is_leaf(id) || base_[id] != id) continue;
      if (node.op->forward.generator && !stored[id]) continue;  // made inside of the groups that read it
      const std::uint32_t group = compiled_.groups[id];
      if (group == 0) {
        unit_of_[id] = count_++;
        continue;
      }
      if (unit_of_group.size() <= group) unit_of_group.resize(group + 1, no_unit);
      if (unit_of_group[group] == no_unit) unit_of_group[group] = count_++;
      unit_of_[id] = unit_of_group[group];
    }
  }

  // `seen_by`: the unit that listed a value last.
  void list_inputs(Unit u, std::vector<Unit>& seen_by) {
    UnitData& unit = units_[u];
    const auto list = [&](NodeId id, bool of_generator, auto&& self) -> void {
      const NodeId from = base(id);
      if (!of_generator && inlined_constant(graph_, id)) return;  // a number in the instructions
      if (of_generator) read_by_generator_[from] = 1;
      if (seen_by[id] == u) return;
      seen_by[id] = u;
      if (graph_.node(from).op->forward.generator && unit_of_[from] == no_unit) {
        for (const NodeId input : graph_.node(from).inputs) self(input, true, self);
        return;
      }
      unit.group.inputs.push_back(id);
      unit.inputs.push_back(from);
    };
    for (const NodeId id : unit.group.nodes) {
      for (const NodeId input : graph_.node(id).inputs) {
        if (!unit.fused) {  // a kernel reads by position, repeated inputs included
          unit.group.inputs.push_back(input);
          unit.inputs.push_back(base(input));
        } else if (unit_of_[base(input)] != u || base(input) != input) {
          list(input, false, list);
        }
      }
    }
  }

  void list_outputs() {
    const std::size_t n = graph_.nodes.size();
    std::vector<char> is_output(n, 0);
    for (Unit u = 0; u < units_.size(); ++u)
      for (const NodeId from : units_[u].inputs)
        if (unit_of_[from] != no_unit && unit_of_[from] != u) is_output[from] = 1;
    for (const Value result : compiled_.computation.results) is_output[base(result.id())] = 1;
    for (NodeId id = 0; id < n; ++id)
      if (is_output[id] && unit_of_[id] != no_unit) units_[unit_of_[id]].group.outputs.push_back(id);
  }

  void list_readers() {
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
      if (storage_[from].kind != Storage::Kind::none || u == no_unit) continue;
      if (units_[u].fused ? !graph_.node(from).op->forward.micro || !reads_plainly(u, compiled_.updated[i])
                          : !accumulates_in(u, {Storage::Kind::variable, compiled_.updated[i]}))
        continue;
      storage_[from] = {Storage::Kind::variable, compiled_.updated[i]};
      units_[u].overwrites = true;
      readers.for_each(compiled_.updated[i], [&](Unit reader) {
        if (reader == u) return;
        anti_readers_.add(reader, u);
        ++units_[u].anti_waits;
      });
    }
    wait_for_what_may_throw();
  }

  // That comes before anything is overwritten.
  void wait_for_what_may_throw() {
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

  // Whether a fused unit reads a variable, if it does, element by element at the place that it writes. (A generator in
  // it may read all of it for each tile.)
  [[nodiscard]] bool reads_plainly(Unit u, std::size_t variable) const {
    const NodeData& first = graph_.node(units_[u].group.nodes.front());
    const DType dtype = compute_dtype(graph_, units_[u].group.nodes.front());
    for (std::size_t i = 0; i < units_[u].inputs.size(); ++i) {
      const NodeId from = units_[u].inputs[i];
      if (!(storage_[from] == Storage{Storage::Kind::variable, variable})) continue;
      const NodeData& read = graph_.node(units_[u].group.inputs[i]);
      if (!(read.type.shape == first.type.shape) || read.type.dtype != dtype || read_by_generator_[from]) return false;
    }
    return true;
  }

  // The input to which a unit's kernel adds, if it is one that does.
  [[nodiscard]] std::optional<std::size_t> adds_to(Unit u) const {
    if (units_[u].fused) return {};
    return graph_.node(units_[u].group.nodes.front()).op->forward.adds_to;
  }

  // Whether a unit adds to what lies there, and reads nothing else of it.
  [[nodiscard]] bool accumulates_in(Unit u, const Storage& place) const {
    const std::optional<std::size_t> to = adds_to(u);
    if (!to) return false;
    for (std::size_t i = 0; i < units_[u].inputs.size(); ++i)
      if ((storage_[units_[u].inputs[i]] == place) != (i == *to)) return false;
    return true;
  }

  // ---- order: by the graph, unless another needs less memory; updates as soon as their variables have been read

  struct Order {
    std::vector<Unit> units;
    std::vector<Unit> gave_up;  // updates that are not made in place
  };

  // Runs what is ready, the least of `key` first; `ran(u, changed)` calls changed(v) for each unit v whose key it
  // changed.
  template <class Key, class Ran>
  Order list_schedule(Key&& key, Ran&& ran) const {
    using Entry = std::pair<std::ptrdiff_t, Unit>;
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ready;
    std::vector<std::uint32_t> waits(units_.size());
    std::vector<std::uint32_t> anti_waits(units_.size());
    std::vector<char> done(units_.size(), 0);
    constexpr std::ptrdiff_t first = std::numeric_limits<std::ptrdiff_t>::min();
    const auto entry = [&](Unit u) {
      return Entry{units_[u].once ? first : units_[u].overwrites ? first + 1 : key(u), u};
    };
    const auto push = [&](Unit u) {
      if (waits[u] == 0 && anti_waits[u] == 0 && !done[u]) ready.push(entry(u));
    };
    for (Unit u = 0; u < units_.size(); ++u) {
      waits[u] = units_[u].waits;
      anti_waits[u] = units_[u].anti_waits;
      push(u);
    }
    Order out;
    out.units.reserve(units_.size());
    Unit stuck = 0;
    while (out.units.size() < units_.size()) {
      if (ready.empty()) {
        // Two updates each wait to overwrite what the other has yet to read: one writes elsewhere, and is copied.
        for (stuck = 0; stuck < units_.size() && (done[stuck] || waits[stuck] != 0 || anti_waits[stuck] == 0);) ++stuck;
        invariant(stuck < units_.size(), "the steps of a program wait for each other");
        anti_waits[stuck] = 0;
        out.gave_up.push_back(stuck);
        push(stuck);
        continue;
      }
      const Entry next = ready.top();
      const Unit u = next.second;
      ready.pop();
      if (done[u] || next != entry(u)) continue;  // its key has changed since
      done[u] = 1;
      out.units.push_back(u);
      readers_.for_each(u, [&](Unit reader) {
        if (--waits[reader] == 0) push(reader);
      });
      anti_readers_.for_each(u, [&](Unit writer) {
        if (anti_waits[writer] == 0) return;  // it gave up
        if (--anti_waits[writer] == 0) push(writer);
      });
      ran(u, push);
    }
    return out;
  }

  Order by_rank(const std::vector<Unit>& rank) const {
    return list_schedule([&](Unit u) { return rank.empty() ? 0 : static_cast<std::ptrdiff_t>(rank[u]); },
                         [](Unit, auto&&) {});
  }

  // What units write to the arena and what of it they read, each value once.
  void find_arena_values() {
    const std::size_t n = graph_.nodes.size();
    bytes_.assign(n, 0);
    written_.assign(units_.size(), 0);
    for (Unit u = 0; u < units_.size(); ++u)
      for (const NodeId id : units_[u].group.outputs) {
        if (storage_[id].kind != Storage::Kind::none) continue;
        bytes_[id] = static_cast<std::ptrdiff_t>(rounded(bytes_of(id)));
        written_[u] += bytes_[id];
      }
    std::vector<char> lasting(n, 0);
    for (const Value result : compiled_.computation.results) lasting[base(result.id())] = 1;
    std::vector<Unit> seen_by(n, no_unit);
    reads_begin_.assign(1, 0);
    for (Unit u = 0; u < units_.size(); ++u) {
      for (const NodeId from : units_[u].inputs) {
        if (bytes_[from] == 0 || lasting[from] || seen_by[from] == u || units_[unit_of_[from]].once) continue;
        seen_by[from] = u;
        reads_.push_back(from);
      }
      reads_begin_.push_back(reads_.size());
    }
  }

  [[nodiscard]] std::span<const NodeId> arena_reads(Unit u) const {
    return std::span(reads_).subspan(reads_begin_[u], reads_begin_[u + 1] - reads_begin_[u]);
  }

  // Of each value the last unit that reads it.
  [[nodiscard]] std::vector<Unit> last_readers(const std::vector<Unit>& order) const {
    std::vector<Unit> last(graph_.nodes.size(), no_unit);
    for (const Unit u : order)
      for (const NodeId from : arena_reads(u)) last[from] = u;
    return last;
  }

  // The largest sum of values in use at once, and its unit. What a fused unit reads for the last time it may overwrite,
  // and so may a kernel that adds to it.
  [[nodiscard]] std::pair<std::ptrdiff_t, Unit> peak_of(const std::vector<Unit>& order) const {
    const std::vector<Unit> last = last_readers(order);
    std::ptrdiff_t now = 0;
    std::pair<std::ptrdiff_t, Unit> peak{0, 0};
    for (const Unit u : order) {
      std::ptrdiff_t freed = 0;
      for (const NodeId from : arena_reads(u))
        if (last[from] == u) freed += bytes_[from];
      now += written_[u];
      const std::optional<std::size_t> to = adds_to(u);
      const bool overwrites = to ? last[units_[u].inputs[*to]] == u : units_[u].fused;
      const std::ptrdiff_t in_use = now - (overwrites ? std::min(freed, written_[u]) : 0);
      if (in_use > peak.first) peak = {in_use, u};
      now -= freed;
    }
    return peak;
  }

  // What is in use when a unit runs, whatever the order: what it needs, directly or not, and what needs it reads as
  // well.
  [[nodiscard]] std::ptrdiff_t in_use_in_any_order(const std::vector<Unit>& order, Unit unit) const {
    std::vector<char> before(units_.size(), 0);
    std::vector<char> after(units_.size(), 0);
    before[unit] = after[unit] = 1;
    for (std::size_t i = order.size(); i-- > 0;)
      if (before[order[i]])
        for (const NodeId from : units_[order[i]].inputs)
          if (unit_of_[from] != no_unit) before[unit_of_[from]] = 1;
    std::vector<char> counted(graph_.nodes.size(), 0);
    std::ptrdiff_t sum = 0;
    for (const Unit u : order) {
      if (!after[u]) continue;
      readers_.for_each(u, [&](Unit reader) { after[reader] = 1; });
      if (u == unit) continue;
      for (const NodeId from : arena_reads(u)) {
        if (counted[from] || !before[unit_of_[from]]) continue;
        counted[from] = 1;
        sum += bytes_[from];
      }
    }
    return sum;
  }

  // Whether no order needs much less than this one, whose peak is given: that is seen at the peak or at what it reads.
  [[nodiscard]] bool hard_to_better(const std::vector<Unit>& order, std::pair<std::ptrdiff_t, Unit> peak) const {
    std::vector<std::size_t> place(units_.size(), 0);
    for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = i;
    Unit unit = peak.second;
    for (int hop = 0; hop < 4; ++hop) {
      if (worthwhile * static_cast<double>(peak.first) <= static_cast<double>(in_use_in_any_order(order, unit)))
        return true;
      Unit latest = no_unit;
      for (const NodeId from : units_[unit].inputs)
        if (const Unit u = unit_of_[from]; u != no_unit && (latest == no_unit || place[u] > place[latest])) latest = u;
      if (latest == no_unit) return false;
      unit = latest;
    }
    return false;
  }

  // First what adds least to the memory in use, or frees most.
  [[nodiscard]] Order greedy_order() const {
    // Of each value: units that have yet to read it, and the exclusive or of their numbers, which of a single one is
    // that number.
    std::vector<std::uint32_t> to_read(graph_.nodes.size(), 0);
    std::vector<Unit> who(graph_.nodes.size(), 0);
    std::vector<std::ptrdiff_t> added = written_;
    for (Unit u = 0; u < units_.size(); ++u)
      for (const NodeId from : arena_reads(u)) {
        ++to_read[from];
        who[from] ^= u;
      }
    for (Unit u = 0; u < units_.size(); ++u)
      for (const NodeId from : arena_reads(u))
        if (to_read[from] == 1) added[u] -= bytes_[from];
    return list_schedule([&](Unit u) { return added[u]; },
                         [&](Unit u, auto&& changed) {
                           for (const NodeId from : arena_reads(u)) {
                             who[from] ^= u;
                             if (--to_read[from] != 1) continue;
                             added[who[from]] -= bytes_[from];
                             changed(who[from]);
                           }
                         });
  }

  // By the graph, but a unit waits for the first that reads it, unless it and what it waits for together free memory.
  // Of the inputs of a unit the one comes first whose making takes most memory beyond what it leaves, as if all of them
  // were trees (Sethi and Ullman 1970).
  [[nodiscard]] Order late_order() const {
    std::vector<Unit> last(graph_.nodes.size(), no_unit);
    for (Unit u = 0; u < units_.size(); ++u)
      for (const NodeId from : arena_reads(u)) last[from] = u;
    constexpr std::ptrdiff_t most = std::numeric_limits<std::ptrdiff_t>::max() / 4;
    std::vector<std::ptrdiff_t> added = written_;  // by the unit and the waiting ones that it needs
    std::vector<std::ptrdiff_t> passing(units_.size(), 0);
    std::vector<std::pair<std::ptrdiff_t, Unit>> inputs;
    // Those of a unit, with what making them takes beyond what they leave.
    const auto collect = [&](Unit u) {
      inputs.clear();
      for (const NodeId id : units_[u].inputs)
        if (unit_of_[id] != no_unit) inputs.emplace_back(passing[unit_of_[id]], unit_of_[id]);
      std::sort(inputs.begin(), inputs.end(), [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
      });
      inputs.erase(std::unique(inputs.begin(), inputs.end()), inputs.end());
    };
    std::vector<Unit> rank(units_.size(), no_unit);
    Unit ranks = 0;
    for (Unit u = 0; u < units_.size(); ++u) {
      collect(u);
      std::ptrdiff_t held = 0;
      std::ptrdiff_t need = 0;
      for (const auto& [beyond, from] : inputs) {
        need = std::max(need, held + beyond + written_[from]);
        held += written_[from];
      }
      passing[u] =
          std::min(most, std::max(need, held + (units_[u].fused || adds_to(u) ? 0 : written_[u]))) - written_[u];
      for (const NodeId from : arena_reads(u)) {
        if (last[from] == u) added[u] -= bytes_[from];
        if (rank[unit_of_[from]] == no_unit && unit_of_[from] < u) added[u] += added[unit_of_[from]];
        added[u] = std::min(added[u], most);
      }
      if (added[u] >= 0 && !readers_.empty(u)) continue;
      rank_after_inputs(u, rank, ranks, [&](Unit of, std::vector<Unit>& stack) {
        collect(of);
        for (std::size_t i = inputs.size(); i-- > 0;)
          if (rank[inputs[i].second] == no_unit) stack.push_back(inputs[i].second);
      });
    }
    return by_rank(rank);
  }

  // Gives a unit its rank, and before it what `push` puts on the stack, the last first.
  template <class Push>
  static void rank_after_inputs(Unit u, std::vector<Unit>& rank, Unit& ranks, Push push) {
    std::vector<Unit> stack{u};
    while (!stack.empty()) {
      const Unit top = stack.back();
      const std::size_t before = stack.size();
      if (rank[top] == no_unit) push(top, stack);
      if (stack.size() != before) continue;
      stack.pop_back();
      if (rank[top] == no_unit) rank[top] = ranks++;
    }
  }

  void order_units() {
    find_arena_values();
    Order best = by_rank({});
    auto peak = peak_of(best.units);
    if (peak.first > 0 && !hard_to_better(best.units, peak)) {
      for (const auto& make : {&Planner::greedy_order, &Planner::late_order}) {
        Order other = (this->*make)();
        const auto its_peak = peak_of(other.units);
        // For little the graph's order is not given up: there steps that share the cache follow each other.
        if (static_cast<double>(its_peak.first) >= worthwhile * static_cast<double>(peak.first)) continue;
        peak = its_peak;
        best = std::move(other);
      }
    }
    order_ = std::move(best.units);
    for (const Unit u : best.gave_up) give_up_overwriting(u);
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
        const std::size_t reused = unit.fused ? dying_input(unit, id, step, last_read) : dying_sum(step, last_read);
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

  // What a kernel adds to, where that is read for the last time here.
  std::size_t dying_sum(std::size_t step, const std::vector<std::size_t>& last_read) const {
    const Unit u = order_[step];
    const std::optional<std::size_t> i = adds_to(u);
    if (!i) return no_input;
    const NodeId to = units_[u].inputs[*i];
    if (storage_[to].kind != Storage::Kind::arena || last_read[to] != step) return no_input;
    if (units_[unit_of_[to]].once && !units_[u].once) return no_input;  // the next run reads it again
    return accumulates_in(u, storage_[to]) ? *i : no_input;
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
      if (storage_[from].kind != Storage::Kind::arena || last_read[from] != step || read_by_generator_[from]) continue;
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
    recipe_ = {unit.fused ? 1U : 0U, unit.group.nodes.size(), unit.group.inputs.size(), unit.group.outputs.size(),
               static_cast<std::uint64_t>(unit.group.tile)};
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
  static constexpr double worthwhile = 0.99;  // of the memory that another order needs

  const Compiled& compiled_;
  const GraphData& graph_;
  const Sizes& sizes_;
  Plan plan_;
  std::vector<NodeId> base_;
  std::vector<Unit> unit_of_;
  std::vector<char> read_by_generator_;  // by node: inputs of what groups make for themselves
  Unit count_ = 0;                       // of units
  std::vector<UnitData> units_;
  UnitLists readers_;       // by unit: those that must come later, since they read what it writes
  UnitLists anti_readers_;  // by unit: those whose anti_waits it counts down
  std::vector<Storage> storage_;
  std::vector<Unit> order_;
  std::vector<std::ptrdiff_t> bytes_;     // by value, of those that lie in the arena
  std::vector<std::ptrdiff_t> written_;   // by unit, the sum of them
  std::vector<NodeId> reads_;             // what units read of them and need not last till the end
  std::vector<std::size_t> reads_begin_;  // by unit, in reads_
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

Plan make_plan(const Compiled& compiled, const Sizes& sizes) {
  try {
    return Planner(compiled, sizes).make();
  } catch (const Error& error) {
    rethrow_at_node(error, *compiled.computation.graph.data(), sizes);
  }
}

passes::Execution make_execution(const Compiled& compiled, const Sizes& sizes) {
  return Planner(compiled, sizes).execution();
}

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
