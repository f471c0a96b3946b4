#include <chainrule/framework/graph/graph.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <mutex>
#include <unordered_set>

#include <fmt/core.h>

#include <chainrule/framework/core/printed.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

// ---- leaves

namespace detail {

namespace {

Op leaf(std::string name, std::string doc) {
  Op op;
  op.name = std::move(name);
  op.doc = std::move(doc);
  return op;
}

thread_local const Location* location_scope = nullptr;

struct ShapeHash {
  std::size_t operator()(const Shape& shape) const {
    std::size_t h = shape.rank();
    for (const Dimension d : shape) h = (h ^ d.hash()) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 32);
  }
};

}  // namespace

const Shape* NodeShape::kept(const Shape& shape) {
  // What this thread asked for last needs no lock.
  thread_local std::array<const Shape*, 64> recent{};
  const Shape*& last = recent[ShapeHash{}(shape) % recent.size()];
  if (last && *last == shape) return last;
  static std::mutex mutex;
  static auto* shapes = new std::unordered_set<Shape, ShapeHash>;  // never destroyed: nodes may be printed during exit
  const std::lock_guard lock(mutex);
  return last = &*shapes->insert(shape).first;
}

const Op& input_op() {
  static const Op op = leaf("input", "A value that each run is fed.");
  return op;
}
const Op& variable_op() {
  static const Op op = leaf("variable", "A value that the State keeps from run to run.");
  return op;
}
const Op& constant_op() {
  static const Op op = leaf("constant", "Numbers fixed in the graph.");
  return op;
}
const Op& output_op() {
  static const Op op = leaf("output", "An output of a node beyond the first.");
  return op;
}

namespace {

// The graphs that live.
class LivingGraphs {
 public:
  static LivingGraphs& instance() {
    static auto* graphs = new LivingGraphs;  // never destroyed: graphs of static storage end later
    return *graphs;
  }
  std::uint32_t add() {
    const std::lock_guard lock(mutex_);
    numbers_.insert(++last_);
    return last_;
  }
  void remove(std::uint32_t number) {
    const std::lock_guard lock(mutex_);
    numbers_.erase(number);
    deaths.fetch_add(1, std::memory_order_release);
  }
  // A thread that asks for some of them again and again, as passes do that read one and write another, needs no lock
  // while none dies.
  static bool have(std::uint32_t number) {
    Found& found = recent[number % recent.size()];
    return (found.number == number && found.deaths == deaths.load(std::memory_order_acquire)) ||
           instance().find(number, found);
  }

 private:
  struct Found {
    std::uint32_t number = 0;
    std::uint64_t deaths = 0;  // until then
  };
  bool find(std::uint32_t number, Found& found) {
    const std::lock_guard lock(mutex_);
    if (!numbers_.contains(number)) return false;
    found = {number, deaths.load(std::memory_order_relaxed)};
    return true;
  }

  static constinit std::atomic<std::uint64_t> deaths;
  static constinit thread_local std::array<Found, 8> recent;
  std::mutex mutex_;
  std::unordered_set<std::uint32_t> numbers_;
  std::uint32_t last_ = 0;
};
constinit std::atomic<std::uint64_t> LivingGraphs::deaths = 0;
constinit thread_local std::array<LivingGraphs::Found, 8> LivingGraphs::recent{};

}  // namespace

GraphNumber::GraphNumber() : number_(LivingGraphs::instance().add()) {}
GraphNumber::~GraphNumber() { LivingGraphs::instance().remove(number_); }

LocationScope::LocationScope(Location at) : outer_(location_scope), at_(at) { location_scope = &at_; }
LocationScope::~LocationScope() { location_scope = outer_; }
Location scoped(Location at) { return location_scope ? *location_scope : at; }

std::uint64_t NameScopes::open(std::string path, NodeId next) {
  paths_.push_back(std::move(path));
  open_.push_back({last_number_ + 1, static_cast<std::uint32_t>(paths_.size() - 1)});
  // This one's beginning, and the ends of all: ends may not throw.
  if (const std::size_t needed = marks_.size() + 1 + open_.size(); needed > marks_.capacity()) {
    try {
      marks_.reserve(2 * needed);
    } catch (...) {
      open_.pop_back();
      throw;
    }
  }
  mark(next);
  return ++last_number_;
}

