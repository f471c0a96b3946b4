// The benchmark: runs chainrule, the limits and the peers that are there side by side, checks that they compute the
// same, and prints a table. Started by: ./tests/run bench
//
// Each round starts each program anew, one after the other, pinned to as many processors as it may have threads; it
// warms up and then measures for a while. So a machine that gets slower for a minute slows all, and one process' luck
// with its addresses is one round's. The table has the median, least and greatest of the rounds' medians.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/utsname.h>
#include <unistd.h>

#include "compare.hpp"
#include "process.hpp"

namespace bench {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> only;
  std::vector<int> threads = {1};
  int rounds = 7;
  double seconds = 0.5;
  bool quick = false;
  bool compile_time = false;
  std::string json_file;
};

struct Program {
  std::string name;
  std::vector<std::string> workloads;
  std::vector<std::string> command;
  std::string package;  // Debian's
  bool available = false;

  [[nodiscard]] bool has(const std::string& workload) const {
    return std::find(workloads.begin(), workloads.end(), workload) != workloads.end();
  }
};

const std::vector<std::string> all_workloads = {"W1", "W2", "W3", "W4", "W5", "W6", "W7", "W7-1000", "W8", "W9", "W10"};

fs::path programs_folder() { return fs::read_symlink("/proc/self/exe").parent_path(); }

std::vector<Program> programs() {
  const auto built = [](const std::string& name) { return (programs_folder() / ("bench_" + name)).string(); };
  const std::vector<std::string> trained = {"W1", "W2", "W3", "W6"};
  const std::vector<std::string> dense = {"W1", "W2", "W3", "W4", "W6"};
  std::vector<Program> all = {
      {"chainrule", all_workloads, {built("chainrule")}, ""},
      {"limit", {"W1", "W2", "W3", "W4", "W6", "W8", "W9"}, {built("limit")}, ""},
#ifdef BENCH_OWN_PRODUCTS
      {"limit, own products", {"W8", "W9"}, {built("limit"), "--own-products"}, ""},
#endif
      {"eigen", trained, {built("eigen")}, "libeigen3-dev"},
      {"eigen, fixed sizes", {"W1"}, {built("eigen"), "--fixed-sizes"}, "libeigen3-dev"},
      {"eigen + openblas", {"W2", "W3"}, {built("eigen_openblas")}, "libeigen3-dev"},
      {"libtorch", {"W1", "W2", "W3", "W4", "W5", "W6", "W8", "W9", "W10"}, {built("libtorch")}, "libtorch-dev"},
      {"onednn", {"W5", "W10"}, {built("onednn")}, "libdnnl-dev"},
      {"dlib", {"W2", "W3", "W6"}, {built("dlib")}, "libdlib-dev"},
  };
  for (auto& program : all) program.available = fs::exists(program.command[0]);
  // Debian's Python: another may lack NumPy, or have one with another BLAS.
  const std::string python = "/usr/bin/python3";
  all.push_back({"numpy", dense, {python, BENCH_SOURCE_DIR "/peer_numpy.py"}, "python3-numpy"});
  all.back().available = run({python, "-c", "import numpy"}, {}, false).status == 0;
  return all;
}

// What a program says with these arguments. Throws where it fails.
json ask(const Program& program, const std::string& workload, const Options& options, int threads,
         const std::vector<std::string>& arguments) {
  auto command = program.command;
  command.push_back(workload);
  command.insert(command.end(), arguments.begin(), arguments.end());
  command.insert(command.end(), {"--threads", std::to_string(threads)});
  if (options.quick) command.push_back("--small");
  Pinned pinned{.threads = threads};
  for (const auto* name : {"CHAINRULE_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"})
    pinned.environment[name] = std::to_string(threads);
  const auto out = run(command, pinned);
  if (out.status != 0) throw std::runtime_error(fmt::format("{} failed with status {}", program.name, out.status));
  return json::parse(out.text);
}

double load() {
  double average = 0;
  return getloadavg(&average, 1) == 1 ? average : 0;
}

struct Row {
  std::string workload;
  std::string program;
  int threads = 1;
  std::vector<double> times;  // us, sorted
  double peak_rss_mb = 0;
  double load = 0;

  [[nodiscard]] double median() const { return (times[(times.size() - 1) / 2] + times[times.size() / 2]) / 2; }
};

// "1.23 us", "45.6 ms": three digits.
std::string duration(double us) {
  const auto [value, unit] = us < 1e3   ? std::pair(us, "us")
                             : us < 1e6 ? std::pair(us / 1e3, "ms")
                                        : std::pair(us / 1e6, "s");
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, unit);
}

std::string ratio(const Row& row, const std::vector<Row>& rows, const std::string& program) {
  for (const auto& other : rows)
    if (other.program == program && other.workload == row.workload && other.threads == row.threads)
      return fmt::format("{:.2f}", row.median() / other.median());
  return "";
}

