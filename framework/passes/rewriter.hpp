// What a pass is made of: a computation in, and by way of a Rewriter an equivalent one out.
//
// A pass of a program's own (Request::passes) runs before the library's, on nodes as their user built them:
//
//   cr::passes::Computation relu_to_gelu(const cr::passes::Computation& c) {
//     return cr::passes::Rewriter(c).run([](cr::passes::Rewriter& r, const cr::Node& node) {
//       return node.op().name == "relu" ? my_gelu(r.now(node.input(0))) : r.copy(node);
//     });
//   }
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule::passes {

// A graph and what is asked of it. Passes make a new graph with what these results need, and leave the old one alone;
// one that finds nothing to do returns the old one.
struct Computation {
  Graph graph;
  Values results;

  // The listing of the graph, one line a node, and the results.
  [[nodiscard]] std::string to_string() const;
};

// Walks the nodes that the results need in the order of the graph and builds the new graph from what `visit` returns
// for each: a value of the new graph that stands for the node from then on (of several outputs, for the first; the
// others then are the further outputs of that value's node, unless replace() says otherwise). Linear, without
// recursion. Nodes that nothing needs are left behind, so every pass removes dead nodes. Where all was copied as it
// was, the result is the graph that came in, unless a new one is asked for.
class Rewriter {
 public:
  // `from` must outlive it.
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
  // A node of one output as it was, before its turn: its inputs have had theirs, and it is not visited any more.
  Value copy_ahead(const Node& node);
  // Values that stand for all outputs of the node being visited. Returns the first, for `visit` to return.
  Value replace(const Node& node, const Values& outputs);
  Graph& graph() { return to_; }

 private:
  void set(std::uint32_t old, Value made);

  const Computation& from_;
  Graph to_;
  std::vector<Value> now_;
  std::vector<char> needed_;
  std::size_t copies_ = 0;  // of nodes as they were
};

// A pass by its name, as Program::explain() prints it. It returns as many results as it was given, of the same types;
// what it looks at and leaves alone it returns as it is.
struct Pass {
  std::string name;
  std::function<Computation(const Computation&)> run;
};

}  // namespace chainrule::passes