void NameScopes::close(std::uint64_t number, NodeId next) noexcept {
  std::erase_if(open_, [number](const Open& scope) { return scope.number == number; });
  mark(next);
}

void NameScopes::mark(NodeId next) noexcept {
  while (!marks_.empty() && marks_.back().first >= next) marks_.pop_back();
  if ((marks_.empty() ? 0 : marks_.back().path) != current()) marks_.push_back({next, current()});
}

const std::string* NameScopes::path_of_open(std::uint64_t number) const {
  const auto scope =
      std::find_if(open_.begin(), open_.end(), [number](const Open& open) { return open.number == number; });
  return scope == open_.end() ? nullptr : &paths_[scope->path];
}

std::string NameScopes::inside(std::string_view name) const {
  return path().empty() ? std::string(name) : fmt::format("{}/{}", path(), name);
}

const std::string& NameScopes::path_of(NodeId node) const {
  const auto after =
      std::upper_bound(marks_.begin(), marks_.end(), node, [](NodeId id, const Mark& mark) { return id < mark.first; });
  return paths_[after == marks_.begin() ? 0 : std::prev(after)->path];
}

Value GraphData::append(NodeData node) {
  invariant(nodes.size() < no_node, "a graph of more than 2^32 - 1 nodes");
  nodes.push_back(std::move(node));
  return {this, static_cast<NodeId>(nodes.size() - 1)};
}

NodeId GraphData::output_count(NodeId id) const {
  const NodeId first = owner(id);
  NodeId end = first + 1;
  if (nodes[first].op->has_several_outputs())
    while (end < nodes.size() && nodes[end].further_output) ++end;
  return end - first;
}

Value GraphData::append(NodeData node, std::span<const NodeType> further) {
  const Location at = node.at;
  const Value first = append(std::move(node));
  try {
    for (const NodeType& type : further) {
      NodeData output;
      output.op = &output_op();
      output.further_output = true;
      output.inputs.push_back(first.id());
      output.type = type;
      output.at = at;
      output.payload = static_cast<std::uint32_t>(nodes.size()) - first.id();
      append(std::move(output));
    }
  } catch (...) {
    nodes.truncate(first.id());
    throw;
  }
  return first;
}

Value GraphData::append_like(const GraphData& from, NodeId id, NodeData made) {
  if (!made.op->has_several_outputs()) return append(std::move(made));
  std::vector<NodeType> further;
  for (NodeId i = 1; i < from.output_count(id); ++i) further.push_back(from.node(id + i).type);
  return append(std::move(made), further);
}

Value GraphData::constant(std::shared_ptr<const Array> value, Location at) {
  NodeData node;
  node.op = &constant_op();
  node.type = {value->dtype(), to_shape(value->shape())};
  node.at = scoped(at);
  node.payload = static_cast<std::uint32_t>(constants.size());
  Attempt attempt(this);
  constants.push_back(std::move(value));
  const Value made = append(std::move(node));
  attempt.succeed();
  return made;
}

Value GraphData::number(Number value, DType dtype, Location at) {
  const Array made = Array::full(dtype, Dims{}, value);
  for (const auto& recent : recent_numbers)
    if (recent && recent->identical(made)) return constant(recent, at);
  auto& slot = recent_numbers[next_number++ % recent_numbers.size()];
  slot = std::make_shared<const Array>(made);
  return constant(slot, at);
}

std::string GraphData::display_name(NodeId id) const {
  const NodeData& n = nodes[id];
  if (n.op == &input_op()) return leaves->inputs[n.payload].name;
  if (n.op == &variable_op()) return leaves->variables[n.payload].name;
  return fmt::format("%{}", id);
}

std::string GraphData::describe(NodeId id) const {
  const NodeData& n = nodes[id];
  if (n.op == &input_op() || n.op == &variable_op()) return display_name(id);
  const Array* number = constant_value({const_cast<GraphData*>(this), id});
  std::string what = number && number->rank() == 0 ? number->to_string() : n.op->name;
  if (n.further_output) what = fmt::format("output {} of {}", n.payload, nodes[owner(id)].op->name);
  return n.at.known() ? fmt::format("{} at {}", what, n.at.to_string())
                      : fmt::format("{} ({})", what, display_name(id));
}

