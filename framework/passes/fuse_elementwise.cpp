// Elementwise fusion: which nodes run as one step.
//
// Nodes can be one step when no path leads from one of them out of the group and back into it. That follows from
// levels: along every edge the level stays or rises, and it rises wherever an edge enters or leaves the elementwise
// nodes of one shape and dtype. So all nodes of one level, shape and dtype can form groups, in any way; they do where
// edges connect them. Linear in the nodes. A sum over such nodes that runs along whole rows, whole columns or
// everything belongs to their group: it is made tile by tile as its elements are.
//
// A node whose readers all come at a later level moves up to them: what only the backward pass needs of the forward
// pass is then computed there, and not stored in between. Unless something else had to be stored for it: a slope that
// is made of an activation's operand is stored itself, where code that it shares with the activation makes it.
//
// A group that reads one array and gives nothing but sums (a penalty on a weight, say) runs along with a later group
// that reads the same array (the weight's update), so that it is read once.
#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

using detail::GraphData;
using detail::NodeId;

namespace {

// A longer group is cut: its registers would not fit the cache anyway.
constexpr std::size_t longest_group = 1000;

struct Fusion {
  const GraphData& graph;
  std::vector<char> elementwise;
  std::vector<char> summing;  // sums over elementwise nodes, in whose groups they run
  std::vector<int> level;
  std::vector<std::uint32_t> readers;  // how many
  std::vector<int> last_reader;        // the level of the last

  explicit Fusion(const GraphData& g)
      : graph(g), elementwise(g.nodes.size()), summing(g.nodes.size()), level(g.nodes.size(), 0) {
    for (NodeId id = 0; id < elementwise.size(); ++id) {
      const detail::NodeData& node = graph.node(id);
      elementwise[id] = node.op->forward.micro ? 1 : 0;
      summing[id] = node.op->forward.sum && elementwise[node.inputs[0]] && detail::sum_over(graph, id) ? 1 : 0;
    }
  }

  // Whether the edge from u to v stays within a group: elementwise nodes of one shape and dtype, and sums over them.
  [[nodiscard]] bool joins(NodeId u, NodeId v) const {
    if (summing[v]) return true;
    return elementwise[u] && elementwise[v] && graph.node(u).type.shape == graph.node(v).type.shape &&
           compute_dtype(graph, u) == compute_dtype(graph, v);
  }

  // Of v, by its operand u.
  [[nodiscard]] int least_level(NodeId u, NodeId v) const {
    return level[u] + ((elementwise[u] || summing[u]) && !joins(u, v) ? 1 : 0);
  }

  void assign_levels() {
    for (NodeId v = 0; v < level.size(); ++v)
      for (const NodeId u : graph.node(v).inputs) level[v] = std::max(level[v], least_level(u, v));
  }

  // How many readers each node has, and the level of the last.
  void find_last_readers() {
    readers.assign(level.size(), 0);
    last_reader.assign(level.size(), 0);
    for (NodeId v = 0; v < level.size(); ++v)
      for (const NodeId u : graph.node(v).inputs) {
        ++readers[u];
        last_reader[u] = std::max(last_reader[u], level[v]);
      }
  }

  // Whether an array as large as that of v, which nothing else needs that long, would have to be stored if v were
  // computed at a later level: an operand, or one of an operand that moves with v. One that is needed for longer than
  // what v is made with may stay in v's stead.
  [[nodiscard]] bool keeps_another(NodeId v, int later) const {
    std::vector<NodeId> moving{v};
    bool in_its_stead = false;
    for (std::size_t i = 0; i < moving.size() && moving.size() < 16; ++i)
      for (const NodeId u : graph.node(moving[i]).inputs) {
        const detail::NodeData& node = graph.node(u);
        const bool is_array = !node.inputs.empty() && !node.op->forward.generator;
        if (!is_array || last_reader[u] >= later || !(node.type.shape == graph.node(v).type.shape)) continue;
        if (!joins(u, v) && last_reader[u] > level[v] && !std::exchange(in_its_stead, true)) continue;
        if (!joins(u, v) || readers[u] > 1) return true;
        moving.push_back(u);
      }
    return false;
  }

