// Instance: a plan made ready to run. Not installed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/plan/memory_limit.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/framework/run/state_data.hpp>

namespace chainrule::detail {

// A plan made ready to run: the pointers and outputs for one set of sizes. Where it computes on the way is the
// program's: each plan uses all of the arena.
class Instance {
 public:
  // A feed that it reads.
  struct Fed {
    std::size_t input;
    std::size_t bytes;
  };

  // `compiled` must outlive it.
  Instance(const Compiled& compiled, Sizes sizes, LimitedPlan made, const StateData& state);

  // Makes this the plan that uses the arena, where others may have run: what depends on sizes alone is computed.
  void take_over(char* arena);

  // `feeds` by the number of the input.
  void run(const std::vector<const void*>& feeds);

  [[nodiscard]] const std::vector<Fed>& feeds() const { return feeds_; }
  // Whether a run writes any of these bytes.
  [[nodiscard]] bool writes(const void* data, std::size_t bytes) const;

  // About what it takes beside the arena.
  [[nodiscard]] std::size_t bytes() const;

  // From now on runs are timed, step by step; what was measured so far is forgotten.
  void start_profile();

  void add_profile(std::vector<Profile::Step>& out) const;

  [[nodiscard]] const Sizes& sizes() const { return sizes_; }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] std::string explain() const;
  [[nodiscard]] const std::vector<Array>& outputs() const { return outputs_; }
  std::int64_t used = 0;  // by which run last

 private:
  void run_timed();
  void run_beside();
  void run_beside(std::size_t begin, std::size_t end);

  static constexpr std::size_t bytes_of_a_step = 4096;  // closures and lists, about

  struct ReadyStep {
    StepRun run;
    StepBuffers buffers;
    StepRun prepare;  // of its table
  };
  struct ReadyCopy {
    Storage storage;
    const void* from;
    void* to;
    std::size_t bytes;
  };
  struct Patch {
    std::size_t input;
    std::size_t pointer;
  };
  struct Written {
    const char* begin;
    const char* end;
  };

  // Null for what is patched in later: feeds in each run, the arena by place_in().
  void* resolve(const Storage& s, const StateData& state);
  [[nodiscard]] const Array& constant(std::size_t number) const {
    return *compiled_.computation.graph.data()->constants[number];
  }

  void resolve_steps(const StateData& state);

  void make_tables(const std::vector<std::size_t>& sizes);

  void set_feeds(const std::vector<const void*>& feeds);

  void place_in(char* arena);

  void list_feeds();

  void list_written(const StateData& state);

  Sizes sizes_;
  Plan plan_;
  std::unique_ptr<const Compiled> recomputed_;  // for these sizes, where memory is limited
  const Compiled& compiled_;
  char* arena_ = nullptr;  // that pointers_ point to
  std::vector<Array> outputs_;
  std::vector<void*> pointers_;
  std::vector<ReadyStep> once_;   // what depends on sizes alone
  std::vector<ReadyStep> steps_;  // what each run does
  std::vector<ReadyCopy> copies_;
  std::vector<Patch> patches_;
  std::vector<void*> tables_;         // of steps_
  std::vector<std::size_t> fed_;      // the steps that have a table and read feeds
  bool tables_of_fed_stand_ = false;  // with the feeds that pointers_ has
  std::vector<Fed> feeds_;
  std::vector<Written> written_;  // disjoint, by address
  // Of each run the steps by when they begin; those that run side by side are one. Empty where none do.
  std::vector<std::size_t> begins_;
  std::vector<double> seconds_;  // by step; empty where nobody asked
  std::vector<Cut> cuts_;        // by step, where they are timed
  int threads_of_cuts_ = 0;
  std::int64_t timed_runs_ = 0;
};

}  // namespace chainrule::detail