std::string GraphData::line(NodeId id) const {
  id = owner(id);
  const NodeData& n = nodes[id];
  std::string arguments;
  for (const NodeId input : n.inputs) {
    if (!arguments.empty()) arguments += ", ";
    // A small constant is easier to read than its number.
    const Array* value = constant_value({const_cast<GraphData*>(this), input});
    if (!value || value->rank() != 0) {
      arguments += display_name(input);
    } else if (value->dtype() == float32) {
      // 0.1, not the double nearest to its float
      arguments += fmt::format("{}", detail::printed(*value->data<float>()));
    } else if (value->dtype() == int64) {
      arguments += fmt::format("{}", *value->data<std::int64_t>());
    } else {
      arguments += fmt::format("{}", (*value)[0]);
    }
  }
  if (n.op == &constant_op()) {
    const Array& value = *constants[n.payload];
    arguments = value.size() <= 4 ? value.to_string() : "...";
  }
  if (!n.attributes.empty() && !n.op->attributes.are_defaults(n.attributes))
    arguments += fmt::format("{}{}", arguments.empty() ? "" : ", ", n.attributes.to_string());
  const bool leaf = n.op == &input_op() || n.op == &variable_op();
  std::string outputs;
  std::string types;
  for (NodeId output = id; output < id + output_count(id); ++output) {
    const NodeType& type = nodes[output].type;
    outputs += fmt::format("{}{}", outputs.empty() ? "" : ", ", display_name(output));
    types += fmt::format("{}{} {}", types.empty() ? "" : ", ", chainrule::name(type.dtype),
                         chainrule::to_string(type.shape));
  }
  return fmt::format("{} = {}{}  {}{}{}", outputs,
                     n.op == &variable_op() && leaves->variables[n.payload].trained ? "parameter" : n.op->name,
                     leaf ? "" : "(" + arguments + ")", types, n.at.known() ? "  " : "", n.at.to_string());
}

const Array* constant_value(Value value) {
  const GraphData& graph = *value.data();
  const NodeData& node = graph.node(value.id());
  return node.op == &constant_op() ? graph.constants[node.payload].get() : nullptr;
}

bool is_constant(Value value, double number) {
  const Array* array = constant_value(value);
  return array && array->size() == 1 && (*array)[0] == number;
}

}  // namespace detail

void detail::throw_moved_from(std::string_view noun) {
  throw Error(noun, fmt::format("requires a {} that holds something, got one that was moved from", noun));
}

// ---- Value and Node

namespace {

const NodeData& data_of(Value value) {
  const GraphData* graph = value.data();
  if (!graph) throw Error("value", "requires a value of a graph, got an empty Value");
  return graph->node(value.id());
}

}  // namespace

Value::Value(GraphData* graph, std::uint32_t id)
    : graph_(graph), id_(id), graph_number_(graph ? std::uint32_t{graph->number_in_process} : 0) {}

GraphData* Value::data() const {
  if (graph_ && !detail::LivingGraphs::have(graph_number_))
    throw Error("value", fmt::format("requires a value of a graph that there is, got %{} of one that is gone", id_));
  return graph_;
}

const Shape& Value::shape() const { return data_of(*this).type.shape; }
DType Value::dtype() const { return data_of(*this).type.dtype; }
Location Value::location() const { return data_of(*this).at; }
std::string Value::name() const { return data_of(*this), graph_->display_name(id_); }
std::string Value::describe() const { return data_of(*this), graph_->describe(id_); }
Node Value::node() const { return data_of(*this), Node(graph_, graph_->owner(id_)); }
std::size_t Value::output_index() const { return data_of(*this), id_ - graph_->owner(id_); }
Graph Value::graph() const { return data_of(*this), Graph(graph_->shared_from_this()); }

const Op& Node::op() const { return *graph_->node(id_).op; }
std::size_t Node::input_count() const { return graph_->node(id_).inputs.size(); }
const Attributes& Node::attributes() const { return graph_->node(id_).attributes; }

Value Node::input(std::size_t i) const {
  const auto& inputs = graph_->node(id_).inputs;
  if (i >= inputs.size())
    throw Error(location(), op().name, fmt::format("has {} inputs, and its rule asked for input {}", inputs.size(), i));
  return {graph_, inputs[i]};
}

Values Node::inputs() const {
  Values out;
  for (const NodeId id : graph_->node(id_).inputs) out.emplace_back(graph_, id);
  return out;
}

std::size_t Node::output_count() const { return graph_->output_count(id_); }

