// What each program of the benchmark has in common: its options, the timing loop, and what it prints for the driver.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace bench {

struct Settings {
  std::string workload;
  bool small = false;         // W3 with a 64th of the work
  bool check = false;         // W2: with the masks of workloads.hpp instead of random ones
  bool fixed_sizes = false;   // Eigen's W1
  bool own_products = false;  // the limits of W8 and W9
  int threads = 1;
};

// Writes arrays for the driver, which compares them with those of the other programs.
class Sink {
 public:
  explicit Sink(const std::string& path);
  ~Sink();
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  void add(const std::string& name, const float* values, std::int64_t count) { write(name, values, count, 4); }
  void add(const std::string& name, const double* values, std::int64_t count) { write(name, values, count, 8); }

  struct Entry {
    std::string name;
    std::int64_t count;
    int bytes;  // of an element
  };
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }

 private:
  void write(const std::string& name, const void* values, std::int64_t count, int bytes);
  std::FILE* file_;
  std::vector<Entry> entries_;
};

// One workload, set up by one program: initial weights, data, and all that a program prepares once.
class Run {
 public:
  Run() = default;
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  virtual ~Run() = default;

  // One step: what is timed. Returns the loss (before the update).
  virtual double step() = 0;
  // The gradients of all parameters (W4: of a, b and c) at the initial weights, in the order of workloads.hpp. Of a run
  // that has taken no step; may take one.
  virtual void gradients(Sink& sink) = 0;
  // The parameters as they are; after them W2's running variances. (The running means follow the biases
  // before batch norm, which rounding errors move: compare.cpp.)
  virtual void weights(Sink& sink) = 0;
};

// Each program defines these: whether its results are those of the network (a limit's may be none), and the workload
// (null for one that it does not have).
std::string version();
bool is_checked(const std::string& workload);
std::unique_ptr<Run> make_run(const Settings& settings);

}  // namespace bench
