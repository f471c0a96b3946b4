// ./tests/run fuzz api: random sequences of public calls with good and bad arguments.
//
// Nothing but chainrule::Error may come out of a call, and after one nothing is changed: the graphs print the same, the
// States hold the same numbers, the files are the same. At the end a second world makes only the calls that did not
// throw: it must be the same as the first one, and its programs give the same results.
//
//   api/calls   the calls, one after the other: a new public function is a line more there
//   api/world   what they work on, and their arguments
#include <algorithm>

#include "api/world.hpp"
#include "campaign.hpp"

using namespace chainrule;
using namespace chainrule::fuzz;

namespace {

enum class Fault : std::uint8_t {
  none,
  escaped,    // something else than an Error
  changed,    // an Error, and something is not as it was
  different,  // without the calls that threw the rest gives something else
};

struct Judgement {
  Fault fault = Fault::none;
  std::string call;
  std::string message;
};

// A call by its place in calls() and the seed of its arguments.
struct Made {
  std::size_t call;
  std::uint64_t seed;
};
using Sequence = std::vector<Made>;

Sequence sequence_of(std::uint64_t seed) {
  Random random(seed);
  Sequence out;
  // A graph to begin with.
  const auto numbered = [](std::string_view name) {
    const auto& all = calls();
    return static_cast<std::size_t>(
        std::find_if(all.begin(), all.end(), [&](const NamedCall& c) { return c.name == name; }) - all.begin());
  };
  for (const char* name : {"input", "parameter", "parameter", "variable", "sum to a scalar", "regression", "State"})
    out.push_back({numbered(name), random.next()});
  for (std::size_t n = 5 + random.below(40); n > 0; --n) out.push_back({random.below(calls().size()), random.next()});
  return out;
}

// What a sequence came to say, for the printing of it.
using Listener = std::function<void(std::size_t place, const std::string& text, bool threw)>;

Judgement run(const Sequence& sequence, const Listener& listener, std::uint64_t& made, std::uint64_t& thrown,
              std::array<unsigned char, 4096>* reached = nullptr) {
  set_num_threads(1);
  World world;
  Sequence kept;
  World::Snapshot before = world.snapshot();
  for (std::size_t place = 0; place < sequence.size(); ++place) {
    const NamedCall& named = calls()[sequence[place].call];
    Call call(world, sequence[place].seed);
    call.said = [&](const std::string& text) { listener(place, text, false); };
    ++made;
    try {
      named.make(call);
      if (reached && !call.text.empty()) (*reached)[sequence[place].call] = 1;
      kept.push_back(sequence[place]);
      before = world.snapshot();
    } catch (const Error& error) {
      ++thrown;
      listener(place, call.text, true);
      const std::string difference = before.difference(world.snapshot());
      if (!difference.empty())
        return {Fault::changed, named.name, fmt::format("{}: {}\nafter it {}", call.text, error.what(), difference)};
    } catch (const std::exception& error) {
      return {Fault::escaped, named.name, fmt::format("{}: {}", call.text, error.what())};
    }
  }
  // The same without what threw.
  World other;
  for (const Made& m : kept) {
    Call call(other, m.seed);
    try {
      calls()[m.call].make(call);
    } catch (const std::exception& error) {
      return {Fault::different, calls()[m.call].name,
              fmt::format("{}: without the calls before that threw: {}", call.text, error.what())};
    }
  }
  std::string difference = world.snapshot().difference(other.snapshot());
  if (difference.empty()) {
    const auto first = world.run_all();
    const auto second = other.run_all();
    for (std::size_t i = 0; i < first.size(); ++i)
      if (first[i] != second[i])
        difference = fmt::format("program {} gives\n{}\nand without the calls that threw\n{}", i, first[i], second[i]);
  }
  if (!difference.empty()) return {Fault::different, "", difference};
  return {};
}

std::string_view name(Fault fault) {
  constexpr std::string_view names[] = {"none", "not an Error", "an Error that changed something",
                                        "different without the calls that threw"};
  return names[static_cast<std::size_t>(fault)];
}

Outcome outcome_in_child(const Sequence& sequence) {
  return fuzz::outcome_in_child([&](Record& record) {
    std::uint64_t made = 0;
    std::uint64_t thrown = 0;
    const auto listener = [&](std::size_t place, const std::string& text, bool) {
      Record::put(record.about, sizeof record.about, calls()[sequence[place].call].name);
      Record::put(record.message, sizeof record.message, text);
    };
    const Judgement judgement = run(sequence, listener, made, thrown);
    if (judgement.fault != Fault::none) {
      Record::put(record.about, sizeof record.about, judgement.call);
      Record::put(record.message, sizeof record.message, judgement.message);
    }
    return static_cast<int>(judgement.fault);
  });
}

// In a child, since a call may end the process.
std::string to_cpp(const Sequence& sequence) {
  const ErrorFile said;
  in_child(said, 20, [&] {
    std::uint64_t made = 0;
    std::uint64_t thrown = 0;
    const auto listener = [&](std::size_t, const std::string& text, bool threw) {
      const std::string line = threw ? "  // throws\n" : "  " + text + ";\n";
      if (write(STDOUT_FILENO, line.data(), line.size()) < 0) std::abort();
    };
    static_cast<void>(run(sequence, listener, made, thrown));
    return 0;
  });
  const std::string text = said.text();
  const auto end = text.find("=====");  // a sanitizer's report
  return "  cr::Graph g0;  // v0, v1, ...: the values in the order in which they are made\n" + text.substr(0, end);
}

std::string explain(const CampaignOptions& options, const Record& record) {
  Sequence sequence = sequence_of(options.seed_of(record.index));
  Outcome outcome = outcome_in_child(sequence);
  if (outcome.kind != record.kind) return fmt::format("does not repeat itself\n{}", to_cpp(sequence));
  const std::string call = outcome.about;
  Patience patience;
  for (std::size_t size = sequence.size() / 2; size > 0; size /= 2)
    for (std::size_t at = 0; at + size <= sequence.size() && patience.lasts();) {
      Sequence shorter = sequence;
      shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(at),
                    shorter.begin() + static_cast<std::ptrdiff_t>(at + size));
      const Outcome now = outcome_in_child(shorter);
      if (now.kind == record.kind && now.about == call) {
        sequence = shorter;
        outcome = now;
      } else {
        at += size;
      }
    }
  const bool ended = record.kind == kind_of_ending;
  return fmt::format("{}: {}\n{}\n\n{}", ended ? "ending" : name(static_cast<Fault>(record.kind)), call,
                     outcome.message, to_cpp(sequence));
}

}  // namespace

