// What several tests do: run values of a graph, catch an Error.
#pragma once

#include <chainrule/chainrule.hpp>

#include <functional>
#include <vector>

namespace chainrule::test {

// What f throws; an Error of line 0 where it throws none.
inline Error error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  return Error("", "nothing was thrown");
}

// What values of a graph are for these feeds.
inline std::vector<Array> compute(const Graph& graph, const Values& values, const std::vector<Feed>& feeds = {}) {
  State state(graph);
  Program program(state, {.outputs = values});
  const Results results = program.run(feeds);
  std::vector<Array> out;
  for (std::size_t i = 0; i < results.size(); ++i) out.push_back(results[i]);
  return out;
}

}  // namespace chainrule::test
