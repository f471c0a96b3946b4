#include "worker.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <stdexcept>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "workloads.hpp"

namespace bench {

Sink::Sink(const std::string& path) : file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) throw std::runtime_error("cannot write " + path);
}

Sink::~Sink() { std::fclose(file_); }

void Sink::write(const std::string& name, const void* values, std::int64_t count, int bytes) {
  if (std::fwrite(values, static_cast<std::size_t>(bytes), static_cast<std::size_t>(count), file_) !=
      static_cast<std::size_t>(count))
    throw std::runtime_error("cannot write " + name);
  entries_.push_back({name, count, bytes});
}

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The kernel's own account of this process: the most memory that it ever had resident.
double peak_rss_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      double kilobytes = 0;
      status >> kilobytes;
      return kilobytes / 1024;
    }
  return 0;
}

std::unique_ptr<Run> make(const Settings& settings) {
  auto run = make_run(settings);
  if (!run) throw std::invalid_argument("this program does not have the workload " + settings.workload);
  return run;
}

nlohmann::json time_steps(const Settings& settings, double seconds) {
  // What is done once in a process is measured once, in a new process.
  const bool once = settings.workload.starts_with("W7");
  const auto run = make(settings);
  double loss = 0;
  int block = 1;
  if (!once) {
    const auto begin = Clock::now();
    int steps = 0;
    do {
      loss = run->step();
      ++steps;
    } while (steps < 2 || seconds_since(begin) < seconds / 2);
    const auto again = Clock::now();
    loss = run->step();
    // Short steps in blocks of at least 2 ms, so that reading the clock costs nothing.
    block = static_cast<int>(std::clamp(2e-3 / std::max(seconds_since(again), 1e-9), 1.0, 1e6));
  }
  std::vector<double> times;
  const auto begin = Clock::now();
  do {
    const auto start = Clock::now();
    for (int i = 0; i < block; ++i) loss = run->step();
    times.push_back(seconds_since(start) / block);
  } while (!once && seconds_since(begin) < seconds);
  return {{"step_us", median(times) * 1e6}, {"steps", times.size() * static_cast<std::size_t>(block)}, {"loss", loss}};
}

nlohmann::json check(const Settings& settings, const std::string& path) {
  nlohmann::json out;
  if (!is_checked(settings.workload)) return out;
  Sink sink(path);
  make(settings)->gradients(sink);
  const auto run = make(settings);
  out["losses"] = nlohmann::json::array();
  for (int i = 0; i < checked_steps(settings.workload); ++i) out["losses"].push_back(run->step());
  run->weights(sink);
  out["tensors"] = nlohmann::json::array();
  for (const auto& entry : sink.entries())
    out["tensors"].push_back({{"name", entry.name}, {"count", entry.count}, {"bytes", entry.bytes}});
  return out;
}

}  // namespace

}  // namespace bench

int main(int argc, char** argv) {
  CLI::App app("One program of the benchmark. Started by the driver: ./tests/run bench");
  bench::Settings settings;
  double seconds = 0.5;
  std::string file;
  app.add_option("workload", settings.workload, "W1, W2, ...")->required();
  app.add_option("--seconds", seconds, "how long to time")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--check", file, "instead of timing, write gradients and updated weights to this file");
  app.add_option("--threads", settings.threads,
                 "of what is written by hand; libraries have their environment variables")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--small", settings.small, "W3 with a 64th of the work");
  app.add_flag("--fixed-sizes", settings.fixed_sizes, "Eigen's W1 with sizes known where it is compiled");
  app.add_flag("--own-products", settings.own_products, "a limit's products by the library's code instead of OpenBLAS");
  CLI11_PARSE(app, argc, argv);
  try {
    settings.check = !file.empty();
    auto out = settings.check ? bench::check(settings, file) : bench::time_steps(settings, seconds);
    out["version"] = bench::version();
    out["peak_rss_mb"] = bench::peak_rss_mb();
    std::puts(out.dump().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
}
