// Graph: what is computed. Nodes are only appended; a Value is an output of a node: a dtype and a shape, no numbers.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/core/held.hpp>
#include <chainrule/framework/core/number.hpp>
#include <chainrule/framework/core/shape.hpp>
#include <chainrule/framework/graph/attributes.hpp>
#include <chainrule/framework/graph/initial.hpp>
#include <chainrule/framework/graph/name_patterns.hpp>

namespace chainrule {

class Graph;
class Node;
struct Op;

namespace detail {
class GraphData;
inline constexpr std::string_view graph_noun = "graph";
}  // namespace detail

// An output of a node: a small handle, valid as long as its graph (or a State or Program made from it) lives. Used
// later, it throws Error.
class Value {
 public:
  Value() = default;  // of no graph: not defined()
  Value(detail::GraphData* graph, std::uint32_t id);

  [[nodiscard]] const Shape& shape() const;
  [[nodiscard]] std::size_t rank() const { return shape().rank(); }
  [[nodiscard]] DType dtype() const;
  [[nodiscard]] Node node() const;
  [[nodiscard]] std::size_t output_index() const;  // which output of its node it is
  [[nodiscard]] Graph graph() const;
  // The name of an input, parameter or variable; else "%" and the node's number.
  [[nodiscard]] std::string name() const;
  // For messages: the name of an input, parameter or variable; else the op and line, "matmul at net.cpp:12".
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] Location location() const;
  [[nodiscard]] std::uint32_t id() const { return id_; }
  [[nodiscard]] detail::GraphData* data() const;

  // Whether it is a value of a graph. There is no conversion to bool: `if (loss < 0.1)` would ask that, not compare.
  [[nodiscard]] bool defined() const { return graph_ != nullptr; }
  // Whether both are the same output of the same node. (equal(a, b) compares numbers, in a run.)
  friend bool operator==(const Value&, const Value&) = default;

 private:
  detail::GraphData* graph_ = nullptr;
  std::uint32_t id_ = 0;
  std::uint32_t graph_number_ = 0;
};

using Values = std::vector<Value>;

// An operand of + - * / and of the functions of two arguments: a value, a number, an array or the size of a
// dimension, together with the line of the program where it was written. A number or an array takes the dtype of the
// other operand: rounded where that is floating; beside whole numbers it must be whole, and is taken exactly.
class Operand {
 public:
  template <class T>
  requires(std::convertible_to<const T&, Value>) Operand(const T& value, Location at = Location::here())
      : value_(value), at_(at) {}
  template <class T>
  requires std::is_arithmetic_v<T> Operand(T number, Location at = Location::here())
      : number_(number, at), kind_(Kind::number), at_(at) {}
  Operand(Array array, Location at = Location::here())
      : array_(std::make_shared<const Array>(std::move(array))), kind_(Kind::array), at_(at) {}
  Operand(Dimension dimension, Location at = Location::here())
      : dimension_(dimension), kind_(Kind::dimension), at_(at) {}

  [[nodiscard]] Location location() const { return at_; }
  [[nodiscard]] bool is_value() const { return kind_ == Kind::value; }
  // As a value of the graph and dtype of `like`.
  [[nodiscard]] Value resolve(Value like) const;
  [[nodiscard]] Value value() const { return value_; }
  // For messages.
  [[nodiscard]] std::string describe() const;
  [[nodiscard]] bool is_dimension() const { return kind_ == Kind::dimension; }

 private:
  enum class Kind : std::uint8_t { value, number, array, dimension };
  Value value_;
  Number number_ = 0;
  std::shared_ptr<const Array> array_;
  Dimension dimension_;
  Kind kind_ = Kind::value;
  Location at_;
};

// One node, as gradient rules, expansions and passes see it.
class Node {
 public:
  Node(detail::GraphData* graph, std::uint32_t id, std::uint64_t wanted = ~std::uint64_t{0})
      : graph_(graph), id_(id), wanted_(wanted) {}

  [[nodiscard]] const Op& op() const;
  [[nodiscard]] std::size_t input_count() const;
  [[nodiscard]] Value input(std::size_t i) const;
  [[nodiscard]] Values inputs() const;
  [[nodiscard]] std::size_t output_count() const;
  // Throws Error where the node has no output i.
  [[nodiscard]] Value output(std::size_t i) const;
  [[nodiscard]] Value output() const { return {graph_, id_}; }  // the first
  [[nodiscard]] Values outputs() const;
  [[nodiscard]] const Shape& shape() const { return output().shape(); }
  [[nodiscard]] DType dtype() const { return output().dtype(); }
  [[nodiscard]] Location location() const { return output().location(); }
  [[nodiscard]] const Attributes& attributes() const;
  template <class T>
  [[nodiscard]] const T& attribute(std::string_view name) const {
    return attributes().template get<T>(name);
  }
  [[nodiscard]] std::uint32_t id() const { return id_; }
  [[nodiscard]] detail::GraphData* graph_data() const { return graph_; }

  // In a gradient rule: whether the contribution to input i will be used. A rule may leave out (return an empty
  // Value for) one that is not.
  [[nodiscard]] bool wants(std::size_t i) const { return i >= 64 || ((wanted_ >> i) & 1) != 0; }

