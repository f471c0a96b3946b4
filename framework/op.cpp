#include <chainrule/framework/op.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <unordered_map>

#include <fmt/core.h>

#include <chainrule/framework/graph_data.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/framework/step.hpp>

namespace chainrule {

using detail::NodeData;

// ---- shape rules

void OpCall::fail(std::string_view required, std::string_view got) const {
  throw Error(at_, op_.name, fmt::format("requires {}, got {}", required, got));
}

void OpCall::require_inputs(std::size_t count) const {
  if (inputs_.size() != count) fail(fmt::format("{} input{}", count, count == 1 ? "" : "s"), fmt::format("{}", size()));
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

// ---- registry

namespace {

struct Registry {
  std::deque<Op> ops;  // stable addresses
  std::vector<const Op*> sorted;
  std::unordered_map<std::string_view, const Op*> by_name;
};

// A function-local static: register_op is called while other objects of static storage are still being made.
Registry& the_registry() {
  static auto* instance = new Registry;
  return *instance;
}

}  // namespace

namespace detail {
void link_builtin_ops();  // generated: names one symbol of each file in ops/, so that a linker keeps them all
}

const Op& register_op(Op op, Location at) {
  auto& all = the_registry();
  const auto refuse = [&](std::string_view what) {
    throw Error(at, op.name.empty() ? "register_op" : op.name, fmt::format("cannot be registered: {}", what));
  };
  if (op.name.empty()) refuse("it has no name");
  if (all.by_name.contains(op.name)) refuse("an op of this name exists");
  if (op.doc.empty()) refuse("it has no doc");
  if (!op.shape) refuse("it has no shape rule");
  if (!op.forward.micro && !op.forward.kernel && !op.forward.generator && !op.forward.expansion)
    refuse("it has no forward rule");
  if (op.samples.empty()) refuse("it has no samples, so that nothing could check it");
  if (op.forward.micro)
    for (const auto& sample : op.samples)
      if (sample.inputs.size() != op.forward.micro->inputs)
        refuse(fmt::format("its functor takes {} inputs, and a sample has {}", op.forward.micro->inputs,
                           sample.inputs.size()));
  op.location = at;
  all.ops.push_back(std::move(op));
  const Op& stored = all.ops.back();
  all.by_name.emplace(stored.name, &stored);
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

// ---- building

namespace {

// Whether integers have all that an elementwise program is made of.
bool computes_in_integers(const MicroProgram& program, const Attributes& attributes) {
  using Kind = MicroProgram::Operand::Kind;
  const auto is_whole = [&](const MicroProgram::Operand& operand) {
    if (operand.kind != Kind::number && operand.kind != Kind::attribute) return true;
    const double number =
        operand.kind == Kind::number ? operand.number : attributes.number(program.attributes[operand.index]);
    return std::trunc(number) == number && std::abs(number) < 0x1p63;
  };
  return std::all_of(program.instructions.begin(), program.instructions.end(), [&](const auto& instruction) {
    return kernels::integer_micro(static_cast<std::size_t>(instruction.micro), 0) != nullptr &&
           std::all_of(instruction.operands, instruction.operands + arity(instruction.micro), is_whole);
  });
}

// Throws Error where the forward rule is not written for the dtypes of a node: it would take one's bits for another's.
void check_dtypes(const OpCall& call, const detail::GraphData& graph, const NodeData& node) {
  const Forward& forward = node.op->forward;
  if (forward.micro) {
    const DType dtype = detail::compute_dtype(graph, node);
    if (!is_floating(dtype) && !computes_in_integers(*forward.micro, node.attributes))
      call.fail("float32 or float64", name(dtype));
    return;
  }
  if (forward.dtypes == Forward::Dtypes::any) return;
  if (!is_floating(node.type.dtype)) call.fail("an output of float32 or float64", name(node.type.dtype));
  if (forward.dtypes == Forward::Dtypes::floating) return;
  for (std::size_t i = 0; i < call.size(); ++i)
    if (call.dtype(i) != node.type.dtype)
      call.fail(fmt::format("inputs of the output's dtype, {}", name(node.type.dtype)), name(call.dtype(i)));
}

}  // namespace

Value apply(const Op& op, const Values& inputs, const Attributes& attributes, Location at) {
  if (inputs.empty()) throw Error(detail::scoped(at), op.name, "requires an input, got none");
  if (!inputs[0].defined()) throw Error(detail::scoped(at), op.name, "requires values of a graph, got an empty Value");
  return apply(inputs[0].graph(), op, inputs, attributes, at);
}

Value apply(Graph graph, const Op& op, const Values& inputs, const Attributes& attributes, Location at) {
  detail::GraphData& data = *graph.data();
  NodeData node;
  node.at = detail::scoped(at);
  std::vector<Type> types;
  types.reserve(inputs.size());
  for (const Value input : inputs) {
    if (!input.defined()) throw Error(node.at, op.name, "requires values of a graph, got an empty Value");
    if (input.data() != &data)
      throw Error(node.at, op.name, fmt::format("requires values of one graph, got {} of another graph", input.name()));
    types.push_back(data.node(input.id()).type);
    node.inputs.push_back(input.id());
  }
  node.op = &op;
  const OpCall call(op, types, attributes, node.at);
  node.type = op.shape(call);
  node.attributes = attributes;
  check_dtypes(call, data, node);
  return data.append(std::move(node));
}

}  // namespace chainrule
