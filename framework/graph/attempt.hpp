// All or nothing for functions that append several nodes. Not installed.
// When an error leaves such a function, the graph is as it was.
#pragma once

#include <algorithm>
#include <list>
#include <string>

#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule::detail {

class Attempt {
 public:
  explicit Attempt(GraphData* graph)
      : graph_(graph),
        nodes_(graph->nodes.size()),
        constants_(graph->constants.size()),
        inputs_(graph->leaves->inputs.size()),
        variables_(graph->leaves->variables.size()),
        attached_(graph->attached.size()),
        streams_(graph->streams) {}
  ~Attempt() {
    if (!succeeded_) take_back();
  }
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  void succeed() { succeeded_ = true; }

 private:
  void take_back() {
    LeafTable& leaves = *graph_->leaves;
    const auto forget = [this](const std::string& name) {
      const auto entry = graph_->names.find(name);
      if (entry != graph_->names.end() && entry->second >= nodes_) graph_->names.erase(entry);
      graph_->names_used.clear();
    };
    for (; leaves.inputs.size() > inputs_; leaves.inputs.pop_back()) forget(leaves.inputs.back().name);
    for (; leaves.variables.size() > variables_; leaves.variables.pop_back()) forget(leaves.variables.back().name);
    graph_->attached.resize(attached_);
    graph_->constants.resize(constants_);
    graph_->nodes.truncate(nodes_);
    graph_->scopes.take_back(static_cast<NodeId>(nodes_));
    graph_->streams = streams_;
    for (NodeId* counter : {&graph_->step, &graph_->epoch})
      if (*counter != no_node && *counter >= nodes_) *counter = no_node;
  }

  GraphData* graph_;
  std::size_t nodes_;
  std::size_t constants_;
  std::size_t inputs_;
  std::size_t variables_;
  std::size_t attached_;
  std::uint32_t streams_;
  bool succeeded_ = false;
};

// What `build` returns, on the graphs of these values, which may be more than one (and the error still to come).
template <class F>
auto attempt(const Values& of, F build) {
  std::list<Attempt> guards;
  for (std::size_t i = 0; i < of.size(); ++i) {
    const auto begin = of.begin();
    const bool guarded = std::any_of(begin, begin + static_cast<std::ptrdiff_t>(i),
                                     [&](Value other) { return other.data() == of[i].data(); });
    if (of[i].defined() && !guarded) guards.emplace_back(of[i].data());
  }
  auto made = build();
  for (Attempt& guard : guards) guard.succeed();
  return made;
}

template <class F>
auto attempt(Value of, F build) {
  if (!of.defined()) return build();
  Attempt guard(of.data());
  auto made = build();
  guard.succeed();
  return made;
}

}  // namespace chainrule::detail
