#include <chainrule/framework/graph/node_facts.hpp>

#include <algorithm>

#include <fmt/core.h>

namespace chainrule::detail {

DType compute_dtype(const GraphData& graph, const NodeData& node) {
  if (node.type.dtype != boolean) return node.type.dtype;
  for (const NodeId input : node.inputs)
    if (graph.node(input).type.dtype != boolean) return graph.node(input).type.dtype;
  return float32;
}

bool rounds_nothing(Micro micro) {
  switch (micro) {
    case Micro::copy:
    case Micro::neg:
    case Micro::abs:
    case Micro::sign:
    case Micro::floor:
    case Micro::ceil:
    case Micro::logical_not:
    case Micro::maximum:
    case Micro::minimum:
    case Micro::less:
    case Micro::less_equal:
    case Micro::equal:
    case Micro::not_equal:
    case Micro::select: return true;
    default: return false;
  }
}

bool rounds_nothing(const GraphData& graph, const NodeData& node) {
  const Forward& forward = node.op->forward;
  if (!forward.micro) return forward.exact;
  const DType dtype = compute_dtype(graph, node);
  const auto& instructions = forward.micro->instructions;
  return std::all_of(instructions.begin(), instructions.end(), [](const auto& i) { return rounds_nothing(i.micro); }) &&
         std::all_of(node.inputs.begin(), node.inputs.end(), [&](NodeId input) {
           const DType from = graph.node(input).type.dtype;
           return from == dtype || from == boolean;
         });
}

std::optional<SumOver> sum_over(const GraphData& graph, NodeId id) {
  const NodeData& node = graph.node(id);
  if (!node.op->forward.sum || !is_floating(node.type.dtype)) return {};
  const std::size_t rank = graph.node(node.inputs[0]).type.shape.rank();
  std::vector<char> summed(rank, 0);
  for (const auto axis : node.attributes.get<Axes>("axes")) summed[static_cast<std::size_t>(axis)] = 1;
  const auto count = static_cast<std::size_t>(std::count(summed.begin(), summed.end(), 1));
  if (count == rank) return SumOver::all;
  if (count == 1 && summed.back()) return SumOver::rows;
  if (count + 1 == rank && !summed.back()) return SumOver::columns;
  return {};
}

const Array* inlined_constant(const GraphData& graph, NodeId id) {
  const Array* constant = constant_value({const_cast<GraphData*>(&graph), id});
  if (!constant || constant->size() != 1) return nullptr;
  if (constant->dtype() == int64) {  // of which doubles do not have all
    const auto exact = *static_cast<const std::int64_t*>(constant->raw());
    if (exact > (std::int64_t{1} << 53) || exact < -(std::int64_t{1} << 53)) return nullptr;
  }
  return constant;
}

bool has_symbols(const NodeData& node) {
  const auto symbolic = [](const Shape& shape) {
    return std::any_of(shape.begin(), shape.end(), [](Dimension d) { return !d.is_number() && !d.is_inferred(); });
  };
  bool any = symbolic(node.type.shape);
  node.attributes.for_each([&](const std::string&, const Attribute& attribute) {
    if (const auto* shape = std::get_if<Shape>(&attribute.variant())) any = any || symbolic(*shape);
  });
  return any;
}

Attributes evaluate_attributes(const Attributes& attributes, const Sizes& sizes) {
  Attributes out = attributes;
  attributes.for_each([&](const std::string& name, const Attribute& attribute) {
    const auto* shape = std::get_if<Shape>(&attribute.variant());
    if (!shape) return;
    // An extent of -1 in a reshape has done its work in the shape rule.
    const bool known = std::none_of(shape->begin(), shape->end(), [](Dimension d) { return d.is_inferred(); });
    if (known) out = out.with(name, to_shape(chainrule::evaluate(*shape, sizes)));
  });
  return out;
}

void rethrow_at_node(const Error& error, const GraphData& graph, const Sizes& sizes) {
  if (error.location().known()) throw error;
  for (NodeId id = 0; id < graph.nodes.size(); ++id) {
    const NodeData& node = graph.node(id);
    try {
      evaluate(node.type.shape, sizes);
      evaluate_attributes(node.attributes, sizes);
    } catch (const Error& extent) {
      std::string_view message = extent.what();
      constexpr std::string_view prefix = "dimension: ";
      if (message.starts_with(prefix)) message.remove_prefix(prefix.size());
      throw Error(graph.describe(id), fmt::format("{} ({})", message, sizes.to_string()));
    }
  }
  throw error;
}

}  // namespace chainrule::detail
