// Recomputation: values of the forward pass that the backward pass computes again instead of keeping them.
// Not installed.
//
// Runs when a plan is made, since what it saves depends on sizes; and after fusion, whose groups it leaves as they are:
// sums in them keep their order, and results their bits.
#pragma once

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

// What a plan does with each node.
struct Execution {
  static constexpr std::uint32_t never = ~std::uint32_t{0};
  std::vector<detail::NodeId> base;  // the node whose memory it has: its own, or through reshapes
  std::vector<std::uint32_t> step;   // in which its base is computed; never: leaves, masks made where they are read
  std::vector<std::size_t> bytes;    // in the arena
  std::vector<char> once;            // computed when the plan is made, and kept
  std::uint32_t steps = 0;
  // The step with the largest sum of values in use at once. What is in use then and read later can be computed again.
  std::uint32_t peak = 0;
  std::size_t peak_bytes = 0;
};

// What of a segment of steps is kept for steps after the peak: all that they read; products and what else is expensive,
// and what later segments read before the peak; or the latter alone.
enum class Keep : std::uint8_t { all, products, ends };

struct Segment {
  std::uint32_t last = 0;  // the first step is the one after the segment before
  Keep keep = Keep::all;
};

struct Recomputed {
  Computation computation;
  Groups groups;  // of nodes that were there before, as before; copies have numbers of their own
};

class Recomputation {
 public:
  Recomputation(const Computation& c, const Groups& groups, const Execution& execution);

  // Values that could be computed again, by their bases: their bytes, the last step before or at the peak that reads
  // them, and whether one after the peak does.
  struct Candidate {
    std::uint32_t step = 0;
    std::uint32_t last = 0;
    std::size_t bytes = 0;
    bool late = false;
  };
  [[nodiscard]] const std::vector<Candidate>& candidates() const { return candidates_; }

  // For each segment: bytes kept beyond the peak, and what computing again costs (estimated nanoseconds).
  struct Price {
    std::size_t bytes = 0;
    double cost = 0;
  };
  [[nodiscard]] std::vector<Price> prices(const std::vector<Segment>& segments, const Sizes& sizes) const;

  // The graph in the order of execution; copies stand before the first step that reads them.
  [[nodiscard]] Recomputed rewrite(const std::vector<Segment>& segments) const;

 private:
  struct Needed {
    std::vector<char> computed;  // as before
    std::vector<char> copied;    // again, after the peak
    std::vector<char> kept;      // computed before the peak and read after it
  };
  class Writer;

  [[nodiscard]] bool early(detail::NodeId id) const { return execution_.step[id] <= execution_.peak; }
  void treat_outputs_alike(std::vector<char>& flags) const;
  [[nodiscard]] std::vector<char> kept_values(const std::vector<Segment>& segments) const;
  [[nodiscard]] std::uint32_t computed_sum_in(std::size_t step, const std::vector<char>& computed) const;
  [[nodiscard]] Needed needed(const std::vector<char>& kept) const;

  const Computation& c_;
  const detail::GraphData& graph_;
  const Groups& groups_;
  const Execution& execution_;
  std::vector<detail::NodeId> sequence_;    // nodes of all steps, in their order
  std::vector<std::size_t> begin_of_step_;  // in the sequence; one more at the end
  std::vector<char> pinned_;                // by base: never computed again
  std::vector<char> cheap_;
  std::vector<std::uint32_t> last_early_;
  std::vector<char> late_;
  std::vector<char> has_sum_;  // by group
  std::vector<Candidate> candidates_;
};

}  // namespace chainrule::passes
