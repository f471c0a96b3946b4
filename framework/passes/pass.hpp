// A pass: a graph in, an equivalent and better graph out. Not installed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/mode.hpp>

namespace chainrule::passes {

// A graph and what is asked of it. Passes make a new graph with what these results need, and leave the old one alone;
// one that finds nothing to do returns the old one.
struct Computation {
  Graph graph;
  Values results;

  // The listing of the graph, one line a node, and the results.
  [[nodiscard]] std::string to_string() const;
};

// Whether a node of the graph is this op.
bool uses(const Computation& c, const Op* op);

// Walks the nodes that the results need in the order of the graph and builds the new graph from what `visit` returns
// for each: a value of the new graph that stands for the node from then on. Linear, without recursion. Nodes that
// nothing needs are left behind, so every pass removes dead nodes. Where all was copied as it was, the result is the
// graph that came in, unless a new one is asked for.
class Rewriter {
 public:
  explicit Rewriter(const Computation& from);

  using Visit = std::function<Value(Rewriter&, const Node&)>;
  Computation run(const Visit& visit, bool new_graph = false);

  // A node that what stands for its readers does not read: it is not visited.
  void leave_out(std::uint32_t node) { needed_[node] = 0; }

  // The new value of an old one (an input of the node being visited).
  [[nodiscard]] Value now(Value old) const;
  [[nodiscard]] Values now_inputs(const Node& node) const;
  // The node as it was, on its new inputs.
  Value copy(const Node& node);
  // The same with other attributes or inputs.
  Value copy(const Node& node, const Values& inputs, const Attributes& attributes);
  Graph& graph() { return to_; }

 private:
  const Computation& from_;
  Graph to_;
  std::vector<Value> now_;
  std::vector<char> needed_;
  std::size_t copies_ = 0;  // of nodes as they were
};

// Which nodes the results need, by id.
std::vector<char> needed_nodes(const Computation& c);

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
Computation remove_dead(const Computation& c);             // what no result needs
Computation expand_composites(const Computation& c);       // ops without a kernel become the ops they are made of
Computation select_mode(const Computation& c, Mode mode);  // by_mode becomes one of its inputs
Computation fold_transposes(const Computation& c);         // a transposed operand becomes a flag of the product
Computation simplify_algebra(const Computation& c);        // x * 1, x + 0, --x, reshape of reshape, ...
Computation fold_constants(const Computation& c);          // ops on constants only are computed now
Computation merge_common(const Computation& c);            // equal nodes become one
Computation accumulate_products(const Computation& c);     // products that are added to something become one step

// Which fused group each node belongs to; 0: none. Elementwise nodes of one shape and dtype that feed each other run
// as one step, tile by tile (passes/fuse_elementwise.cpp).
using Groups = std::vector<std::uint32_t>;
Groups fuse_elementwise(const Computation& c);
// The listing with the group of each node.
std::string to_string(const Computation& c, const Groups& groups);

// All of them in order. `log`, when given, is called with each pass's name and what it made.
using Log = std::function<void(std::string_view pass, const Computation& made)>;
Computation optimize(const Computation& c, Mode mode, const Log& log = {});

}  // namespace chainrule::passes