  void move_up(const Values& results) {
    constexpr int none = std::numeric_limits<int>::max();
    std::vector<int> reader(level.size(), none);  // the lowest level of a reader; -1 once the node must stay
    for (const Value r : results) reader[r.id()] = -1;
    for (auto v = static_cast<NodeId>(level.size()); v-- > 0;) {
      // A mask is made again for little, and storing it takes as long as all else of its group.
      if (elementwise[v] && reader[v] > level[v] && reader[v] != none &&
          (graph.node(v).type.dtype == boolean || !keeps_another(v, reader[v])))
        level[v] = reader[v];
      for (const NodeId u : graph.node(v).inputs) {
        if (!joins(u, v)) {
          reader[u] = -1;
        } else {
          reader[u] = std::min(reader[u], level[v]);
        }
      }
    }
  }
};

// Which nodes run as one step: sets of nodes, each known by its first one.
class Sets {
 public:
  explicit Sets(std::size_t n) : parent_(n) { std::iota(parent_.begin(), parent_.end(), NodeId{0}); }
  NodeId find(NodeId v) {
    while (parent_[v] != v) v = parent_[v] = parent_[parent_[v]];
    return v;
  }
  void join(NodeId u, NodeId v) {
    const NodeId a = find(u);
    const NodeId b = find(v);
    parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<NodeId> parent_;
};

// Moves groups that only sum to later ones that read the same array.
class Siblings {
 public:
  Siblings(Fusion& fusion, Sets& sets, const Values& results)
      : graph_(fusion.graph), fusion_(fusion), sets_(sets), is_result_(fusion.level.size(), 0) {
    for (const Value r : results) is_result_[r.id()] = 1;
  }

  void join() {
    find_readers();
    if (candidates_.empty()) return;
    users_.resize(graph_.nodes.size());
    members_.resize(graph_.nodes.size());
    for (NodeId v = 0; v < graph_.nodes.size(); ++v) {
      for (const NodeId u : graph_.node(v).inputs) users_[u].push_back(v);
      if (fusion_.elementwise[v] || fusion_.summing[v]) members_[sets_.find(v)].push_back(v);
    }
    for (const auto& [array, early] : candidates_) {
      const NodeId late = last_reader_.at(array);
      if (reads_and_gives_little(sets_.find(early), array) && move(sets_.find(early), late)) sets_.join(early, late);
    }
  }

 private:
  // By array: its last elementwise reader of its shape; and pairs with an earlier one.
  void find_readers() {
    for (NodeId v = 0; v < graph_.nodes.size(); ++v) {
      if (!fusion_.elementwise[v]) continue;
      for (const NodeId u : graph_.node(v).inputs) {
        if (fusion_.elementwise[u] || fusion_.summing[u] || !is_array(u) ||
            !(graph_.node(u).type.shape == graph_.node(v).type.shape))
          continue;
        const auto [last, first] = last_reader_.try_emplace(u, v);
        if (first || fusion_.level[v] == fusion_.level[last->second]) continue;
        const NodeId early = fusion_.level[v] < fusion_.level[last->second] ? v : last->second;
        if (early != v) last->second = v;
        if (compute_dtype(graph_, v) == compute_dtype(graph_, early)) candidates_.emplace_back(u, early);
      }
    }
  }

  [[nodiscard]] bool is_array(NodeId u) const {
    const detail::NodeData& node = graph_.node(u);
    return node.type.shape.rank() > 0 && !node.op->forward.generator;
  }