Value Node::output(std::size_t i) const {
  if (i >= output_count())
    throw Error(location(), op().name, fmt::format("has {} outputs, and output {} was asked for", output_count(), i));
  return {graph_, id_ + static_cast<NodeId>(i)};
}

Values Node::outputs() const {
  Values out;
  for (NodeId i = 0; i < output_count(); ++i) out.emplace_back(graph_, id_ + i);
  return out;
}

std::string Operand::describe() const {
  switch (kind_) {
    case Kind::value: return value_.defined() ? value_.describe() : "an empty Value";
    case Kind::number: return number_.to_string();
    case Kind::array: return fmt::format("an array {}", chainrule::to_string(array_->shape()));
    case Kind::dimension: break;
  }
  return dimension_.to_string();
}

Value Operand::resolve(Value like) const {
  if (!is_value() && !like.defined()) throw Error(at_, "operand", "requires values of a graph, got an empty Value");
  switch (kind_) {
    case Kind::value: return value_;
    case Kind::number: {
      DType dtype = like.dtype();
      if (dtype == boolean) dtype = float64;
      if (dtype == int64 && !number_.is<std::int64_t>())
        throw Error(at_, "operand",
                    fmt::format("requires {} beside an int64 value, got {}",
                                std::abs(number_.as<double>()) < 0x1p63 ? "a whole number" : "a number of its range",
                                number_.to_string()));
      return like.data()->number(number_, dtype, at_);
    }
    case Kind::array: {
      const DType dtype = like.dtype();
      if (array_->dtype() == dtype || dtype == boolean) return like.data()->constant(array_, at_);
      if (is_floating(dtype)) return like.data()->constant(array_->astype(dtype), at_);
      Array whole(dtype, array_->shape());
      const detail::Block given = detail::block_of(*array_);
      if (const std::int64_t lost = detail::convert(given, whole); lost >= 0)
        throw Error(at_, "operand",
                    fmt::format("requires whole numbers of its range beside an int64 value, got {}",
                                detail::element_text(given, lost)));
      return like.data()->constant(std::move(whole), at_);
    }
    case Kind::dimension: break;
  }
  if (dimension_.is_number()) return like.data()->number(dimension_.extent(), like.dtype(), at_);
  const Op* extent = find_op("extent");
  invariant(extent != nullptr, "op 'extent' is not registered");
  return apply(like.graph(), *extent, {}, {{"shape", Shape{dimension_}}, {"dtype", like.dtype()}}, at_);
}

// ---- NameScope

NameScope::NameScope(std::shared_ptr<GraphData> graph, std::string_view name)
    : graph_(std::move(graph)),
      number_(graph_->scopes.open(graph_->scopes.inside(name), static_cast<NodeId>(graph_->nodes.size()))) {}

NameScope::NameScope(NameScope&& other) noexcept : graph_(std::move(other.graph_)), number_(other.number_) {}

std::string NameScope::name(Location at) const {
  if (!graph_) throw Error(at, "scope", "requires a scope that is open, got one that has ended or was moved from");
  return *graph_->scopes.path_of_open(number_);
}

void NameScope::end() noexcept {
  if (graph_) graph_->scopes.close(number_, static_cast<NodeId>(graph_->nodes.size()));
  graph_.reset();
}

// ---- Graph

Graph::Graph(GraphOptions options, Location at) : data_(std::make_shared<GraphData>()) {
  if (!is_floating(options.dtype))
    throw Error(at, "graph", fmt::format("requires dtype float32 or float64, got {}", chainrule::name(options.dtype)));
  data_->options = options;
}

Dimension Graph::dimension(std::string_view name, Location at) {
  if (name.empty()) throw Error(at, "dimension", "requires a name, got an empty one");
  return Dimension::symbol(name);
}

