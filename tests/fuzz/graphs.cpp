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

enum Counter : std::size_t { nodes, elements, unstable, refused, limited, checked, inconclusive };

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

std::uint64_t seed_of(const CampaignOptions& options, std::uint64_t index) {
  return options.seed * 1'000'000'007U + index;
}

// A recipe in a child of its own.
fuzz::Verdict verdict_in_child(const Recipe& recipe) {
  const SharedMemory<Record> record;
  const ErrorFile errors;
  const int status = in_child(errors, 20, [&] {
    Counts counts;
    std::vector<char> reached;
    const fuzz::Verdict verdict = check(recipe, counts, reached);
    Record::put(record->about, sizeof record->about, verdict.op);
    Record::put(record->message, sizeof record->message, verdict.message);
    return 10 + static_cast<int>(verdict.fault);
  });
  if (status < 10) return {Fault::ending, errors.summary(), {}};
  return {static_cast<Fault>(status - 10), record->message, record->about};
}

std::string ops_of(const Recipe& recipe) {
  std::vector<std::string> names;
  for (const Step& step : recipe.steps)
    if (!step.is_leaf()) names.push_back(step.kind == Step::Kind::op ? step.op->name : "gradients");
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : " ") + name;
  return out;
}

std::string explain(const CampaignOptions& options, const GenerateOptions& graphs, const Record& record) {
  std::atomic<std::uint64_t> tries{0};
  const bool ended = record.kind == kind_of_ending;
  Recipe recipe;
  // It may have been making the recipe that ended the process.
  const ErrorFile errors;
  const bool in_generator = ended && in_child(errors, 20, [&] {
                                       generate(seed_of(options, record.index), graphs, tries);
                                       return 0;
                                     }) != 0;
  recipe = generate(seed_of(options, record.index), graphs, tries, in_generator ? record.progress : 0);
  const Fault fault = ended ? Fault::ending : static_cast<Fault>(record.kind);
  const auto begin = std::chrono::steady_clock::now();
  const auto fails = [&](const Recipe& candidate) {
    return std::chrono::steady_clock::now() - begin < std::chrono::seconds(60) &&
           verdict_in_child(candidate).fault == fault;
  };
  if (!fails(recipe))
    return fmt::format("{} that does not repeat itself: {}\n{}", name(fault), ops_of(recipe), to_cpp(recipe));
  recipe = shrink(recipe, fails, 400);
  const fuzz::Verdict verdict = verdict_in_child(recipe);
  return fmt::format("{}: {}\n{}\n\n{}", name(fault), ops_of(recipe), verdict.message, to_cpp(recipe));
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
    fmt::print("{}", to_cpp(generate(seed_of(options, static_cast<std::uint64_t>(options.only)), graphs, tries)));
    return 0;
  }

  campaign.environment = kernels_of;
  campaign.one = [&](std::uint64_t index, Shared& shared) {
    const Recipe recipe = generate(seed_of(options, index), graphs, shared.progress);
    Counts counts;
    std::vector<char> reached;
    const fuzz::Verdict verdict = check(recipe, counts, reached);
    if (verdict.fault != Fault::none)
      shared.report(index, static_cast<int>(verdict.fault), verdict.op, verdict.message);
    for (std::size_t i = 0; i < std::min(reached.size(), shared.reached.size()); ++i)
      if (reached[i]) shared.reached[i] = 1;
    const std::uint64_t all[] = {counts.nodes,   counts.elements, counts.unstable,    counts.refused,
                                 counts.limited, counts.checked,  counts.inconclusive};
    for (std::size_t i = 0; i < std::size(all); ++i) shared.counters[i] += all[i];
  };
  campaign.explain = [&](const Record& record) { return explain(options, graphs, record); };
  campaign.counts = [](const Shared& total) {
    std::string missing;
    for (std::size_t i = 0; i < registry().size(); ++i)
      if (!total.reached[i]) missing += " " + registry()[i]->name;
    return fmt::format(
        ", {} nodes, {} numbers compared ({} hang by rounding), {} refused, {} with less memory, {} gradients checked "
        "({} inconclusive), {}",
        total.counters[nodes], total.counters[elements], total.counters[unstable], total.counters[refused],
        total.counters[limited], total.counters[checked], total.counters[inconclusive],
        missing.empty() ? "all ops of the registry reached" : "ops not reached:" + missing);
  };
  return campaign.run();
}
