#include "interpret.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include <fmt/core.h>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/node_facts.hpp>

#include "recipe.hpp"

namespace chainrule::fuzz {

namespace {

// Whether an element is so coarse and small that sums and products of such are exact in float32.
bool is_coarse(double x) { return std::abs(x) <= 1024 && x * 64 == std::floor(x * 64); }

bool is_coarse(const Array& array) {
  for (std::int64_t i = 0; i < array.size(); ++i)
    if (!is_coarse(array[i])) return false;
  return true;
}

double rounded(double x, DType dtype) { return dtype == float32 ? static_cast<double>(static_cast<float>(x)) : x; }

// ---- memory of exactly so many bytes, with guards around it (which are AddressSanitizer's where that watches)

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t guard = 0;
#else
constexpr std::size_t guard = 64;
#endif
constexpr unsigned char guard_byte = 0xA7;

class Guarded {
 public:
  explicit Guarded(std::size_t bytes, const void* from = nullptr)
      : bytes_(bytes), memory_(new unsigned char[bytes + 2 * guard]) {
    std::memset(memory_.get(), guard_byte, bytes + 2 * guard);
    if (from && bytes > 0) std::memcpy(data(), from, bytes);
  }
  [[nodiscard]] unsigned char* data() const { return memory_.get() + guard; }
  [[nodiscard]] bool intact() const {
    const auto untouched = [](const unsigned char* at) {
      return std::all_of(at, at + guard, [](unsigned char byte) { return byte == guard_byte; });
    };
    return untouched(memory_.get()) && untouched(memory_.get() + guard + bytes_);
  }
  [[nodiscard]] bool holds(const void* what) const { return bytes_ == 0 || std::memcmp(data(), what, bytes_) == 0; }