namespace {

void require_open(const GraphData& graph, std::string_view added, Location at) {
  if (graph.expanding)
    throw Error(
        detail::scoped(at), graph.expanding->name,
        fmt::format("requires an expansion that adds no inputs, parameters, variables or updates, got '{}'", added));
  if (graph.shares_leaves)
    throw Error(detail::scoped(at), "graph",
                fmt::format("requires a pass that adds no inputs, parameters, variables or updates, got '{}'", added));
}

void require_free_name(const GraphData& graph, std::string_view name, std::string_view op, Location at) {
  require_open(graph, name, at);
  if (name.empty()) throw Error(at, op, "requires a name, got an empty one");
  const auto it = graph.names.find(std::string(name));
  if (it == graph.names.end()) return;
  const Location first = graph.node(it->second).at;
  throw Error(at, op,
              fmt::format("requires a name that is not in use, got '{}'{}", name,
                          first.known() ? ", used at " + first.to_string() : ""));
}

// Of symbols the State would have to know a size that only a run has.
void require_numbers(std::string_view name, const Initial& initial, std::string_view op, Location at) {
  if (const Shape* symbolic = initial.symbolic_shape())
    throw Error(at, op, fmt::format("requires extents that are numbers for '{}', got {}", name, to_string(*symbolic)));
}

Value add_variable(GraphData& graph, std::string_view given, const Initial& initial, DType floating, bool trained,
                   Location at) {
  const std::string name = given.empty() ? std::string() : graph.scopes.inside(given);
  require_numbers(name, initial, trained ? "parameter" : "variable", at);
  const DType dtype = trained ? floating : initial.dtype(floating);
  require_free_name(graph, name, trained ? "parameter" : "variable", at);
  detail::Attempt attempt(&graph);
  NodeData node;
  node.op = &detail::variable_op();
  node.type = {dtype, to_shape(initial.shape())};
  node.at = detail::scoped(at);
  node.payload = static_cast<std::uint32_t>(graph.leaves->variables.size());
  graph.leaves->variables.push_back(
      {std::string(name), initial, dtype, static_cast<NodeId>(graph.nodes.size()), trained});
  const Value made = graph.append(std::move(node));
  graph.names.emplace(name, made.id());
  attempt.succeed();
  return made;
}

}  // namespace

Value Graph::input(std::string_view name, const Shape& shape, Location at) {
  return input(name, shape, data_->options.dtype, at);
}

Value Graph::input(std::string_view name, const Shape& shape, DType dtype, Location at) {
  for (const auto d : shape)
    if (d.is_inferred())
      throw Error(at, "input",
                  fmt::format("requires a size or a named dimension, got {}", chainrule::to_string(shape)));
  require_free_name(*data_, name, "input", at);
  detail::Attempt attempt(data_.get());
  NodeData node;
  node.op = &detail::input_op();
  node.type = {dtype, shape};
  node.at = detail::scoped(at);
  node.payload = static_cast<std::uint32_t>(data_->leaves->inputs.size());
  data_->leaves->inputs.push_back({std::string(name), static_cast<NodeId>(data_->nodes.size())});
  const Value made = data_->append(std::move(node));
  data_->names.emplace(name, made.id());
  attempt.succeed();
  return made;
}

Value Graph::parameter(std::string_view name, const Initial& initial, Location at) {
  return add_variable(*data_, name, initial, data_->options.dtype, true, at);
}

Value Graph::variable(std::string_view name, const Initial& initial, Location at) {
  return add_variable(*data_, name, initial, data_->options.dtype, false, at);
}

Value Graph::variable(std::string_view name, const Initial& initial, DType dtype, Location at) {
  require_numbers(name, initial, "variable", at);
  if (initial.dtype(dtype) != dtype)
    return add_variable(*data_, name, Initial(initial.draw(dtype, 0, 0).astype(dtype)), dtype, false, at);
  if (!is_floating(dtype) && initial.dtype(float64) != dtype)
    return add_variable(*data_, name, Initial(initial.draw(dtype, 0, 0).astype(dtype)), dtype, false, at);
  return add_variable(*data_, name, initial, dtype, false, at);
}

Value Graph::constant(const Array& value, Location at) { return data_->constant(value, at); }

Value Graph::constant(Number value, DType dtype, Location at) { return data_->number(value, dtype, at); }

Value Graph::step(Location at) {
  const detail::RootScope root(data_.get());
  if (data_->step == detail::no_node) data_->step = variable("step", Initial(Array(std::int64_t{0})), at).id();
  return {data_.get(), data_->step};
}

Value Graph::epoch(Location at) {
  const detail::RootScope root(data_.get());
  if (data_->epoch == detail::no_node) data_->epoch = variable("epoch", Initial(Array(std::int64_t{0})), at).id();
  return {data_.get(), data_->epoch};
}

