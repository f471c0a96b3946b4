// What follows from a node alone, whatever computes it. Not installed.
#pragma once

#include <optional>

#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule::detail {

// The dtype in which an elementwise node computes: its output's, or for a bool output its operands' (float32 where all
// are bool).
DType compute_dtype(const GraphData& graph, const NodeData& node);
inline DType compute_dtype(const GraphData& graph, NodeId id) { return compute_dtype(graph, graph.node(id)); }

// Whether no element of a node's floating outputs is rounded: each is, but for its sign, one of an input, a whole
// number or an attribute's. (An elementwise node that only moves, chooses or counts; a conversion to another dtype is
// none.)
bool rounds_nothing(const GraphData& graph, const NodeData& node);
// Of a micro-operation: whether its result is one of the operands, but for its sign, or a whole number.
bool rounds_nothing(Micro micro);

// What a sum in a fused group runs over: all elements, each row (the last axis), or each column (all axes but the
// last).
enum class SumOver : std::uint8_t { all, rows, columns };
// That of a node that could be one, by op and axes.
std::optional<SumOver> sum_over(const GraphData& graph, NodeId id);

// The array of a constant that fused groups have among their instructions' numbers, or null: a single element that is
// a double.
const Array* inlined_constant(const GraphData& graph, NodeId id);

// Whether anything of a node depends on the sizes of a run: its shape, or a shape among its attributes.
bool has_symbols(const NodeData& node);
// Throws the error that planning met, which for sizes of which an extent comes out negative ("requires n-5 to be 0 or
// more") names no node, as one of the first node that has the extent. The line is for the caller to give.
[[noreturn]] void rethrow_at_node(const Error& error, const GraphData& graph, const Sizes& sizes);

// Attributes with their symbolic shapes evaluated.
Attributes evaluate_attributes(const Attributes& attributes, const Sizes& sizes);

}  // namespace chainrule::detail
