#include <chainrule/framework/run/feeds.hpp>

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <utility>

#include <fmt/core.h>

namespace chainrule::detail {

namespace {

// Calls f(dimension, node) for the dimensions of a graph that are no numbers, for each at the first node that has it.
template <class F>
void for_each_symbolic(const GraphData& graph, F f) {
  std::unordered_set<std::size_t> seen;
  const Shape* last = nullptr;
  const auto look_at = [&](const Shape& shape, NodeId id) {
    for (const Dimension d : shape)
      if (!d.is_number() && !d.is_inferred() && seen.insert(d.hash()).second) f(d, id);
  };
  for (NodeId id = 0; id < graph.nodes.size(); ++id) {
    const NodeData& node = graph.node(id);
    if (const Shape& shape = node.type.shape; &shape != last) {
      look_at(shape, id);
      last = &shape;
    }
    if (node.attributes.empty()) continue;
    node.attributes.for_each([&](const std::string&, const Attribute& attribute) {
      if (const auto* shape = std::get_if<Shape>(&attribute.variant())) look_at(*shape, id);
    });
  }
}

}  // namespace

Feeds::Feeds(Graph graph, Location at) : graph_(std::move(graph)), at_(at) {
  const GraphData& user = *graph_.data();
  slots_.resize(user.leaves->inputs.size());
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].node = user.leaves->inputs[i].node;
    for (const Dimension d : user.node(slots_[i].node).type.shape) {
      slots_[i].symbols.push_back(d.symbol_id());
      compound_ = compound_ || (!d.is_number() && slots_[i].symbols.back() < 0);
    }
  }
  pointers_.assign(slots_.size() + 1, nullptr);
  copies_.resize(slots_.size());
  // For C++ numbers of another dtype: made here, since a run with these allocates nothing.
  for (const InputSlot& slot : slots_) converted_.emplace_back(user.node(slot.node).type.dtype, Dims{});
}

void Feeds::require(const GraphData& live) {
  for (const NodeData& node : live.nodes)
    if (node.op == &input_op()) slots_[node.payload].needed = true;
  for_each_symbolic(live, [&](Dimension dimension, NodeId id) {
    for (const std::int64_t symbol : symbols_of(dimension)) {
      const auto has = [symbol](const InputSlot& slot) { return slot.has(symbol); };
      const auto needed = [&](const InputSlot& slot) { return (slot.needed || slot.gives_size) && has(slot); };
      if (std::any_of(slots_.begin(), slots_.end(), needed)) continue;
      const auto first = std::find_if(slots_.begin(), slots_.end(), has);
      if (first == slots_.end()) {
        const NodeData& node = live.node(id);
        throw Error(at_, "program",
                    fmt::format("requires an input with the dimension '{}', which the size of {} needs ({}), got none",
                                symbol_name(symbol), node.op->name, node.at.to_string()));
      }
      first->gives_size = true;
      size_inputs_.push_back({symbol, static_cast<std::size_t>(first - slots_.begin())});
    }
  });
}

Values Feeds::inputs() const {
  Values out;
  for (const InputSlot& slot : slots_)
    if (slot.needed || slot.gives_size) out.emplace_back(graph_.data().get(), slot.node);
  return out;
}

void Feeds::bind(std::span<const Feed> feeds, Location at) {
  sizes_.clear();
  std::fill(pointers_.begin(), pointers_.end(), nullptr);
  pointers_.back() = drawn_by_;
  for (const Feed& feed : feeds) bind_one(feed, at);
  for (std::size_t i = 0; i < slots_.size(); ++i)
    if (slots_[i].needed && !pointers_[i]) throw missing(i, "", at);
  for (const SizeInput& size : size_inputs_)
    if (!sizes_.find(size.symbol))
      throw missing(size.input, fmt::format(": the size of '{}' follows from no other", symbol_name(size.symbol)), at);
  check_compound(feeds, at);
}

