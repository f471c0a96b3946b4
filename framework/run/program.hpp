// Program: a compiled request - given these inputs, compute these outputs and apply these updates.
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/held.hpp>
#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/graph/mode.hpp>
#include <chainrule/framework/passes/rewriter.hpp>
#include <chainrule/framework/run/feed.hpp>
#include <chainrule/framework/run/state.hpp>

namespace chainrule {

namespace detail {
class Executable;
struct StateData;
inline constexpr std::string_view program_noun = "program";
}  // namespace detail

// After a run the variable is what the expression was in it.
struct Update {
  Value variable;
  Value expression;
};
using Updates = std::vector<Update>;

struct Request {
  Values outputs = {};
  Updates updates = {};
  Mode mode = Mode::training;
  // Bytes that a run may take for what it computes on the way (Program::memory().arena_bytes): not inputs, outputs or
  // the State. Where storing all that the backward pass needs would take more, some of it is computed again there: what
  // is cheap first (elementwise results, dropout masks, normalised activations), then products. Results have the same
  // bits. 0: no limit.
  std::size_t memory_limit = 0;
  // About how many bytes the plans of sizes that ran earlier may take, outputs included; of more, the least recently
  // used go, and are made anew when their sizes come again. The plans of the last two runs stay whatever they take.
  std::size_t plan_memory = std::size_t{64} << 20;
  // When random numbers (ops/random.hpp, dropout) are new. Each run of a program with Draws::each_run takes the next
  // number of its State, so that programs side by side draw different ones, and what is drawn is a function of the
  // graph's seed, the use, the State's step and that number: samples of a model, say. Beside the count nothing changes
  // in the State; a run that throws gives its number back, unless another program has taken one since. Numbers that a
  // RandomOptions::counter was given are not touched.
  Draws draws = Draws::each_update;
  // Dropout and rrelu draw in Mode::inference as they do in training, while batch_norm uses its running statistics:
  // with Draws::each_run, Monte Carlo dropout (Gal and Ghahramani 2016).
  bool noise_in_inference = false;
  // Passes of one's own, which run in this order before the library's (passes/rewriter.hpp).
  std::vector<passes::Pass> passes = {};
  // false: the graph runs node by node as it was built, which is slow and for looking into it. Results are the same but
  // for rounding, and those of a run have, beside the outputs, the value of each node that they need in this mode:
  // results.at(value).
  bool optimize = true;
  // A run looks first at all that it computes, node by node: where something is not finite it throws Error, which names
  // the first such node, its line and the element, and changes nothing. (Constants may be infinite; what is made of
  // those may not.) More than doubles the time of a run.
  bool check_finite = false;
};

// The outputs of a run: what lies in the program, valid until its next run or clear(). Copy an Array to keep it. They
// may be fed to that next run, as a recurrent network's are.
class Results {
 public:
  // The first `size` are outputs.
  Results(const Values* outputs, const std::vector<Array>* arrays, std::size_t size)
      : outputs_(outputs), arrays_(arrays), size_(size) {}

  [[nodiscard]] std::size_t size() const { return size_; }
  // In the order of Request::outputs, or by the value. Throws Error for what is no output. (Without Request::optimize
  // any value that the outputs need will do.)
  [[nodiscard]] const Array& operator[](std::size_t i) const { return at(i); }
  [[nodiscard]] const Array& operator[](Value output) const { return at(output, Location{}); }
  [[nodiscard]] const Array& at(std::size_t i, Location at = Location::here()) const;
  [[nodiscard]] const Array& at(Value output, Location at = Location::here()) const;
  // The one element of an output.
  [[nodiscard]] double scalar(Value output, Location at = Location::here()) const;
  [[nodiscard]] double scalar(std::size_t i = 0, Location at = Location::here()) const;

 private:
  const Values* outputs_;
  const std::vector<Array>* arrays_;
  std::size_t size_;

 protected:
  std::shared_ptr<const detail::Executable> program_;  // none where the program lives by itself
};

// The results of a temporary program, which keep it.
class KeptResults : public Results {
 public:
  KeptResults(const Results& results, std::shared_ptr<const detail::Executable> program) : Results(results) {
    program_ = std::move(program);
  }

