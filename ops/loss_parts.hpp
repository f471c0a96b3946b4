// What the files of losses have in common. Not installed.
#pragma once

#include <fmt/core.h>

#include <chainrule/framework/graph/op.hpp>
#include <chainrule/ops/loss.hpp>

namespace chainrule::detail {

// Inputs of one shape and floating dtype; broadcasting a loss is nearly always a mistake of the caller's.
inline void require_alike(const OpCall& call) {
  call.require_inputs(2);
  call.require_floating(0);
  call.require_same_dtype();
  if (!(call.shape(0) == call.shape(1)))
    call.fail("inputs of one shape", fmt::format("{} and {}", to_string(call.shape(0)), to_string(call.shape(1))));
}

// The same of two values, for losses that are built of other ops. Throws Error in the name of `op`.
void require_alike(std::string_view op, Location at, Value a, Value b);

// weight * cost, where no weight makes nothing even of an infinite cost: what cannot happen costs nothing.
Value weighed_cost(Value weight, Value cost);

// A shape but for an axis.
Shape without_axis(const Shape& shape, std::size_t axis);

// Of each line of x along an axis, which is below its rank, the element of its class; 0 is the least class.
Value class_elements(Value x, Value classes, std::int64_t axis);

// The costs of each, their sum or their mean.
Value reduced(Value costs, Reduction reduction, Location at);

}  // namespace chainrule::detail
