// A fused group of elementwise nodes as one step. Not installed.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/framework/kernels/step.hpp>

namespace chainrule::detail {

// A group of elementwise nodes of one shape and compute dtype and of sums over them.
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

// The same in pieces: chunks of elements that follow each other, with the bits that all of it has. `scratch` and
// `partials` are memory of so many bytes, the first for one chunk at a time, the second for all of them.
class ChunkedGroup {
 public:
  virtual ~ChunkedGroup() = default;
  [[nodiscard]] virtual std::int64_t chunks() const = 0;
  [[nodiscard]] virtual std::int64_t elements_of_chunk() const = 0;  // the last may have fewer
  [[nodiscard]] virtual std::size_t scratch_bytes() const = 0;
  [[nodiscard]] virtual std::size_t partial_bytes() const = 0;
  [[nodiscard]] virtual std::int64_t tile() const = 0;     // as Step::tile
  [[nodiscard]] virtual std::string describe() const = 0;  // as describe_fused_step()
  virtual void run_chunk(const StepBuffers& buffers, std::int64_t chunk, char* scratch, char* partials) const = 0;
  virtual void finish(const StepBuffers& buffers, const char* partials) const = 0;
};
// For a group that is not empty; chunks have whole lines of the last axis where they can.
std::shared_ptr<const ChunkedGroup> make_chunked_group(const GraphData& graph, const FusedGroup& group,
                                                       const Sizes& sizes);

// A node by itself: elementwise a group of one, else its kernel.
Step make_node_step(const GraphData& graph, NodeId id, const Sizes& sizes);

// One node computed now, on constants: its outputs, or of one that has one, that.
std::vector<Array> evaluate_all(const Node& node, const std::vector<const Array*>& inputs);
Array evaluate(const Node& node, const std::vector<const Array*>& inputs);

}  // namespace chainrule::detail
