// Which steps run side by side.
//
// A product or group that is worth fewer threads than there are leaves some of them idle. Where another one of the
// next few in the order needs nothing but what comes before the first - the other product of a backward pass, another
// branch - it moves up to it, and the groups that read it alone (the update of a weight, say) follow. What steps that
// run side by side read and write is in use during all of them; so memory may grow, by no more than an eighth.
#include <chainrule/framework/plan/arrangement.hpp>

#include <algorithm>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/products/matmul.hpp>

namespace chainrule::detail {

namespace {

constexpr double worth_a_thread = 20'000;      // nanoseconds
constexpr double product_of_part = 1'000'000;  // multiplications
constexpr double nanoseconds_of_product = 0.015;
constexpr double nanoseconds_of_node = 0.1;  // an element of a group
constexpr double nanoseconds_of_part = 4'000;
constexpr std::size_t farthest = 64;  // steps that one may move up
constexpr std::size_t most_beside = 4;
constexpr std::size_t most_work = 4'000'000;  // of all estimates of memory: units

class SideBySide {
 public:
  SideBySide(Arrangement& a, int threads) : a_(a), threads_(threads) {}

  void find() {
    if (threads_ < 2 || !list_candidates()) return;
    list_places();
    const std::size_t most = in_use() / 8 * 9;
    std::size_t work = 0;
    for (std::size_t first = 0; first < a_.order.size() && work < most_work; first = a_.last_beside(first) + 1) {
      if (parts_[a_.order[first]] == 0) continue;
      const std::vector<Unit> order = a_.order;
      if (!gather(first)) continue;
      work += order.size();
      if (in_use() <= most) continue;
      a_.order = order;
      a_.beside.resize(first);
      list_places();
    }
  }

 private:
  // Whether there are two that might run side by side.
  bool list_candidates() {
    parts_.assign(a_.units.size(), 0);
    std::size_t candidates = 0;
    for (Unit u = 0; u < a_.units.size(); ++u) {
      parts_[u] = parts_of(u);
      candidates += parts_[u] > 0 ? 1 : 0;
    }
    return candidates > 1;
  }

  // For how many threads a unit is worth it; 0 where it is for all, or not for one.
  [[nodiscard]] int parts_of(Unit u) const {
    const UnitData& unit = a_.units[u];
    if (unit.once || unit.may_throw || unit.product) return 0;
    const NodeData& node = a_.graph.node(unit.group.nodes.front());
    const Dims shape = evaluate(node.type.shape, a_.sizes);
    const auto elements = static_cast<double>(count(shape));
    double nanoseconds = 0;
    double parts = 0;
    if (unit.fused) {
      nanoseconds = elements * static_cast<double>(unit.group.nodes.size()) * nanoseconds_of_node;
      parts = nanoseconds / nanoseconds_of_part;
    } else if (is_product(node.op)) {
      const Dims a = evaluate(a_.graph.node(node.inputs[0]).type.shape, a_.sizes);
      const bool transposed = node.attributes.get<bool>("transpose_a");
      const double multiplications = elements * static_cast<double>(a[a.rank() - (transposed ? 2 : 1)]);
      nanoseconds = multiplications * nanoseconds_of_product;
      parts = multiplications / product_of_part;
    }
    return nanoseconds >= worth_a_thread && parts < threads_ ? std::max(1, static_cast<int>(parts)) : 0;
  }

  static bool is_product(const Op* op) {
    static const Op* const product = find_op("matmul");
    return op == product || op == &products::accumulate_op();
  }

  void list_places() {
    place_.assign(a_.units.size(), 0);
    for (std::size_t i = 0; i < a_.order.size(); ++i) place_[a_.order[i]] = i;
    if (!before_.empty()) return;
    before_.assign(a_.units.size(), {});
    for (Unit u = 0; u < a_.units.size(); ++u) {
      const auto add = [&](Unit later) { before_[later].push_back(u); };
      a_.readers.for_each(u, add);
      a_.anti_readers.for_each(u, add);
    }
  }

  // Whether all that a unit waits for comes before this place.
  [[nodiscard]] bool may_move_to(Unit u, std::size_t place) const {
    return std::all_of(before_[u].begin(), before_[u].end(), [&](Unit b) { return place_[b] < place; });
  }

  void move_up(std::size_t from, std::size_t to) {
    const auto begin = a_.order.begin();
    std::rotate(begin + static_cast<std::ptrdiff_t>(to), begin + static_cast<std::ptrdiff_t>(from),
                begin + static_cast<std::ptrdiff_t>(from) + 1);
    for (std::size_t i = to; i <= from; ++i) place_[a_.order[i]] = i;
  }

  // Moves up to the unit at `first` what runs beside it; whether there is something.
  bool gather(std::size_t first) {
    std::size_t end = first + 1;
    int parts = parts_[a_.order[first]];
    const std::size_t last = std::min(a_.order.size(), first + farthest);
    for (std::size_t i = end; i < last && parts < threads_ && end - first < most_beside; ++i) {
      const Unit u = a_.order[i];
      if (parts_[u] == 0 || a_.units[u].overwrites || !may_move_to(u, first)) continue;
      parts += parts_[u];
      move_up(i, end++);
    }
    if (end == first + 1) return false;
    a_.beside.resize(first);
    a_.beside.resize(end, {static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(end - 1)});
    std::vector<Unit> readers;
    for (std::size_t i = first + 1; i < end; ++i)
      a_.readers.for_each(a_.order[i], [&](Unit reader) { readers.push_back(reader); });
    for (const Unit reader : readers)
      if (a_.units[reader].fused && place_[reader] < last && may_move_to(reader, end)) move_up(place_[reader], end++);
    return true;
  }

  // About the most bytes in use at once.
  [[nodiscard]] std::size_t in_use() const {
    std::vector<std::size_t> last(a_.graph.nodes.size(), 0);
    for (std::size_t step = 0; step < a_.order.size(); ++step)
      for (const NodeId from : a_.units[a_.order[step]].inputs) last[from] = a_.last_beside(step);
    for (const Value result : a_.compiled.computation.results) last[a_.base[result.id()]] = a_.order.size();
    std::vector<Buffer> values;
    for (std::size_t step = 0; step < a_.order.size(); ++step)
      for (const NodeId id : a_.units[a_.order[step]].group.outputs)
        if (a_.storage[id].kind == Storage::Kind::none)
          values.push_back({a_.bytes_of(id), a_.first_beside(step), std::max(a_.last_beside(step), last[id]), 0});
    return largest_overlap(values);
  }

  std::vector<int> parts_;
  std::vector<std::size_t> place_;
  std::vector<SmallVector<Unit, 4>> before_;
  Arrangement& a_;
  int threads_;
};

}  // namespace

void put_side_by_side(Arrangement& a) { SideBySide(a, num_threads()).find(); }

}  // namespace chainrule::detail
