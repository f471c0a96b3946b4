// Inside of a Graph: nodes in one list, cheap to append and to copy. Not installed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <chainrule/framework/core/small_vector.hpp>
#include <chainrule/framework/core/stable_vector.hpp>
#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/graph/op.hpp>

namespace chainrule::detail {

using NodeId = std::uint32_t;
inline constexpr NodeId no_node = ~NodeId{0};

using InputList = SmallVector<NodeId, 3>;  // nearly all nodes have no more

// A shape as nodes have it: of equal shapes the process keeps one, and this is its address. A graph has a handful of
// shapes and maybe 100,000 nodes, which every pass reads and most passes copy. Shapes are kept like the expressions in
// them (class DimensionTable), and never dropped.
class NodeShape {
 public:
  NodeShape() : shape_(scalar()) {}
  NodeShape(const Shape& shape) : shape_(kept(shape)) {}
  operator const Shape&() const { return *shape_; }
  [[nodiscard]] std::size_t rank() const { return shape_->rank(); }
  [[nodiscard]] const Dimension* begin() const { return shape_->begin(); }
  [[nodiscard]] const Dimension* end() const { return shape_->end(); }
  Dimension operator[](std::size_t i) const { return (*shape_)[i]; }
  friend bool operator==(NodeShape a, NodeShape b) { return a.shape_ == b.shape_; }

 private:
  static const Shape* kept(const Shape& shape);
  static const Shape* scalar() {
    static const Shape* const shape = kept({});
    return shape;
  }
  const Shape* shape_;
};

// A node's Type.
struct NodeType {
  DType dtype = float64;
  NodeShape shape;
  NodeType() = default;
  NodeType(const Type& type) : NodeType(type.dtype, type.shape) {}
  NodeType(DType of, const Shape& with) : dtype(of), shape(with) {}
  operator Type() const { return {dtype, shape}; }
  friend bool operator==(const NodeType&, const NodeType&) = default;
};

struct NodeData {
  const Op* op = nullptr;
  InputList inputs;
  NodeType type;
  Attributes attributes;
  Location at;
  // Of an input, variable or constant: its index in the tables below.
  std::uint32_t payload = 0;
  bool of_gradient = false;     // made by a gradient rule
  bool further_output = false;  // of output_op()
};

struct InputInfo {
  std::string name;
  NodeId node = no_node;
};

struct VariableInfo {
  std::string name;
  Initial initial;
  DType dtype = float64;
  NodeId node = no_node;
  bool trained = false;
};

struct AttachedUpdate {
  NodeId owner = no_node;
  NodeId variable = no_node;
  NodeId expression = no_node;
};

// The inputs and variables of a graph: shared with the graphs that passes make of it. In deques, since references to
// them must survive additions.
struct LeafTable {
  std::deque<InputInfo> inputs;
  std::deque<VariableInfo> variables;
};

// What inputs, variables and constants are ops of; they are leaves and stand outside the registry.
const Op& input_op();
const Op& variable_op();
const Op& constant_op();
// What outputs of a node beyond the first are ops of, outside the registry as well. They are nodes of their own, right
// behind the one that computes them (their input), in their order and all of them: so each value has one number, a
// dtype, a shape and a life, and nodes of one output cost nothing. Their payload is which output they are.
const Op& output_op();

// The number of a graph among all of the process: by it a Value finds out whether its graph still lives.
class GraphNumber {
 public:
  GraphNumber();
  ~GraphNumber();
  GraphNumber(const GraphNumber&) : GraphNumber() {}  // a copy is another graph
  GraphNumber& operator=(const GraphNumber&) { return *this; }
  operator std::uint32_t() const { return number_; }

 private:
  std::uint32_t number_;
};

// Which name scopes are open in a graph, and in which of them each of its nodes was made. A scope has a number of its
// own, so that it may end in any order.
class NameScopes {
 public:
  // `path` is the whole name, from the root. `next` here and below is the node that will be made next.
  std::uint64_t open(std::string path, NodeId next);
  void close(std::uint64_t number, NodeId next) noexcept;
  // Nodes from `next` on have been taken back.
  void take_back(NodeId next) noexcept { mark(next); }
  // Of the innermost open scope; empty at the root.
  [[nodiscard]] const std::string& path() const { return paths_[current()]; }
  [[nodiscard]] const std::string* path_of_open(std::uint64_t number) const;
  [[nodiscard]] std::string inside(std::string_view name) const;
  // Of the scope that a node was made in.
  [[nodiscard]] const std::string& path_of(NodeId node) const;

