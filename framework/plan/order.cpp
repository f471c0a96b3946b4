#include <chainrule/framework/plan/arrangement.hpp>

#include <algorithm>
#include <limits>
#include <queue>
#include <span>

namespace chainrule::detail {

namespace {

class Scheduler {
 public:
  explicit Scheduler(Arrangement& a) : a_(a) {}

  void order() {
    find_arena_values();
    Order best = by_rank({});
    auto peak = peak_of(best.units);
    if (peak.first > 0 && !hard_to_better(best.units, peak)) {
      for (const auto& make : {&Scheduler::greedy_order, &Scheduler::late_order}) {
        Order other = (this->*make)();
        const auto its_peak = peak_of(other.units);
        // For little the graph's order is not given up: there steps that share the cache follow each other.
        if (static_cast<double>(its_peak.first) >= worthwhile * static_cast<double>(peak.first)) continue;
        peak = its_peak;
        best = std::move(other);
      }
    }
    a_.order = std::move(best.units);
    for (const Unit u : best.gave_up) give_up_overwriting(u);
  }

 private:
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
    std::vector<std::uint32_t> waits(a_.units.size());
    std::vector<std::uint32_t> anti_waits(a_.units.size());
    std::vector<char> done(a_.units.size(), 0);
    constexpr std::ptrdiff_t first = std::numeric_limits<std::ptrdiff_t>::min();
    const auto entry = [&](Unit u) {
      return Entry{a_.units[u].once ? first : a_.units[u].overwrites ? first + 1 : key(u), u};
    };
    const auto push = [&](Unit u) {
      if (waits[u] == 0 && anti_waits[u] == 0 && !done[u]) ready.push(entry(u));
    };
    for (Unit u = 0; u < a_.units.size(); ++u) {
      waits[u] = a_.units[u].waits;
      anti_waits[u] = a_.units[u].anti_waits;
      push(u);
    }
    Order out;
    out.units.reserve(a_.units.size());
    Unit stuck = 0;
    while (out.units.size() < a_.units.size()) {
      if (ready.empty()) {
        // Two updates each wait to overwrite what the other has yet to read: one writes elsewhere, and is copied.
        for (stuck = 0; stuck < a_.units.size() && (done[stuck] || waits[stuck] != 0 || anti_waits[stuck] == 0);)
          ++stuck;
        invariant(stuck < a_.units.size(), "the steps of a program wait for each other");
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
      a_.readers.for_each(u, [&](Unit reader) {
        if (--waits[reader] == 0) push(reader);
      });
      a_.anti_readers.for_each(u, [&](Unit writer) {
        if (anti_waits[writer] == 0) return;  // it gave up
        if (--anti_waits[writer] == 0) push(writer);
      });
      ran(u, push);
    }
    return out;
  }

  [[nodiscard]] Order by_rank(const std::vector<Unit>& rank) const {
    return list_schedule([&](Unit u) { return rank.empty() ? 0 : static_cast<std::ptrdiff_t>(rank[u]); },
                         [](Unit, auto&&) {});
  }