void print_table(const std::vector<Row>& rows) {
  fmt::print("| workload | program | threads | median | min | max | / chainrule | / limit | peak MB |\n");
  fmt::print("|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
  for (const auto& row : rows)
    fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} | {:.0f} |\n", row.workload, row.program, row.threads,
               duration(row.median()), duration(row.times.front()), duration(row.times.back()),
               ratio(row, rows, "chainrule"), ratio(row, rows, "limit"), row.peak_rss_mb);
}

std::string machine() {
  std::string model = "unknown processor";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  std::string system;
  std::ifstream release("/etc/os-release");
  for (std::string line; std::getline(release, line);)
    if (line.starts_with("PRETTY_NAME=")) system = line.substr(13, line.size() - 14);
  utsname kernel{};
  uname(&kernel);
  return fmt::format("{}, {} processors, {}, Linux {}", model, std::thread::hardware_concurrency(), system,
                     kernel.release);
}

void write_json(const std::string& path, const std::vector<Row>& rows) {
  json list = json::array();
  for (const auto& row : rows)
    list.push_back({{"workload", row.workload},
                    {"program", row.program},
                    {"threads", row.threads},
                    {"median_us", row.median()},
                    {"min_us", row.times.front()},
                    {"max_us", row.times.back()},
                    {"rounds", row.times.size()},
                    {"peak_rss_mb", row.peak_rss_mb},
                    {"load", row.load}});
  std::ofstream out(path);
  out << list.dump(2) << '\n';
  if (!out.flush()) throw std::runtime_error("cannot write " + path);
}

// A folder for the programs' arrays, removed at the end.
class Folder {
 public:
  Folder() {
    auto name = (fs::temp_directory_path() / "chainrule-bench-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a folder in " + name);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

// Whether all that take part compute the same as ours.
bool check(const std::vector<Program>& programs, const std::string& workload, const Options& options, int threads) {
  const Folder folder;
  const auto ours_file = folder.file("ours");
  const auto ours = ask(programs.front(), workload, options, threads, {"--check", ours_file});
  bool agree = true;
  const auto report = [&](const std::string& who, const std::vector<std::string>& wrong, double greatest) {
    if (wrong.empty()) {
      fmt::print(stderr, "{} {}: results agree (greatest distance {:.2f} of the tolerance)\n", workload, who, greatest);
    } else {
      agree = false;
      for (const auto& line : wrong) fmt::print(stderr, "{} {}: results DISAGREE: {}\n", workload, who, line);
    }
  };
  if (workload.starts_with("W7")) {
    report("chainrule", compile_differences(workload, {ours, ours_file}), 0);
    return agree;
  }
  for (std::size_t i = 1; i < programs.size(); ++i) {
    const auto& program = programs[i];
    if (!program.available || !program.has(workload)) continue;
    const auto file = folder.file("theirs");
    const auto theirs = ask(program, workload, options, threads, {"--check", file});
    if (!theirs.contains("losses")) continue;  // a limit of bare products
    double greatest = 0;
    // dlib's Adam has epsilon in another place, and its batch norm averages its running statistics in another way.
    const bool updated = workload != "W2" || program.name != "dlib";
    const auto wrong = differences(workload, options.quick, {ours, ours_file}, {theirs, file, updated}, greatest);
    report(program.name, wrong, greatest);
  }
  return agree;
}

// What to start for the program of examples/line.cpp, as it is and with LibTorch.
struct Line {
  std::string program;
  std::vector<std::string> compile;
  std::string executable;
};

// As the build compiles it.
std::vector<Line> lines() {
  std::ifstream in(BENCH_BINARY_DIR "/compile_commands.json");
  const auto commands = json::parse(in);
  std::vector<Line> all;
  for (const std::string name : {"chainrule", "libtorch"})
    for (const auto& entry : commands) {
      auto command = entry.at("command").get<std::string>();
      const std::string option = " -o ";
      const auto output = command.find(option);
      const auto executable = programs_folder() / ("bench_line_" + name);
      if (command.find("/bench_line_" + name + ".dir/") == std::string::npos || output == std::string::npos ||
          !fs::exists(executable))
        continue;
      command.replace(output, command.find(' ', output + option.size()) - output, " -o /dev/null");
      all.push_back({name,
                     {"sh", "-c", fmt::format("cd '{}' && {}", entry.at("directory").get<std::string>(), command)},
                     executable});
    }
  if (all.empty()) throw std::runtime_error("no command that compiles examples/line.cpp in " BENCH_BINARY_DIR);
  return all;
}

// How long a user's small program takes to compile, and to run from start to end.
std::vector<Row> compile_times(const Options& options) {
  std::vector<Row> rows;
  const auto all = lines();
  for (const std::string what : {"compile", "start"})
    for (const auto& line : all) rows.push_back({.workload = what, .program = line.program});
  for (int round = 0; round < options.rounds; ++round)
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto& line = all[i % all.size()];
      const bool compiles = rows[i].workload == "compile";
      const auto out = run(compiles ? line.compile : std::vector{line.executable},
                           {.threads = 1, .environment = {{"CCACHE_DISABLE", "1"}}});
      if (out.status != 0) throw std::runtime_error(fmt::format("{} failed: {}", line.program, rows[i].workload));
      rows[i].times.push_back(out.seconds * 1e6);
      rows[i].peak_rss_mb = std::max(rows[i].peak_rss_mb, out.peak_rss_mb);
      rows[i].load = std::max(rows[i].load, load());
    }
  return rows;
}

bool wanted(const std::string& workload, const Options& options) {
  const auto given = [&](const std::string& name) {
    return std::find(options.only.begin(), options.only.end(), name) != options.only.end();
  };
  return options.only.empty() || given(workload) || given(workload.substr(0, workload.find('-')));
}

// All programs side by side on one workload.
std::vector<Row> time_all(const std::vector<Program>& programs, const std::string& workload, const Options& options,
                          std::map<std::string, std::string>& versions) {
  std::vector<Row> rows;
  const auto name = options.quick && workload == "W3" ? "W3-small" : workload;
  for (int round = 0; round < options.rounds; ++round) {
    std::size_t next = 0;
    for (const auto& program : programs)
      for (const int threads : options.threads) {
        if (!program.available || !program.has(workload)) continue;
        if (round == 0) rows.push_back({.workload = name, .program = program.name, .threads = threads});
        auto& row = rows[next++];
        row.load = std::max(row.load, load());
        const auto out = ask(program, workload, options, threads, {"--seconds", fmt::format("{}", options.seconds)});
        row.times.push_back(out.at("step_us"));
        row.peak_rss_mb = std::max(row.peak_rss_mb, out.at("peak_rss_mb").get<double>());
        versions[program.name] = out.at("version");
      }
    fmt::print(stderr, "{}: round {} of {}\n", workload, round + 1, options.rounds);
  }
  return rows;
}

int run_all(const Options& options) {
  bool agree = true;
  std::vector<Row> rows;
  std::map<std::string, std::string> versions;
  if (options.compile_time) {
    rows = compile_times(options);
  } else {
    const auto all = programs();
    for (const auto& program : all)
      if (!program.available)
        fmt::print(stderr, "{} is left out, as it is not here (./tests/run bench --peers installs: {})\n", program.name,
                   program.package);
    for (const auto& workload : all_workloads) {
      if (!wanted(workload, options)) continue;
      for (const int threads : options.threads) agree = check(all, workload, options, threads) && agree;
      for (auto& row : time_all(all, workload, options, versions)) rows.push_back(std::move(row));
    }
  }
  for (auto& row : rows) std::sort(row.times.begin(), row.times.end());

  print_table(rows);
  fmt::print("\n{}; load average {:.2f}; {} rounds\n", machine(), load(), options.rounds);
  for (const auto& [program, version] : versions) fmt::print("- {}: {}\n", program, version);
  if (!options.json_file.empty()) write_json(options.json_file, rows);
  if (!agree) fmt::print(stderr, "Results disagree: see above. The times of such a program mean nothing.\n");
  return agree ? 0 : 1;
}

}  // namespace

}  // namespace bench

