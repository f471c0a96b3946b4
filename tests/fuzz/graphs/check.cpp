#include "check.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include <fmt/core.h>

#include <chainrule/framework/check/check_gradients.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/graph_data.hpp>

#include "interpret.hpp"

namespace chainrule::fuzz {

namespace {

// Thrown with what was found.
struct Found {
  Verdict verdict;
};

// Thrown where there is nothing to compare: both worlds have an Error.
struct Refused {};

[[noreturn]] void found(Fault fault, std::string message, std::string op = {}) {
  throw Found{{fault, std::move(message), std::move(op)}};
}

// An error's message without what differs from one graph to the next: "file:line: ", numbers.
std::string gist(std::string_view message) {
  std::string out;
  for (const char c : message.substr(
           std::min(message.size(), message.rfind(".cpp:") == std::string_view::npos ? 0 : message.rfind(".cpp:") + 5)))
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) out += c;
  return out;
}

// The numbers of a run: of inputs, variables, the step and the epoch.
struct Given {
  Values leaves;
  std::vector<Array> arrays;
};

// What the interpreter makes of some values, and how far rounding moves it.
class Expectation {
 public:
  Expectation(const Recipe& recipe, const Sizes& sizes, Given given)
      : recipe_(recipe), sizes_(sizes), given_(std::move(given)) {
    exact_ = make({});
    for (std::uint64_t seed = 1; seed <= 2; ++seed) moved_.push_back(make({2, seed, seed == 2}));
  }

  // Whether the interpreter has an Error for what is asked of the program.
  bool throws() {
    try {
      for (const std::size_t i : recipe_.outputs) value(*exact_, exact_->built.values[i].id());
      for (const auto& [variable, expression] : recipe_.updates) value(*exact_, exact_->built.values[expression].id());
    } catch (const Error&) {
      return true;
    }
    return false;
  }

  // What a program computes that runs the graph as it was built: the outputs, and what they and the other results need,
  // constants aside. Throws Error where the interpreter does.
  std::vector<std::uint32_t> on_the_way(const std::vector<std::uint32_t>& outputs,
                                        const std::vector<std::uint32_t>& others) {
    const std::size_t size = exact_->built.graph.size();
    for (const std::uint32_t id : outputs) value(*exact_, id);
    for (const std::uint32_t id : others) value(*exact_, id);
    std::vector<std::uint32_t> out;
    for (std::uint32_t id = 0; id < size; ++id) {
      const Value v(exact_->built.graph.data().get(), id);
      const bool output = std::find(outputs.begin(), outputs.end(), id) != outputs.end();
      if (output || (exact_->interpreter.needed(v) && !detail::constant_value(v))) out.push_back(id);
    }
    return out;
  }

  // Whether all floating ones of these values are finite; nothing where that hangs by rounding or one throws Error.
  std::optional<bool> are_finite(const std::vector<std::uint32_t>& ids) {
    while (moved_.size() < 6) add_moved();
    try {
      const bool finite = are_finite(*exact_, ids);
      for (const auto& m : moved_)
        if (are_finite(*m, ids) != finite) return {};
      return finite;
    } catch (const Error&) {
      return {};
    }
  }

  // Throws Error where the interpreter does, Found where `got` is something else.
  void compare(std::uint32_t id, const Array& got, std::string_view what, Counts& counts) {
    const Array& expected = value(*exact_, id);
    if (got.dtype() != expected.dtype() || !(got.shape() == expected.shape()))
      found(Fault::value,
            fmt::format("{} is {} {}, expected {} {}", what, chainrule::name(got.dtype()), to_string(got.shape()),
                        chainrule::name(expected.dtype()), to_string(expected.shape())));
    counts.elements += static_cast<std::uint64_t>(got.size());
    std::optional<std::int64_t> wrong;
    for (std::int64_t i = 0; i < got.size() && !wrong; ++i)
      if (!agrees(id, i, got, expected, 8, 16)) wrong = i;
    if (!wrong) return;
    // Rounding may decide it: a closer look at every such element.
    while (moved_.size() < 24) add_moved();
    for (std::int64_t i = *wrong; i < got.size(); ++i) {
      if (agrees(id, i, got, expected, 4, 32)) continue;
      if (!is_stable(id, i, expected)) {
        ++counts.unstable;
        continue;
      }
      const double spread = spread_of(id, i, expected[i]);
      found(Fault::value, fmt::format("{} is {} at element {} of {} {}, expected {} (rounding moves it by {:.1e})",
                                      what, element(got, i), i, chainrule::name(got.dtype()), to_string(got.shape()),
                                      element(expected, i), spread));
    }
  }

