// Op: one struct that knows everything of an operation, and the registry of all of them.
#pragma once

#include <concepts>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/framework/graph/elementwise.hpp>
#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// What is known of an array before a run: dtype and shape.
struct Type {
  DType dtype = float64;
  Shape shape;
  friend bool operator==(const Type&, const Type&) = default;
};

// ---- the shape rule

// One use of an op, as its shape rule sees it.
class OpCall {
 public:
  OpCall(const Op& op, const std::vector<Type>& inputs, const Attributes& attributes, Location at)
      : op_(op), inputs_(inputs), attributes_(attributes), at_(at) {}

  [[nodiscard]] const Op& op() const { return op_; }
  [[nodiscard]] std::size_t size() const { return inputs_.size(); }
  [[nodiscard]] const Shape& shape(std::size_t i) const { return type(i).shape; }
  [[nodiscard]] DType dtype(std::size_t i) const { return type(i).dtype; }
  // Throws Error where the call has no input i.
  [[nodiscard]] const Type& type(std::size_t i) const;
  // All that the op declares.
  [[nodiscard]] const Attributes& attributes() const { return attributes_; }
  template <class T>
  [[nodiscard]] const T& attribute(std::string_view name) const {
    return attributes_.get<T>(name);
  }
  [[nodiscard]] Location location() const { return at_; }

  // Throws the Error "FILE:LINE: OP: requires REQUIRED, got GOT".
  [[noreturn]] void fail(std::string_view required, std::string_view got) const;
  void require_inputs(std::size_t count) const;
  void require_floating(std::size_t i) const;
  void require_same_dtype() const;  // of all inputs
  // A possibly negative axis as an index below the rank of input i.
  [[nodiscard]] std::size_t axis(std::int64_t axis, std::size_t i = 0) const;

 private:
  const Op& op_;
  const std::vector<Type>& inputs_;
  const Attributes& attributes_;
  Location at_;
};

using Types = std::vector<Type>;

// From the types of the inputs to the type of the output; throws through OpCall::fail where they do not fit. A rule
// that returns Types is that of an op with several outputs, at least one.
class ShapeRule {
 public:
  ShapeRule() = default;
  template <class F>
  requires(!std::same_as<F, ShapeRule> && std::is_invocable_r_v<Type, const F&, const OpCall&>) ShapeRule(F rule)
      : one_(std::move(rule)) {}
  template <class F>
  requires(std::is_invocable_r_v<Types, const F&, const OpCall&>) ShapeRule(F rule) : several_(std::move(rule)) {}

  explicit operator bool() const { return one_ || several_; }
  [[nodiscard]] bool several() const { return bool(several_); }
  // Of an op with one output.
  [[nodiscard]] Type operator()(const OpCall& call) const { return one_(call); }
  // Of all outputs.
  [[nodiscard]] Types all(const OpCall& call) const { return several_ ? several_(call) : Types{one_(call)}; }

 private:
  std::function<Type(const OpCall&)> one_;
  std::function<Types(const OpCall&)> several_;
};

// One floating input; the output is like it.
Type same_shape(const OpCall& call);
// Floating inputs of one dtype, broadcast against each other by NumPy's rule.
Type broadcast_shape(const OpCall& call);

// ---- the forward rule

struct TensorType {
  DType dtype = float64;
  Dims shape;
};

// One use of an op once its sizes are numbers: what a kernel is made for.
struct KernelCall {
  std::vector<TensorType> inputs;
  TensorType output;  // the first
  const Attributes& attributes;
  std::string_view op;
  Location at;
  // Set by the kernel's maker: bytes of scratch memory, and multiplications and additions, for Program::profile().
  std::size_t workspace = 0;
  double flops = 0;
  std::vector<TensorType> outputs = {};  // all of them
};

// The operands of a run. Inputs are not to be written, outputs wholly; an output never overlaps an input, but may be
// the one that Forward::adds_to names.
struct KernelBuffers {
  const void* const* inputs;
  void* output;  // the first
  void* workspace;
  void* const* outputs;  // all of them; null are those that nobody reads, for a kernel that skips_unread outputs
};