  // What units write to the arena and what of it they read, each value once.
  void find_arena_values() {
    const std::size_t n = a_.graph.nodes.size();
    bytes_.assign(n, 0);
    written_.assign(a_.units.size(), 0);
    for (Unit u = 0; u < a_.units.size(); ++u)
      for (const NodeId id : a_.units[u].group.outputs) {
        if (a_.storage[id].kind != Storage::Kind::none) continue;
        bytes_[id] = static_cast<std::ptrdiff_t>(rounded(a_.bytes_of(id)));
        written_[u] += bytes_[id];
      }
    for (const NodeId id : a_.unread) {  // in use during their step alone
      written_[a_.unit_of[id]] -= bytes_[id];
      bytes_[id] = 0;
    }
    std::vector<char> lasting(n, 0);
    for (const Value result : a_.compiled.computation.results) lasting[a_.base[result.id()]] = 1;
    std::vector<Unit> seen_by(n, no_unit);
    reads_begin_.assign(1, 0);
    for (Unit u = 0; u < a_.units.size(); ++u) {
      for (const NodeId from : a_.units[u].inputs) {
        if (bytes_[from] == 0 || lasting[from] || seen_by[from] == u || a_.units[a_.unit_of[from]].once) continue;
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
    std::vector<Unit> last(a_.graph.nodes.size(), no_unit);
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
      const std::optional<std::size_t> to = a_.adds_to(u);
      const bool overwrites = to ? last[a_.units[u].inputs[*to]] == u : a_.units[u].fused;
      const std::ptrdiff_t in_use = now - (overwrites ? std::min(freed, written_[u]) : 0);
      if (in_use > peak.first) peak = {in_use, u};
      now -= freed;
    }
    return peak;
  }

  // What is in use when a unit runs, whatever the order: what it needs, directly or not, and what needs it reads as
  // well.
  [[nodiscard]] std::ptrdiff_t in_use_in_any_order(const std::vector<Unit>& order, Unit unit) const {
    std::vector<char> before(a_.units.size(), 0);
    std::vector<char> after(a_.units.size(), 0);
    before[unit] = after[unit] = 1;
    for (std::size_t i = order.size(); i-- > 0;)
      if (before[order[i]])
        for (const NodeId from : a_.units[order[i]].inputs)
          if (a_.unit_of[from] != no_unit) before[a_.unit_of[from]] = 1;
    std::vector<char> counted(a_.graph.nodes.size(), 0);
    std::ptrdiff_t sum = 0;
    for (const Unit u : order) {
      if (!after[u]) continue;
      a_.readers.for_each(u, [&](Unit reader) { after[reader] = 1; });
      if (u == unit) continue;
      for (const NodeId from : arena_reads(u)) {
        if (counted[from] || !before[a_.unit_of[from]]) continue;
        counted[from] = 1;
        sum += bytes_[from];
      }
    }
    return sum;
  }

  // Whether no order needs much less than this one, whose peak is given: that is seen at the peak or at what it reads.
  [[nodiscard]] bool hard_to_better(const std::vector<Unit>& order, std::pair<std::ptrdiff_t, Unit> peak) const {
    std::vector<std::size_t> place(a_.units.size(), 0);
    for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = i;
    Unit unit = peak.second;
    for (int hop = 0; hop < 4; ++hop) {
      if (worthwhile * static_cast<double>(peak.first) <= static_cast<double>(in_use_in_any_order(order, unit)))
        return true;
      Unit latest = no_unit;
      for (const NodeId from : a_.units[unit].inputs)
        if (const Unit u = a_.unit_of[from];
            u != no_unit && u != unit && (latest == no_unit || place[u] > place[latest]))
          latest = u;
      if (latest == no_unit) return false;
      unit = latest;
    }
    return false;
  }

  // First what adds least to the memory in use, or frees most.
  [[nodiscard]] Order greedy_order() const {
    // Of each value: units that have yet to read it, and the exclusive or of their numbers, which of a single one is
    // that number.
    std::vector<std::uint32_t> to_read(a_.graph.nodes.size(), 0);
    std::vector<Unit> who(a_.graph.nodes.size(), 0);
    std::vector<std::ptrdiff_t> added = written_;
    for (Unit u = 0; u < a_.units.size(); ++u)
      for (const NodeId from : arena_reads(u)) {
        ++to_read[from];
        who[from] ^= u;
      }
    for (Unit u = 0; u < a_.units.size(); ++u)
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
    std::vector<Unit> last(a_.graph.nodes.size(), no_unit);
    for (Unit u = 0; u < a_.units.size(); ++u)
      for (const NodeId from : arena_reads(u)) last[from] = u;
    constexpr std::ptrdiff_t most = std::numeric_limits<std::ptrdiff_t>::max() / 4;
    std::vector<std::ptrdiff_t> added = written_;  // by the unit and the waiting ones that it needs
    std::vector<std::ptrdiff_t> passing(a_.units.size(), 0);
    std::vector<std::pair<std::ptrdiff_t, Unit>> inputs;
    // Those of a unit, with what making them takes beyond what they leave.
    const auto collect = [&](Unit u) {
      inputs.clear();
      for (const NodeId id : a_.units[u].inputs)
        if (a_.unit_of[id] != no_unit && a_.unit_of[id] != u)
          inputs.emplace_back(passing[a_.unit_of[id]], a_.unit_of[id]);
      std::sort(inputs.begin(), inputs.end(), [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
      });
      inputs.erase(std::unique(inputs.begin(), inputs.end()), inputs.end());
    };
    std::vector<Unit> rank(a_.units.size(), no_unit);
    Unit ranks = 0;
    for (Unit u = 0; u < a_.units.size(); ++u) {
      collect(u);
      std::ptrdiff_t held = 0;
      std::ptrdiff_t need = 0;
      for (const auto& [beyond, from] : inputs) {
        need = std::max(need, held + beyond + written_[from]);
        held += written_[from];
      }
      passing[u] =
          std::min(most, std::max(need, held + (a_.units[u].fused || a_.adds_to(u) ? 0 : written_[u]))) - written_[u];
      for (const NodeId from : arena_reads(u)) {
        if (last[from] == u) added[u] -= bytes_[from];
        if (rank[a_.unit_of[from]] == no_unit && a_.unit_of[from] < u) added[u] += added[a_.unit_of[from]];
        added[u] = std::min(added[u], most);
      }
      if (added[u] >= 0 && !a_.readers.empty(u)) continue;
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

  void give_up_overwriting(Unit u) {
    for (const NodeId id : a_.units[u].group.outputs)
      if (a_.storage[id].kind == Storage::Kind::variable) a_.storage[id] = {};
    a_.units[u].overwrites = false;
  }

  static constexpr double worthwhile = 0.99;  // of the memory that another order needs

  std::vector<std::ptrdiff_t> bytes_;     // by value, of those that lie in the arena
  std::vector<std::ptrdiff_t> written_;   // by unit, the sum of them
  std::vector<NodeId> reads_;             // what units read of them and need not last till the end
  std::vector<std::size_t> reads_begin_;  // by unit, in reads_
  Arrangement& a_;
};

}  // namespace

void order_units(Arrangement& a) { Scheduler(a).order(); }

}  // namespace chainrule::detail