 private:
  struct World {
    Built built;
    Interpreter interpreter;
  };
  std::unique_ptr<World> make(Interpreter::Perturbation perturbation) {
    Built built = build(recipe_);
    auto out = std::make_unique<World>(World{built, Interpreter(built.graph, recipe_.mode, sizes_, perturbation)});
    for (std::size_t i = 0; i < given_.leaves.size(); ++i)
      out->interpreter.give({built.graph.data().get(), given_.leaves[i].id()}, given_.arrays[i]);
    return out;
  }
  void add_moved() { moved_.push_back(make({4, moved_.size() + 1, moved_.size() % 2 == 0})); }
  static const Array& value(World& world, std::uint32_t id) {
    return world.interpreter.value({world.built.graph.data().get(), id});
  }
  // Nothing where rounding makes an index go out of range.
  static const Array* value_if_any(World& world, std::uint32_t id) {
    try {
      return &value(world, id);
    } catch (const Error&) {
      return nullptr;
    }
  }
  // How far rounding moves an element.
  double spread_of(std::uint32_t id, std::int64_t i, double expected) {
    double spread = 0;
    for (const auto& m : moved_)
      if (const Array* other = value_if_any(*m, id)) spread = std::max(spread, std::abs((*other)[i] - expected));
    return spread;
  }
  static bool are_finite(World& world, const std::vector<std::uint32_t>& ids) {
    return std::all_of(ids.begin(), ids.end(), [&](std::uint32_t id) {
      const Array& array = value(world, id);
      if (detail::constant_value({world.built.graph.data().get(), id})) return true;  // it may be infinite
      for (std::int64_t i = 0; is_floating(array.dtype()) && i < array.size(); ++i)
        if (!std::isfinite(array[i])) return false;
      return true;
    });
  }

  static std::string element(const Array& array, std::int64_t i) {
    return array.dtype() == int64 ? fmt::format("{}", array.data<std::int64_t>()[i]) : fmt::format("{:.17g}", array[i]);
  }

  bool agrees(std::uint32_t id, std::int64_t i, const Array& got, const Array& expected, double factor, double ulps) {
    if (expected.dtype() == int64) return got.data<std::int64_t>()[i] == expected.data<std::int64_t>()[i];
    const double e = expected[i];
    const double g = got[i];
    if (std::isnan(e) || std::isnan(g)) return std::isnan(e) == std::isnan(g);
    if (std::isinf(e) || std::isinf(g) || expected.dtype() == boolean) return e == g;
    const double epsilon = expected.dtype() == float32 ? 0x1p-24 : 0x1p-53;
    const double least = expected.dtype() == float32 ? 0x1p-126 : 0x1p-1022;
    return !(std::abs(g - e) > factor * spread_of(id, i, e) + ulps * epsilon * std::abs(e) + least);
  }

  // Whether no rounding makes another kind of number of it. What it moves by its own size may be at a pole: a quotient
  // by a sum that cancels.
  bool is_stable(std::uint32_t id, std::int64_t i, const Array& expected) {
    const auto kind = [&](const Array& array) {
      return std::isnan(array[i]) ? 2.0 : std::isinf(array[i]) ? array[i] : 0.0;
    };
    if (is_floating(expected.dtype()) && spread_of(id, i, expected[i]) > 0.5 * std::abs(expected[i])) return false;
    return std::all_of(moved_.begin(), moved_.end(), [&](const auto& m) {
      const Array* other = value_if_any(*m, id);
      return other && (is_floating(expected.dtype()) ? kind(*other) == kind(expected) : (*other)[i] == expected[i]);
    });
  }

