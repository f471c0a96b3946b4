#include <chainrule/framework/run/state.hpp>

#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/run/state_data.hpp>

namespace chainrule {

using detail::GraphData;
using detail::NodeData;
using detail::StateData;
using detail::StateGuard;

namespace {

Array initial_of(const GraphData& graph, std::size_t number) {
  const auto& variable = graph.leaves->variables[number];
  const DType drawn = is_floating(variable.dtype) ? variable.dtype : float64;
  Array numbers = variable.initial.draw(drawn, graph.options.seed, number);
  return numbers.dtype() == variable.dtype ? std::move(numbers) : numbers.astype(variable.dtype);
}

}  // namespace

void StateData::grow(Location at) {
  {
    const StateGuard reading(lock, StateGuard::For::reading);
    if (variables.size() >= graph->leaves->variables.size()) return;
  }
  const StateGuard writing(lock, StateGuard::For::writing, at);
  while (variables.size() < graph->leaves->variables.size()) variables.push_back(initial_of(*graph, variables.size()));
  publish_counters();
}

void StateData::count_step() {
  ++step;
  publish_counters();
}

void StateData::set_counters(std::int64_t new_step, std::int64_t new_epoch, Location at) {
  const StateGuard writing(lock, StateGuard::For::writing, at);
  step = new_step;
  epoch = new_epoch;
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

namespace {

// The number of a parameter or variable of the State, which has numbers of it from here on.
std::size_t number_of(StateData& state, Value variable, Location at) {
  if (!variable.defined() || variable.data() != state.graph.get())
    throw Error(at, "state", "requires a parameter or variable of this State's graph");
  const NodeData& node = state.graph->node(variable.id());
  if (node.op != &detail::variable_op())
    throw Error(at, "state", fmt::format("requires a parameter or variable, got {}", variable.describe()));
  state.grow(at);
  return node.payload;
}

std::shared_ptr<StateData> copy_of(const StateData& state) {
  const StateGuard reading(state.lock, StateGuard::For::reading);
  return std::make_shared<StateData>(state);
}

}  // namespace

State::State(const Graph& graph) : data_(std::make_shared<StateData>()) {
  data_->graph = graph.data();
  data_->grow();
}

State::State(const State& other) : data_(copy_of(*other.data_)) {}

State& State::operator=(const State& other) {
  if (this == &other || data_ == other.data_) return *this;
  if (!data_ || data_->graph != other.data_->graph) return *this = State(other);
  // Programs that share this State refer to its memory, and are to go on with the numbers assigned. Of two locks held
  // at once each could wait for the other's, so these are of a copy.
  data_->grow();
  other.data_->grow();
  const std::shared_ptr<const StateData> from = copy_of(*other.data_);
  const StateGuard writing(data_->lock, StateGuard::For::writing);
  for (std::size_t i = 0; i < from->variables.size(); ++i)
    std::memcpy(data_->variables[i].raw(), from->variables[i].raw(), from->variables[i].bytes());
  data_->step = from->step;
  data_->epoch = from->epoch;
  data_->draws = from->draws;
  data_->publish_counters();
  return *this;
}

const Array& State::get(Value variable, Location at) const {
  const std::size_t number = number_of(*data_, variable, at);
  const StateGuard reading(data_->lock, StateGuard::For::reading);
  return data_->variables[number];
}

const Array& State::get(std::string_view name, Location at) const { return get(graph().find(name, at), at); }

Array State::snapshot(Value variable, Location at) const {
  const std::size_t number = number_of(*data_, variable, at);
  const StateGuard reading(data_->lock, StateGuard::For::reading);
  return data_->variables[number];
}

Array State::snapshot(std::string_view name, Location at) const { return snapshot(graph().find(name, at), at); }

void State::set(Value variable, const Array& values, Location at) {
  const Array& now = get(variable, at);
  const bool floats = is_floating(now.dtype()) && is_floating(values.dtype());
  const bool integers = is_integer(now.dtype()) && is_integer(values.dtype());
  const auto wrong = [&](const std::string& why) {
    throw Error(at, "state",
                fmt::format("requires {} {} for '{}', got {} {}{}", name(now.dtype()), to_string(now.shape()),
                            variable.name(), name(values.dtype()), to_string(values.shape()), why));
  };
  if (!(now.shape() == values.shape()) || (now.dtype() != values.dtype() && !floats && !integers)) wrong("");
  if (integers && now.dtype() != values.dtype()) {
    Array fitting(now.dtype(), now.shape());
    const detail::Block given = detail::block_of(values);
    if (const std::int64_t lost = detail::convert(given, fitting); lost >= 0)
      wrong(": " + detail::element_text(given, lost));
  }
  const Array converted = values.astype(now.dtype());
  const StateGuard writing(data_->lock, StateGuard::For::writing, at);
  std::memcpy(data_->variables[data_->graph->node(variable.id()).payload].raw(), converted.raw(), converted.bytes());
  if (variable.id() == data_->graph->step) data_->step = *converted.data<std::int64_t>();
  if (variable.id() == data_->graph->epoch) data_->epoch = *converted.data<std::int64_t>();
}

void State::set(std::string_view name, const Array& values, Location at) { set(graph().find(name, at), values, at); }

std::int64_t State::step() const {
  const StateGuard reading(data_->lock, StateGuard::For::reading);
  return data_->step;
}

std::int64_t State::epoch() const {
  const StateGuard reading(data_->lock, StateGuard::For::reading);
  return data_->epoch;
}

void State::set_step(std::int64_t step) {
  const StateGuard writing(data_->lock, StateGuard::For::writing);
  data_->set_counters(step, data_->epoch);
}

void State::set_epoch(std::int64_t epoch) {
  const StateGuard writing(data_->lock, StateGuard::For::writing);
  data_->set_counters(data_->step, epoch);
}

std::int64_t State::draws() const { return data_->draws.now(); }

void State::set_draws(std::int64_t draws) {
  const StateGuard writing(data_->lock, StateGuard::For::writing);
  data_->draws.set(draws);
}

void State::reset() {
  data_->grow();
  std::vector<Array> initial;
  for (std::size_t i = 0; i < data_->graph->leaves->variables.size(); ++i)
    initial.push_back(initial_of(*data_->graph, i));
  const StateGuard writing(data_->lock, StateGuard::For::writing);
  for (std::size_t i = 0; i < initial.size(); ++i)
    std::memcpy(data_->variables[i].raw(), initial[i].raw(), initial[i].bytes());
  data_->set_counters(0, 0);
  data_->draws.set(0);
}

Graph State::graph() const { return Graph(data_->graph); }

}  // namespace chainrule