void Feeds::bind_one(const Feed& feed, Location at) {
  const GraphData& graph = *graph_.data();
  const std::size_t number = slot_of(feed, at);
  const InputSlot& slot = slots_[number];
  const NodeData& node = graph.node(slot.node);
  const std::string& input = graph.leaves->inputs[number].name;
  if (pointers_[number])
    throw Error(at, "run", fmt::format("requires one feed for each input, got two for '{}'", input));
  const Shape& shape = node.type.shape;
  Dims room;
  const Feed::Numbers fed = feed.numbers(room);
  const auto wrong = [&](std::string_view why) {
    throw Error(at, "run",
                fmt::format("requires {} {} for input '{}' ({}), got {} {}{}", name(node.type.dtype), to_string(shape),
                            input, node.at.to_string(), name(fed.dtype), to_string(fed.shape), why));
  };
  if (fed.shape.rank() != shape.rank()) wrong("");
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    const std::int64_t extent = fed.shape[i];
    if (shape[i].is_number() && extent != shape[i].extent()) wrong("");
    if (slot.symbols[i] < 0) continue;
    if (extent == 0) wrong(fmt::format(": {} must be at least 1, an empty batch has no mean", shape[i].to_string()));
    if (!sizes_.bind(slot.symbols[i], extent))
      wrong(fmt::format(": {} is {} in another input", shape[i].to_string(), *sizes_.find(slot.symbols[i])));
  }
  // An array of no elements has no numbers to point to.
  if (!fed.data) invariant(count(fed.shape) == 0, "a feed of elements that lie nowhere");
  pointers_[number] = fed.data ? fed.data : static_cast<const void*>(&no_elements_);
  if (fed.dtype == node.type.dtype) return;
  std::string why;
  pointers_[number] = converted({fed.dtype, fed.shape, fed.data}, number, node.type.dtype, why);
  if (!why.empty()) wrong(why);
}

// The numbers of a feed in the input's dtype, or nullptr and in `why` which of them it cannot have.
const void* Feeds::converted(const Block& from, std::size_t number, DType dtype, std::string& why) {
  Array& to = converted_[number];
  if (!(to.shape() == from.shape)) to = Array(dtype, from.shape);
  const std::int64_t lost = convert(from, to);
  if (lost < 0) return to.raw();
  why = fmt::format(": {} cannot have {}", name(dtype), element_text(from, lost));
  return nullptr;
}

Error Feeds::missing(std::size_t input, std::string_view why, Location at) const {
  const GraphData& graph = *graph_.data();
  const NodeData& node = graph.node(slots_[input].node);
  return {at, "run",
          fmt::format("requires a feed for input '{}', {} {} ({}), got none{}", graph.leaves->inputs[input].name,
                      name(node.type.dtype), to_string(node.type.shape), node.at.to_string(), why)};
}

// Extents of inputs that are sums ("batch + 1") are checked when all symbols are known.
void Feeds::check_compound(std::span<const Feed> feeds, Location at) const {
  if (!compound_) return;
  const GraphData& graph = *graph_.data();
  for (const Feed& feed : feeds) {
    const std::size_t number = slot_of(feed, at);
    const Shape& shape = graph.node(slots_[number].node).type.shape;
    const Dims fed = feed.shape();
    for (std::size_t i = 0; i < shape.rank(); ++i)
      if (!shape[i].is_number() && slots_[number].symbols[i] < 0 && evaluate_at(shape[i], at) != fed[i])
        throw Error(at, "run",
                    fmt::format("requires {} for input '{}', got {} ({})", to_string(shape),
                                graph.leaves->inputs[number].name, to_string(fed), sizes_.to_string()));
  }
}

std::int64_t Feeds::evaluate_at(Dimension dimension, Location at) const {
  try {
    return dimension.evaluate(sizes_);
  } catch (const Error& error) {
    throw Error(at, "", error.what());
  }
}

std::size_t Feeds::slot_of(const Feed& feed, Location at) const {
  const GraphData* graph = graph_.data().get();
  // By a name without making a string of it: a run allocates nothing.
  for (std::size_t i = 0; !feed.name().empty() && i < slots_.size(); ++i)
    if (graph->leaves->inputs[i].name == feed.name()) return i;
  const Value input = feed.name().empty() ? feed.input() : graph_.find(feed.name(), at);
  if (!input.defined()) throw Error(at, "run", "requires feeds of inputs, got one of an empty Value");
  if (!(input == Value(graph_.data().get(), input.id())))
    throw Error(at, "run",
                fmt::format("requires feeds of inputs of the program's graph, got '{}' of another", input.describe()));
  const NodeData& node = graph->node(input.id());
  if (node.op != &input_op())
    throw Error(at, "run", fmt::format("requires feeds of inputs, got one of {}", input.describe()));
  if (node.payload >= slots_.size())
    throw Error(at, "run",
                fmt::format("requires feeds of inputs that the program knows, got '{}', which was added to "
                            "the graph after the program was compiled",
                            input.name()));
  return node.payload;
}

void Feeds::copy_what_is_written(const Instance& instance) {
  for (const auto [input, bytes] : instance.feeds()) {
    if (!instance.writes(pointers_[input], bytes)) continue;
    Memory& copy = copies_[input];
    copy.reserve(bytes);
    std::memcpy(copy.data(), pointers_[input], bytes);
    pointers_[input] = copy.data();
  }
}

void Feeds::clear() {
  for (Memory& copy : copies_) copy.clear();
}

}  // namespace chainrule::detail
