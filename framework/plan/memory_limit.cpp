// What to compute again, so that a plan keeps within a limit (passes/recompute.cpp makes the graph).
//
// The steps up to the peak are cut into segments where little is read across. Then segments are made cheaper one after
// the other, those first that save the most bytes for the time that computing them again costs, first to keep products
// only and then only their ends, until the peak is within the limit: the least number of them is found by bisection.
// The last segment is left alone, since the steps after the peak would at once compute it again. Where all of it is
// not enough, what is best becomes the program and its new peak is lowered in the same way.
#include <chainrule/framework/plan/memory_limit.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

namespace chainrule::detail {

namespace {

using passes::Execution;
using passes::Keep;
using passes::Recomputation;
using passes::Segment;

constexpr int most_rounds = 4;
constexpr int most_attempts = 6;
constexpr std::size_t most_cuts_tried = 5;

// A way to run the program, and what it needs.
struct Variant {
  Compiled compiled;
  Execution execution;
};

class Round {
 public:
  Round(const Variant& from, const Sizes& sizes)
      : from_(from), sizes_(sizes), recomputation_(from.compiled.computation, from.compiled.groups, from.execution) {}

  // A variant that needs no more than `target` bytes for as little time as possible; else the one that needs least.
  Variant lower(std::size_t target) {
    Variant best = from_;
    for (const std::vector<Segment>& segments : divisions()) {
      Variant least = made(segments);
      if (least.execution.peak_bytes <= target) return cheapest(segments, std::move(least), target);
      if (least.execution.peak_bytes < best.execution.peak_bytes) best = std::move(least);
    }
    return best;
  }

 private:
  [[nodiscard]] Variant made(const std::vector<Segment>& segments) const {
    passes::Recomputed r = recomputation_.rewrite(segments);
    Variant out{{std::move(r.computation), std::move(r.groups), from_.compiled.outputs, from_.compiled.updated,
                 from_.compiled.tiles},
                {}};
    out.execution = make_execution(out.compiled, sizes_);
    return out;
  }

  // ---- where to cut

  // Divisions of the steps up to the peak into segments that keep only their ends, those that promise to need least
  // memory first.
  std::vector<std::vector<Segment>> divisions() {
    const std::size_t steps = std::size_t{from_.execution.peak} + 1;
    // By step: bytes that segments which end there keep, doubled, and half as much again for what no step after the
    // peak reads; bytes up to it that could be computed again.
    std::vector<std::ptrdiff_t> across(steps + 1, 0);
    std::vector<std::size_t> saved(steps + 1, 0);
    std::size_t largest = 64;
    for (const auto& value : recomputation_.candidates()) {
      const auto weight = static_cast<std::ptrdiff_t>(value.bytes) * (value.late ? 2 : 3);
      across[value.step] += weight;
      across[value.last] -= weight;
      if (!value.late) continue;
      saved[value.step + 1] += value.bytes;
      largest = std::max(largest, value.bytes);
    }
    for (std::size_t step = 0; step < steps; ++step) {
      across[step + 1] += across[step];
      saved[step + 1] += saved[step];
    }
    struct Division {
      std::size_t estimate;
      std::vector<Segment> segments;
    };
    std::vector<Division> all;
    // Those that end at the budget, and those that may go beyond it by half: a value as large as that (the weights of
    // attention) is still in use where it has just been made.
    for (const double beyond : {1.0, 1.5}) {
      std::size_t number = 0;  // of the segments of the last one
      for (auto budget = static_cast<double>(largest); budget < static_cast<double>(saved[steps]); budget *= 1.3) {
        std::vector<Segment> segments =
            cut(static_cast<std::size_t>(budget), static_cast<std::size_t>(budget * beyond), across, saved);
        if (segments.size() < 2 || segments.size() == number) continue;
        number = segments.size();
        segments.back().keep = Keep::all;
        const std::size_t bytes = estimate(segments);
        all.push_back({bytes, std::move(segments)});
      }
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Division& a, const Division& b) { return a.estimate < b.estimate; });
    std::vector<std::vector<Segment>> out;
    for (std::size_t i = 0; i < std::min(all.size(), most_cuts_tried); ++i) out.push_back(std::move(all[i].segments));
    return out;
  }

