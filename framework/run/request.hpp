// What a program is asked for, checked and completed. Not installed.
#pragma once

#include <vector>

#include <chainrule/framework/passes/pass.hpp>
#include <chainrule/framework/run/program.hpp>

namespace chainrule::detail {

// Throws Error for what is not of this graph, updates of what is no variable, two of one, or one of another type, and
// where neither outputs nor updates are asked for.
void check(const Graph& of, const Values& outputs, const Updates& updates, Location at);

// Adds the updates that ride along with values that this program computes anyway. Of those of one variable the first
// is added, and all are returned.
std::vector<passes::Chain> add_attached(const Graph& of, const Values& outputs, Updates& updates);

// These outputs, and then the other values of the graph that they and the updates need, in its order, but for
// constants.
Values with_all_that_they_need(const Graph& graph, const Values& outputs, const Updates& updates);

// Throws Error for the first of these values, in the order of their graph, that has a floating element which is not
// finite.
void require_finite(const Results& results, const Values& values, Location at);

}  // namespace chainrule::detail