 private:
  std::size_t bytes_;
  std::unique_ptr<unsigned char[]> memory_;
};

// ---- micro-operations

// Those that round, and whose result may be off by a unit even where it could be exact.
bool is_approximate(Micro micro, double b) {
  switch (micro) {
    case Micro::exp:
    case Micro::expm1:
    case Micro::log:
    case Micro::log1p:
    case Micro::sin:
    case Micro::cos:
    case Micro::tanh:
    case Micro::sigmoid:
    case Micro::erf: return true;
    case Micro::pow: return b != 0 && b != 1 && b != 2;
    case Micro::div: {
      int exponent = 0;
      return std::abs(std::frexp(b, &exponent)) != 0.5;  // may be multiplied by the rounded reciprocal
    }
    default: return false;
  }
}

double floating(Micro micro, double a, double b, double c) {
  switch (micro) {
    case Micro::copy: return a;
    case Micro::neg: return -a;
    case Micro::abs: return std::abs(a);
    case Micro::sign: return simd::sign(a);
    case Micro::square: return a * a;
    case Micro::sqrt: return std::sqrt(a);
    case Micro::exp: return std::exp(a);
    case Micro::expm1: return std::expm1(a);
    case Micro::log: return std::log(a);
    case Micro::log1p: return std::log1p(a);
    case Micro::sin: return std::sin(a);
    case Micro::cos: return std::cos(a);
    case Micro::tanh: return std::tanh(a);
    case Micro::sigmoid: return simd::sigmoid(a);
    case Micro::erf: return std::erf(a);
    case Micro::floor: return std::floor(a);
    case Micro::ceil: return std::ceil(a);
    case Micro::logical_not: return a == 0 ? 1 : 0;
    case Micro::add: return a + b;
    case Micro::sub: return a - b;
    case Micro::mul: return a * b;
    case Micro::div: return a / b;
    case Micro::maximum: return std::isnan(a) || std::isnan(b) ? a + b : a > b ? a : b;
    case Micro::minimum: return std::isnan(a) || std::isnan(b) ? a + b : a < b ? a : b;
    case Micro::pow: return std::pow(a, b);
    case Micro::less: return a < b ? 1 : 0;
    case Micro::less_equal: return a <= b ? 1 : 0;
    case Micro::equal: return a == b ? 1 : 0;
    case Micro::not_equal: return a != b ? 1 : 0;
    case Micro::select: return a != 0 ? b : c;
  }
  throw std::logic_error("a micro-operation that the interpreter does not know");
}

// In two's complement, which wraps around.
std::int64_t integral(Micro micro, std::int64_t a, std::int64_t b, std::int64_t c) {
  const auto x = static_cast<std::uint64_t>(a);
  const auto y = static_cast<std::uint64_t>(b);
  const auto wrap = [](std::uint64_t v) { return static_cast<std::int64_t>(v); };
  switch (micro) {
    case Micro::copy:
    case Micro::floor:
    case Micro::ceil: return a;
    case Micro::neg: return wrap(0 - x);
    case Micro::abs: return a < 0 ? wrap(0 - x) : a;
    case Micro::sign: return a > 0 ? 1 : a < 0 ? -1 : 0;
    case Micro::square: return wrap(x * x);
    case Micro::logical_not: return a == 0 ? 1 : 0;
    case Micro::add: return wrap(x + y);
    case Micro::sub: return wrap(x - y);
    case Micro::mul: return wrap(x * y);
    case Micro::maximum: return std::max(a, b);
    case Micro::minimum: return std::min(a, b);
    case Micro::less: return a < b ? 1 : 0;
    case Micro::less_equal: return a <= b ? 1 : 0;
    case Micro::equal: return a == b ? 1 : 0;
    case Micro::not_equal: return a != b ? 1 : 0;
    case Micro::select: return a != 0 ? b : c;
    default: break;
  }
  throw std::logic_error("an elementwise op of integers with a micro-operation that they have not");
}

// As C++ converts, but for what it leaves open: there as x86 does.
std::int64_t to_int64(double x) {
  constexpr double end = 0x1p63;
  return x >= -end && x < end ? static_cast<std::int64_t>(x) : std::numeric_limits<std::int64_t>::min();
}

// The low bits that an integer dtype keeps.
std::int64_t narrowed(std::int64_t x, DType dtype) {
  if (dtype == int64) return x;
  return dtype == int32 ? std::int64_t{static_cast<std::int32_t>(x)} : std::int64_t{static_cast<std::uint8_t>(x)};
}

// An element as a number of an integer dtype. What is beyond int32 becomes its least number, also on the way to uint8.
std::int64_t element_as(DType dtype, const Array& array, std::int64_t i) {
  if (!is_floating(array.dtype())) return narrowed(array.at<std::int64_t>(i), dtype);
  const double x = array[i];
  if (dtype == int64) return to_int64(x);
  constexpr double end = 0x1p31;
  return narrowed(x > -end - 1 && x < end ? static_cast<std::int64_t>(x) : std::numeric_limits<std::int32_t>::min(),
                  dtype);
}

// The dtype that an elementwise node computes in: its output's, or for a bool output its operands' (float32 where all
// are bool).
DType compute_dtype(const Node& node) {
  if (node.dtype() != boolean) return node.dtype();
  for (const Value input : node.inputs())
    if (input.dtype() != boolean) return input.dtype();
  return float32;
}

}  // namespace

Interpreter::Interpreter(Graph graph, Mode mode, Sizes sizes, Perturbation perturbation)
    : graph_(std::move(graph)),
      mode_(mode),
      sizes_(std::move(sizes)),
      perturbation_(perturbation),
      random_(perturbation.seed) {}

Interpreter::Entry& Interpreter::grown(Value value) {
  entries_.resize(std::max<std::size_t>(graph_.size(), value.id() + 1));
  return entries_[value.id()];
}

void Interpreter::give(Value leaf, const Array& array) {
  Array own = array;
  bool exact = true;
  of_node_ = 2 * random_.unit() - 1;
  perturb(own, exact);
  entry(leaf) = {std::make_shared<const Array>(std::move(own)), exact, false};
}

const Array& Interpreter::value(Value value) {
  if (!entry(value).array) evaluate(value);
  entry(value).asked_for = true;
  return *entry(value).array;
}

bool Interpreter::needed(Value value) {
  const Values outputs = value.node().outputs();
  return entry(value).array && std::any_of(outputs.begin(), outputs.end(), [&](Value v) { return entry(v).asked_for; });
}

double Interpreter::moved(double x, DType dtype) {
  if (perturbation_.ulps == 0) return x;
  const double epsilon = dtype == float32 ? 0x1p-23 : 0x1p-52;
  return x * (1 + perturbation_.ulps * epsilon * (perturbation_.together ? of_node_ : 2 * random_.unit() - 1));
}

// Unless no rounding can have touched it.
void Interpreter::perturb(Array& array, bool& exact) {
  if (!is_floating(array.dtype())) return;
  exact = exact && is_coarse(array);
  if (!exact) move_all(array);
}

void Interpreter::move_all(Array& array) {
  if (!is_floating(array.dtype()) || perturbation_.ulps == 0) return;
  for (std::int64_t i = 0; i < array.size(); ++i) array.set(i, moved(array[i], array.dtype()));
}

// What a node needs of its inputs: of by_mode, which no program runs as it is (pass select_mode), the choice.
Values Interpreter::read_by(const Node& node) const {
  static const Op* const by_mode = find_op("by_mode");
  return &node.op() == by_mode ? Values{node.input(mode_ == Mode::training ? 0 : 1)} : node.inputs();
}

void Interpreter::evaluate(Value value) {
  const Node node = value.node();
  const Op& op = node.op();
  if (op.forward.expansion) return evaluate_expansion(value);
  const Values inputs = read_by(node);
  for (const Value input : inputs) this->value(input);
  of_node_ = 2 * random_.unit() - 1;
  if (const Array* constant = detail::constant_value(value)) return give(value, *constant);
  bool exact = true;
  for (const Value input : inputs) exact = exact && entry(input).exact;
  std::vector<Array> outputs;
  for (const Value output : node.outputs())
    outputs.emplace_back(output.dtype(), chainrule::evaluate(output.shape(), sizes_));
  bool as_given = true;  // what it gives is as exact as what it got
  if (op.forward.micro) {
    evaluate_micro(node, outputs[0], exact);
  } else {
    as_given = detail::rounds_nothing(*node.graph_data(), node.graph_data()->node(node.id()));
    evaluate_kernel(node, outputs, !as_given && !exact);
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    bool own = exact;
    if (!as_given) perturb(outputs[i], own);
    entry(node.output(i)) = {std::make_shared<const Array>(std::move(outputs[i])), own, false};
  }
}

void Interpreter::evaluate_expansion(Value value) {
  const Node node = value.node();
  const auto [known, is_new] = expansions_.try_emplace(node.id());
  if (is_new) known->second = node.op().forward.expansion(node);
  if (known->second.size() != node.output_count())
    throw std::logic_error(fmt::format("op {} expands to another number of outputs", node.op().name));
  const Value made = known->second[value.output_index()];
  if (made.dtype() != value.dtype() ||
      !(chainrule::evaluate(made.shape(), sizes_) == chainrule::evaluate(value.shape(), sizes_)))
    throw std::logic_error(fmt::format("op {} expands to another type", node.op().name));
  this->value(made);
  const Entry found = entry(made);  // a copy: there may have to be more entries for it
  entry(value) = found;
}

void Interpreter::evaluate_micro(const Node& node, Array& out, bool& exact) {
  const MicroProgram& program = *node.op().forward.micro;
  if (node.input_count() != program.inputs)
    throw std::logic_error(fmt::format("op {} was built with {} inputs, and its functor takes {}", node.op().name,
                                       node.input_count(), program.inputs));
  const DType dtype = compute_dtype(node);
  std::vector<const Array*> inputs;
  std::vector<Dims> strides;
  for (const Value input : read_by(node)) {
    inputs.push_back(&value(input));
    strides.push_back(broadcast_strides(inputs.back()->shape(), out.shape()));
  }
  std::vector<double> attributes;
  for (const std::string& name : program.attributes)
    attributes.push_back(rounded(node.attributes().number(name), dtype));
  const bool by_mode = inputs.size() < program.inputs;  // which gives what it reads

  using Kind = MicroProgram::Operand::Kind;
  const bool exact_inputs = exact;
  std::vector<double> floats(program.instructions.size());
  std::vector<std::int64_t> integers(program.instructions.size());
  std::vector<std::int64_t> offsets(inputs.size(), 0);
  Dims index = Dims::filled(out.rank(), 0);
  for (std::int64_t i = 0; i < out.size(); ++i) {
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      offsets[k] = 0;
      for (std::size_t axis = 0; axis < index.rank(); ++axis) offsets[k] += index[axis] * strides[k][axis];
    }
    if (by_mode) {
      out.set(i, (*inputs[0])[offsets[0]]);
    } else if (is_integer(dtype)) {
      for (std::size_t n = 0; n < program.instructions.size(); ++n) {
        const auto& instruction = program.instructions[n];
        std::int64_t x[3] = {};
        for (int k = 0; k < arity(instruction.micro); ++k) {
          const auto& operand = instruction.operands[k];
          x[k] = operand.kind == Kind::input       ? element_as(dtype, *inputs[operand.index], offsets[operand.index])
                 : operand.kind == Kind::number    ? to_int64(operand.number)
                 : operand.kind == Kind::attribute ? to_int64(attributes[operand.index])
                                                   : integers[operand.index];
        }
        integers[n] = narrowed(integral(instruction.micro, x[0], x[1], x[2]), dtype);
      }
      const std::int64_t result = integers[program.result.index];
      if (out.dtype() == boolean) {
        out.data<bool>()[i] = result != 0;
      } else {
        out.set(i, result);
      }
    } else {
      for (std::size_t n = 0; n < program.instructions.size(); ++n) {
        const auto& instruction = program.instructions[n];
        double x[3] = {};
        for (int k = 0; k < arity(instruction.micro); ++k) {
          const auto& operand = instruction.operands[k];
          x[k] = operand.kind == Kind::input       ? rounded((*inputs[operand.index])[offsets[operand.index]], dtype)
                 : operand.kind == Kind::number    ? rounded(operand.number, dtype)
                 : operand.kind == Kind::attribute ? attributes[operand.index]
                                                   : floats[operand.index];
        }
        double result = rounded(floating(instruction.micro, x[0], x[1], x[2]), dtype);
        if (!detail::rounds_nothing(instruction.micro)) {
          const bool safe = exact_inputs && !is_approximate(instruction.micro, x[1]) && is_coarse(result);
          exact = exact && safe;
          if (!safe) result = rounded(moved(result, dtype), dtype);
        }
        floats[n] = result;
      }
      const double result = floats[program.result.index];
      out.set(i, out.dtype() == boolean ? (result != 0 ? 1.0 : 0.0) : result);
    }
    for (std::size_t axis = index.rank(); axis-- > 0;) {
      if (++index[axis] < out.shape()[axis]) break;
      index[axis] = 0;
    }
  }
  // A conversion from float64 to float32 rounds too.
  if (is_floating(out.dtype())) exact = exact && is_coarse(out);
}

