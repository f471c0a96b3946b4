// Arrays that are cut in parts and put together from parts, as a sequence is by an unrolled loop.
//
// The gradient of an array of which all parts were sliced is collected part by part: it becomes one concat. A transpose
// that moves nothing but axes of extent 1 is a reshape, and one around a concat or a slice whose parts become such goes
// into the parts: so a loop over a transposed array cuts the array itself, and what stacks its results along one axis
// for another loop that wants them along another stacks them there. Parts that are stacked along a first axis of their
// own are joined along the axis behind it, as matrices whose rows follow each other.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

namespace {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

struct Ops {
  const Op* reshape = find_op("reshape");
  const Op* transpose = find_op("transpose");
  const Op* concat = find_op("concat");
  const Op* slice = find_op("slice");
  const Op* scatter = find_op("slice_scatter");
  const Op* add = find_op("slice_add");
};

std::size_t axis_of(const Attributes& attributes) {
  return static_cast<std::size_t>(attributes.get<std::int64_t>("axis"));
}

// ---- a slice_scatter and the slice_adds to it that are a whole array

struct Collected {
  NodeId last;                 // the array
  std::vector<NodeId> parts;   // in the order of their places
  std::vector<NodeId> others;  // nodes of the chain but for the last
};

class Chains {
 public:
  explicit Chains(const Computation& c, const Ops& ops)
      : graph_(*c.graph.data()), ops_(ops), continued_(graph_.nodes.size(), 0) {
    const std::vector<char> needed = needed_nodes(c);
    readers_ = count_readers(c, needed);
    for (NodeId id = 0; id < needed.size(); ++id)
      if (const NodeData& node = graph_.node(id); needed[id] && node.op == ops_.add) continued_[node.inputs[0]] = 1;
  }

  // In the order of the graph.
  [[nodiscard]] std::vector<Collected> find() const {
    std::vector<Collected> out;
    for (NodeId id = 0; id < graph_.nodes.size(); ++id)
      if (graph_.node(id).op == ops_.add && readers_[id] > 0 && !(continued_[id] && readers_[id] == 1))
        if (auto chain = ending_in(id)) out.push_back(std::move(*chain));
    return out;
  }

 private:
  struct Part {
    std::int64_t start;
    std::int64_t size;
    NodeId value;
  };

  [[nodiscard]] std::optional<Collected> ending_in(NodeId last) const {
    Collected out{last, {}, {}};
    const std::size_t axis = axis_of(graph_.node(last).attributes);
    std::vector<Part> parts;
    for (NodeId id = last;;) {
      const NodeData& node = graph_.node(id);
      const bool adds = node.op == ops_.add;
      if ((!adds && node.op != ops_.scatter) || (id != last && readers_[id] != 1)) return {};
      const Attributes& attributes = node.attributes;
      const Dimension start = attributes.get<Shape>("start")[0];
      const Dimension size = attributes.get<Shape>("size")[0];
      if (axis_of(attributes) != axis || attributes.get<std::int64_t>("step") != 1 || !start.is_number() ||
          !size.is_number())
        return {};
      parts.push_back({start.extent(), size.extent(), node.inputs[adds ? 1 : 0]});
      if (id != last) out.others.push_back(id);
      if (!adds) break;
      id = node.inputs[0];
    }
    std::sort(parts.begin(), parts.end(),
              [](const Part& a, const Part& b) { return std::pair(a.start, a.size) < std::pair(b.start, b.size); });
    std::int64_t end = 0;
    for (const Part& part : parts) {
      if (part.start != end) return {};
      end += part.size;
      out.parts.push_back(part.value);
    }
    if (!graph_.node(last).type.shape[axis].is(end)) return {};
    return out;
  }

  const GraphData& graph_;
  const Ops& ops_;
  std::vector<std::uint32_t> readers_;
  std::vector<char> continued_;  // by another slice_add
};

// ---- axes

class Rules {
 public:
  explicit Rules(const Ops& ops) : ops_(ops) {}

  // The same elements, in the order of memory.
  [[nodiscard]] Value reshaped(Value x, const Shape& shape) const {
    x = under_reshapes(x);
    return x.shape() == shape ? x : apply(*ops_.reshape, {x}, {{"shape", shape}});
  }

