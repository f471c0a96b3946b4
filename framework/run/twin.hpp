// A copy of a graph, its State and its feeds to work on: checks add nodes and move parameters, and leave the user's
// alone. Not installed.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include <chainrule/framework/run/program.hpp>
#include <chainrule/framework/run/state.hpp>

namespace chainrule::detail {

class Twin {
 public:
  // `widen`: in float64, whatever the graph's dtype, parameters of ops that name a dtype included.
  Twin(const State& state, std::span<const Feed> feeds, Location at, bool widen);

  [[nodiscard]] Graph graph() const { return graph_; }
  [[nodiscard]] State& state() { return state_; }
  // The twin's value for the user's.
  [[nodiscard]] Value of(Value original) const { return {graph_.data().get(), original.id()}; }
  // The same feeds, of the twin's inputs. They refer to fed(), so an element changed there is changed in a run.
  [[nodiscard]] const std::vector<Feed>& feeds() const { return feeds_; }
  // The numbers fed to an input of the twin. Throws Error where there are none.
  [[nodiscard]] Array& fed(Value input);
  // The sizes of symbols that follow from the feeds.
  [[nodiscard]] const Sizes& sizes() const { return sizes_; }

 private:
  Graph graph_;
  State state_;
  Location at_;
  std::deque<Array> numbers_;
  std::vector<Value> inputs_;
  std::vector<Feed> feeds_;
  Sizes sizes_;
};

}  // namespace chainrule::detail