  // Segments of about `budget` bytes that could be computed again: each ends where least is read across, between half
  // the budget and `most`.
  static std::vector<Segment> cut(std::size_t budget, std::size_t most, const std::vector<std::ptrdiff_t>& across,
                                  const std::vector<std::size_t>& saved) {
    const std::size_t steps = saved.size() - 1;
    std::vector<Segment> out;
    std::size_t before = 0;
    std::size_t best = steps;
    for (std::size_t step = 0; step < steps; ++step) {
      const std::size_t bytes = saved[step + 1] - before;
      if (2 * bytes >= budget && (best == steps || across[step] <= across[best])) best = step;
      const bool last = step + 1 == steps;
      if ((last ? bytes < budget : bytes < most) || best == steps) continue;
      out.push_back({static_cast<std::uint32_t>(best), Keep::ends});
      before = saved[best + 1];
      step = best;
      best = steps;
    }
    if (out.empty() || out.back().last + 1 < steps) out.push_back({static_cast<std::uint32_t>(steps - 1), Keep::ends});
    return out;
  }

  // The larger of what is kept at the peak and what there is when a segment has been computed again.
  [[nodiscard]] std::size_t estimate(const std::vector<Segment>& segments) const {
    std::vector<std::size_t> kept(segments.size(), 0);
    std::vector<std::size_t> inside(segments.size(), 0);
    for (const auto& value : recomputation_.candidates()) {
      const auto of = std::lower_bound(segments.begin(), segments.end(), value.step,
                                       [](const Segment& s, std::uint32_t step) { return s.last < step; });
      const auto i = static_cast<std::size_t>(of - segments.begin());
      if (value.last > of->last) {
        kept[i] += value.bytes;
      } else if (value.late) {
        inside[i] += value.bytes;
      }
    }
    std::size_t most = 0;
    std::size_t sum = 0;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      sum += kept[i];
      most = std::max(most, sum + inside[i]);
    }
    return most;
  }

  // ---- how much of it

  struct Change {
    std::size_t segment;
    Keep keep;
    double bytes_for_time;
  };

  [[nodiscard]] Variant cheapest(const std::vector<Segment>& segments, Variant enough, std::size_t target) const {
    const std::vector<Change> changes = worthwhile_changes(segments);
    const auto with = [&](std::size_t count) {
      std::vector<Segment> some = segments;
      for (Segment& segment : some) segment.keep = Keep::all;
      for (std::size_t i = 0; i < count; ++i) some[changes[i].segment].keep = changes[i].keep;
      return made(some);
    };
    std::size_t below = 0;  // not enough
    std::size_t above = changes.size();
    if (above == 0) return enough;
    if (Variant all = with(above); all.execution.peak_bytes <= target) {
      enough = std::move(all);
    } else {
      return enough;  // what promised to save nothing did
    }
    while (below + 1 < above) {
      const std::size_t middle = (below + above) / 2;
      if (Variant some = with(middle); some.execution.peak_bytes <= target) {
        above = middle;
        enough = std::move(some);
      } else {
        below = middle;
      }
    }
    return enough;
  }

  [[nodiscard]] std::vector<Change> worthwhile_changes(const std::vector<Segment>& segments) const {
    const auto prices = [&](Keep keep) {
      std::vector<Segment> all = segments;
      for (Segment& segment : all) segment.keep = segment.keep == Keep::all ? Keep::all : keep;
      return recomputation_.prices(all, sizes_);
    };
    const auto stored = prices(Keep::all);
    const auto products = prices(Keep::products);
    const auto ends = prices(Keep::ends);
    std::vector<Change> out;
    const auto rate = [](const Recomputation::Price& from, const Recomputation::Price& to) {
      if (to.bytes >= from.bytes) return 0.0;
      return static_cast<double>(from.bytes - to.bytes) / std::max(1.0, to.cost - from.cost);
    };
    for (std::size_t i = 0; i < segments.size(); ++i) {
      if (segments[i].keep == Keep::all) continue;
      const double to_products = rate(stored[i], products[i]);
      const double further = rate(products[i], ends[i]);
      if (to_products > further) {
        out.push_back({i, Keep::products, to_products});
        if (further > 0) out.push_back({i, Keep::ends, further});
      } else if (const double at_once = rate(stored[i], ends[i]); at_once > 0) {
        out.push_back({i, Keep::ends, at_once});
      }
    }
    std::stable_sort(out.begin(), out.end(),
                     [](const Change& a, const Change& b) { return a.bytes_for_time > b.bytes_for_time; });
    return out;
  }