  const Recipe& recipe_;
  const Sizes& sizes_;
  Given given_;
  std::unique_ptr<World> exact_;
  std::vector<std::unique_ptr<World>> moved_;
};

// How a recipe is run.
struct Way {
  std::size_t limit = 0;  // Request::memory_limit
  bool optimize = true;
  bool check_finite = false;
};

// A State and a Program, and the arrays that it is fed.
struct Side {
  Built built;
  State state;
  Program program;
  Side(const Recipe& recipe, const Way& way)
      : built(build(recipe)), state(built.graph), program(state, ask(recipe, way)) {}

  Request ask(const Recipe& recipe, const Way& way) const {
    Request request = request_of(recipe, built);
    request.memory_limit = way.limit;
    request.optimize = way.optimize;
    request.check_finite = way.check_finite;
    return request;
  }
};

std::vector<Array> variables_of(const Recipe& recipe, const Side& side) {
  std::vector<Array> out;
  for (std::size_t i = 0; i < recipe.steps.size(); ++i)
    if (recipe.steps[i].is_variable()) out.push_back(side.state.get(side.built.values[i]));
  return out;
}

bool identical(const std::vector<Array>& a, const std::vector<Array>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Array& x, const Array& y) { return x.identical(y); });
}

class Checker {
 public:
  Checker(const Recipe& recipe, Counts& counts) : recipe_(recipe), counts_(counts), main_(make({})) {
    counts_.nodes += main_->built.graph.size();
  }

  void run_all() {
    set_num_threads(1);
    updates_ = recipe_.updates;
    add_attached();
    for (const SizeSet& set : recipe_.sizes)
      if (!is_too_large(set) && !run(set)) return;
    other_ways();
    if (recipe_.as_built) run_as_built();
    if (recipe_.check_finite) run_watched();
    if (recipe_.check_gradients) check_gradients();
  }

 private:
  // In programs that update and train, what was attached to the values that they compute is updated too.
  void add_attached() {
    if (recipe_.updates.empty() || recipe_.mode != Mode::training) return;
    const std::vector<char> computed = computed_values();
    for (const auto& [owner, variable, expression] : recipe_.attached)
      if (computed[main_->built.values[owner].id()]) updates_.push_back({variable, expression});
  }

  // What the outputs and updates_ are computed from, themselves included, by id.
  [[nodiscard]] std::vector<char> computed_values() const {
    const Graph& graph = main_->built.graph;
    std::vector<char> computed(graph.size(), 0);
    for (const std::size_t i : recipe_.outputs) computed[main_->built.values[i].id()] = 1;
    for (const auto& [variable, expression] : updates_) computed[main_->built.values[expression].id()] = 1;
    for (auto id = static_cast<std::uint32_t>(computed.size()); id-- > 0;)
      if (computed[id])
        for (const Value input : Node(graph.data().get(), id).inputs()) computed[input.id()] = 1;
    return computed;
  }

  // As of Expectation; nothing where the interpreter throws Error.
  [[nodiscard]] std::optional<std::vector<std::uint32_t>> on_the_way(Expectation& expectation) const {
    std::vector<std::uint32_t> outputs;
    std::vector<std::uint32_t> others;
    for (const std::size_t i : recipe_.outputs) outputs.push_back(main_->built.values[i].id());
    for (const auto& [variable, expression] : updates_) others.push_back(main_->built.values[expression].id());
    try {
      return expectation.on_the_way(outputs, others);
    } catch (const Error&) {
      return {};
    }
  }

