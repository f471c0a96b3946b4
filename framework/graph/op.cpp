#include <chainrule/framework/graph/op.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <unordered_map>
#include <unordered_set>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/graph/op_family.hpp>

namespace chainrule {

using detail::GraphData;
using detail::NodeData;

// ---- shape rules

void OpCall::fail(std::string_view required, std::string_view got) const {
  throw Error(at_, op_.name, fmt::format("requires {}, got {}", required, got));
}

namespace {

std::string inputs(std::size_t count) { return fmt::format("{} input{}", count, count == 1 ? "" : "s"); }

}  // namespace

const Type& OpCall::type(std::size_t i) const {
  if (i >= size()) fail(inputs(i + 1), fmt::format("{}", size()));
  return inputs_[i];
}

void OpCall::require_inputs(std::size_t count) const {
  if (size() != count) fail(inputs(count), fmt::format("{}", size()));
}

void OpCall::require_floating(std::size_t i) const {
  if (!is_floating(dtype(i))) fail("float32 or float64", name(dtype(i)));
}

void OpCall::require_same_dtype() const {
  for (std::size_t i = 1; i < size(); ++i)
    if (dtype(i) != dtype(0)) fail("inputs of one dtype", fmt::format("{} and {}", name(dtype(0)), name(dtype(i))));
}

std::size_t OpCall::axis(std::int64_t axis, std::size_t i) const {
  return normalize_axis(axis, shape(i).rank(), op_.name, at_);
}

Type same_shape(const OpCall& call) {
  call.require_inputs(1);
  call.require_floating(0);
  return call.type(0);
}

Type broadcast_shape(const OpCall& call) {
  if (call.size() == 0) call.fail("an input", "none");
  for (std::size_t i = 0; i < call.size(); ++i) call.require_floating(i);
  call.require_same_dtype();
  Shape shape = call.shape(0);
  for (std::size_t i = 1; i < call.size(); ++i) {
    Shape wider;
    if (!broadcast(shape, call.shape(i), wider))
      call.fail("shapes that broadcast", fmt::format("{} and {}", to_string(shape), to_string(call.shape(i))));
    shape = wider;
  }
  return {call.dtype(0), shape};
}

DType Forward::Operands::floating(const KernelCall& call) const {
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (!outputs[i]) return call.outputs[i].dtype;
  for (std::size_t i = 0; i < call.inputs.size(); ++i)
    if (!input(i)) return call.inputs[i].dtype;
  return float64;
}

// ---- registry

namespace {

struct Registry {
  std::deque<Op> ops;  // stable addresses
  std::vector<const Op*> sorted;
  std::unordered_map<std::string_view, const Op*> by_name;
  std::unordered_set<std::string_view> families;  // the library's files
};

// A function-local static: register_op is called while other objects of static storage are still being made.
Registry& the_registry() {
  static auto* instance = new Registry;
  return *instance;
}

[[noreturn]] void refuse(const Op& op, Location at, std::string_view what) {
  throw Error(at, op.name.empty() ? "register_op" : op.name, fmt::format("cannot be registered: {}", what));
}

// Ops of a program may be registered before the library's, at namespace scope: the program's line is to blame then too.
void require_free_name(const Op& op, const Registry& all) {
  const auto other = all.by_name.find(op.name);
  if (other == all.by_name.end()) return;
  const bool first_is_wrong = op.built_in && !other->second->built_in;
  const Location wrong = first_is_wrong ? other->second->location : op.location;
  const Location right = first_is_wrong ? op.location : other->second->location;
  refuse(op, wrong, fmt::format("an op of this name exists, registered at {}", right.to_string()));
}

// The operands of an elementwise functor that are attributes are declared by their names alone.
DeclaredAttributes with_operands(const Op& op) {
  DeclaredAttributes out = op.attributes;
  if (op.forward.micro)
    for (const std::string& name : op.forward.micro->attributes)
      if (!out.find(name)) out.add({name, AttributeType::number});
  return out;
}

// An op that declares nothing has the attributes of its samples, of the types that they have there: those that all
// samples have must be given, the others may be.
DeclaredAttributes with_samples(const Op& op) {
  DeclaredAttributes out = with_operands(op);
  if (!op.attributes.list().empty()) return out;
  for (const Sample& sample : op.samples)
    sample.attributes.for_each([&](const std::string& name, const Attribute& value) {
      if (out.find(name)) return;
      const bool required = std::all_of(op.samples.begin(), op.samples.end(),
                                        [&](const Sample& other) { return other.attributes.has(name); });
      out.add(required ? AttributeDeclaration(name, type_of(value))
                       : AttributeDeclaration::optional(name, type_of(value)));
    });
  return out;
}

// What its functor and its samples say of an op agrees with its declaration.
void require_consistent(const Op& op) {
  const auto& micro = op.forward.micro;
  if (micro)
    for (const std::string& name : micro->attributes)
      if (op.attributes.find(name)->type() != AttributeType::number)
        refuse(op, op.location, fmt::format("its functor takes '{}' as a number, which is declared otherwise", name));
  const auto& operands = op.forward.operands;
  for (const auto& sample : op.samples) {
    if (operands && !operands->any_inputs && sample.inputs.size() != operands->inputs.size())
      refuse(op, op.location,
             fmt::format("its kernel takes {} inputs, and a sample has {}", operands->inputs.size(),
                         sample.inputs.size()));
    if (micro && sample.inputs.size() != micro->inputs)
      refuse(op, op.location,
             fmt::format("its functor takes {} inputs, and a sample has {}", micro->inputs, sample.inputs.size()));
    op.attributes.check(sample.attributes, op.name, op.location);
  }
}

}  // namespace

namespace detail {

void link_builtin_ops();  // generated: names one symbol of each file in ops/, so that a linker keeps them all

OpFamily::OpFamily(const char* file) { the_registry().families.insert(file); }

}  // namespace detail

const Op& register_op(Op op, Location at) {
  auto& all = the_registry();
  op.location = at;
  op.built_in = all.families.contains(at.file);
  if (op.name.empty()) refuse(op, at, "it has no name");
  require_free_name(op, all);
  if (op.doc.empty()) refuse(op, at, "it has no doc");
  if (!op.shape) refuse(op, at, "it has no shape rule");
  if (!op.forward.micro && !op.forward.kernel && !op.forward.generator && !op.forward.expansion)
    refuse(op, at, "it has no forward rule");
  if (op.has_several_outputs() && !op.forward.kernel && !op.forward.expansion)
    refuse(op, at, "it has several outputs, which only kernels and expansions give");
  if (op.has_several_outputs() && op.gradient && !op.gradient.several())
    refuse(op, at, "it has several outputs, and a gradient rule that takes one gradient");
  if (op.samples.empty()) refuse(op, at, "it has no samples, so that nothing could check it");
  op.attributes = with_samples(op);
  require_consistent(op);
  all.sorted.reserve(all.sorted.size() + 1);
  all.ops.push_back(std::move(op));
  const Op& stored = all.ops.back();
  try {
    all.by_name.emplace(stored.name, &stored);
  } catch (...) {
    all.ops.pop_back();
    throw;
  }
  const auto place = std::lower_bound(all.sorted.begin(), all.sorted.end(), &stored,
                                      [](const Op* a, const Op* b) { return a->name < b->name; });
  all.sorted.insert(place, &stored);
  return stored;
}

const std::vector<const Op*>& registry() {
  detail::link_builtin_ops();
  return the_registry().sorted;
}

const Op* find_op(std::string_view name) {
  detail::link_builtin_ops();
  const auto& by_name = the_registry().by_name;
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : it->second;
}

// ---- types

namespace {

void require_arity(const Op& op, std::size_t given, Location at) {
  const auto require = [&](std::size_t count) {
    if (given != count) throw Error(at, op.name, fmt::format("requires {}, got {}", inputs(count), given));
  };
  if (op.forward.micro) return require(op.forward.micro->inputs);
  std::size_t least = ~std::size_t{0};
  std::size_t most = 0;
  for (const Sample& sample : op.samples) {
    if (sample.inputs.size() == given) return;
    least = std::min(least, sample.inputs.size());
    most = std::max(most, sample.inputs.size());
  }
  if (least == most) require(most);  // samples of several numbers are of an op that takes any
}

Attributes completed(const Op& op, const std::vector<Type>& inputs, const Attributes& attributes, Location at) {
  const std::size_t rank = inputs.empty() ? 0 : inputs[0].shape.rank();
  const bool registered = op.location.known();
  return (registered ? op.attributes : with_samples(op)).complete(attributes, rank, op.name, at);
}

// What a shape rule has made of the inputs is what the forward rule can compute.
void require_suitable(const OpCall& call, const Type& out) {
  const Forward& forward = call.op().forward;
  for (const Dimension extent : out.shape)
    if (extent.is_inferred()) call.fail("a shape rule that gives each extent", to_string(out.shape));
  for (std::size_t i = 0; i < call.size(); ++i) {
    Shape both;
    if (forward.micro && !(broadcast(call.shape(i), out.shape, both) && both == out.shape))
      call.fail(fmt::format("inputs that broadcast to the output, {}", to_string(out.shape)),
                fmt::format("{} as input {}", to_string(call.shape(i)), i));
  }
}

Types types_of(const OpCall& call) {
  Types out = call.op().shape.all(call);
  if (out.empty()) call.fail("a shape rule that gives an output", "none");
  for (const Type& type : out) require_suitable(call, type);
  return out;
}

}  // namespace

Types output_types(const Op& op, const std::vector<Type>& inputs, const Attributes& attributes, Location at) {
  const detail::LocationScope scope(detail::scoped(at));
  require_arity(op, inputs.size(), detail::scoped(at));
  const Attributes complete = completed(op, inputs, attributes, detail::scoped(at));
  return types_of(OpCall(op, inputs, complete, detail::scoped(at)));
}

Type output_type(const Op& op, const std::vector<Type>& inputs, const Attributes& attributes, Location at) {
  return output_types(op, inputs, attributes, at)[0];
}

// ---- expansions

namespace detail {

namespace {

// While one lives, nothing adds a leaf to the graph: not the step or epoch either, which are found again afterwards.
class ClosedGraph {
 public:
  ClosedGraph(GraphData& graph, const Op& op)
      : graph_(graph), outer_(graph.expanding), step_(graph.step), epoch_(graph.epoch) {
    graph.expanding = &op;
    graph.step = graph.epoch = no_node;
  }
  ~ClosedGraph() {
    graph_.expanding = outer_;
    graph_.step = step_;
    graph_.epoch = epoch_;
  }
  ClosedGraph(const ClosedGraph&) = delete;
  ClosedGraph& operator=(const ClosedGraph&) = delete;

