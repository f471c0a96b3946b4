// What several tests do: run values of a graph, catch an Error, draw numbers.
#pragma once

#include <chainrule/chainrule.hpp>

#include <cstdint>
#include <functional>
#include <random>
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

// Normally distributed.
template <class T>
std::vector<T> random_numbers(std::int64_t n, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> out(static_cast<std::size_t>(n));
  for (T& x : out) x = static_cast<T>(normal(random));
  return out;
}

}  // namespace chainrule::test
