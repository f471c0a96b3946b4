// Transposes into products: matmul reads an operand transposed at no cost, so a transpose of its last two axes becomes
// a flag, and the transpose of a product is the product of the transposes in the other order.
#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

namespace {

bool swaps_last_two(const Axes& permutation) {
  const std::size_t rank = permutation.size();
  if (rank < 2) return false;
  for (std::size_t i = 0; i + 2 < rank; ++i)
    if (permutation[i] != static_cast<std::int64_t>(i)) return false;
  return permutation[rank - 2] == static_cast<std::int64_t>(rank - 1);
}

bool is_swap(Value v) {
  const Node node = v.node();
  return node.op().name == "transpose" && swaps_last_two(node.attribute<Axes>("permutation"));
}

Attributes flags(bool a, bool b) {
  if (!a && !b) return {};
  return {{"transpose_a", a}, {"transpose_b", b}};
}

}  // namespace

Computation fold_transposes(const Computation& c) {
  if (!uses(c, find_op("transpose"))) return c;
  return Rewriter(c).run([](Rewriter& r, const Node& node) {
    if (node.op().name == "transpose" && swaps_last_two(node.attribute<Axes>("permutation"))) {
      const Node inner = r.now(node.input(0)).node();
      // For batches too: each product of the batch is transposed.
      if (inner.op().name == "matmul") {
        const bool a = inner.attributes().get<bool>("transpose_a");
        const bool b = inner.attributes().get<bool>("transpose_b");
        return apply(r.graph(), inner.op(), {inner.input(1), inner.input(0)}, flags(!b, !a), node.location());
      }
      return r.copy(node);
    }
    if (node.op().name != "matmul") return r.copy(node);
    Values inputs = r.now_inputs(node);
    bool transposed[2] = {node.attributes().get<bool>("transpose_a"), node.attributes().get<bool>("transpose_b")};
    bool changed = false;
    for (std::size_t i = 0; i < 2; ++i) {
      while (is_swap(inputs[i])) {
        inputs[i] = inputs[i].node().input(0);
        transposed[i] = !transposed[i];
        changed = true;
      }
    }
    return changed ? r.copy(node, inputs, flags(transposed[0], transposed[1])) : r.copy(node);
  });
}

}  // namespace chainrule::passes
