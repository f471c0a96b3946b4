// Steps: what a plan runs. A kernel made for given sizes, or a fused group of elementwise nodes. Not installed.
#pragma once

#include <concepts>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule::detail {

// The pointers of one step in one run.
struct StepBuffers {
  const void* const* inputs;
  void* const* outputs;
  void* workspace;
};

// A callable, which copies of this share: steps that are alike run one and the same.
class StepRun {
 public:
  StepRun() = default;
  template <class F>
  requires(!std::same_as<std::remove_cvref_t<F>, StepRun>)
      StepRun(F&& f)  // NOLINT(bugprone-forwarding-reference-overload)
      : self_(std::make_shared<const std::remove_cvref_t<F>>(std::forward<F>(f))),
        call_([](const void* self, const StepBuffers& buffers) {
          (*static_cast<const std::remove_cvref_t<F>*>(self))(buffers);
        }) {}
  void operator()(const StepBuffers& buffers) const { call_(self_.get(), buffers); }

 private:
  std::shared_ptr<const void> self_;
  void (*call_)(const void* self, const StepBuffers&) = nullptr;
};

// A step and the scratch memory that it needs.
struct Step {
  StepRun run;
  std::size_t workspace = 0;
  double flops = 0;       // 0: not known
  std::int64_t tile = 0;  // elements of a tile of a fused group
};

// The dtype in which an elementwise node computes: its output's, or for a bool output its operands' (float32 where all
// are bool).
DType compute_dtype(const GraphData& graph, const NodeData& node);
inline DType compute_dtype(const GraphData& graph, NodeId id) { return compute_dtype(graph, graph.node(id)); }

// What a kernel's or generator's maker is told of a node; it refers to the attributes, which must outlive it.
KernelCall call_of(const GraphData& graph, NodeId id, const Sizes& sizes, const Attributes& attributes);

// A single node that is not elementwise.
Step make_kernel_step(const GraphData& graph, NodeId id, const Sizes& sizes);

// What a sum in a fused group runs over: all elements, each row (the last axis), or each column (all axes but the
// last).
enum class SumOver : std::uint8_t { all, rows, columns };
// That of a node that could be one, by op and axes.
std::optional<SumOver> sum_over(const GraphData& graph, NodeId id);

// The array of a constant that fused groups have among their instructions' numbers, or null: a single element that is
// a double.
const Array* inlined_constant(const GraphData& graph, NodeId id);

// A group of elementwise nodes of one shape and compute dtype and of sums over them, as one step
// (framework/fused/fused_step.cpp).
struct FusedGroup {
  using Nodes = SmallVector<NodeId, 5>;
  // In the order of the graph; the first is elementwise.
  Nodes nodes;
  // Values from outside that they read, in the order of StepBuffers::inputs. A generator's value is made in place; its
  // own inputs stand in its stead.
  Nodes inputs;
  // Values that others read, in the order of StepBuffers::outputs.
  Nodes outputs;
  // outputs[k] is written to the memory of inputs[e] for each (k, e).
  std::vector<std::pair<std::size_t, std::size_t>> in_place;
  // Elements of a tile, where not 0: sums are added up tile by tile, and those of two plans must agree to the bit.
  std::int64_t tile = 0;
};
Step make_fused_step(const GraphData& graph, const FusedGroup& group, const Sizes& sizes);
// "9 instructions, 3 tiles of 512": how the step made above works, for explain().
std::string describe_fused_step(const GraphData& graph, const FusedGroup& group, const Sizes& sizes);

// Whether anything of a node depends on the sizes of a run: its shape, or a shape among its attributes.
bool has_symbols(const NodeData& node);
// Throws the error that planning met, which for sizes of which an extent comes out negative ("requires n-5 to be 0 or
// more") names no node, as one of the first node that has the extent. The line is for the caller to give.
[[noreturn]] void rethrow_at_node(const Error& error, const GraphData& graph, const Sizes& sizes);

// Attributes with their symbolic shapes evaluated.
Attributes evaluate_attributes(const Attributes& attributes, const Sizes& sizes);

// One node computed now, on constants.
Array evaluate(const Node& node, const std::vector<const Array*>& inputs);

}  // namespace chainrule::detail
