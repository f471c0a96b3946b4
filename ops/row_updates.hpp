// What passes/update_rows.cpp makes of updates of tables: ops outside the registry. Not installed.
#pragma once

#include <chainrule/framework/graph/op.hpp>

namespace chainrule::detail {

// Of indices into a dimension, attribute "extent": each counted from the start. A run with one out of range throws
// Error in the name of scatter_add.
const Op& checked_indices_op();

// The first input with rows added to it: of each further pair of inputs the second at the indices that the first is,
// one pair after the other. As scatter_add, but for indices that were checked before: it does not throw, so that it may
// add to a variable in its place.
const Op& add_rows_op();

}  // namespace chainrule::detail