  [[nodiscard]] Value transposed(Value x, const Axes& permutation) const {
    if (moves_nothing(x.shape(), permutation)) return reshaped(x, permuted(x.shape(), permutation));
    const Node node = x.node();
    if (&node.op() != ops_.concat) return {};
    Values parts;
    for (const Value part : node.inputs()) {
      if (!moves_nothing(part.shape(), permutation)) return {};
      parts.push_back(reshaped(part, permuted(part.shape(), permutation)));
    }
    const auto axis = std::find(permutation.begin(), permutation.end(), node.attribute<std::int64_t>("axis"));
    return joined(parts, static_cast<std::size_t>(axis - permutation.begin()));
  }

  [[nodiscard]] Value sliced(Value x, const Attributes& attributes) const {
    const Node node = x.node();
    if (&node.op() != ops_.transpose) return {};
    const Axes permutation = node.attribute<Axes>("permutation");
    Shape part = node.input(0).shape();
    const std::int64_t axis = permutation[axis_of(attributes)];
    part[static_cast<std::size_t>(axis)] = attributes.get<Shape>("size")[0];
    if (!moves_nothing(part, permutation)) return {};
    return reshaped(apply(*ops_.slice, {node.input(0)}, attributes.with("axis", axis)), permuted(part, permutation));
  }

  [[nodiscard]] Value joined(const Values& parts, std::size_t axis) const {
    if (const Value stacked = joined_as_rows(parts, axis); stacked.defined()) return stacked;
    return apply(*ops_.concat, parts, {{"axis", axis}});
  }

  // Where the parts are reshaped to have a first axis of extent 1, along which they are joined.
  [[nodiscard]] Value joined_as_rows(const Values& parts, std::size_t axis) const {
    Values rows;
    for (const Value part : parts) {
      if (axis != 0 || part.rank() < 2 || !part.shape()[0].is(1)) return {};
      const Value row = under_reshapes(part);
      if (row.rank() + 1 != part.rank() ||
          !std::equal(row.shape().begin(), row.shape().end(), part.shape().begin() + 1))
        return {};
      rows.push_back(row);
    }
    Shape shape{parts.size()};
    for (const Dimension d : rows[0].shape()) shape.push_back(d);
    return reshaped(apply(*ops_.concat, rows, {{"axis", 0}}), shape);
  }

 private:
  [[nodiscard]] Value under_reshapes(Value x) const {
    while (&x.node().op() == ops_.reshape) x = x.node().input(0);
    return x;
  }

  static Shape permuted(const Shape& shape, const Axes& permutation) {
    Shape out;
    for (const std::int64_t axis : permutation) out.push_back(shape[static_cast<std::size_t>(axis)]);
    return out;
  }

  // But for axes of extent 1.
  static bool moves_nothing(const Shape& shape, const Axes& permutation) {
    std::int64_t last = -1;
    for (const std::int64_t axis : permutation) {
      if (shape[static_cast<std::size_t>(axis)].is(1)) continue;
      if (axis < last) return false;
      last = axis;
    }
    return true;
  }

  const Ops& ops_;
};

}  // namespace

Computation join_parts(const Computation& c) {
  const Ops ops;
  const auto& nodes = c.graph.data()->nodes;
  if (std::none_of(nodes.begin(), nodes.end(), [&](const NodeData& node) {
        return node.op == ops.transpose || node.op == ops.concat || node.op == ops.add;
      }))
    return c;
  const std::vector<Collected> chains = Chains(c, ops).find();
  Rewriter rewriter(c);
  for (const Collected& chain : chains)
    for (const NodeId id : chain.others) rewriter.leave_out(id);
  const Rules rules(ops);
  auto next = chains.begin();
  return rewriter.run([&](Rewriter& r, const Node& node) {
    Value better;
    if (next != chains.end() && node.id() == next->last) {
      Values parts;
      for (const NodeId id : next->parts) parts.push_back(r.now({node.graph_data(), id}));
      ++next;
      better = rules.joined(parts, axis_of(node.attributes()));
    } else if (&node.op() == ops.concat) {
      better = rules.joined(r.now_inputs(node), axis_of(node.attributes()));
    } else if (&node.op() == ops.transpose) {
      better = rules.transposed(r.now(node.input(0)), node.attribute<Axes>("permutation"));
    } else if (&node.op() == ops.slice) {
      better = rules.sliced(r.now(node.input(0)), node.attributes());
    }
    return better.defined() ? better : r.copy(node);
  });
}

}  // namespace chainrule::passes