void Interpreter::evaluate_kernel(const Node& node, std::vector<Array>& outputs, bool moves_inputs) {
  const Op& op = node.op();
  const Attributes attributes = fuzz::evaluate(node.attributes(), sizes_);
  KernelCall call{{}, {outputs[0].dtype(), outputs[0].shape()}, attributes, op.name, node.location()};
  std::vector<Array> inputs;
  std::vector<Guarded> copies;
  std::vector<const void*> read;
  copies.reserve(node.input_count());
  for (const Value input : node.inputs()) {
    inputs.push_back(value(input));
    if (moves_inputs) move_all(inputs.back());
    call.inputs.push_back({inputs.back().dtype(), inputs.back().shape()});
    copies.emplace_back(inputs.back().bytes(), inputs.back().raw());
    read.push_back(copies.back().data());
  }
  std::vector<Guarded> made;
  std::vector<void*> written;
  made.reserve(outputs.size());
  for (const Array& output : outputs) {
    call.outputs.push_back({output.dtype(), output.shape()});
    made.emplace_back(output.bytes());
    written.push_back(made.back().data());
  }
  if (op.forward.generator) {
    op.forward.generator(call)(read.data(), written[0], 0, outputs[0].size());
  } else if (op.forward.kernel) {
    const KernelRun run = op.forward.kernel(call);
    const Guarded workspace(call.workspace);
    run({read.data(), written[0], workspace.data(), written.data()});
    if (!workspace.intact()) throw std::logic_error(fmt::format("op {} writes beyond its workspace", op.name));
  } else {
    throw std::logic_error(fmt::format("op {} has no forward rule that could run", op.name));
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!made[i].intact()) throw std::logic_error(fmt::format("op {} writes beyond its output {}", op.name, i));
    if (outputs[i].bytes() > 0) std::memcpy(outputs[i].raw(), made[i].data(), outputs[i].bytes());
  }
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!copies[i].intact() || !copies[i].holds(inputs[i].raw()))
      throw std::logic_error(fmt::format("op {} writes to its input {}", op.name, i));
}

}  // namespace chainrule::fuzz
