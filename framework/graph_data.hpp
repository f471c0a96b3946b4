// Inside of a Graph: nodes in one list, cheap to append and to copy. Not installed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <chainrule/framework/graph.hpp>
#include <chainrule/framework/op.hpp>
#include <chainrule/framework/stable_vector.hpp>

namespace chainrule::detail {

using NodeId = std::uint32_t;
inline constexpr NodeId no_node = ~NodeId{0};

// The inputs of a node: three without a heap allocation, since nearly all nodes have no more.
class InputList {
 public:
  InputList() = default;
  void push_back(NodeId id) {
    if (size_ < inline_.size()) {
      inline_[size_] = id;
    } else {
      if (size_ == inline_.size()) more_.assign(inline_.begin(), inline_.end());
      more_.push_back(id);
    }
    ++size_;
  }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] const NodeId* begin() const { return size_ <= inline_.size() ? inline_.data() : more_.data(); }
  [[nodiscard]] const NodeId* end() const { return begin() + size_; }
  NodeId operator[](std::size_t i) const { return begin()[i]; }
  friend bool operator==(const InputList& a, const InputList& b) {
    return a.size_ == b.size_ && std::equal(a.begin(), a.end(), b.begin());
  }

 private:
  std::array<NodeId, 3> inline_{};
  std::uint32_t size_ = 0;
  std::vector<NodeId> more_;
};

struct NodeData {
  const Op* op = nullptr;
  InputList inputs;
  Type type;
  Attributes attributes;
  Location at;
  // Of an input, variable or constant: its index in the tables below.
  std::uint32_t payload = 0;
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

class GraphData : public std::enable_shared_from_this<GraphData> {
 public:
  GraphOptions options;
  StableVector<NodeData> nodes;
  std::shared_ptr<LeafTable> leaves = std::make_shared<LeafTable>();
  std::vector<std::shared_ptr<const Array>> constants;
  std::vector<AttachedUpdate> attached;
  std::unordered_map<std::string, NodeId> names;
  NodeId step = no_node;
  NodeId epoch = no_node;
  std::uint32_t streams = 0;  // of random masks

  [[nodiscard]] const NodeData& node(NodeId id) const { return nodes[id]; }
  Value append(NodeData node);
  Value constant(Array value, Location at);
  [[nodiscard]] std::string display_name(NodeId id) const;
  // The printed line of a node.
  [[nodiscard]] std::string line(NodeId id) const;
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

// Whether a node is a constant whose elements are all this number.
bool is_constant(Value value, double number);
// The array of a constant node, or nullptr.
const Array* constant_value(Value value);

}  // namespace chainrule::detail
