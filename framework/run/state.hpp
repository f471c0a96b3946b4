// State: what persists from run to run - parameters, optimizer slots, running statistics, the step and the epoch.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

namespace detail {
struct StateData;
inline constexpr std::string_view state_noun = "state";
}  // namespace detail

struct LoadOptions {
  // Tensors that the file has and the State has not are skipped: an optimizer's, say, for a program that only predicts.
  bool ignore_unknown = false;
  // Parameters and variables that the file lacks stay as they are: those that are new in a network to be tuned, say.
  bool keep_missing = false;
  // Floating numbers of another width (F16, BF16, F32, F64) are rounded to the State's, and whole numbers of other
  // widths taken as its int64, int32 or uint8: the weights of another tool in float32, say, for a graph of the default
  // float64. Numbers that would become infinite, or whole ones beyond the State's dtype, are errors. Without it dtypes
  // must be the State's own.
  bool convert = true;
};

// Holds the numbers of a graph's parameters and variables. Several programs share one State. Variables that are added
// to the graph later (an optimizer's slots) get their initial numbers when a program that uses them is made.
// A copy is a State of its own with the same numbers. (One that was moved from throws Error until it is assigned to.)
//
// Threads: all functions may be called while programs run on the State in other threads. What reads it - snapshot(),
// save(), a copy, a program without updates - sees all of a run's updates or none, and several read at the same time;
// what writes it - set(), load(), reset(), a program with updates - waits until those end, and they for it. Neither
// shuts the other out, however often it comes. But get() and [] hand out the State's own memory, which the next writer
// changes under its reader: beside training take a snapshot(). Nobody may add to the graph meanwhile.
class State {
 public:
  explicit State(const Graph& graph);
  State(const State& other);
  State(State&& other) noexcept = default;
  State& operator=(const State& other);
  State& operator=(State&& other) noexcept = default;
  ~State() = default;

  // The numbers of a parameter or variable, where they lie: valid as long as the State, and changed by its next
  // updating run, set(), load() or reset(). Throws Error for what is neither.
  [[nodiscard]] const Array& get(Value variable, Location at = Location::here()) const;
  [[nodiscard]] const Array& get(std::string_view name, Location at = Location::here()) const;
  [[nodiscard]] const Array& operator[](Value variable) const { return get(variable, Location{}); }
  [[nodiscard]] const Array& operator[](std::string_view name) const { return get(name, Location{}); }
  // A copy of them, all from between two runs.
  [[nodiscard]] Array snapshot(Value variable, Location at = Location::here()) const;
  [[nodiscard]] Array snapshot(std::string_view name, Location at = Location::here()) const;
  // Throws Error where the shape differs, or the dtype by more than the width of a floating or whole number, and for a
  // whole number that the variable's dtype does not have.
  void set(Value variable, const Array& values, Location at = Location::here());
  void set(std::string_view name, const Array& values, Location at = Location::here());

  // The number of updating runs so far: what graph.step() is in a run. Settable, to go on from a checkpoint.
  [[nodiscard]] std::int64_t step() const;
  void set_step(std::int64_t step);
  // What graph.epoch() is in a run; 0 until it is set.
  [[nodiscard]] std::int64_t epoch() const;
  void set_epoch(std::int64_t epoch);

  // How many runs with new random numbers of their own there were: those of programs with Draws::each_run, with updates
  // or without. A checkpoint has it, so that what goes on from there draws what it would have drawn.
  [[nodiscard]] std::int64_t draws() const;
  void set_draws(std::int64_t draws);

  // All numbers as they were when the State was made: initial values, step 0, epoch 0, no draws.
  void reset();

  // A checkpoint: all parameters and variables by name, the step, the epoch and the draws, as a .safetensors file
  // (numbers exactly; the counters as metadata). It is written beside `path` and renamed, so that an interrupted save
  // leaves the old file, and nothing else. A file that is write-protected is not replaced. Training that goes on from
  // it gives the same numbers, bit for bit, as if it had not been interrupted. (What feeds it, such as a generator that
  // shuffles, is the program's own to restore: fit() does, from the epoch.)
  void save(const std::string& path, Location at = Location::here()) const;
  // Throws Error, having changed nothing, for a file that is missing, truncated or damaged, and for one whose names,
  // kinds of numbers (LoadOptions::convert) and shapes are not those of the State. Without a step or epoch in the file
  // the State's stay; so do its draws without a step, with one they are 0 unless the file says otherwise.
  void load(const std::string& path, const LoadOptions& options = {}, Location at = Location::here());

  [[nodiscard]] Graph graph() const;
  [[nodiscard]] const std::shared_ptr<detail::StateData>& data() const { return data_.pointer(); }

 private:
  detail::Held<std::shared_ptr<detail::StateData>, detail::state_noun> data_;
};

}  // namespace chainrule
