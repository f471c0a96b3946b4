#include <chainrule/framework/plan/plan.hpp>

#include <algorithm>

#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/plan/arrangement.hpp>

namespace chainrule::detail {

namespace {

// Of the arena against its lower bound: then one without groups that follow products is looked at, whose buffers are
// others. (A group has the same bits either way.)
constexpr double wasteful = 1.05;

// All but the steps' code and the buffers' offsets.
Arrangement arrange(const Compiled& compiled, const Sizes& sizes, bool beside, bool rides = true) {
  Arrangement a(compiled, sizes);
  a.rides = rides;
  make_units(a);
  assign_results(a);
  order_units(a);
  if (beside) put_side_by_side(a);
  assign_memory(a);
  return a;
}

// What is copied when all steps have run: results that are no step's own.
std::vector<FinalCopy> make_copies(Arrangement& a) {
  const Values& results = a.compiled.computation.results;
  std::vector<FinalCopy> copies;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const NodeId from = a.base[results[i].id()];
    const Storage to = i < a.compiled.outputs
                           ? Storage{Storage::Kind::output, i}
                           : Storage{Storage::Kind::variable, a.compiled.updated[i - a.compiled.outputs]};
    if (!(a.storage[from] == to)) copies.push_back({a.storage[from], to, a.bytes_of(results[i].id())});
  }
  // An update that copies a variable must find it as it was: copies from variables go before copies into them, by
  // way of the arena where two variables change places.
  std::vector<FinalCopy> first;
  for (FinalCopy& copy : copies) {
    if (copy.from.kind != Storage::Kind::variable || copy.to.kind != Storage::Kind::variable) continue;
    const std::size_t step = a.order.size();
    a.buffers.push_back({rounded(copy.bytes), step, step, 0});
    const Storage between{Storage::Kind::arena, a.buffers.size() - 1};
    first.push_back({copy.from, between, copy.bytes});
    copy.from = between;
  }
  std::stable_partition(copies.begin(), copies.end(),
                        [](const FinalCopy& c) { return c.to.kind != Storage::Kind::variable; });
  copies.insert(copies.begin(), first.begin(), first.end());
  return copies;
}

Plan finish(Arrangement a) {
  Plan plan;
  plan.steps = make_steps(a);
  plan.copies = make_copies(a);
  for (std::size_t i = 0; i < a.compiled.outputs; ++i) {
    const Value output = a.compiled.computation.results[i];
    plan.outputs.push_back({output.dtype(), evaluate(output.shape(), a.sizes)});
  }
  plan.buffers = std::move(a.buffers);
  plan.arena_bytes = place_buffers(plan.buffers);
  plan.lower_bound = largest_overlap(plan.buffers);
  return plan;
}

}  // namespace

Plan make_plan(const Compiled& compiled, const Sizes& sizes, bool beside) {
  try {
    Plan plan = finish(arrange(compiled, sizes, beside));
    const bool rides =
        std::any_of(plan.steps.begin(), plan.steps.end(), [](const PlannedStep& step) { return step.product; });
    if (!rides || static_cast<double>(plan.arena_bytes) <= wasteful * static_cast<double>(plan.lower_bound))
      return plan;
    Plan other = finish(arrange(compiled, sizes, beside, false));
    return other.arena_bytes < plan.arena_bytes ? std::move(other) : std::move(plan);
  } catch (const Error& error) {
    rethrow_at_node(error, *compiled.computation.graph.data(), sizes);
  }
}

passes::Execution make_execution(const Compiled& compiled, const Sizes& sizes) {
  Arrangement a = arrange(compiled, sizes, false);
  make_copies(a);
  const std::size_t n = a.graph.nodes.size();
  passes::Execution out;
  out.step.assign(n, passes::Execution::never);
  out.bytes.assign(n, 0);
  out.once.assign(n, 0);
  out.steps = static_cast<std::uint32_t>(a.order.size());
  std::vector<std::uint32_t> step_of(a.units.size(), 0);
  for (std::uint32_t step = 0; step < out.steps; ++step) step_of[a.order[step]] = step;
  for (NodeId id = 0; id < n; ++id) {
    const Unit unit = a.unit_of[a.base[id]];
    if (unit == no_unit) continue;
    out.step[id] = step_of[unit];
    out.once[id] = a.units[unit].once ? 1 : 0;
    if (a.storage[id].kind == Storage::Kind::arena) out.bytes[id] = rounded(a.bytes_of(id));
  }
  out.base = std::move(a.base);
  std::size_t peak = 0;
  out.peak_bytes = largest_overlap(a.buffers, &peak);
  out.peak = static_cast<std::uint32_t>(peak);
  return out;
}

}  // namespace chainrule::detail
