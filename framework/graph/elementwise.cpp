#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/graph/elementwise.hpp>

namespace chainrule {

namespace {

thread_local MicroProgram* current = nullptr;

}  // namespace

namespace simd::detail {

namespace {

// The operand, which must be of this recording: one that a functor kept from another has no meaning here.
MicroProgram::Operand own(const MicroProgram& program, MicroProgram::Operand operand) {
  using Kind = MicroProgram::Operand::Kind;
  const std::size_t known = operand.kind == Kind::result      ? program.instructions.size()
                            : operand.kind == Kind::input     ? program.inputs
                            : operand.kind == Kind::attribute ? program.attributes.size()
                                                              : std::size_t{1};
  if (operand.index >= known) throw Error("simd", "requires operands of the functor that is recorded, got another's");
  return operand;
}

Traced append(Micro micro, const Traced* a, const Traced* b, const Traced* c) {
  if (!current) throw Error("simd", "functions of chainrule::simd are for the functor of an elementwise op");
  MicroProgram::Instruction instruction{micro, {}};
  const Traced* operands[] = {a, b, c};
  for (int i = 0; i < arity(micro); ++i) instruction.operands[i] = own(*current, operands[i]->operand());
  current->instructions.push_back(instruction);
  return Traced(MicroProgram::Operand{MicroProgram::Operand::Kind::result,
                                      static_cast<std::uint16_t>(current->instructions.size() - 1), 0});
}

}  // namespace

Traced record(Micro micro, Traced a) { return append(micro, &a, nullptr, nullptr); }
Traced record(Micro micro, Traced a, Traced b) { return append(micro, &a, &b, nullptr); }
Traced record(Micro micro, Traced a, Traced b, Traced c) { return append(micro, &a, &b, &c); }

}  // namespace simd::detail

namespace detail {

Trace::Trace(std::size_t inputs, std::vector<std::string> attributes) : outer_(current) {
  program_.inputs = inputs;
  program_.attributes = std::move(attributes);
  current = &program_;
}

Trace::~Trace() { current = outer_; }

simd::Traced Trace::operand(std::size_t i) const {
  using Kind = MicroProgram::Operand::Kind;
  if (i < program_.inputs) return simd::Traced(MicroProgram::Operand{Kind::input, static_cast<std::uint16_t>(i), 0});
  return simd::Traced(MicroProgram::Operand{Kind::attribute, static_cast<std::uint16_t>(i - program_.inputs), 0});
}

MicroProgram Trace::finish(simd::Traced result) {
  // A functor that returns an operand or a number as it is still needs an instruction that writes the output.
  if (result.operand().kind != MicroProgram::Operand::Kind::result) result = simd::detail::record(Micro::copy, result);
  program_.result = simd::detail::own(program_, result.operand());
  return std::move(program_);
}

}  // namespace detail

}  // namespace chainrule
