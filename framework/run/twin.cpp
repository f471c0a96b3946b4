#include <chainrule/framework/run/twin.hpp>

#include <fmt/core.h>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/run/state_data.hpp>

namespace chainrule::detail {

namespace {

// The same nodes with the same numbers.
Graph copy_of(const Graph& graph, bool widen) {
  const detail::GraphData& from = *graph.data();
  auto to = std::make_shared<detail::GraphData>();
  const auto wide = [widen](DType dtype) { return widen && dtype == float32 ? float64 : dtype; };
  to->options = from.options;
  to->options.dtype = wide(from.options.dtype);
  to->step = from.step;
  to->epoch = from.epoch;
  to->streams = from.streams;
  to->names = from.names;
  to->attached = from.attached;
  *to->leaves = *from.leaves;
  for (auto& variable : to->leaves->variables) variable.dtype = wide(variable.dtype);
  for (const auto& constant : from.constants)
    to->constants.push_back(widen ? std::make_shared<const Array>(constant->astype(wide(constant->dtype())))
                                  : constant);
  Types further;  // of the outputs of the last node
  for (const auto& old : from.nodes) {
    detail::NodeData node = old;
    if (old.further_output) {
      if (widen) node.type = further[old.payload];
    } else if (!old.op->shape) {  // a leaf
      node.type.dtype = wide(old.type.dtype);
    } else if (widen) {
      if (const Attribute* dtype = old.attributes.find("dtype"))
        if (const auto* d = std::get_if<DType>(&dtype->variant()))
          node.attributes = old.attributes.with("dtype", wide(*d));
      std::vector<Type> types;
      for (const detail::NodeId input : old.inputs) types.push_back(to->node(input).type);
      further = old.op->shape.all(OpCall(*old.op, types, node.attributes, old.at));
      node.type = further[0];
    }
    to->nodes.push_back(std::move(node));
  }
  return Graph(to);
}

State copy_of(const State& state, const Graph& graph) {
  State out(graph);
  state.data()->grow();
  const detail::StateGuard reading(state.data()->lock, detail::StateGuard::For::reading);
  for (std::size_t i = 0; i < state.data()->variables.size(); ++i) {
    Array& to = out.data()->variables[i];
    to = state.data()->variables[i].astype(to.dtype());
  }
  out.set_step(state.step());
  out.set_epoch(state.epoch());
  return out;
}

}  // namespace

Twin::Twin(const State& state, std::span<const Feed> feeds, Location at, bool widen)
    : graph_(copy_of(state.graph(), widen)), state_(copy_of(state, graph_)), at_(at) {
  const Graph original = state.graph();
  for (const Feed& feed : feeds) {
    const Value input = feed.name().empty() ? feed.input() : original.find(feed.name(), at);
    if (!input.defined() || input.data() != original.data().get() || input.node().op().name != "input")
      throw Error(at, "feeds", "requires feeds of inputs of the State's graph");
    const Value twin = of(input);
    const detail::Block fed = feed.block();
    Array& numbers = numbers_.emplace_back(twin.dtype(), fed.shape);
    if (const std::int64_t lost = detail::convert(fed, numbers); lost >= 0)
      throw Error(at, "feeds",
                  fmt::format("requires {} for input '{}', got {}", name(twin.dtype()), input.name(),
                              detail::element_text(fed, lost)));
    inputs_.push_back(twin);
    feeds_.emplace_back(twin, numbers);
    for (std::size_t i = 0; i < std::min(twin.rank(), fed.shape.rank()); ++i)
      if (const auto symbol = twin.shape()[i].symbol_id(); symbol >= 0) sizes_.bind(symbol, fed.shape[i]);
  }
}

Array& Twin::fed(Value input) {
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i] == input) return numbers_[i];
  throw Error(at_, "feeds", fmt::format("requires a feed for input '{}', got none", input.name()));
}

}  // namespace chainrule::detail
