// ./tests/run fuzz graphs: random graphs over the whole registry, compiled in every way and compared with a node by
// node interpreter.
//
//   graphs/generate   a seed -> a recipe: a well-typed graph, and what is asked of a program
//   graphs/interpret  what its values are, node by node
//   graphs/check      the compiled program against that, with every number of threads, with less memory
//   graphs/shrink     a failing recipe -> a small one
//   graphs/print      a recipe -> a short C++ program
//   campaign.hpp      runs all that in child processes, so that crashes are faults like others
#include <algorithm>

#include "campaign.hpp"
#include "graphs/check.hpp"
#include "graphs/generate.hpp"
#include "graphs/print.hpp"
#include "graphs/shrink.hpp"

using namespace chainrule;
using namespace chainrule::fuzz;

namespace {

enum Counter : std::size_t { nodes, elements, unstable, refused, limited, as_built, watched, checked, inconclusive };

// Each batch of graphs is run by one of the sets of kernels that the library chooses from when a process starts.
std::string kernels_of(std::uint64_t batch) {
  const char* const kinds[] = {"",
                               "CHAINRULE_GENERATE=0",
                               "",
                               "CHAINRULE_ARCH=avx2",
                               "CHAINRULE_ARCH=baseline",
                               "",
                               "CHAINRULE_ARCH=avx2 CHAINRULE_GENERATE=0"};
  return kinds[batch % std::size(kinds)];
}

Outcome outcome_in_child(const Recipe& recipe) {
  return fuzz::outcome_in_child([&](Record& record) {
    Counts counts;
    std::vector<char> reached;
    const fuzz::Verdict verdict = check(recipe, counts, reached);
    Record::put(record.about, sizeof record.about, verdict.op);
    Record::put(record.message, sizeof record.message, verdict.message);
    return static_cast<int>(verdict.fault);
  });
}

std::string ops_of(const Recipe& recipe) {
  std::vector<std::string> names;
  for (const Step& step : recipe.steps)
    if (!step.is_leaf() && step.kind != Step::Kind::output)
      names.push_back(step.kind == Step::Kind::op ? step.op->name : "gradients");
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : " ") + name;
  return out;
}

std::string explain(const CampaignOptions& options, const GenerateOptions& graphs, const Record& record) {
  std::atomic<std::uint64_t> tries{0};
  const std::uint64_t seed = options.seed_of(record.index);
  const bool ended = record.kind == kind_of_ending;
  // It may have been making the recipe that ended the process.
  const ErrorFile errors;
  const bool in_generator = ended && in_child(errors, 20, [&] {
                                       generate(seed, graphs, tries);
                                       return 0;
                                     }) != 0;
  Recipe recipe = generate(seed, graphs, tries, in_generator ? record.progress : 0);
  const std::string what = ended ? "ending" : std::string(name(static_cast<Fault>(record.kind)));
  Patience patience;
  const auto fails = [&](const Recipe& candidate) {
    return patience.lasts() && outcome_in_child(candidate).kind == record.kind;
  };
  if (!fails(recipe))
    return fmt::format("{} that does not repeat itself: {}\n{}", what, ops_of(recipe), to_cpp(recipe));
  recipe = shrink(recipe, fails, Patience::tries);
  return fmt::format("{}: {}\n{}\n\n{}", what, ops_of(recipe), outcome_in_child(recipe).message, to_cpp(recipe));
}

}  // namespace

int main(int argc, char** argv) {
  Campaign campaign;
  campaign.unit = "graphs";
  CLI::App app("Random graphs, compiled and run in every way, against a node-by-node interpreter", "fuzz graphs");
  campaign.add_options(app);
  GenerateOptions graphs;
  app.add_option("--without", graphs.without, "Ops to leave out")->delimiter(',');
  app.add_flag("!--no-odd-calls", graphs.odd, "No calls with too few or too many inputs");
  app.add_option("--gradients", graphs.gradients, "The part of them whose gradients are checked");
  bool show = false;
  app.add_flag("--print", show, "With --only: print the graph as it was before it was shrunk");
  CLI11_PARSE(app, argc, argv);
  const CampaignOptions& options = campaign.options;
  if (show) {
    std::atomic<std::uint64_t> tries{0};
    fmt::print("{}", to_cpp(generate(options.seed_of(static_cast<std::uint64_t>(options.only)), graphs, tries)));
    return 0;
  }

  campaign.environment = kernels_of;
  campaign.one = [&](std::uint64_t index, Shared& shared) {
    const Recipe recipe = generate(options.seed_of(index), graphs, shared.progress);
    Counts counts;
    std::vector<char> reached;
    const fuzz::Verdict verdict = check(recipe, counts, reached);
    if (verdict.fault != Fault::none)
      shared.report(index, static_cast<int>(verdict.fault), verdict.op, verdict.message);
    for (std::size_t i = 0; i < std::min(reached.size(), shared.reached.size()); ++i)
      if (reached[i]) shared.reached[i] = 1;
    const std::uint64_t all[] = {counts.nodes,    counts.elements, counts.unstable, counts.refused,     counts.limited,
                                 counts.as_built, counts.watched,  counts.checked,  counts.inconclusive};
    for (std::size_t i = 0; i < std::size(all); ++i) shared.counters[i] += all[i];
  };
  campaign.explain = [&](const Record& record) { return explain(options, graphs, record); };
  campaign.counts = [](const Shared& total) {
    return fmt::format(
        ", {} nodes, {} numbers compared ({} hang by rounding), {} refused, {} with less memory, {} as built, {} with "
        "check_finite, {} gradients checked ({} inconclusive){}",
        total.counters[nodes], total.counters[elements], total.counters[unstable], total.counters[refused],
        total.counters[limited], total.counters[as_built], total.counters[watched], total.counters[checked],
        total.counters[inconclusive],
        reached_or_not(
            total, registry().size(), [](std::size_t i) { return registry()[i]->name; },
            "all ops of the registry reached", "ops not reached"));
  };
  return campaign.run();
}