 private:
  struct Open {
    std::uint64_t number;
    std::uint32_t path;  // an index of paths_
  };
  // From this node on, nodes are of that path, up to the next mark.
  struct Mark {
    NodeId first;
    std::uint32_t path;
  };
  [[nodiscard]] std::uint32_t current() const { return open_.empty() ? 0 : open_.back().path; }
  void mark(NodeId next) noexcept;

  std::deque<std::string> paths_ = {""};
  std::vector<Open> open_;
  std::vector<Mark> marks_;  // with room for the ends of all that are open
  std::uint64_t last_number_ = 0;
};

class GraphData : public std::enable_shared_from_this<GraphData> {
 public:
  GraphNumber number_in_process;
  GraphOptions options;
  StableVector<NodeData> nodes;
  std::shared_ptr<LeafTable> leaves = std::make_shared<LeafTable>();
  std::vector<std::shared_ptr<const Array>> constants;
  std::vector<AttachedUpdate> attached;
  std::unordered_map<std::string, NodeId> names;
  std::unordered_map<std::string, std::int64_t> names_used;  // by what unique_name() was asked for: its last number
  NameScopes scopes;
  std::array<std::shared_ptr<const Array>, 8> recent_numbers;
  std::size_t next_number = 0;  // of those: the one to give up
  NodeId step = no_node;
  NodeId epoch = no_node;
  std::uint32_t streams = 0;  // of random masks
  // The composite that is being expanded, which may add no leaf.
  const Op* expanding = nullptr;
  // Whether a pass makes it, of a graph whose leaves it has: it may add none either.
  bool shares_leaves = false;

  [[nodiscard]] const NodeData& node(NodeId id) const { return nodes[id]; }
  // The node that computes a value: its own, or the one of which it is a further output.
  [[nodiscard]] NodeId owner(NodeId id) const {
    const NodeData& n = nodes[id];
    return n.further_output ? n.inputs[0] : id;
  }
  // The values that a value is computed from. (A further output is not computed from the first.)
  [[nodiscard]] const InputList& inputs_of(NodeId id) const { return nodes[owner(id)].inputs; }
  // How many outputs a node has; of a further output as of its owner.
  [[nodiscard]] NodeId output_count(NodeId id) const;
  Value append(NodeData node);
  // A node with several outputs, of which the first has node.type.
  Value append(NodeData node, std::span<const NodeType> further);
  // `made` in place of a node of another graph (or this one), with as many outputs of the same types.
  Value append_like(const GraphData& from, NodeId id, NodeData made);
  Value constant(std::shared_ptr<const Array> value, Location at);
  Value constant(Array value, Location at) { return constant(std::make_shared<const Array>(std::move(value)), at); }
  // A scalar. Nodes of the same number share its array.
  Value number(Number value, DType dtype, Location at);
  [[nodiscard]] std::string display_name(NodeId id) const;
  // As errors name it: the name of an input, parameter or variable, else its op and line.
  [[nodiscard]] std::string describe(NodeId id) const;
  // The printed line of a node.
  [[nodiscard]] std::string line(NodeId id) const;
};

// While one lives, the names of what its graph is given begin at the root, whatever scopes are open.
class RootScope {
 public:
  explicit RootScope(GraphData* graph)
      : graph_(graph), number_(graph->scopes.open("", static_cast<NodeId>(graph->nodes.size()))) {}
  ~RootScope() { graph_->scopes.close(number_, static_cast<NodeId>(graph_->nodes.size())); }
  RootScope(const RootScope&) = delete;
  RootScope& operator=(const RootScope&) = delete;

 private:
  GraphData* graph_;
  std::uint64_t number_;
};

// While one lives, nodes built on this thread carry its location: nodes made by a gradient rule or a pass belong to
// the user's line of the node that they were made for.
class LocationScope {
 public:
  explicit LocationScope(Location at);
  ~LocationScope();
  LocationScope(const LocationScope&) = delete;
  LocationScope& operator=(const LocationScope&) = delete;

 private:
  const Location* outer_;
  Location at_;
};

// `at`, or what the innermost LocationScope says.
Location scoped(Location at);

// What the outputs of a composite node stand for, in other nodes of its graph. Throws Error for an expansion that
// returns too few or too many values, one of another graph, dtype or shape, adds a leaf, or comes to no end.
Values expand(Value composite);

// Whether a node is a constant whose elements are all this number.
bool is_constant(Value value, double number);
// The array of a constant node, or nullptr.
const Array* constant_value(Value value);

}  // namespace chainrule::detail
