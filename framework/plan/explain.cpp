// A plan in words.
#include <fmt/core.h>

#include <chainrule/framework/fused/riding.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/plan/plan.hpp>

namespace chainrule::detail {

namespace {

std::string print(const Storage& s, const Plan& plan, const GraphData& graph) {
  switch (s.kind) {
    case Storage::Kind::feed: return graph.leaves->inputs[s.index].name;
    case Storage::Kind::variable: return graph.leaves->variables[s.index].name;
    case Storage::Kind::constant: return "constant";
    case Storage::Kind::output: return fmt::format("output {}", s.index);
    case Storage::Kind::arena: return fmt::format("[{}+{}]", plan.buffers[s.index].offset, plan.buffers[s.index].bytes);
    case Storage::Kind::unread: return "nothing";
    case Storage::Kind::none: break;
  }
  return "?";
}

}  // namespace

std::string Plan::title(const PlannedStep& step, const passes::Computation& c, const Sizes& sizes) const {
  const GraphData& graph = *c.graph.data();
  const NodeData& first = graph.node(step.group.nodes.front());
  std::string ops = step.product ? graph.node(*step.product).op->name + " with " : std::string();
  if (step.fused) ops += "fused";
  for (const NodeId id : step.group.nodes) ops += fmt::format("{}{}", ops.empty() ? "" : " ", graph.node(id).op->name);
  return fmt::format("{}  {} {}", ops,
                     name(step.fused ? compute_dtype(graph, step.group.nodes.front()) : first.type.dtype),
                     to_string(evaluate(first.type.shape, sizes)));
}

std::string Plan::explain(const passes::Computation& c, const Sizes& sizes) const {
  const GraphData& graph = *c.graph.data();
  std::string out = fmt::format("plan for {}\n", sizes.all().empty() ? "fixed sizes" : sizes.to_string());
  const auto list = [&](const auto& all) {
    std::string text;
    for (const Storage& s : all)
      if (s.kind != Storage::Kind::none) text += fmt::format("{}{}", text.empty() ? "" : ", ", print(s, *this, graph));
    return text;
  };
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const PlannedStep& step = steps[i];
    out += fmt::format("step {}{}: {}\n", i,
                       step.once     ? std::string(", once")
                       : step.beside ? fmt::format(", beside step {}", i - 1)
                                     : std::string(),
                       title(step, c, sizes));
    if (step.product) {
      out += fmt::format("    {}\n", describe_riding_step(graph, *step.product, step.group, sizes));
    } else if (step.fused) {
      out += fmt::format("    {}\n", describe_fused_step(graph, step.group, sizes));
    }
    out += fmt::format("    reads {}\n    writes {}\n", list(step.inputs), list(step.outputs));
    if (step.workspace != PlannedStep::none)
      out += fmt::format("    workspace {}\n", print({Storage::Kind::arena, step.workspace}, *this, graph));
  }
  for (const FinalCopy& copy : copies)
    out += fmt::format("copy {} to {}, {} bytes\n", print(copy.from, *this, graph), print(copy.to, *this, graph),
                       copy.bytes);
  for (std::size_t i = 0; i < buffers.size(); ++i)
    out += fmt::format("buffer {}: {} bytes at {}, steps {} to {}\n", i, buffers[i].bytes, buffers[i].offset,
                       buffers[i].first, buffers[i].last);
  out += fmt::format("arena: {} bytes, lower bound {} bytes, ratio {:.3f}\n", arena_bytes, lower_bound,
                     lower_bound == 0 ? 1.0 : static_cast<double>(arena_bytes) / static_cast<double>(lower_bound));
  return out;
}

}  // namespace chainrule::detail
