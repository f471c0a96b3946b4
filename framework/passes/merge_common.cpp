// Common subexpressions: nodes of one op with the same inputs and attributes become one node. Gradient rules build
// what their forward rules built before, and rely on this.
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
  explicit Merger(const detail::GraphData& graph) : graph_(graph) {}

  // The first node made that equals this new one, or itself.
  NodeId representative(NodeId id) {
    auto& bucket = known_[hash(id)];
    for (const NodeId other : bucket)
      if (equal(id, other)) return other;
    bucket.push_back(id);
    return id;
  }

 private:
  bool commutes_cached(const Op* op) {
    const auto [it, added] = commutes_.try_emplace(op, false);
    if (added) it->second = commutes(*op);
    return it->second;
  }

  std::size_t hash(NodeId id) {
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
    return mix(h, n.attributes.hash());
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
  std::unordered_map<std::size_t, std::vector<NodeId>> known_;
  std::unordered_map<const Op*, bool> commutes_;
};

}  // namespace

Computation merge_common(const Computation& c) {
  Rewriter rewriter(c);
  Merger merger(*rewriter.graph().data());
  return rewriter.run([&merger](Rewriter& r, const Node& node) {
    const Value copy = r.copy(node);
    const NodeId id = merger.representative(copy.id());
    if (id != copy.id()) r.graph().data()->nodes.pop_back();  // the copy was the last node
    return Value(copy.data(), id);
  });
}

}  // namespace chainrule::passes