using KernelRun = std::function<void(const KernelBuffers&)>;
// Called once for each set of sizes; what it returns runs many times and should allocate nothing. Nodes that are alike
// may run copies of one.
using KernelMaker = std::function<KernelRun(KernelCall&)>;

// Writes elements [begin, end) of an output in row-major order to `out` (its first element is element `begin`).
using RangeRun = std::function<void(const void* const* inputs, void* out, std::int64_t begin, std::int64_t end)>;
using RangeMaker = std::function<RangeRun(const KernelCall&)>;

// An array as a typed kernel sees it.
template <class T>
struct Tensor {
  T* data;
  Dims shape;
  [[nodiscard]] std::int64_t size() const { return count(shape); }
  [[nodiscard]] T* begin() const { return data; }
  [[nodiscard]] T* end() const { return data + size(); }
  T& operator[](std::int64_t i) const { return data[i]; }
};

// How an op is computed: one of an elementwise program, a kernel, a generator, or an expansion into other ops.
class Forward {
 public:
  Forward() = default;
  Forward(MicroProgram program) : micro(std::make_shared<const MicroProgram>(std::move(program))) {}

  std::shared_ptr<const MicroProgram> micro;  // elementwise
  KernelMaker kernel;                         // a kernel of its own
  // Each element from its index and scalar inputs alone, as random masks: not stored for fused consumers of its shape
  // and dtype, but made again, tile by tile, where it is used.
  RangeMaker generator;
  std::function<Values(const Node&)> expansion;  // other ops: what a program computes in place of the node's outputs
  // What the kernel or generator is written for, and apply() holds each node to: whatever the shape rule lets through,
  // a floating output, or floating inputs and output of one dtype. (An elementwise program needs no word: which of its
  // micro-operations integers have is known.)
  enum class Dtypes : std::uint8_t { any, floating, one_floating };
  Dtypes dtypes = Dtypes::any;
  // Of kernel(): the dtypes of its parameters; none for its T.
  struct Operands {
    std::vector<std::optional<DType>> inputs;  // with any_inputs the one of all
    std::vector<std::optional<DType>> outputs;
    bool any_inputs = false;
    [[nodiscard]] std::optional<DType> input(std::size_t i) const { return inputs[any_inputs ? 0 : i]; }
    // What T is in this call.
    [[nodiscard]] DType floating(const KernelCall& call) const;
  };
  std::optional<Operands> operands = {};
  // The input in whose memory the output may lie, where a plan may overwrite that: one to which the kernel adds (and
  // copies it first where the output lies elsewhere), or of which it has read what it needs before it writes there.
  std::optional<std::size_t> adds_to = {};
  // Whether the kernel does without outputs that nobody reads: it gets null for them, and they take no memory.
  bool skips_unread = false;
  // Whether it is the sum over attribute "axes", which fused groups can make as they go.
  bool sum = false;
  // Whether a run of the kernel may throw Error for the numbers it meets (an index out of range). Such kernels run
  // before anything is written to the State.
  bool may_throw = false;
  // Whether a kernel, generator or expansion rounds nothing: each element of a floating output is one of an input or a
  // whole number. (Of an elementwise program that follows from its micro-operations.)
  bool exact = false;
};

// Elementwise: F's operator() takes one `auto` operand for each input and then one for each named attribute, which is
// so declared to be a number that each node must be given. See elementwise.hpp for what it may do with them. Inputs
// are broadcast to the output's shape; apply() throws Error where one does not fit it.
template <class F>
Forward elementwise(F functor = {}, std::vector<std::string> attributes = {}) {
  constexpr std::size_t operands = detail::operands_of<F, 1, simd::Traced>();
  const std::size_t inputs = operands - attributes.size();
  return {detail::trace(functor, inputs, std::move(attributes), std::make_index_sequence<operands>())};
}

// kernel(): see typed_kernel.hpp.

// A composite: f(node) builds other ops on the node's inputs, adds no inputs, parameters or variables, and returns a
// value of the node's dtype and shape, or Values like its outputs; apply() tries it and throws Error where it does not.
// The op keeps its own gradient rule, name and line.
template <class F>
Forward expand(F f) {
  Forward forward;
  if constexpr (std::is_invocable_r_v<Value, const F&, const Node&>) {
    forward.expansion = [f = std::move(f)](const Node& node) { return Values{f(node)}; };
  } else {
    forward.expansion = std::move(f);
  }
  return forward;
}

