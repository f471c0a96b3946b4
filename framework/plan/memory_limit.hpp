// Plans within a limit of memory: by computing values again that would be stored. Not installed.
#pragma once

#include <memory>

#include <chainrule/framework/plan/plan.hpp>

namespace chainrule::detail {

struct LimitedPlan {
  Plan plan;
  // What it is a plan of, where that is not what was given.
  std::unique_ptr<const Compiled> recomputed;
};

// The plan of `compiled`, or if its arena is larger than `limit` bytes, one that computes some values again. Results
// have the same bits. 0: no limit. Throws Error for one that it cannot keep, with what it can.
LimitedPlan make_plan_within(std::size_t limit, const Compiled& compiled, const Sizes& sizes);

}  // namespace chainrule::detail