 private:
  GraphData& graph_;
  const Op* outer_;
  NodeId step_;
  NodeId epoch_;
};

// Expansions within expansions; one that expands into itself comes to no end.
thread_local int depth = 0;

class Deeper {
 public:
  Deeper(Location at, std::string_view op) {
    if (depth == 100) throw Error(at, op, "requires expansions that end, got one that expands into itself");
    ++depth;
  }
  ~Deeper() { --depth; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;
};

}  // namespace

Values expand(Value composite) {
  GraphData& graph = *composite.data();
  const Node node = composite.node();
  const Op& op = node.op();
  const LocationScope scope(node.location());
  const Deeper deeper(node.location(), op.name);
  const ClosedGraph closed(graph, op);
  Values made = op.forward.expansion(node);
  const auto refuse = [&](const std::string& required, const std::string& got) {
    throw Error(node.location(), op.name, fmt::format("requires an expansion {}, got {}", required, got));
  };
  if (made.size() != node.output_count())
    refuse(fmt::format("that returns {} values", node.output_count()), fmt::format("{}", made.size()));
  for (std::size_t i = 0; i < made.size(); ++i) {
    const Value output = node.output(i);
    if (!made[i].defined()) refuse("that returns a value", "an empty Value");
    if (made[i].data() != &graph) refuse("that returns a value of its graph", made[i].describe() + " of another graph");
    if (!(graph.node(made[i].id()).type == graph.node(output.id()).type))
      refuse(fmt::format("of the node's type, {} {}", name(output.dtype()), to_string(output.shape())),
             fmt::format("{} {}", name(made[i].dtype()), to_string(made[i].shape())));
  }
  return made;
}

}  // namespace detail

// ---- building

namespace {

// Whether an integer dtype has all that an elementwise program is made of.
bool computes_in_integers(const MicroProgram& program, const Attributes& attributes, DType dtype) {
  using Kind = MicroProgram::Operand::Kind;
  const auto is_whole = [&](const MicroProgram::Operand& operand) {
    if (operand.kind != Kind::number && operand.kind != Kind::attribute) return true;
    const double number =
        operand.kind == Kind::number ? operand.number : attributes.number(program.attributes[operand.index]);
    return visit_dtype(dtype, [&](auto t) { return detail::keeps_meaning<decltype(t)>(number); });
  };
  return std::all_of(program.instructions.begin(), program.instructions.end(), [&](const auto& instruction) {
    return has_integers(instruction.micro) &&
           std::all_of(instruction.operands, instruction.operands + arity(instruction.micro), is_whole);
  });
}

// Throws Error where a kernel's parameters are not of the dtypes of a node's operands, or others in number.
void check_operands(const OpCall& call, const Types& outputs) {
  const Forward::Operands& operands = *call.op().forward.operands;
  if (!operands.any_inputs && operands.inputs.size() != call.size())
    call.fail(fmt::format("as many inputs as its kernel, {}", operands.inputs.size()), fmt::format("{}", call.size()));
  if (operands.outputs.size() != outputs.size())
    call.fail(fmt::format("a shape rule with as many outputs as its kernel, {}", operands.outputs.size()),
              fmt::format("{}", outputs.size()));
  std::optional<DType> floating;
  const auto check = [&](std::optional<DType> wanted, DType got, const std::string& operand) {
    if (wanted && *wanted != got) call.fail(fmt::format("{} as {}", name(*wanted), operand), name(got));
    if (wanted) return;
    if (!is_floating(got)) call.fail(fmt::format("float32 or float64 as {}", operand), name(got));
    if (floating.value_or(got) != got) call.fail(fmt::format("{} as {}", name(*floating), operand), name(got));
    floating = got;
  };
  for (std::size_t i = 0; i < outputs.size(); ++i)
    check(operands.outputs[i], outputs[i].dtype, outputs.size() == 1 ? "output" : fmt::format("output {}", i));
  for (std::size_t i = 0; i < call.size(); ++i) check(operands.input(i), call.dtype(i), fmt::format("input {}", i));
}

// Throws Error where the forward rule is not written for the dtypes of a node: it would take one's bits for another's.
void check_dtypes(const OpCall& call, const detail::GraphData& graph, const NodeData& node,
                  const std::vector<detail::NodeType>& further) {
  const Forward& forward = node.op->forward;
  if (forward.micro) {
    const DType dtype = detail::compute_dtype(graph, node);
    if (!is_floating(dtype) && !computes_in_integers(*forward.micro, node.attributes, dtype))
      call.fail("float32 or float64", name(dtype));
    return;
  }
  if (forward.operands) {
    Types outputs{node.type};
    for (const detail::NodeType& type : further) outputs.push_back(type);
    return check_operands(call, outputs);
  }
  if (forward.dtypes == Forward::Dtypes::any) return;
  if (!is_floating(node.type.dtype)) call.fail("an output of float32 or float64", name(node.type.dtype));
  for (const detail::NodeType& type : further)
    if (!is_floating(type.dtype)) call.fail("outputs of float32 or float64", name(type.dtype));
  if (forward.dtypes == Forward::Dtypes::floating) return;
  for (std::size_t i = 0; i < call.size(); ++i)
    if (call.dtype(i) != node.type.dtype)
      call.fail(fmt::format("inputs of the output's dtype, {}", name(node.type.dtype)),
                fmt::format("{} as input {}", name(call.dtype(i)), i));
}

}  // namespace

Value apply(const Op& op, const Values& inputs, const Attributes& attributes, Location at) {
  if (inputs.empty()) throw Error(detail::scoped(at), op.name, "requires an input, got none");
  if (!inputs[0].defined()) throw Error(detail::scoped(at), op.name, "requires values of a graph, got an empty Value");
  return apply(inputs[0].graph(), op, inputs, attributes, at);
}

Value apply(Graph graph, const Op& op, const Values& inputs, const Attributes& attributes, Location at) {
  GraphData& data = *graph.data();
  NodeData node;
  node.at = detail::scoped(at);
  const detail::LocationScope scope(node.at);
  std::vector<Type> types;
  types.reserve(inputs.size());
  for (const Value input : inputs) {
    if (!input.defined()) throw Error(node.at, op.name, "requires values of a graph, got an empty Value");
    if (input.data() != &data)
      throw Error(node.at, op.name,
                  fmt::format("requires values of one graph, got {} of another graph", input.describe()));
    types.push_back(data.node(input.id()).type);
    node.inputs.push_back(input.id());
  }
  require_arity(op, inputs.size(), node.at);
  node.op = &op;
  node.attributes = completed(op, types, attributes, node.at);
  const OpCall call(op, types, node.attributes, node.at);
  std::vector<detail::NodeType> further;
  if (op.has_several_outputs()) {
    const Types all = types_of(call);
    node.type = all[0];
    further.assign(all.begin() + 1, all.end());
  } else {
    const Type type = op.shape(call);
    require_suitable(call, type);
    node.type = type;
  }
  check_dtypes(call, data, node, further);
  if (!op.forward.expansion || op.built_in) return data.append(std::move(node), further);
  // The library's own expansions are known to be right; another is tried, and what it adds taken back.
  detail::Attempt attempt(&data);
  const Value made = data.append(std::move(node), further);
  {
    const detail::Attempt trial(&data);
    detail::expand(made);
  }
  attempt.succeed();
  return made;
}

Values apply_all(const Op& op, const Values& inputs, const Attributes& attributes, Location at) {
  return apply(op, inputs, attributes, at).node().outputs();
}

}  // namespace chainrule
