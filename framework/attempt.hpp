// All or nothing for functions that append several nodes. Not installed.
// When an error leaves such a function, the graph is as it was.
#pragma once

#include <iterator>

#include <chainrule/framework/graph_data.hpp>

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
    if (graph_->nodes.size() == nodes_) return;
    std::erase_if(graph_->names, [this](const auto& entry) { return entry.second >= nodes_; });
    graph_->names_used.clear();
    graph_->leaves->inputs.resize(inputs_);
    while (graph_->leaves->variables.size() > variables_) graph_->leaves->variables.pop_back();
    graph_->attached.resize(attached_);
    graph_->constants.resize(constants_);
    graph_->nodes.truncate(nodes_);
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

// What `build` returns, on the graph of `like` or on none where that is empty (and the error still to come).
template <class F>
auto attempt(Value like, F build) {
  if (!like.defined()) return build();
  Attempt guard(like.data());
  auto made = build();
  guard.succeed();
  return made;
}

}  // namespace chainrule::detail
