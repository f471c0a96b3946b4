// Which nodes are computed again, and the graph with their copies.
//
// Steps up to the peak form segments. What a later segment reads before the peak is kept: so a value is computed again
// from values of its own segment and from kept ones, and one copy serves all steps after the peak that read it. Where
// every segment of a chain of n layers has sqrt(n) of them, n layers need the memory of 2 sqrt(n)
// (Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016), for one more forward pass.
//
// A node with several outputs is kept or computed again as a whole. Never computed again: results; sums, which are
// small and dear; what may throw (after variables were overwritten); and what takes much less memory than it was made
// from.
#include <chainrule/framework/passes/recompute.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace chainrule::passes {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;

namespace {

constexpr std::uint32_t never = Execution::never;

// Kernels that only move elements.
bool moves(const Op* op) {
  static const std::vector<const Op*> movers = {find_op("transpose"),     find_op("broadcast_to"), find_op("slice"),
                                                find_op("slice_scatter"), find_op("slice_add"),    find_op("concat"),
                                                find_op("reshape")};
  return std::find(movers.begin(), movers.end(), op) != movers.end();
}

double elements(const GraphData& graph, NodeId id, const Sizes& sizes) {
  return static_cast<double>(count(evaluate(graph.node(id).type.shape, sizes)));
}

// Of a value that is kept, also where it was not stored so far.
std::size_t stored_bytes(const GraphData& graph, const Execution& x, NodeId id, const Sizes& sizes) {
  if (x.bytes[id] > 0) return x.bytes[id];
  return static_cast<std::size_t>(elements(graph, id, sizes)) * size_of(graph.node(id).type.dtype);
}

// Nanoseconds, about: to compare what could be computed again, not to promise anything.
double cost(const GraphData& graph, NodeId id, const Sizes& sizes) {
  static const Op* const product = find_op("matmul");
  const NodeData& node = graph.node(id);
  if (node.further_output) return 0;  // comes with the first
  const double out = elements(graph, id, sizes);
  if (node.op == product && out > 0) {
    const double inner =
        std::sqrt(elements(graph, node.inputs[0], sizes) * elements(graph, node.inputs[1], sizes) / out);
    return 200 + 2 * out * inner / 40;
  }
  if (node.op->forward.micro || node.op->forward.generator) return 20 + out / 5;
  return 100 + 2 * out;
}

}  // namespace

Recomputation::Recomputation(const Computation& c, const Groups& groups, const Execution& execution)
    : c_(c), graph_(*c.graph.data()), groups_(groups), execution_(execution) {
  const std::size_t n = graph_.nodes.size();
  const Execution& x = execution_;
  std::vector<std::size_t> filled(std::size_t{x.steps} + 2, 0);
  for (NodeId id = 0; id < n; ++id)
    if (x.step[id] != never) ++filled[x.step[id] + 1];
  std::partial_sum(filled.begin(), filled.end(), filled.begin());
  begin_of_step_.assign(filled.begin(), filled.end() - 1);
  sequence_.resize(begin_of_step_.back());
  for (NodeId id = 0; id < n; ++id)
    if (x.step[id] != never) sequence_[filled[x.step[id]]++] = id;

  pinned_.assign(n, 0);
  cheap_.assign(n, 0);
  last_early_.assign(n, 0);
  late_.assign(n, 0);
  for (NodeId id = 0; id < n; ++id) {
    const NodeData& node = graph_.node(id);
    if (node.op->forward.sum && groups_[id] != 0) {
      if (has_sum_.size() <= groups_[id]) has_sum_.resize(groups_[id] + 1, 0);
      has_sum_[groups_[id]] = 1;
    }
    cheap_[id] = node.op->forward.micro || node.op->forward.generator || moves(node.op) ? 1 : 0;
    if (x.step[id] == never) {
      // A mask that is made where it is read: so its inputs are read there.
      for (const NodeId input : node.inputs) pinned_[x.base[input]] = 1;
      continue;
    }
    if (x.base[id] != id) continue;
    if (x.once[id] || node.op->forward.sum || node.op->forward.may_throw) pinned_[id] = 1;
    last_early_[id] = std::max(last_early_[id], x.step[id]);
    std::size_t read = 0;
    for (const NodeId input : node.inputs) {
      const NodeId from = x.base[input];
      read += x.bytes[from];
      if (early(id)) {
        last_early_[from] = std::max(last_early_[from], x.step[id]);
      } else {
        late_[from] = 1;
      }
    }
    // (Of a product whose rows its group reads as they are made nothing is stored; it is computed again with them.)
    if (groups_[id] == 0 && x.bytes[id] > 0 && 4 * x.bytes[id] <= read) pinned_[id] = 1;
  }
  for (const Value result : c.results) pinned_[x.base[result.id()]] = 1;
  treat_outputs_alike(pinned_);
  for (NodeId id = 0; id < n; ++id)
    if (x.base[id] == id && early(id) && !pinned_[id] && x.bytes[id] > 0)
      candidates_.push_back({x.step[id], last_early_[id], x.bytes[id], late_[id] != 0});
}