int main(int argc, char** argv) {
  Campaign campaign;
  campaign.unit = "sequences";
  CLI::App app("Random sequences of public calls, after each of which that threw everything is as before", "fuzz api");
  campaign.add_options(app);
  CLI11_PARSE(app, argc, argv);
  const CampaignOptions& options = campaign.options;

  World::folders = std::filesystem::temp_directory_path() / fmt::format("chainrule_fuzz_{}", getpid());
  campaign.one = [&](std::uint64_t index, Shared& shared) {
    const Judgement judgement = run(
        sequence_of(options.seed_of(index)), [](std::size_t, const std::string&, bool) {}, shared.counters[0],
        shared.counters[1], &shared.reached);
    if (judgement.fault != Fault::none)
      shared.report(index, static_cast<int>(judgement.fault), judgement.call, judgement.message);
  };
  campaign.explain = [&](const Record& record) { return explain(options, record); };
  campaign.counts = [](const Shared& total) {
    return fmt::format(", {} calls ({} threw){}", total.counters[0], total.counters[1],
                       reached_or_not(
                           total, calls().size(), [](std::size_t i) { return calls()[i].name; },
                           "all of them succeeded somewhere", "never succeeded"));
  };
  const int status = campaign.run();
  std::error_code ignored;
  std::filesystem::remove_all(World::folders, ignored);
  return status;
}