  // Whether a group reads no other array, and what is read of it are sums.
  [[nodiscard]] bool reads_and_gives_little(NodeId root, NodeId array) const {
    for (const NodeId v : members_[root]) {
      if (fusion_.summing[v]) continue;
      for (const NodeId u : graph_.node(v).inputs)
        if (u != array && is_array(u) && sets_.find(u) != root) return false;
      for (const NodeId user : users_[v])
        if (sets_.find(user) != root) return false;
      if (is_result_[v]) return false;
    }
    return true;
  }

  // To the level of `late`, and what depends on it to later ones; not where `late` depends on it.
  bool move(NodeId root, NodeId late) {
    std::vector<std::pair<NodeId, int>> moved;  // and its level before
    const auto raise = [&](NodeId v, int level) { moved.emplace_back(v, std::exchange(fusion_.level[v], level)); };
    for (const NodeId v : members_[root]) raise(v, fusion_.level[late]);
    for (std::size_t i = 0; i < moved.size(); ++i) {
      const NodeId v = moved[i].first;
      for (const NodeId user : users_[v]) {
        const int least = fusion_.least_level(v, user);
        if (fusion_.level[user] >= least) continue;
        // Arrays would have to be kept for longer.
        if (sets_.find(user) == sets_.find(late) || graph_.node(user).type.shape.rank() > 0) {
          for (auto it = moved.rbegin(); it != moved.rend(); ++it) fusion_.level[it->first] = it->second;
          return false;
        }
        raise(user, least);
      }
    }
    return true;
  }

  const GraphData& graph_;
  Fusion& fusion_;
  Sets& sets_;
  std::vector<char> is_result_;
  std::map<NodeId, NodeId> last_reader_;
  std::vector<std::pair<NodeId, NodeId>> candidates_;  // array, earlier reader
  std::vector<std::vector<NodeId>> users_;
  std::vector<std::vector<NodeId>> members_;
};

}  // namespace

Groups fuse_elementwise(const Computation& c) {
  const GraphData& graph = *c.graph.data();
  const std::size_t n = graph.nodes.size();
  Fusion fusion(graph);
  fusion.assign_levels();
  fusion.find_last_readers();
  fusion.move_up(c.results);

  Sets sets(n);
  for (NodeId v = 0; v < n; ++v)
    for (const NodeId u : graph.node(v).inputs)
      if (fusion.joins(u, v) && fusion.level[u] == fusion.level[v]) sets.join(u, v);
  Siblings(fusion, sets, c.results).join();

  // Numbered by their first node. Cut pieces follow each other, so no piece waits for a later one.
  Groups groups(n, 0);
  std::vector<std::uint32_t> number(n, 0);
  std::vector<std::size_t> members(n, 0);
  std::uint32_t last = 0;
  for (NodeId v = 0; v < n; ++v) {
    if (!fusion.elementwise[v] && !fusion.summing[v]) continue;
    const NodeId root = sets.find(v);
    // A piece begins with an elementwise node, which says what its shape is.
    if (number[root] == 0 || (members[root] >= longest_group && fusion.elementwise[v])) {
      number[root] = ++last;
      members[root] = 0;
    }
    ++members[root];
    groups[v] = number[root];
  }
  return groups;
}

Groups each_alone(const Computation& c) {
  Groups groups;
  std::uint32_t last = 0;
  for (const detail::NodeData& node : c.graph.data()->nodes) groups.push_back(node.op->forward.micro ? ++last : 0);
  return groups;
}

std::string to_string(const Computation& c, const Groups& groups) {
  std::string out;
  const GraphData& graph = *c.graph.data();
  for (NodeId id = 0; id < graph.nodes.size(); ++id) {
    const Array* value = detail::constant_value({c.graph.data().get(), id});
    if ((value && value->rank() == 0) || graph.node(id).further_output) continue;
    out += graph.line(id) + (groups[id] != 0 ? fmt::format("  group {}", groups[id]) : "") + "\n";
  }
  return out;
}

}  // namespace chainrule::passes
