// Common subexpressions: nodes of one op with the same inputs and attributes become one node. Gradient rules build
// what their forward rules built before, and rely on this.
#include <cstdint>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

using detail::NodeData;
using detail::NodeId;

namespace {

std::size_t mix(std::size_t seed, std::size_t value) {
  return seed ^ (value + 0x9E3779B97F4A7C15u + (seed << 6) + (seed >> 2));
}

bool commutes(const Op& op) {
  return op.name == "add" || op.name == "mul" || op.name == "maximum" || op.name == "minimum" || op.name == "equal" ||
         op.name == "not_equal" || op.name == "logical_and" || op.name == "logical_or";
}

class Merger {
 public:
  explicit Merger(const detail::GraphData& graph) : graph_(graph), table_(1024) {}

  // The first node made that equals this new one, or itself.
  NodeId representative(NodeId id) {
    if (2 * ++count_ > table_.size()) grow();
    const std::uint32_t h = hash(id);
    std::size_t i = h & (table_.size() - 1);
    for (; table_[i].node != detail::no_node; i = (i + 1) & (table_.size() - 1))
      if (table_[i].hash == h && equal(id, table_[i].node)) return table_[i].node;
    table_[i] = {h, id};
    return id;
  }

 private:
  // Open addressing: a node-based map takes longer than all else here.
  struct Entry {
    std::uint32_t hash = 0;
    NodeId node = detail::no_node;
  };

  void grow() {
    std::vector<Entry> larger(2 * table_.size());
    for (const Entry& entry : table_) {
      if (entry.node == detail::no_node) continue;
      std::size_t i = entry.hash & (larger.size() - 1);
      while (larger[i].node != detail::no_node) i = (i + 1) & (larger.size() - 1);
      larger[i] = entry;
    }
    table_ = std::move(larger);
  }

  bool commutes_cached(const Op* op) {
    const auto [it, added] = commutes_.try_emplace(op, false);
    if (added) it->second = commutes(*op);
    return it->second;
  }

  std::uint32_t hash(NodeId id) {
    const NodeData& n = graph_.node(id);
    std::size_t h = std::hash<const void*>{}(n.op);
    if (commutes_cached(n.op)) {
      h = mix(h, std::size_t{n.inputs[0]} + n.inputs[1]);
    } else {
      for (const NodeId input : n.inputs) h = mix(h, input);
    }
    if (n.op == &detail::constant_op()) {
      const Array& value = *graph_.constants[n.payload];
      h = mix(h, std::hash<std::string_view>{}(
                     {static_cast<const char*>(value.raw()), std::min<std::size_t>(value.bytes(), 64)}));
    } else if (n.inputs.size() == 0) {
      h = mix(h, n.payload);
    }
    h = mix(h, n.attributes.hash());
    return static_cast<std::uint32_t>(h ^ (h >> 32));  // the table takes the lower bits
  }

  bool equal(NodeId a, NodeId b) {
    const NodeData& x = graph_.node(a);
    const NodeData& y = graph_.node(b);
    if (x.op != y.op || !(x.type == y.type)) return false;
    if (x.op == &detail::constant_op()) return graph_.constants[x.payload]->identical(*graph_.constants[y.payload]);
    if (x.inputs.size() == 0 && x.payload != y.payload) return false;
    const bool same =
        x.inputs == y.inputs || (commutes_cached(x.op) && x.inputs[0] == y.inputs[1] && x.inputs[1] == y.inputs[0]);
    return same && x.attributes == y.attributes;
  }

  const detail::GraphData& graph_;
  std::vector<Entry> table_;  // a power of two
  std::size_t count_ = 0;
  std::unordered_map<const Op*, bool> commutes_;
};

}  // namespace

Computation merge_common(const Computation& c) {
  Rewriter rewriter(c);
  Merger merger(*rewriter.graph().data());
  return rewriter.run([&merger](Rewriter& r, const Node& node) {
    const Value copy = r.copy(node);
    const NodeId id = merger.representative(copy.id());
    if (id != copy.id()) r.graph().data()->nodes.truncate(copy.id());  // the copy was the last node
    return Value(copy.data(), id);
  });
}

}  // namespace chainrule::passes
