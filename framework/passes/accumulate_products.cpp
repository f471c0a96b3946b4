// Products that are added to something: one step of BLAS makes c + alpha * a b, in the memory of c. So a weight update
// like w - 0.1 * a b needs no memory for the gradient and no pass over it, and contributions to one gradient are
// added up as they are made.
//
// That gains where c may be overwritten: it is a variable and the sum its new value, or another product that nothing
// else reads. (Where it turns out that it may not, it is copied first, which costs about what is gained.) Products of a
// few rows or columns are left alone: adding to them is slower than making them and adding then.
#include <cmath>
#include <optional>
#include <vector>

#include <chainrule/framework/passes/pass.hpp>
#include <chainrule/framework/products/matmul.hpp>

namespace chainrule::passes {

namespace {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

constexpr std::int64_t fewest_rows = 16;
constexpr std::int64_t fewest_columns = 64;

// factor * node, as which `operand` reads.
struct Term {
  double factor = 1;
  NodeId node = detail::no_node;
  NodeId operand = detail::no_node;
};

struct Ops {
  const Op* add = find_op("add");
  const Op* sub = find_op("sub");
  const Op* mul = find_op("mul");
  const Op* neg = find_op("neg");
  const Op* matmul = find_op("matmul");
};

class Accumulator {
 public:
  // A product, by a factor, and what it is added to.
  struct Sum {
    NodeId sum;
    Term product;
    Term to;
  };

  explicit Accumulator(const Computation& c)
      : graph_(*c.graph.data()), readers_(graph_.nodes.size(), 0), is_result_(graph_.nodes.size(), 0) {
    for (const NodeData& node : graph_.nodes)
      for (const NodeId input : node.inputs) ++readers_[input];
    for (const Value result : c.results) {
      ++readers_[result.id()];
      is_result_[result.id()] = 1;
    }
  }

  // In the order of the graph.
  std::vector<Sum> sums() {
    std::vector<Sum> out;
    is_sum_.assign(graph_.nodes.size(), 0);
    for (NodeId id = 0; id < is_sum_.size(); ++id)
      if (const auto found = sum(id)) {
        out.push_back(*found);
        is_sum_[id] = 1;
      }
    return out;
  }

  // Calls f with the nodes of a term that are its factor.
  template <class F>
  void for_each_factor(const Term& term, F f) const {
    for (NodeId id = term.operand; id != term.node;) {
      f(id);
      const NodeData& node = graph_.node(id);
      id = node.op == ops_.mul && number(node.inputs[0]) ? node.inputs[1] : node.inputs[0];
    }
  }

 private:
  [[nodiscard]] std::optional<Sum> sum(NodeId id) const {
    const NodeData& node = graph_.node(id);
    if (node.op != ops_.add && node.op != ops_.sub) return {};
    const Term left = term(node.inputs[0]);
    Term right = term(node.inputs[1]);
    if (node.op == ops_.sub) right.factor = -right.factor;
    // Of two products the later one is added to the earlier.
    const bool right_first = right.node > left.node;
    for (const bool right_is_product : {right_first, !right_first}) {
      const Sum out = right_is_product ? Sum{id, right, left} : Sum{id, left, right};
      if (out.to.factor == 1 && is_factor(out.product.factor, node.type.dtype) && is_product(out.product.node, id) &&
          may_be_overwritten(out.to.node, id))
        return out;
    }
    return {};
  }

  // factor * node, looking through what has no other reader.
  [[nodiscard]] Term term(NodeId id) const {
    Term out{1, id, id};
    while (readers_[out.node] == 1) {
      const NodeData& node = graph_.node(out.node);
      if (node.op == ops_.neg) {
        out = {-out.factor, node.inputs[0], id};
        continue;
      }
      if (node.op != ops_.mul) break;
      const std::optional<double> left = number(node.inputs[0]);
      const std::optional<double> right = left ? std::nullopt : number(node.inputs[1]);
      const NodeId other = node.inputs[left ? 1 : 0];
      if ((!left && !right) || !(graph_.node(other).type == node.type)) break;
      out = {out.factor * left.value_or(right.value_or(1)), other, id};
    }
    return out;
  }

  [[nodiscard]] std::optional<double> number(NodeId id) const {
    const Array* value = detail::constant_value({const_cast<GraphData*>(&graph_), id});
    if (!value || value->size() != 1) return {};
    return (*value)[0];
  }

  // BLAS leaves a product out that has the factor 0, with the NaN and infinities of its operands.
  static bool is_factor(double factor, DType dtype) {
    return std::isfinite(factor) && (dtype == float32 ? static_cast<float>(factor) != 0 : factor != 0);
  }

  [[nodiscard]] bool is_product(NodeId id, NodeId sum) const {
    const NodeData& node = graph_.node(id);
    if (node.op != ops_.matmul || readers_[id] != 1 || !(node.type == graph_.node(sum).type)) return false;
    return pays_to_accumulate(node.type.shape);
  }

  [[nodiscard]] bool may_be_overwritten(NodeId id, NodeId sum) const {
    const NodeData& node = graph_.node(id);
    if (!(node.type == graph_.node(sum).type)) return false;
    if (node.op == &detail::variable_op()) return is_result_[sum] != 0;
    return readers_[id] == 1 && (node.op == ops_.matmul || is_sum_[id] != 0);
  }

  const GraphData& graph_;
  std::vector<std::uint32_t> readers_;
  std::vector<char> is_result_;
  std::vector<char> is_sum_;
  Ops ops_;
};

}  // namespace

bool pays_to_accumulate(const Shape& product) {
  return product.rank() == 2 && product[0].is_number() && product[1].is_number() &&
         product[0].extent() >= fewest_rows && product[1].extent() >= fewest_columns;
}

Computation accumulate_products(const Computation& c) {
  Accumulator accumulator(c);
  const std::vector<Accumulator::Sum> sums = accumulator.sums();
  if (sums.empty()) return c;
  Rewriter rewriter(c);
  for (const auto& sum : sums) {
    rewriter.leave_out(sum.product.node);
    for (const Term& term : {sum.product, sum.to})
      accumulator.for_each_factor(term, [&](NodeId factor) { rewriter.leave_out(factor); });
  }
  auto next = sums.begin();
  Attributes last;  // mostly those of one update are those of all
  return rewriter.run([&](Rewriter& r, const Node& node) {
    if (next == sums.end() || next->sum != node.id()) return r.copy(node);
    const auto& [sum, product, to] = *next++;
    const Node matmul = Value(node.graph_data(), product.node).node();
    const auto transposed = [&](std::string_view name) { return matmul.attributes().get<bool>(name); };
    Attributes attributes{{"transpose_a", transposed("transpose_a")},
                          {"transpose_b", transposed("transpose_b")},
                          {"alpha", product.factor}};
    if (!(attributes == last)) last = attributes;
    return apply(r.graph(), products::accumulate_op(),
                 {r.now(matmul.input(0)), r.now(matmul.input(1)), r.now({node.graph_data(), to.node})}, last,
                 node.location());
  });
}

}  // namespace chainrule::passes
