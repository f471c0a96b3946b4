// Plan: for given sizes, what runs in which order and where in memory each value lies. Not installed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <chainrule/framework/fused/fused_step.hpp>
#include <chainrule/framework/passes/pass.hpp>
#include <chainrule/framework/passes/recompute.hpp>

namespace chainrule::detail {

// Where a value's elements are in a run.
struct Storage {
  // unread: nobody reads it, and its kernel does without it.
  enum class Kind : std::uint8_t { none, feed, variable, constant, arena, output, unread } kind = Kind::none;
  std::uint32_t index = 0;  // of the input, variable, constant, buffer or output
  Storage() = default;
  Storage(Kind of, std::size_t at) : kind(of), index(static_cast<std::uint32_t>(at)) {}
  friend bool operator==(const Storage&, const Storage&) = default;
};

// A piece of the arena, in use from the step that writes it to the last that reads it.
struct Buffer {
  std::size_t bytes = 0;
  std::size_t first = 0;
  std::size_t last = 0;
  std::size_t offset = 0;
};

struct PlannedStep {
  // A fused group, or with a single node and `fused` false a kernel.
  FusedGroup group;
  bool fused = false;
  std::optional<NodeId> product;  // of which the group reads the rows as they are made (fused/riding.hpp)
  SmallVector<Storage, 4> inputs;
  SmallVector<Storage, 2> outputs;
  std::size_t workspace = none;  // a buffer
  bool once = false;             // depends on sizes alone: runs when the plan is made ready, not in every run
  bool beside = false;           // runs at the same time as the step before it
  std::size_t bytes = 0;         // read and written
  Step step;
  static constexpr std::size_t none = ~std::size_t{0};
};

// A copy made when all steps have run: an output that is no step's own, or an update that could not be made in place.
struct FinalCopy {
  Storage from;
  Storage to;
  std::size_t bytes = 0;
};

struct Plan {
  std::vector<PlannedStep> steps;
  std::vector<FinalCopy> copies;
  std::vector<Buffer> buffers;
  std::size_t arena_bytes = 0;
  // The largest sum of buffers in use at once: no arrangement needs less.
  std::size_t lower_bound = 0;
  std::vector<TensorType> outputs;

  // "fused add relu float64 {5, 64}"
  [[nodiscard]] std::string title(const PlannedStep& step, const passes::Computation& c, const Sizes& sizes) const;
  // The steps, fused groups, buffers with offsets and sizes, and the arena against its lower bound.
  [[nodiscard]] std::string explain(const passes::Computation& c, const Sizes& sizes) const;
};

// A compiled request: the optimized graph and its groups. The results are the outputs, then the new values of
// `updated` (numbers of variables).
struct Compiled {
  passes::Computation computation;
  passes::Groups groups;
  std::size_t outputs = 0;
  std::vector<std::size_t> updated;
  // By group, where not 0: the tile that it must have (Step::tile).
  std::vector<std::int64_t> tiles = {};
};

// Steps run side by side where that pays on the number of threads that there are now, and where `beside` lets them.
Plan make_plan(const Compiled& compiled, const Sizes& sizes, bool beside = true);
// The same without steps and offsets: when each node runs and what memory it takes, steps' workspaces not counted.
passes::Execution make_execution(const Compiled& compiled, const Sizes& sizes);

// Places buffers in one arena (offsets are set) and returns its size. Exposed for its test.
std::size_t place_buffers(std::vector<Buffer>& buffers);
// The largest sum of buffers in use at once, and the first step that has it.
std::size_t largest_overlap(const std::vector<Buffer>& buffers, std::size_t* step = nullptr);

}  // namespace chainrule::detail