 private:
  detail::GraphData* graph_;
  std::uint32_t id_;
  std::uint64_t wanted_;
};

struct GraphOptions {
  DType dtype = float64;   // of inputs and parameters that do not name their own
  std::uint64_t seed = 0;  // of initial values and dropout masks
};

// While one lives, the names of what its graph is given begin with its own: "encoder/0/" and so on. See Graph::scope().
class [[nodiscard]] NameScope {
 public:
  NameScope(NameScope&& other) noexcept;
  NameScope& operator=(NameScope&&) = delete;  // `scope = graph.scope("b")` would open b inside of the one that ends
  NameScope(const NameScope&) = delete;
  NameScope& operator=(const NameScope&) = delete;
  ~NameScope() { end(); }
  // From the root: "encoder/0". Throws Error where the scope has ended or was moved from.
  [[nodiscard]] std::string name(Location at = Location::here()) const;
  // Before its life does; again, it does nothing.
  void end() noexcept;

 private:
  friend class Graph;
  NameScope(std::shared_ptr<detail::GraphData> graph, std::string_view name);

  std::shared_ptr<detail::GraphData> graph_;
  std::uint64_t number_ = 0;  // among the graph's scopes
};

// A handle: copies are the same graph. (One that was moved from throws Error.)
class Graph {
 public:
  explicit Graph(GraphOptions options = {}, Location at = Location::here());
  explicit Graph(std::shared_ptr<detail::GraphData> data) : data_(std::move(data)) {}

  // A named size, known only in a run: `{2, batch}`. The same name is the same dimension.
  Dimension dimension(std::string_view name, Location at = Location::here());

  // A value that each run is fed. Throws Error for a name in use.
  Value input(std::string_view name, const Shape& shape, Location at = Location::here());
  Value input(std::string_view name, const Shape& shape, DType dtype, Location at = Location::here());
  // A value kept in the State and trained by optimizers, of the graph's dtype.
  Value parameter(std::string_view name, const Initial& initial, Location at = Location::here());
  // A value kept in the State and changed only by updates that name it: running statistics, optimizer slots.
  Value variable(std::string_view name, const Initial& initial, Location at = Location::here());
  Value variable(std::string_view name, const Initial& initial, DType dtype, Location at = Location::here());
  // Numbers fixed in the graph.
  Value constant(const Array& value, Location at = Location::here());
  Value constant(Number value, DType dtype, Location at = Location::here());
  // The number of updating runs of this State so far, and the epoch that the State was told; int64 scalars.
  Value step(Location at = Location::here());
  Value epoch(Location at = Location::here());

  // In a program that has updates and computes `owner`, `variable` becomes `expression` too (running averages of
  // batch_norm). Where a program computes several owners of one variable, their expressions follow each other in the
  // order of these calls: what reads the variable in a later one reads the result of the one before. (Only what
  // computes an owner does not: an owner's value is that of before the run.) Throws Error for values of another graph,
  // no variable, or an expression of another dtype or shape than it.
  void update_with(Value owner, Value variable, Value expression, Location at = Location::here());

  // Until the scope ends, "encoder/" stands before the names of new parameters and variables, and so of layers:
  // `auto scope = graph.scope("encoder");`. A scope inside of another continues its name: "encoder/0". Not named so are
  // inputs and dimensions, which callers of the network feed, what optimizers keep, and the step and epoch. The scope
  // is the graph's: other graphs have their own, and every handle of this one is inside. Where scopes end in another
  // order than the reverse of their beginning, the last that began of those that have not ended says what is written.
  // A name may be opened again. Throws Error for a name that is empty, or begins or ends with '/' or has two in a row.
  NameScope scope(std::string_view name, Location at = Location::here());

  // The input, parameter or variable of this name, scopes included; throws Error for an unknown one.
  [[nodiscard]] Value find(std::string_view name, Location at = Location::here()) const;
  [[nodiscard]] bool has(std::string_view name) const;
  // "name" where that followed by `ending` is free in the scope, else "name_2", "name_3", ...
  [[nodiscard]] std::string unique_name(std::string_view name, std::string_view ending = {}) const;
  [[nodiscard]] Values parameters() const;  // the trained ones, in order of creation
  // Those of these names, such as "encoder/*" (class NamePatterns), in order of creation. To train nothing else:
  // `minimize(loss, graph.parameters({"*", "!encoder/*"}))`. Throws Error for a pattern that no parameter matches.
  [[nodiscard]] Values parameters(const NamePatterns& patterns, Location at = Location::here()) const;
  [[nodiscard]] DType dtype() const;
  [[nodiscard]] std::uint64_t seed() const;
  [[nodiscard]] std::size_t size() const;  // values: outputs of all nodes
  // In the order in which they were added, so each after those that its inputs are outputs of.
  [[nodiscard]] std::vector<Node> nodes() const;

  // One line a node: name, op, inputs, attributes, dtype, shape, and the line of the program that made it.
  [[nodiscard]] std::string to_string() const;

  [[nodiscard]] const std::shared_ptr<detail::GraphData>& data() const { return data_.pointer(); }

 private:
  detail::Held<std::shared_ptr<detail::GraphData>, detail::graph_noun> data_;
};

}  // namespace chainrule