  // A graph that is small for one set of sizes may not be for another.
  [[nodiscard]] bool is_too_large(const SizeSet& set) const {
    const Sizes sizes = sizes_of(set);
    double elements = 0;
    for (const Value value : main_->built.values) {
      double own = 1;
      for (const Dimension d : value.shape()) own *= static_cast<double>(d.evaluate(sizes));
      elements += own;
    }
    return elements > 3e6;
  }

  std::unique_ptr<Side> make(const Way& way) {
    try {
      return std::make_unique<Side>(recipe_, way);
    } catch (const Error& error) {
      if (way.limit > 0) return {};  // it cannot be kept
      if (names_an_unfed_size(error.what()) || throws_on_constants()) throw Refused{};
      found(Fault::compiling, error.what(), gist(error.what()));
    } catch (const std::exception& error) {
      found(Fault::compiling, error.what(), gist(error.what()));
    }
  }

  // Whether the interpreter has an Error for what needs nothing but constants, which is computed when compiled.
  [[nodiscard]] bool throws_on_constants() const {
    Built built = build(recipe_);
    Interpreter interpreter(built.graph, recipe_.mode, sizes_of(recipe_.sizes[0]));
    for (std::size_t i = 0; i < recipe_.steps.size(); ++i) {
      const Step& s = recipe_.steps[i];
      const bool counter = s.kind == Step::Kind::step || s.kind == Step::Kind::epoch;
      if (counter) interpreter.give(built.values[i], Array(std::int64_t{0}));
      if (s.kind == Step::Kind::input || s.is_variable())
        interpreter.give(built.values[i],
                         numbers(s.dtype, chainrule::evaluate(s.shape, sizes_of(recipe_.sizes[0])), s.fill));
    }
    try {
      for (const Value value : built.values) interpreter.value(value);
    } catch (const Error&) {
      return true;
    }
    return false;
  }

  [[nodiscard]] std::vector<Array> arrays_of(const Side& side, const Sizes& sizes) const {
    std::vector<Array> out;
    for (const Value input : side.program.inputs()) {
      const Step& step = recipe_.steps[step_of(side, input)];
      out.push_back(numbers(step.dtype, chainrule::evaluate(step.shape, sizes), step.fill));
    }
    return out;
  }
  static std::size_t step_of(const Side& side, Value value) {
    const auto at = std::find(side.built.values.begin(), side.built.values.end(), value);
    return static_cast<std::size_t>(at - side.built.values.begin());
  }

