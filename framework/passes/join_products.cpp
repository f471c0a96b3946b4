// Sums of many products become one: of a1 b1 + a2 b2 + ... the product of [a1 a2 ...] and [b1; b2; ...], so that the
// sum's array is written once and not once a term. So the gradient of a weight that an unrolled loop reads in each of
// its steps is one product over all of them. (The operands are copied for it, unless they lie in such arrays anyway:
// what an input's gradient is joined from is often the same, and then made once.)
#include <algorithm>
#include <vector>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

namespace {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

// Fewer are added one to another (accumulate_products.cpp).
constexpr std::size_t fewest_products = 4;

struct Sum {
  NodeId root;                                // the sum
  std::vector<NodeId> adds;                   // that make it up, but for the root
  std::vector<NodeId> others;                 // terms that stay as they are
  std::vector<std::vector<NodeId>> products;  // that become one each, by how they are transposed
};

class Sums {
 public:
  explicit Sums(const Computation& c)
      : graph_(*c.graph.data()), readers_(graph_.nodes.size(), 0), inner_(graph_.nodes.size(), 0) {
    for (const NodeData& node : graph_.nodes)
      for (const NodeId input : node.inputs) ++readers_[input];
    for (const Value result : c.results) readers_[result.id()] += 2;  // which stays
  }

  // In the order of the graph.
  [[nodiscard]] std::vector<Sum> find() {
    std::vector<Sum> out;
    for (auto id = static_cast<NodeId>(graph_.nodes.size()); id-- > 0;) {
      if (graph_.node(id).op != add_ || inner_[id] || !pays_to_accumulate(graph_.node(id).type.shape)) continue;
      if (Sum sum = with_root(id); !sum.products.empty()) out.push_back(std::move(sum));
    }
    std::reverse(out.begin(), out.end());
    return out;
  }

 private:
  [[nodiscard]] Sum with_root(NodeId root) {
    Sum out{root, {}, {}, std::vector<std::vector<NodeId>>(4)};
    const auto& type = graph_.node(root).type;
    std::vector<NodeId> terms{root};
    while (!terms.empty()) {
      const NodeId id = terms.back();
      terms.pop_back();
      const NodeData& node = graph_.node(id);
      const bool own = id == root || (readers_[id] == 1 && node.type == type);
      if (own && node.op == add_) {
        inner_[id] = 1;
        if (id != root) out.adds.push_back(id);
        terms.insert(terms.end(), node.inputs.begin(), node.inputs.end());
      } else if (own && node.op == matmul_ && pays(node)) {
        out.products[(flag(node, "transpose_a") ? 2 : 0) + (flag(node, "transpose_b") ? 1 : 0)].push_back(id);
      } else {
        out.others.push_back(id);
      }
    }
    for (auto& products : out.products) {
      if (products.size() < fewest_products) {
        out.others.insert(out.others.end(), products.begin(), products.end());
        products.clear();
      }
      // In the order in which a loop made what it multiplies, which is that of other arrays that are joined from it.
      std::sort(products.begin(), products.end(), [&](NodeId a, NodeId b) {
        return std::pair(graph_.node(a).inputs[0], a) < std::pair(graph_.node(b).inputs[0], b);
      });
    }
    std::erase_if(out.products, [](const auto& products) { return products.empty(); });
    std::sort(out.others.begin(), out.others.end());
    return out;
  }

  // Whether copying the operands moves less than adding to the sum would. Where the length of the products' sums is
  // known in a run only, it is taken for one.
  [[nodiscard]] bool pays(const NodeData& product) const {
    const Shape& a = graph_.node(product.inputs[0]).type.shape;
    if (a.rank() != 2 || graph_.node(product.inputs[1]).type.shape.rank() != 2) return false;
    const Dimension k = a[flag(product, "transpose_a") ? 0 : 1];
    const std::int64_t m = product.type.shape[0].extent();
    const std::int64_t n = product.type.shape[1].extent();
    return !k.is_number() || k.extent() < m * n / (m + n);
  }

  static bool flag(const NodeData& product, std::string_view name) { return product.attributes.get<bool>(name); }

  const GraphData& graph_;
  const Op* add_ = find_op("add");
  const Op* matmul_ = find_op("matmul");
  std::vector<std::uint32_t> readers_;
  std::vector<char> inner_;  // adds of a sum that has been looked at
};

Value joined(Rewriter& r, const Computation& c, const std::vector<NodeId>& products) {
  const auto node_of = [&](NodeId id) { return Value(c.graph.data().get(), id).node(); };
  const Attributes flags = node_of(products[0]).attributes();
  const auto operand = [&](std::size_t which, std::int64_t axis) {
    Values parts;
    for (const NodeId id : products) parts.push_back(r.now(node_of(id).input(which)));
    return apply(*find_op("concat"), parts, {{"axis", axis}});
  };
  return apply(*find_op("matmul"),
               {operand(0, flags.get<bool>("transpose_a") ? 0 : 1), operand(1, flags.get<bool>("transpose_b") ? 1 : 0)},
               flags);
}

}  // namespace

Computation join_products(const Computation& c) {
  const std::vector<Sum> sums = Sums(c).find();
  if (sums.empty()) return c;
  Rewriter rewriter(c);
  for (const Sum& sum : sums) {
    for (const NodeId id : sum.adds) rewriter.leave_out(id);
    for (const auto& products : sum.products)
      for (const NodeId id : products) rewriter.leave_out(id);
  }
  auto next = sums.begin();
  return rewriter.run([&](Rewriter& r, const Node& node) {
    if (next == sums.end() || next->root != node.id()) return r.copy(node);
    Value out;
    const auto add = [&](Value term) { out = out.defined() ? apply(*find_op("add"), {out, term}) : term; };
    for (const auto& products : next->products) add(joined(r, c, products));
    for (const NodeId id : next->others) add(r.now({node.graph_data(), id}));
    ++next;
    return out;
  });
}

}  // namespace chainrule::passes