void Recomputation::treat_outputs_alike(std::vector<char>& flags) const {
  for (NodeId id = 0; id < flags.size(); ++id) {
    if (!graph_.node(id).op->has_several_outputs()) continue;
    const auto first = flags.begin() + id;
    const auto end = first + graph_.output_count(id);
    std::fill(first, end, *std::max_element(first, end));
  }
}

std::vector<char> Recomputation::kept_values(const std::vector<Segment>& segments) const {
  std::vector<char> kept(graph_.nodes.size(), 1);
  std::size_t segment = 0;
  for (std::size_t step = 0; step <= execution_.peak; ++step) {
    while (segment < segments.size() && segments[segment].last < step) ++segment;
    if (segment == segments.size()) break;
    const Segment& s = segments[segment];
    for (std::size_t i = begin_of_step_[step]; i < begin_of_step_[step + 1]; ++i) {
      const NodeId base = execution_.base[sequence_[i]];
      kept[sequence_[i]] = pinned_[base] || s.keep == Keep::all || last_early_[base] > s.last ||
                                   (s.keep == Keep::products && !cheap_[base])
                               ? 1
                               : 0;
    }
  }
  treat_outputs_alike(kept);
  return kept;
}

// A group with a sum of which a node is computed in this step, or 0.
std::uint32_t Recomputation::computed_sum_in(std::size_t step, const std::vector<char>& computed) const {
  for (std::size_t i = begin_of_step_[step]; i < begin_of_step_[step + 1]; ++i) {
    const std::uint32_t group = groups_[sequence_[i]];
    if (group < has_sum_.size() && has_sum_[group] && computed[sequence_[i]]) return group;
  }
  return 0;
}

// Backwards through the steps, so that a node's readers are known before it.
Recomputation::Needed Recomputation::needed(const std::vector<char>& kept) const {
  const std::size_t n = graph_.nodes.size();
  Needed out{std::vector<char>(n, 0), std::vector<char>(n, 0), std::vector<char>(n, 0)};
  const auto set_outputs = [&](std::vector<char>& of, NodeId id) {
    std::fill_n(of.begin() + graph_.owner(id), graph_.output_count(id), 1);
  };
  const auto compute = [&](NodeId id, auto&& self) -> void {
    if (out.computed[id]) return;
    set_outputs(out.computed, id);
    if (execution_.step[id] == never)
      for (const NodeId input : graph_.node(id).inputs) self(input, self);
  };
  const auto read_late = [&](NodeId id) {
    if (execution_.step[id] == never || !early(id)) return compute(id, compute);
    if (!kept[id]) {
      set_outputs(out.copied, id);
      return;
    }
    out.kept[execution_.base[id]] = 1;
    compute(id, compute);
  };
  for (const Value result : c_.results) compute(result.id(), compute);
  for (std::size_t step = execution_.steps; step-- > 0;) {
    const std::size_t begin = begin_of_step_[step];
    const std::size_t end = begin_of_step_[step + 1];
    // A group with a sum stays whole: without one of its nodes it could add up in another order.
    const std::uint32_t whole = computed_sum_in(step, out.computed);
    for (std::size_t i = begin; whole != 0 && i < end; ++i)
      if (groups_[sequence_[i]] == whole) compute(sequence_[i], compute);
    for (std::size_t i = end; i-- > begin;) {
      const NodeId id = sequence_[i];
      for (const NodeId input : graph_.node(id).inputs) {
        if (out.computed[id]) {
          if (early(id)) {
            compute(input, compute);
          } else {
            read_late(input);
          }
        }
        if (out.copied[id]) read_late(input);
      }
    }
  }
  return out;
}

std::vector<Recomputation::Price> Recomputation::prices(const std::vector<Segment>& segments,
                                                        const Sizes& sizes) const {
  const Needed all = needed(kept_values(segments));
  std::vector<Price> out(segments.size());
  std::size_t segment = 0;
  for (std::size_t step = 0; step <= execution_.peak; ++step) {
    while (segment < segments.size() && segments[segment].last < step) ++segment;
    if (segment == segments.size()) break;
    for (std::size_t i = begin_of_step_[step]; i < begin_of_step_[step + 1]; ++i) {
      const NodeId id = sequence_[i];
      if (all.kept[id]) out[segment].bytes += stored_bytes(graph_, execution_, id, sizes);
      if (all.copied[id] && execution_.base[id] == id) out[segment].cost += cost(graph_, id, sizes);
    }
  }
  return out;
}