  // As of Results. Of a temporary a copy: `const Array& y = Program(state, request).run(feeds)[0]`.
  [[nodiscard]] const Array& operator[](std::size_t i) const& { return Results::operator[](i); }
  [[nodiscard]] const Array& operator[](Value output) const& { return Results::operator[](output); }
  [[nodiscard]] Array operator[](std::size_t i) && { return Results::operator[](i); }
  [[nodiscard]] Array operator[](Value output) && { return Results::operator[](output); }
  [[nodiscard]] const Array& at(std::size_t i, Location at = Location::here()) const& { return Results::at(i, at); }
  [[nodiscard]] const Array& at(Value output, Location at = Location::here()) const& { return Results::at(output, at); }
  [[nodiscard]] Array at(std::size_t i, Location at = Location::here()) && { return Results::at(i, at); }
  [[nodiscard]] Array at(Value output, Location at = Location::here()) && { return Results::at(output, at); }
};

// Where the time of a program's runs went.
struct Profile {
  struct Step {
    std::string title;  // "fused add relu  float32 {128, 512}"
    Location location;  // of the user's line that its first node was built at
    std::int64_t calls = 0;
    double seconds = 0;  // of all calls
    double flops = 0;    // of one call: multiplications and additions of a product; 0 where none are counted
    double bytes = 0;    // of one call: operands read and results written, each once
    // In how many parts the step was cut for the number of threads that there were, and what share of its work is in
    // the longest one: no number of threads makes the step faster than that. Follows from sizes, not from time.
    std::int64_t parts = 1;
    double longest = 1;
  };
  std::vector<Step> steps;  // in the order in which they run, for each set of sizes that ran

  [[nodiscard]] double seconds() const;
  // A table, the step with the greatest share first: share, calls, time of a call, GFLOP/s, GB/s, parts, longest part,
  // step and line.
  [[nodiscard]] std::string to_string() const;
};

// Compiled once, run many times. A plan is made for each set of sizes that the feeds bring and kept, so a last, smaller
// mini-batch just runs. A run on sizes seen before allocates no memory. The plans share one arena, as large as the
// largest needs; those of sizes that have not been seen for long go (Request::plan_memory).
//
// Updates are simultaneous: every expression reads the values from before the run, and all variables have their new
// values after it. A program without updates changes nothing in the State; one with updates counts the State's step,
// and carries along what graph.update_with attached to the values that it computes (running averages), if it trains.
// What a run writes and is fed as well - results of the run before, a variable that it updates - is copied first.
//
// Threads: one program runs one run at a time, and a call from a second thread meanwhile is an Error. Several programs
// run at the same time, on different States or on one: those without updates side by side, one with updates alone, so
// that every run reads what lies between two updates (state.hpp). Programs of one graph may be made at the same time,
// but nobody may add to it meanwhile. Results are the program's: read them before its next run.
//
// One that was moved from throws Error.
class Program {
 public:
  // Throws Error for an output or update of another graph, a variable updated twice, or an update of another type than
  // its variable; for a size that follows from no input; for a memory_limit that cannot be kept, with what can (where
  // sizes are symbols: run() does, for the sizes that it meets); and for environment variables CHAINRULE_NUM_THREADS
  // and CHAINRULE_ARCH that say nothing of use. The State must outlive nothing: program and State share their numbers.
  Program(State& state, const Request& request, Location at = Location::here());
  ~Program();
  Program(Program&&) noexcept;
  Program& operator=(Program&&) noexcept;

  // Throws Error, having changed nothing, for a missing, unknown, doubled or empty feed, and for one of the wrong
  // shape, whose sizes contradict another's, or whose numbers the input's dtype cannot have (class Feed); and where
  // another thread is running the program. What a failed run throws, be it for want of memory, leaves the State as it
  // was.
  Results run(std::initializer_list<Feed> feeds = {}, Location at = Location::here()) &;
  Results run(std::span<const Feed> feeds, Location at = Location::here()) &;
  KeptResults run(std::initializer_list<Feed> feeds = {}, Location at = Location::here()) &&;
  KeptResults run(std::span<const Feed> feeds, Location at = Location::here()) &&;

  // The inputs that a run must be fed: those whose numbers it reads, and for a size that it needs and none of these
  // has, the first that does (any other that does will do).
  [[nodiscard]] Values inputs() const;
  [[nodiscard]] const Values& outputs() const;
  [[nodiscard]] bool has_updates() const;
  // The inside of the State that it works on.
  [[nodiscard]] const std::shared_ptr<detail::StateData>& state_data() const;

  // The listing after each pass, then for each set of sizes whose plan is kept the plan: steps, fused groups, buffers
  // and their offsets, the arena against the largest sum of buffers in use at once. Before any run: the passes only,
  // unless all sizes are fixed.
  [[nodiscard]] std::string explain() const;
  struct Memory {
    std::size_t arena_bytes = 0;
    std::size_t lower_bound = 0;
    std::size_t steps = 0;
  };
  // Of the plan that ran last.
  [[nodiscard]] Memory memory() const;

  // Forgets all plans and frees what they took: the arena, the outputs (earlier Results are no longer valid). The next
  // run makes its plan anew.
  void clear(Location at = Location::here());

  // From here on runs are timed, step by step (some 25 ns a step), and profile() says where the time went since, for
  // the plans that are kept. Steps that run side by side are timed one after the other.
  void start_profile();
  [[nodiscard]] Profile profile() const;

 private:
  detail::Held<std::unique_ptr<detail::Executable>, detail::program_noun> executable_;
};

}  // namespace chainrule