  const Variant& from_;
  const Sizes& sizes_;
  Recomputation recomputation_;
};

// Of at most `target` bytes without workspaces, or the least that is found.
Variant lowered(Variant now, const Sizes& sizes, std::size_t target) {
  for (int round = 0; round < most_rounds && now.execution.peak_bytes > target; ++round) {
    Variant next = Round(now, sizes).lower(target);
    if (next.execution.peak_bytes >= now.execution.peak_bytes) break;
    now = std::move(next);
  }
  return now;
}

// The tiles of groups with sums, whose bits depend on them.
std::vector<std::int64_t> tiles_of(const Plan& plan, const Compiled& compiled) {
  const GraphData& graph = *compiled.computation.graph.data();
  std::vector<std::int64_t> out;
  for (const PlannedStep& step : plan.steps) {
    const bool sums = step.fused && std::any_of(step.group.nodes.begin(), step.group.nodes.end(),
                                                [&](NodeId id) { return graph.node(id).op->forward.sum; });
    if (!sums) continue;
    const std::uint32_t group = compiled.groups[step.group.nodes.front()];
    if (out.size() <= group) out.resize(std::size_t{group} + 1, 0);
    out[group] = step.step.tile;
  }
  return out;
}

Error not_within(std::size_t limit, const Plan& plan, const Compiled& compiled, const Sizes& sizes) {
  std::size_t step = 0;
  largest_overlap(plan.buffers, &step);
  std::string where;
  if (step < plan.steps.size()) {
    const Location line = compiled.computation.graph.data()->node(plan.steps[step].group.nodes.front()).at;
    where = fmt::format(", in step {}: {}{}", step, plan.title(plan.steps[step], compiled.computation, sizes),
                        line.known() ? fmt::format(" ({})", line.to_string()) : "");
  }
  return Error(
      "program",
      fmt::format("requires a memory_limit that can be kept, got {} bytes: the least found{} is {} bytes{}", limit,
                  sizes.all().empty() ? "" : fmt::format(" for {}", sizes.to_string()), plan.arena_bytes, where));
}

}  // namespace

LimitedPlan make_plan_within(std::size_t limit, const Compiled& compiled, const Sizes& sizes) {
  LimitedPlan best{make_plan(compiled, sizes), nullptr};
  if (limit == 0 || best.plan.arena_bytes <= limit) return best;
  best.plan = make_plan(compiled, sizes, false);
  if (best.plan.arena_bytes <= limit) return best;
  Variant start{compiled, make_execution(compiled, sizes)};
  start.compiled.tiles = tiles_of(best.plan, compiled);
  // Workspaces and gaps come on top of what a variant is known to need: so each attempt aims lower, the last as low as
  // it gets.
  std::size_t target = limit;
  std::size_t margin = 0;
  for (int attempt = 0; attempt < most_attempts; ++attempt) {
    if (attempt + 1 == most_attempts) target = 0;
    Variant found = lowered(start, sizes, target);
    const std::size_t needed = found.execution.peak_bytes;
    LimitedPlan made{make_plan(found.compiled, sizes, false), nullptr};
    const std::size_t bytes = made.plan.arena_bytes;
    if (bytes < best.plan.arena_bytes) {
      best = std::move(made);
      best.recomputed = std::make_unique<const Compiled>(std::move(found.compiled));
    }
    if (best.plan.arena_bytes <= limit) return best;
    if (needed > target) break;
    margin = 2 * margin + (bytes - limit);
    target = std::min(needed, limit) - std::min({needed, limit, margin});
  }
  throw not_within(limit, best.plan, best.recomputed ? *best.recomputed : compiled, sizes);
}

}  // namespace chainrule::detail
