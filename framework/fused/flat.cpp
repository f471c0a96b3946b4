#include <chainrule/framework/fused/flat.hpp>

#include <bit>
#include <map>

namespace chainrule::detail {

namespace {

using Kind = MicroProgram::Operand::Kind;

class Flattener {
 public:
  Flattener(const GraphData& graph, const FusedGroup& group, const Sizes& sizes)
      : graph_(graph), group_(group), sizes_(sizes) {
    for (std::size_t i = 0; i < group.inputs.size(); ++i) slot_of_.emplace(group.inputs[i], i);
  }

  Flat make() {
    const NodeId first = group_.nodes.front();
    flat_.dtype = compute_dtype(graph_, first);
    flat_.shape = evaluate(graph_.node(first).type.shape, sizes_);
    for (const NodeId id : group_.nodes)
      if (graph_.node(id).op->forward.micro) add(id);
    for (std::size_t o = 0; o < group_.outputs.size(); ++o) {
      const NodeId id = group_.outputs[o];
      const NodeData& node = graph_.node(id);
      if (const auto over = sum_over(graph_, id); over && !node.op->forward.micro) {
        flat_.sums.push_back({stored(source_of(node.inputs[0])), o, *over});
      } else {
        flat_.outputs.push_back({stored(value_of_.at(id)), o, node.type.dtype});
      }
    }
    return std::move(flat_);
  }

 private:
  Source number(double x) {
    for (std::size_t i = 0; i < flat_.numbers.size(); ++i)
      if (std::bit_cast<std::uint64_t>(flat_.numbers[i]) == std::bit_cast<std::uint64_t>(x))
        return {Source::From::number, i};
    flat_.numbers.push_back(x);
    return {Source::From::number, flat_.numbers.size() - 1};
  }

  // The value of a node from outside, or of one that was added.
  Source source_of(NodeId id) {
    if (const auto it = value_of_.find(id); it != value_of_.end()) return it->second;
    Source made;
    if (const Array* constant = inlined_constant(graph_, id)) {
      made = number((*constant)[0]);
    } else {
      flat_.externals.push_back(external(id));
      made = {Source::From::input, flat_.externals.size() - 1};
    }
    value_of_.emplace(id, made);
    return made;
  }

  External external(NodeId id) {
    const NodeData& node = graph_.node(id);
    External out{{node.type.dtype, evaluate(node.type.shape, sizes_)}, {}, {}};
    if (const auto slot = slot_of_.find(id); slot != slot_of_.end()) {
      out.slots.push_back(slot->second);
      return out;
    }
    invariant(bool(node.op->forward.generator), "a fused group does not list one of its inputs");
    invariant(out.type.dtype == flat_.dtype && out.type.shape == flat_.shape,
              "a fused group makes a value of another shape or dtype");
    const Attributes attributes = evaluate_attributes(node.attributes, sizes_);
    out.generator = node.op->forward.generator(call_of(graph_, id, sizes_, attributes));
    for (const NodeId input : node.inputs) out.slots.push_back(slot_of_.at(input));
    invariant(out.slots.size() <= most_generator_inputs, "a generator of too many inputs");
    return out;
  }

  void add(NodeId id) {
    const NodeData& node = graph_.node(id);
    const MicroProgram& program = *node.op->forward.micro;
    std::vector<Source> results;
    const auto resolve = [&](const MicroProgram::Operand& operand) -> Source {
      switch (operand.kind) {
        case Kind::input: return source_of(node.inputs[operand.index]);
        case Kind::number: return number(operand.number);
        case Kind::attribute: return number(node.attributes.number(program.attributes[operand.index]));
        case Kind::result: break;
      }
      return results[operand.index];
    };
    for (const auto& step : program.instructions) {
      Instruction made{step.micro, {}};
      for (int i = 0; i < arity(step.micro); ++i) made.operands[i] = resolve(step.operands[i]);
      if (step.micro == Micro::copy) {
        const Source from = made.operands[0];
        // To bool: anything but 0 is true. Otherwise a copy is its operand.
        const bool to_bool =
            node.type.dtype == boolean && node.inputs.size() == 1 && graph_.node(node.inputs[0]).type.dtype != boolean;
        if (!to_bool) {
          results.push_back(from);
          continue;
        }
        made = {Micro::not_equal, {from, number(0), {}}};
      }
      results.push_back(append(made));
    }
    value_of_[id] = results[program.result.index];
  }

  Source append(const Instruction& instruction) {
    flat_.instructions.push_back(instruction);
    return {Source::From::instruction, flat_.instructions.size() - 1};
  }

  // The instruction that computes a value. An operand or number that is passed on gets one like all others, whose
  // order says what is read before an output overwrites it.
  std::size_t stored(Source source) {
    if (source.from != Source::From::instruction) source = append({Micro::copy, {source, {}, {}}});
    return source.index;
  }

  const GraphData& graph_;
  const FusedGroup& group_;
  const Sizes& sizes_;
  Flat flat_{};
  std::map<NodeId, Source> value_of_;
  std::map<NodeId, std::size_t> slot_of_;
};

// Of a float, in vectors.
double cost_of(Micro micro) {
  switch (micro) {
    case Micro::sqrt:
    case Micro::div: return 0.1;
    case Micro::exp:
    case Micro::expm1:
    case Micro::log:
    case Micro::log1p:
    case Micro::tanh:
    case Micro::sigmoid:
    case Micro::erf: return 0.4;
    case Micro::sin:
    case Micro::cos:
    case Micro::pow: return 1;
    default: return 0.04;
  }
}

}  // namespace

Flat flatten(const GraphData& graph, const FusedGroup& group, const Sizes& sizes) {
  return Flattener(graph, group, sizes).make();
}

double cost_of_element(const Flat& flat) {
  constexpr double byte = 0.025;
  constexpr double generated = 0.8;
  const double width = flat.dtype == float32 ? 1 : 2;  // of vectors, in elements: half as many
  double cost = 0;
  for (const Instruction& instruction : flat.instructions) cost += width * cost_of(instruction.micro);
  for (const External& e : flat.externals) {
    if (e.generator) {
      cost += width * generated;
    } else if (count(e.type.shape) == count(flat.shape)) {
      cost += byte * static_cast<double>(size_of(e.type.dtype));
    }
  }
  for (const FlatOutput& output : flat.outputs) cost += byte * static_cast<double>(size_of(output.dtype));
  return cost + 0.04 * width * static_cast<double>(flat.sums.size());
}

}  // namespace chainrule::detail