int main(int argc, char** argv) {
  // --products and what follows is another program's.
  if (argc > 1 && std::string(argv[1]) == "--products") {
    const std::string program = bench::programs_folder() / "bench_products";
    execv(program.c_str(), argv + 1);
    fmt::print(stderr, "{} cannot be run: it is built where the library generates code\n", program);
    return 1;
  }
  bench::Options options;
  CLI::App app("chainrule against the limits of this machine and against its peers.");
  app.name("./tests/run bench");
  app.add_option("--only", options.only, "workloads: W1, W2, W3, W4, W5, W6, W7, W8, W9, W10 (repeated, or W1,W2)")
      ->delimiter(',')
      ->check(CLI::IsMember(bench::all_workloads));
  app.add_option("--threads", options.threads, "threads of each program; 1,2 runs both")
      ->delimiter(',')
      ->check(CLI::Range(1, bench::processors()))
      ->capture_default_str();
  auto* rounds = app.add_option("--rounds", options.rounds, "how often each program is run")
                     ->check(CLI::PositiveNumber)
                     ->capture_default_str();
  app.add_option("--json", options.json_file, "write the results to this file, too");
  app.footer("--products [--help] comes first, and is another table: matrix products against those of others.");
  app.add_flag("--compile-time", options.compile_time,
               "instead, how long examples/line.cpp takes to compile, and to run from start to end");
  app.add_flag("--quick", options.quick,
               "in under two minutes: one short round, W3 with a 64th of the work; results are checked as always");
  bool peers = false;  // tests/run's own
  app.add_flag("--peers", peers, "install the peers' packages first (apt-get)");
  CLI11_PARSE(app, argc, argv);
  try {
    if (options.quick) {
      options.seconds = 0.05;
      if (rounds->empty()) options.rounds = 1;
    }
    return bench::run_all(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