class Recomputation::Writer {
 public:
  Writer(const Recomputation& r, std::vector<char> kept)
      : r_(r),
        kept_(std::move(kept)),
        needed_(r.needed(kept_)),
        to_(std::make_shared<GraphData>()),
        now_(r.graph_.nodes.size(), detail::no_node),
        copy_(r.graph_.nodes.size(), detail::no_node),
        gathered_(r.graph_.nodes.size(), 0),
        last_group_(r.groups_.empty() ? 0 : *std::max_element(r.groups_.begin(), r.groups_.end())) {
    to_.data()->options = r.graph_.options;
    to_.data()->leaves = r.graph_.leaves;
  }

  Recomputed write() {
    for (NodeId id = 0; id < now_.size(); ++id)
      if (needed_.computed[id] && r_.graph_.node(id).inputs.size() == 0 && r_.execution_.step[id] == never)
        now_[id] = add(id, 0, [](NodeId) { return detail::no_node; });
    for (std::size_t step = 0; step < r_.execution_.steps; ++step) {
      const std::size_t begin = r_.begin_of_step_[step];
      const std::size_t end = r_.begin_of_step_[step + 1];
      if (step > r_.execution_.peak) copy_inputs(begin, end);
      for (std::size_t i = begin; i < end; ++i) {
        const NodeId id = r_.sequence_[i];
        if (!needed_.computed[id]) continue;
        const bool late = !r_.early(id);
        now_[id] = add(id, r_.groups_[id], [&](NodeId input) { return late ? late_value(input) : value(input); });
      }
    }
    Values results;  // those that are reshaped leaves are added only here
    for (const Value result : r_.c_.results) results.emplace_back(to_.data().get(), value(result.id()));
    return {{to_, std::move(results)}, std::move(groups_)};
  }

 private:
  // The node as it was computed before the peak, or in its reader.
  NodeId value(NodeId id) {
    if (now_[id] == detail::no_node) {
      invariant(r_.execution_.step[id] == never, "recompute reads a value before it is computed");
      now_[id] = add(id, r_.groups_[id], [this](NodeId input) { return value(input); });
    }
    return now_[id];
  }

  [[nodiscard]] bool again(NodeId id) const { return r_.execution_.step[id] != never && r_.early(id) && !kept_[id]; }
  NodeId late_value(NodeId id) { return again(id) ? copy_[id] : value(id); }

  // Copies of all that the nodes of a step read and that is not kept.
  void copy_inputs(std::size_t begin, std::size_t end) {
    std::vector<NodeId> all;
    const auto gather = [&](NodeId id) {
      for (const NodeId input : r_.graph_.node(id).inputs) {
        if (!again(input) || gathered_[input]) continue;
        const NodeId first = r_.graph_.owner(input);
        for (NodeId output = first; output < first + r_.graph_.output_count(input); ++output) {
          gathered_[output] = 1;
          all.push_back(output);
        }
      }
    };
    for (std::size_t i = begin; i < end; ++i)
      if (needed_.computed[r_.sequence_[i]]) gather(r_.sequence_[i]);
    for (std::size_t i = 0; i < all.size(); ++i) gather(all[i]);  // NOLINT(modernize-loop-convert): it grows
    std::sort(all.begin(), all.end(), [&](NodeId a, NodeId b) {
      return std::pair(r_.execution_.step[a], a) < std::pair(r_.execution_.step[b], b);
    });
    std::uint32_t group = 0;  // the one of which the last one was a copy
    for (const NodeId id : all) {
      const std::uint32_t of = r_.groups_[id];
      if (of != 0 && of != group) {
        ++last_group_;
        group = of;
      }
      copy_[id] = add(id, of == 0 ? 0 : last_group_, [this](NodeId input) { return late_value(input); });
    }
  }

  template <class Input>
  NodeId add(NodeId id, std::uint32_t group, Input&& input_of) {
    const NodeData& old = r_.graph_.node(id);
    NodeData made;
    made.op = old.op;
    made.type = old.type;
    made.attributes = old.attributes;
    made.at = old.at;
    made.payload = old.payload;
    made.further_output = old.further_output;  // which follow their node in every step
    for (const NodeId input : old.inputs) made.inputs.push_back(input_of(input));
    if (old.op == &detail::constant_op()) {
      made.payload = static_cast<std::uint32_t>(to_.data()->constants.size());
      to_.data()->constants.push_back(r_.graph_.constants[old.payload]);
    }
    const NodeId at = to_.data()->append(std::move(made)).id();
    groups_.resize(std::size_t{at} + 1, 0);
    groups_[at] = group;
    return at;
  }

  const Recomputation& r_;
  std::vector<char> kept_;
  Needed needed_;
  Graph to_;
  std::vector<NodeId> now_;
  std::vector<NodeId> copy_;
  std::vector<char> gathered_;
  Groups groups_;
  std::uint32_t last_group_;
};

Recomputed Recomputation::rewrite(const std::vector<Segment>& segments) const {
  return Writer(*this, kept_values(segments)).write();
}

}  // namespace chainrule::passes
