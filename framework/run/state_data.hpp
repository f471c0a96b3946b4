// Inside of a State. Not installed.
#pragma once

#include <atomic>
#include <deque>
#include <string>
#include <string_view>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/run/state.hpp>
#include <chainrule/framework/run/state_lock.hpp>

namespace chainrule::detail {

// Counts what programs take that read the State side by side.
class DrawCount {
 public:
  DrawCount() = default;
  DrawCount(const DrawCount& other) : next_(other.now()) {}
  DrawCount& operator=(const DrawCount& other) { return set(other.now()), *this; }
  [[nodiscard]] std::int64_t now() const { return next_.load(std::memory_order_relaxed); }
  void set(std::int64_t next) { next_.store(next, std::memory_order_relaxed); }
  [[nodiscard]] std::int64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }
  // Unless another was taken since.
  void give_back(std::int64_t taken) {
    std::int64_t after = taken + 1;
    next_.compare_exchange_strong(after, taken, std::memory_order_relaxed);
  }

 private:
  std::atomic<std::int64_t> next_{0};
};

struct StateData {
  std::shared_ptr<GraphData> graph;
  // By a variable's number; the memory of each stays where it is, since plans keep pointers to it.
  std::deque<Array> variables;
  std::int64_t step = 0;
  std::int64_t epoch = 0;
  DrawCount draws;
  // Guards all but the graph (and the draws, which readers take): whoever reads or writes any of it holds a StateGuard.
  mutable StateLock lock;

  // Draws initial numbers for variables that the graph got since. Takes the lock itself.
  void grow(Location at = {});
  // State::save, whose errors are named after the function `op`.
  void save(const std::string& path, std::string_view op, Location at);
  // Counts an updating run, whose thread writes.
  void count_step();
  // Takes the lock itself, for writing.
  void set_counters(std::int64_t new_step, std::int64_t new_epoch, Location at = {});
  // The step and epoch live here; their variables in the graph, if any, are copies for runs to read, which whoever
  // changes one of the two brings up to date.
  void publish_counters();
};

}  // namespace chainrule::detail