  // The outputs of a run, or the values of these numbers; nothing where it throws an Error.
  std::optional<std::vector<Array>> outputs_of(Side& side, const std::vector<Array>& arrays, std::string& error,
                                               const std::vector<std::uint32_t>& ids = {}) {
    std::vector<Feed> feeds;
    const Values inputs = side.program.inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) feeds.emplace_back(inputs[i], arrays[i]);
    try {
      const Results results = side.program.run(std::span<const Feed>(feeds));
      std::vector<Array> out;
      for (std::size_t i = 0; ids.empty() && i < results.size(); ++i) out.push_back(results[i]);
      for (const std::uint32_t id : ids) out.push_back(results.at(Value(side.built.graph.data().get(), id)));
      return out;
    } catch (const Error& e) {
      error = e.what();
    } catch (const std::exception& e) {
      found(Fault::running, e.what(), gist(e.what()));
    }
    return {};
  }

  [[nodiscard]] std::string op_of(std::size_t step) const {
    const Step& s = recipe_.steps[step];
    return s.kind == Step::Kind::op ? s.op->name : s.kind == Step::Kind::output ? op_of(s.inputs[0]) : "";
  }

  // One run and the same again. False where it throws, as it should.
  bool run(const SizeSet& set) {
    const Sizes sizes = sizes_of(set);
    const std::vector<Array> arrays = arrays_of(*main_, sizes);
    const std::vector<Array> before = variables_of(recipe_, *main_);
    const std::int64_t step = main_->state.step();
    Expectation expectation(recipe_, sizes, given(*main_, sizes));

    std::string error;
    const auto outputs = outputs_of(*main_, arrays, error);
    if (!outputs) {
      if (!identical(before, variables_of(recipe_, *main_)) || main_->state.step() != step)
        found(Fault::state, fmt::format("a run that threw changed the State: {}", error));
      if (is_right_to_throw(expectation, error)) {
        ++counts_.refused;
        return false;
      }
      found(Fault::running, error, gist(error));
    }
    const std::vector<Array> after = variables_of(recipe_, *main_);
    try {
      compare(expectation, *outputs, before, after);
    } catch (const Error&) {
      // An index out of range in what the passes found to be of no use.
    }
    if (main_->state.step() != step + (main_->program.has_updates() ? 1 : 0)) found(Fault::state, "a wrong step");
    runs_.push_back({arrays, *outputs, after});

    if (recipe_.updates.empty()) {
      const auto again = outputs_of(*main_, arrays, error);
      if (!again || !identical(*again, *outputs)) found(Fault::bits, "the second run gives other bits");
      if (!identical(after, variables_of(recipe_, *main_))) found(Fault::state, "a program without updates changed it");
    }
    return true;
  }

  [[nodiscard]] Given given(const Side& side, const Sizes& sizes) const {
    Given out;
    const std::vector<Array> variables = variables_of(recipe_, side);
    std::size_t next = 0;
    for (std::size_t i = 0; i < recipe_.steps.size(); ++i) {
      const Step& s = recipe_.steps[i];
      if (s.kind == Step::Kind::input)
        out.arrays.push_back(numbers(s.dtype, chainrule::evaluate(s.shape, sizes), s.fill));
      else if (s.is_variable())
        out.arrays.push_back(variables[next++]);
      else if (s.kind == Step::Kind::step)
        out.arrays.emplace_back(side.state.step());
      else if (s.kind == Step::Kind::epoch)
        out.arrays.emplace_back(side.state.epoch());
      else
        continue;
      out.leaves.push_back(side.built.values[i]);
    }
    return out;
  }

  // Whether an error is about a size that no input has.
  [[nodiscard]] bool names_an_unfed_size(const std::string& error) const {
    for (const auto& [name, size] : recipe_.sizes[0]) {
      const Dimension symbol = Dimension::symbol(name);
      const bool fed = std::any_of(recipe_.steps.begin(), recipe_.steps.end(), [&](const Step& s) {
        return s.kind == Step::Kind::input && std::find(s.shape.begin(), s.shape.end(), symbol) != s.shape.end();
      });
      if (!fed && error.find("dimension '" + name + "'") != std::string::npos) return true;
    }
    return false;
  }

  // Whether the interpreter throws too, or a size is asked for that no input has.
  bool is_right_to_throw(Expectation& expectation, const std::string& error) {
    return names_an_unfed_size(error) || expectation.throws();
  }

  void compare(Expectation& expectation, const std::vector<Array>& outputs, const std::vector<Array>& before,
               const std::vector<Array>& after) {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const std::size_t step = recipe_.outputs[i];
      try {
        expectation.compare(main_->built.values[step].id(), outputs[i],
                            fmt::format("output {} ({})", i, name_of(recipe_, step)), counts_);
      } catch (Found& f) {
        f.verdict.op = op_of(step);
        throw;
      }
    }
    compare_variables(expectation, before, after);
  }

  void compare_variables(Expectation& expectation, const std::vector<Array>& before, const std::vector<Array>& after) {
    std::size_t next = 0;
    for (std::size_t i = 0; i < recipe_.steps.size(); ++i) {
      if (!recipe_.steps[i].is_variable()) continue;
      const auto update =
          std::find_if(updates_.begin(), updates_.end(), [&](const Recipe::Update& u) { return u.variable == i; });
      if (update == updates_.end()) {
        if (!after[next].identical(before[next]))
          found(Fault::state, fmt::format("{}, which nothing updates, has changed", name_of(recipe_, i)));
      } else {
        expectation.compare(main_->built.values[update->expression].id(), after[next],
                            fmt::format("{} after its update", name_of(recipe_, i)), counts_);
      }
      ++next;
    }
  }

  // The same runs again with more threads and with less memory must give the same bits.
  void other_ways() {
    const bool updates = !recipe_.updates.empty();
    for (const int threads : {2, 3}) {
      set_num_threads(threads);
      if (updates) {
        // Variables as they were at first.
        const auto side = make({});
        repeat(*side, fmt::format("with {} threads", threads));
      } else {
        repeat(*main_, fmt::format("with {} threads", threads));
      }
    }
    set_num_threads(1);
    if (recipe_.limit == 0) return;
    const auto arena = static_cast<double>(main_->program.memory().arena_bytes);
    const auto limit = static_cast<std::size_t>(arena * recipe_.limit);
    if (limit == 0) return;
    if (const auto side = make({.limit = limit})) {
      repeat(*side, fmt::format("with a memory_limit of {}", limit));
      ++counts_.limited;
    }
  }

  // Node by node, every value on the way must be the interpreter's.
  void run_as_built() {
    const auto side = make({.optimize = false});
    for (const SizeSet& set : recipe_.sizes) {
      if (is_too_large(set)) continue;
      const Sizes sizes = sizes_of(set);
      const std::vector<Array> before = variables_of(recipe_, *side);
      Expectation expectation(recipe_, sizes, given(*side, sizes));
      const auto ids = on_the_way(expectation);
      std::string error;
      const auto values = outputs_of(*side, arrays_of(*side, sizes), error, ids.value_or(std::vector<std::uint32_t>{}));
      if (!values && !is_right_to_throw(expectation, error))
        found(Fault::running, fmt::format("without optimization: {}", error), gist(error));
      if (!values || !ids) return;
      ++counts_.as_built;
      for (std::size_t i = 0; i < ids->size(); ++i) {
        const Value value(side->built.graph.data().get(), (*ids)[i]);
        expectation.compare(value.id(), (*values)[i], "without optimization " + value.describe(), counts_);
      }
      compare_variables(expectation, before, variables_of(recipe_, *side));
    }
  }

  // With check_finite a run is an Error exactly where something that it computes is not finite.
  void run_watched() {
    const auto side = make({.check_finite = true});
    for (const SizeSet& set : recipe_.sizes) {
      if (is_too_large(set)) continue;
      const Sizes sizes = sizes_of(set);
      const std::vector<Array> before = variables_of(recipe_, *side);
      Expectation expectation(recipe_, sizes, given(*side, sizes));
      std::string error;
      const bool ran = outputs_of(*side, arrays_of(*side, sizes), error).has_value();
      if (!ran && !identical(before, variables_of(recipe_, *side)))
        found(Fault::state, fmt::format("a run that threw changed the State: {}", error));
      const bool refused = error.find("check_finite: requires finite numbers") != std::string::npos;
      if (!ran && !refused && !is_right_to_throw(expectation, error))
        found(Fault::running, fmt::format("with check_finite: {}", error), gist(error));
      const auto ids = on_the_way(expectation);
      if (!ids || (!ran && !refused)) return;
      ++counts_.watched;
      if (const auto finite = expectation.are_finite(*ids); finite && *finite == refused)
        found(Fault::value, refused ? fmt::format("all is finite, and a run with check_finite says: {}", error)
                                    : "something is not finite, and a run with check_finite says nothing");
    }
  }

  void repeat(Side& side, const std::string& how) {
    for (const Run& run : runs_) {
      std::string error;
      const auto outputs = outputs_of(side, run.arrays, error);
      if (!outputs) {
        // A limit may be too little for these sizes.
        if (error.find("memory_limit") != std::string::npos) return;
        found(Fault::running, fmt::format("{}: {}", how, error));
      }
      for (std::size_t i = 0; i < outputs->size(); ++i)
        if (!(*outputs)[i].identical(run.outputs[i]))
          found(Fault::bits,
                fmt::format("{} output {} ({}) has other bits", how, i, name_of(recipe_, recipe_.outputs[i])),
                op_of(recipe_.outputs[i]));
      if (!recipe_.updates.empty() && !identical(run.variables, variables_of(recipe_, side)))
        found(Fault::bits, fmt::format("{} a variable has other bits", how));
    }
  }

  // At the numbers that variables have at first: updates may put them where there is no derivative, or far out.
  void check_gradients() {
    const auto side = make({});
    const Value loss = side->built.values[recipe_.outputs[0]];
    if (!loss.shape().empty() || !is_floating(loss.dtype())) return;
    Values leaves;
    for (std::size_t i = 0; i < recipe_.steps.size(); ++i) {
      const Step& s = recipe_.steps[i];
      if (is_floating(s.dtype) && (s.kind == Step::Kind::input || s.is_variable()))
        leaves.push_back(side->built.values[i]);
    }
    const auto all = arrays_of(*side, sizes_of(recipe_.sizes[0]));
    std::vector<Feed> feeds;
    const Values inputs = side->program.inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) feeds.emplace_back(inputs[i], all[i]);
    std::erase_if(leaves, [&](Value v) {
      return recipe_.steps[step_of(*side, v)].kind == Step::Kind::input &&
             std::find(inputs.begin(), inputs.end(), v) == inputs.end();
    });
    if (leaves.empty()) return;
    try {
      const CheckReport report = chainrule::check_gradients(loss, leaves, side->state, feeds);
      ++counts_.checked;
      if (report.verdict() == chainrule::Verdict::inconclusive) ++counts_.inconclusive;
      // Where a gradient has no number (0 * infinity, the logarithm of a negative number) there is nothing to compare.
      const bool numbers = std::all_of(report.rows.begin(), report.rows.end(),
                                       [](const CheckRow& row) { return std::isfinite(row.analytic); });
      if (report.verdict() == chainrule::Verdict::fail && numbers) found(Fault::gradient, report.to_string());
    } catch (const Error&) {
      // An op on the way has no gradient.
    } catch (const std::exception& error) {
      found(Fault::gradient, error.what());
    }
  }

  struct Run {
    std::vector<Array> arrays, outputs, variables;
  };
  const Recipe& recipe_;
  Counts& counts_;
  std::unique_ptr<Side> main_;
  std::vector<Recipe::Update> updates_;  // those attached to what is computed too
  std::vector<Run> runs_;
};

}  // namespace

