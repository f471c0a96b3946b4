// Updates of tables: what gradient descent does to w - rate * g, where g is made by scatter_add to zeros, touches the
// rows that were taken and no others. It becomes w with -rate * u added to its rows, in w's own memory, and the zeros
// and the whole g are never made.
//
// Looked through are sums, differences, signs and factors that are scalars, as long as nothing else reads what lies
// between: w once, by itself, and else parts of scatter_add alone. What also has to do with all rows (a weight decay, a
// momentum, a norm of the gradient) stays as it is, and so does a gradient of which another part is dense.
//
// Exactness: where no row is taken twice, each element is rounded as before: w - rate * u. Of n parts that meet in a
// row, each is subtracted by itself, in the order of their indices, where before their sum was. Either differs from the
// exact result by at most n + 2 roundings of |w| + |rate| * (sum of |u|). And rows that nobody took keep what they have
// where the rate is infinite or NaN.
//
// Indices are checked by a node of their own: an Error must come before anything is written, also by other updates.
#include <algorithm>
#include <optional>
#include <vector>

#include <chainrule/framework/passes/pass.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/row_updates.hpp>

namespace chainrule::passes {

namespace {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

// What is done to a part on its way to the sum.
struct Factor {
  enum class Kind : std::uint8_t { sign, times, over } kind;
  NodeId scalar = detail::no_node;
};

struct Part {
  NodeId scatter = detail::no_node;
  std::vector<Factor> factors;  // the outermost first
};

struct RowUpdate {
  NodeId sum = detail::no_node;
  NodeId variable = detail::no_node;
  std::vector<Part> parts;       // in the order in which they are added
  std::vector<NodeId> left_out;  // between the sum and what it is made of
};

class Finder {
 public:
  explicit Finder(const Computation& c)
      : graph_(*c.graph.data()), readers_(count_readers(c, needed_nodes(c))), is_result_(graph_.nodes.size(), 0) {
    for (const Value result : c.results) is_result_[result.id()] = 1;
  }

  // In the order of the graph.
  [[nodiscard]] std::vector<RowUpdate> find() const {
    std::vector<RowUpdate> out;
    for (NodeId id = 0; id < is_result_.size(); ++id)
      if (is_result_[id])
        if (auto found = update(id)) out.push_back(std::move(*found));
    return out;
  }

 private:
  [[nodiscard]] std::optional<RowUpdate> update(NodeId sum) const {
    RowUpdate out;
    out.sum = sum;
    std::vector<Part> rest{{sum, {}}};
    while (!rest.empty()) {
      Part part = std::move(rest.back());
      rest.pop_back();
      const NodeId id = part.scatter;
      if (!(graph_.node(id).type == graph_.node(sum).type)) return {};
      if (graph_.node(id).op == &detail::variable_op()) {
        if (out.variable != detail::no_node || !part.factors.empty()) return {};
        out.variable = id;
        continue;
      }
      if (id != sum) {
        if (readers_[id] != 1) return {};
        out.left_out.push_back(id);
      }
      if (!open(part, rest, out.parts)) return {};
    }
    if (out.variable == detail::no_node || out.parts.empty()) return {};
    std::reverse(out.parts.begin(), out.parts.end());
    for (const Part& part : out.parts)
      if (!(graph_.node(part.scatter).attributes == graph_.node(out.parts[0].scatter).attributes)) return {};
    return out;
  }

  // What a node is the sum of, onto `rest`, what is added last on top; a part that is whole into `done`. False for
  // anything else.
  [[nodiscard]] bool open(const Part& part, std::vector<Part>& rest, std::vector<Part>& done) const {
    const NodeData& node = graph_.node(part.scatter);
    const auto with = [&](NodeId operand, std::optional<Factor> factor) {
      rest.push_back({operand, part.factors});
      if (factor) rest.back().factors.push_back(*factor);
    };
    if (node.op == scatter_add_) {
      done.push_back(part);
      if (!is_zero(node.inputs[0])) with(node.inputs[0], {});
      return true;
    }
    if (node.op == add_ || node.op == sub_) {
      with(node.inputs[0], {});
      with(node.inputs[1], node.op == sub_ ? std::optional(Factor{Factor::Kind::sign}) : std::nullopt);
      return true;
    }
    if (node.op == neg_) {
      with(node.inputs[0], Factor{Factor::Kind::sign});
      return true;
    }
    if (node.op == mul_ || node.op == div_) {
      const bool first = node.op == mul_ && is_scalar(node.inputs[0]);
      if (!first && !is_scalar(node.inputs[1])) return false;
      with(node.inputs[first ? 1 : 0],
           Factor{node.op == div_ ? Factor::Kind::over : Factor::Kind::times, node.inputs[first ? 0 : 1]});
      return true;
    }
    return false;
  }

