#include <chainrule/framework/state.hpp>

#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/state_data.hpp>

namespace chainrule {

using detail::GraphData;
using detail::NodeData;
using detail::StateData;

namespace {

Array initial_of(const GraphData& graph, std::size_t number) {
  const auto& variable = graph.leaves->variables[number];
  const DType drawn = is_floating(variable.dtype) ? variable.dtype : float64;
  Array numbers = variable.initial.draw(drawn, graph.options.seed, number);
  return numbers.dtype() == variable.dtype ? std::move(numbers) : numbers.astype(variable.dtype);
}

}  // namespace

void StateData::grow() {
  while (variables.size() < graph->leaves->variables.size()) variables.push_back(initial_of(*graph, variables.size()));
  publish_counters();
}

void StateData::publish_counters() {
  const auto publish = [&](detail::NodeId id, std::int64_t value) {
    if (id == detail::no_node) return;
    const auto number = graph->node(id).payload;
    if (number < variables.size()) *variables[number].data<std::int64_t>() = value;
  };
  publish(graph->step, step);
  publish(graph->epoch, epoch);
}

State::State(const Graph& graph) : data_(std::make_shared<StateData>()) {
  data_->graph = graph.data();
  data_->grow();
}

State::State(const State& other) : data_(std::make_shared<StateData>(*other.data_)) {}

State& State::operator=(const State& other) {
  if (this == &other || data_ == other.data_) return *this;
  if (!data_ || data_->graph != other.data_->graph) return *this = State(other);
  // Programs that share this State refer to its memory, and are to go on with the numbers assigned.
  data_->grow();
  other.data_->grow();
  for (std::size_t i = 0; i < data_->variables.size(); ++i)
    std::memcpy(data_->variables[i].raw(), other.data_->variables[i].raw(), data_->variables[i].bytes());
  data_->step = other.data_->step;
  data_->epoch = other.data_->epoch;
  data_->publish_counters();
  return *this;
}

const Array& State::get(Value variable, Location at) const {
  if (!variable.defined() || variable.data() != data_->graph.get())
    throw Error(at, "state", "requires a parameter or variable of this State's graph");
  const NodeData& node = data_->graph->node(variable.id());
  if (node.op != &detail::variable_op())
    throw Error(at, "state", fmt::format("requires a parameter or variable, got {}", variable.describe()));
  data_->grow();
  return data_->variables[node.payload];
}

const Array& State::get(std::string_view name, Location at) const { return get(graph().find(name, at), at); }

void State::set(Value variable, const Array& values, Location at) {
  const Array& now = get(variable, at);
  const bool floats = is_floating(now.dtype()) && is_floating(values.dtype());
  if (!(now.shape() == values.shape()) || (now.dtype() != values.dtype() && !floats))
    throw Error(at, "state",
                fmt::format("requires {} {} for '{}', got {} {}", name(now.dtype()), to_string(now.shape()),
                            variable.name(), name(values.dtype()), to_string(values.shape())));
  const Array converted = values.astype(now.dtype());
  std::memcpy(data_->variables[data_->graph->node(variable.id()).payload].raw(), converted.raw(), converted.bytes());
  if (variable.id() == data_->graph->step) data_->step = *converted.data<std::int64_t>();
  if (variable.id() == data_->graph->epoch) data_->epoch = *converted.data<std::int64_t>();
}

void State::set(std::string_view name, const Array& values, Location at) { set(graph().find(name, at), values, at); }

std::int64_t State::step() const { return data_->step; }
std::int64_t State::epoch() const { return data_->epoch; }

void State::set_step(std::int64_t step) {
  data_->step = step;
  data_->publish_counters();
}

void State::set_epoch(std::int64_t epoch) {
  data_->epoch = epoch;
  data_->publish_counters();
}

void State::reset() {
  for (std::size_t i = 0; i < data_->variables.size(); ++i) {
    const Array initial = initial_of(*data_->graph, i);
    std::memcpy(data_->variables[i].raw(), initial.raw(), initial.bytes());
  }
  set_step(0);
  set_epoch(0);
}

Graph State::graph() const { return Graph(data_->graph); }

}  // namespace chainrule
