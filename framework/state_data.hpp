// Inside of a State. Not installed.
#pragma once

#include <deque>

#include <chainrule/framework/graph_data.hpp>
#include <chainrule/framework/state.hpp>

namespace chainrule::detail {

struct StateData {
  std::shared_ptr<GraphData> graph;
  // By a variable's number; the memory of each stays where it is, since plans keep pointers to it.
  std::deque<Array> variables;
  std::int64_t step = 0;
  std::int64_t epoch = 0;

  // Draws initial numbers for variables that the graph got since.
  void grow();
  // The step and epoch live here; their variables in the graph, if any, are copies for runs to read.
  void publish_counters();
};

}  // namespace chainrule::detail