void Graph::update_with(Value owner, Value variable, Value expression, Location at) {
  for (const Value v : {owner, variable, expression})
    if (v.data() != data_.get())
      throw Error(at, "update_with",
                  fmt::format("requires values of this graph, got {}",
                              v.defined() ? v.describe() + " of another" : "an empty Value"));
  require_open(*data_, variable.describe(), at);
  const NodeData& node = data_->node(variable.id());
  if (node.op != &detail::variable_op())
    throw Error(at, "update_with", fmt::format("requires a variable, got {}", variable.describe()));
  if (!(node.type == data_->node(expression.id()).type))
    throw Error(
        at, "update_with",
        fmt::format("requires {} {} for {}, got {} {}", name(node.type.dtype), chainrule::to_string(node.type.shape),
                    variable.name(), name(expression.dtype()), chainrule::to_string(expression.shape())));
  data_->attached.push_back({owner.id(), variable.id(), expression.id()});
}

Value Graph::find(std::string_view name, Location at) const {
  const auto it = data_->names.find(std::string(name));
  if (it == data_->names.end()) {
    std::string known;
    for (const auto& input : data_->leaves->inputs) known += (known.empty() ? "" : ", ") + input.name;
    for (const auto& variable : data_->leaves->variables) known += (known.empty() ? "" : ", ") + variable.name;
    throw Error(
        at, "graph",
        fmt::format("has no input, parameter or variable '{}'; it has {}", name, known.empty() ? "none" : known));
  }
  return {data_.get(), it->second};
}

bool Graph::has(std::string_view name) const { return data_->names.contains(std::string(name)); }

std::string Graph::unique_name(std::string_view given, std::string_view ending) const {
  const std::string name = data_->scopes.inside(given);
  const auto taken = [&](std::int64_t i) {
    return data_->names.contains(i == 1 ? fmt::format("{}{}", name, ending) : fmt::format("{}_{}{}", name, i, ending));
  };
  if (!taken(1)) return std::string(given);
  // The numbers in use nearly always follow each other: in steps that double from the last one that was given to a free
  // one, then halving to the first.
  std::int64_t& last = data_->names_used.try_emplace(fmt::format("{}/{}", name, ending), 1).first->second;
  std::int64_t used = taken(last) ? last : 1;
  std::int64_t step = 1;
  while (taken(used + step)) {
    used += step;
    step *= 2;
  }
  std::int64_t free = used + step;
  while (free - used > 1) {
    const std::int64_t middle = used + (free - used) / 2;
    (taken(middle) ? used : free) = middle;
  }
  last = free;
  return fmt::format("{}_{}", given, free);
}

Values Graph::parameters() const {
  Values out;
  for (const auto& variable : data_->leaves->variables)
    if (variable.trained) out.emplace_back(data_.get(), variable.node);
  return out;
}

Values Graph::parameters(const NamePatterns& patterns, Location at) const {
  const Values all = parameters();
  std::vector<std::string> names;
  for (const Value parameter : all) names.push_back(parameter.name());
  patterns.require_matches(names, "parameters", at);
  Values out;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (patterns.match(names[i])) out.push_back(all[i]);
  return out;
}

NameScope Graph::scope(std::string_view name, Location at) {
  if (name.empty()) throw Error(at, "scope", "requires a name, got an empty one");
  if (name.front() == '/' || name.back() == '/' || name.find("//") != std::string_view::npos)
    throw Error(at, "scope", fmt::format("requires a name with '/' only between its parts, got '{}'", name));
  return {data_.pointer(), name};
}

DType Graph::dtype() const { return data_->options.dtype; }
std::uint64_t Graph::seed() const { return data_->options.seed; }
std::size_t Graph::size() const { return data_->nodes.size(); }

std::vector<Node> Graph::nodes() const {
  std::vector<Node> out;
  for (NodeId id = 0; id < data_->nodes.size(); ++id)
    if (!data_->node(id).further_output) out.emplace_back(data_.get(), id);
  return out;
}

std::string Graph::to_string() const {
  std::string out;
  for (NodeId id = 0; id < data_->nodes.size(); ++id) {
    // Scalar constants are printed where they are used.
    const Array* value = detail::constant_value({data_.get(), id});
    if ((value && value->rank() == 0) || data_->node(id).further_output) continue;
    out += data_->line(id) + "\n";
  }
  return out;
}

}  // namespace chainrule