std::string_view name(Fault fault) {
  constexpr std::string_view names[] = {"none",  "building", "compiling", "running",
                                        "value", "bits",     "state",     "gradient"};
  return names[static_cast<std::size_t>(fault)];
}

Verdict check(const Recipe& recipe, Counts& counts, std::vector<char>& reached) {
  try {
    const Built built = build(recipe);
    const auto& all = registry();
    reached.resize(all.size(), 0);
    for (std::size_t id = 0; id < built.graph.size(); ++id) {
      const Op* op = &Node(built.graph.data().get(), static_cast<std::uint32_t>(id)).op();
      const auto at =
          std::lower_bound(all.begin(), all.end(), op, [](const Op* a, const Op* b) { return a->name < b->name; });
      if (at != all.end() && *at == op) reached[static_cast<std::size_t>(at - all.begin())] = 1;
    }
  } catch (const Error&) {
    return {};  // not well-typed: a shrunk one
  } catch (const std::exception& error) {
    return {Fault::building, error.what(), {}};
  }
  try {
    Checker(recipe, counts).run_all();
  } catch (const Found& f) {
    return f.verdict;
  } catch (const Refused&) {
    ++counts.refused;
  } catch (const std::exception& error) {
    return {Fault::running, fmt::format("in the interpreter: {}", error.what()), gist(error.what())};
  }
  return {};
}

}  // namespace chainrule::fuzz