// ---- gradient, samples, registry

// From the gradient of some scalar with respect to the node's output to those with respect to each input, in graph
// ops; an empty Value for an input that has none (an integer one). The library sums a contribution back to its
// input's shape where that was broadcast. An empty rule: the op is not differentiable.
//
//   Values rule(const Node& node, Value dy)
//   Values rule(const Node& node, const Values& dys)   of an op with several outputs: one for each, an empty Value for
//                                                      those on which the scalar does not depend
class GradientRule {
 public:
  GradientRule() = default;
  template <class F>
  requires(!std::same_as<F, GradientRule> && std::is_invocable_r_v<Values, const F&, const Node&, Value>)
      GradientRule(F rule)
      : one_(std::move(rule)) {}
  template <class F>
  requires(!std::is_invocable_v<const F&, const Node&, Value> &&
           std::is_invocable_r_v<Values, const F&, const Node&, const Values&>) GradientRule(F rule)
      : several_(std::move(rule)) {}

  explicit operator bool() const { return one_ || several_; }
  [[nodiscard]] bool several() const { return bool(several_); }
  [[nodiscard]] Values operator()(const Node& node, Value dy) const { return one_(node, dy); }
  [[nodiscard]] Values all(const Node& node, const Values& dys) const {
    return several_ ? several_(node, dys) : one_(node, dys[0]);
  }

 private:
  std::function<Values(const Node&, Value)> one_;
  std::function<Values(const Node&, const Values&)> several_;
};

// Inputs on which the registry's tests try the op: values, gradients of order 1 and 2, float32 against float64.
struct Sample {
  std::vector<Initial> inputs = {};
  Attributes attributes = {};
  bool differentiate = true;  // false: values only (a point where no derivative exists)
};

struct Op {
  std::string name = {};
  std::string doc = {};
  // An op of a program's own that declares none has those of its samples (register_op()).
  DeclaredAttributes attributes = {};
  ShapeRule shape = {};
  Forward forward = {};
  GradientRule gradient = {};
  std::vector<Sample> samples = {};
  Location location = {};  // where it was registered
  bool built_in = false;   // whether that is in the library

  [[nodiscard]] bool has_several_outputs() const { return shape.several(); }
};

// Adds an op for the life of the program. Throws Error for a name in use, an op without a name, doc, shape rule,
// forward rule or samples, or a sample whose inputs or attributes are not the op's: what cannot be checked is not
// registered. Nothing is registered after an error.
const Op& register_op(Op op, Location at = Location::here());

// All registered ops by name; built-in ones included.
const std::vector<const Op*>& registry();
const Op* find_op(std::string_view name);

// The type of what the op makes of inputs of these types, of its first output where it has several. Throws Error
//   - for more or fewer inputs than the op has: the operands of an elementwise functor; else as many as in its samples,
//     where these have one number;
//   - for an attribute that the op does not declare, is given twice, of another type, or missing;
//   - where the shape rule does, or what it returns does not suit the forward rule.
Type output_type(const Op& op, const std::vector<Type>& inputs, const Attributes& attributes,
                 Location at = Location::here());

// Those of all outputs.
Types output_types(const Op& op, const std::vector<Type>& inputs, const Attributes& attributes,
                   Location at = Location::here());

// Appends a node, which has all attributes that the op declares, and returns its output, the first where it has
// several. Throws Error where an input is empty or of another graph, where output_type() does, where the forward rule
// is not written for the node's dtypes, or for an expansion that does not stand for the node.
Value apply(const Op& op, const Values& inputs, const Attributes& attributes = {}, Location at = Location::here());
// For an op that may have no inputs.
Value apply(Graph graph, const Op& op, const Values& inputs, const Attributes& attributes = {},
            Location at = Location::here());
// The same, and returns all outputs.
Values apply_all(const Op& op, const Values& inputs, const Attributes& attributes = {}, Location at = Location::here());

}  // namespace chainrule

#include <chainrule/framework/graph/typed_kernel.hpp>
