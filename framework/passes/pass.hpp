// A pass: a graph in, an equivalent and better graph out. Not installed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/mode.hpp>
#include <chainrule/framework/passes/rewriter.hpp>

namespace chainrule::passes {

// Whether a node of the graph is this op.
bool uses(const Computation& c, const Op* op);

// Which nodes the results need, by id.
std::vector<char> needed_nodes(const Computation& c);
// How many of these read each node; a result counts as one more.
std::vector<std::uint32_t> count_readers(const Computation& c, const std::vector<char>& needed);

// Whether a product is large enough for what is gained where it is added to something as it is made: one of a few rows
// or columns is faster made and added then.
bool pays_to_accumulate(const Shape& product);

// Several expressions for one variable, to be applied one after the other: graph.update_with().
struct Chain {
  std::size_t result = 0;  // the number of the result that is the first expression, and becomes all of them
  Value variable;
  Values owners;
  Values expressions;  // in order, the first one included
};
// Each later expression reads the one before in place of the variable (passes/chain_updates.cpp).
Computation chain_updates(const Computation& c, const std::vector<Chain>& chains);

// The passes, in the order in which a program is compiled (passes/pipeline.cpp).
Computation remove_dead(const Computation& c);        // what no result needs
Computation expand_composites(const Computation& c);  // ops without a kernel become the ops they are made of
// by_mode becomes one of its inputs; one with the attribute "noise", where `noise` is asked for, the first.
Computation select_mode(const Computation& c, Mode mode, bool noise = false);
Computation fold_transposes(const Computation& c);      // a transposed operand becomes a flag of the product
Computation simplify_algebra(const Computation& c);     // x * 1, x + 0, --x, reshape of reshape, ...
Computation fold_constants(const Computation& c);       // ops on constants only are computed now
Computation merge_common(const Computation& c);         // equal nodes become one
Computation join_parts(const Computation& c);           // gradients of slices become concats
Computation join_products(const Computation& c);        // sums of many products become one product
Computation costs_with_slopes(const Computation& c);    // a cross-entropy and its slope become one node
Computation accumulate_products(const Computation& c);  // products that are added to something become one step
Computation update_rows(const Computation& c);          // updates of tables touch only the rows that were taken

// Which fused group each node belongs to; 0: none. Elementwise nodes of one shape and dtype that feed each other run
// as one step, tile by tile (passes/fuse_elementwise.cpp).
using Groups = std::vector<std::uint32_t>;
Groups fuse_elementwise(const Computation& c);
// The listing with the group of each node.
std::string to_string(const Computation& c, const Groups& groups);

// Each elementwise node as a group of its own.
Groups each_alone(const Computation& c);

// All of them in order, after the user's own. `log`, when given, is called with each pass's name and what it made.
using Log = std::function<void(std::string_view pass, const Computation& made)>;
Computation optimize(const Computation& c, Mode mode, const Log& log = {}, const std::vector<Pass>& own = {},
                     bool noise = false);
// Those alone without which it would not run, after the user's own.
Computation as_built(const Computation& c, Mode mode, const Log& log = {}, const std::vector<Pass>& own = {},
                     bool noise = false);

// Random numbers that are made from the State's step are made from a further input instead, whose number is that of
// the graph's inputs, if there are any such. (passes/draw_each_run.cpp)
Computation draw_each_run(const Computation& c, detail::NodeId step);

}  // namespace chainrule::passes