  [[nodiscard]] bool is_scalar(NodeId id) const { return graph_.node(id).type.shape.rank() == 0; }

  [[nodiscard]] bool is_zero(NodeId id) const {
    static const Op* const broadcast = find_op("broadcast_to");
    const NodeData& node = graph_.node(id);
    if (node.op == broadcast) return is_zero(node.inputs[0]);
    const Array* value = detail::constant_value({const_cast<GraphData*>(&graph_), id});
    for (std::int64_t i = 0; value && i < value->size(); ++i)
      if ((*value)[i] != 0) return false;
    return value != nullptr;
  }

  const GraphData& graph_;
  std::vector<std::uint32_t> readers_;
  std::vector<char> is_result_;
  const Op* scatter_add_ = find_op("scatter_add");
  const Op* add_ = find_op("add");
  const Op* sub_ = find_op("sub");
  const Op* mul_ = find_op("mul");
  const Op* div_ = find_op("div");
  const Op* neg_ = find_op("neg");
};

class Writer {
 public:
  explicit Writer(Rewriter& to) : to_(to) {}

  Value make(const RowUpdate& update, GraphData* from, Location at) {
    const auto now = [&](NodeId id) { return to_.now({from, id}); };
    const Attributes& attributes = from->node(update.parts[0].scatter).attributes;
    const auto axis = static_cast<std::size_t>(attributes.get<std::int64_t>("axis"));
    Values inputs{now(update.variable)};
    for (const Part& part : update.parts) {
      const NodeData& scatter = from->node(part.scatter);
      Value rows = now(scatter.inputs[2]);
      for (std::size_t i = part.factors.size(); i-- > 0;) {
        const auto [kind, scalar] = part.factors[i];
        if (kind == Factor::Kind::sign) rows = -rows;
        if (kind == Factor::Kind::times) rows = now(scalar) * rows;
        if (kind == Factor::Kind::over) rows = rows / now(scalar);
      }
      inputs.push_back(checked(now(scatter.inputs[1]), scatter.type.shape[axis], scatter.at));
      inputs.push_back(rows);
    }
    return apply(detail::add_rows_op(), inputs, attributes, at);
  }

 private:
  // Once for each extent into which the same indices go.
  Value checked(Value indices, Dimension extent, Location at) {
    for (const Checked& known : checked_)
      if (known.indices == indices && known.extent == extent) return known.made;
    const detail::LocationScope scope(at);
    const Value made = apply(detail::checked_indices_op(), {indices}, {{"extent", Shape{extent}}}, at);
    checked_.push_back({indices, extent, made});
    return made;
  }

  struct Checked {
    Value indices;
    Dimension extent;
    Value made;
  };
  Rewriter& to_;
  std::vector<Checked> checked_;
};

}  // namespace

Computation update_rows(const Computation& c) {
  if (!uses(c, find_op("scatter_add"))) return c;
  const std::vector<RowUpdate> updates = Finder(c).find();
  if (updates.empty()) return c;
  Rewriter rewriter(c);
  for (const RowUpdate& update : updates)
    for (const NodeId id : update.left_out) rewriter.leave_out(id);
  Writer writer(rewriter);
  auto next = updates.begin();
  return remove_dead(rewriter.run([&](Rewriter& r, const Node& node) {
    if (next == updates.end() || next->sum != node.id()) return r.copy(node);
    return writer.make(*next++, node.graph_data(), node.location());
  }));
}

}  // namespace chainrule::passes
