// A product and the fused group that reads it as one step. Not installed.
#pragma once

#include <optional>
#include <string>

#include <chainrule/framework/fused/fused_step.hpp>

namespace chainrule::detail {

// Whether what follows a product should be computed for some of its rows at a time, as soon as these are: where the
// result is large and the right operand stays in the cache. Of a node that is no product: no.
bool worth_riding(const GraphData& graph, NodeId product, const Sizes& sizes);

// `group` reads the value of `product`, element by element, and nobody else does: it is one of the group's inputs, but
// what lies there is not looked at. The step's inputs are the group's, then the product's.
Step make_riding_step(const GraphData& graph, NodeId product, const FusedGroup& group, const Sizes& sizes);
// "in blocks of 32 rows; 9 instructions, 3 tiles of 512": for explain().
std::string describe_riding_step(const GraphData& graph, NodeId product, const FusedGroup& group, const Sizes& sizes);

}  // namespace chainrule::detail
