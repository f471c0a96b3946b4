#include <chainrule/framework/program.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <deque>
#include <new>
#include <unordered_set>

#include <fmt/core.h>

#include <chainrule/framework/memory_limit.hpp>
#include <chainrule/framework/state_data.hpp>

namespace chainrule {

using detail::GraphData;
using detail::NodeData;
using detail::NodeId;
using detail::Storage;

// ---- Results

const Array& Results::at(std::size_t i, Location at) const {
  if (i >= size()) throw Error(at, "results", fmt::format("requires an index below {}, got {}", size(), i));
  return (*arrays_)[i];
}

const Array& Results::at(Value output, Location at) const {
  for (std::size_t i = 0; i < outputs_->size(); ++i)
    if ((*outputs_)[i] == output) return (*arrays_)[i];
  throw Error(at, "results",
              fmt::format("requires an output of the program, got {}",
                          output.defined() ? output.describe() : std::string("an empty Value")));
}

namespace {

double only_element(const Array& array, Location at) {
  if (array.size() != 1)
    throw Error(at, "results", fmt::format("scalar() requires one element, got shape {}", to_string(array.shape())));
  return array[0];
}

}  // namespace

double Results::scalar(Value output, Location at) const { return only_element(this->at(output, at), at); }
double Results::scalar(std::size_t i, Location at) const { return only_element(this->at(i, at), at); }

namespace detail {

namespace {

// Memory that is aligned as Array's is, and not written before a run does.
class Arena {
 public:
  explicit Arena(std::size_t bytes) : memory_(static_cast<char*>(::operator new(bytes, alignment))) {}
  [[nodiscard]] char* at(std::size_t offset) const { return memory_.get() + offset; }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(char* memory) const { ::operator delete(memory, alignment); }
  };
  std::unique_ptr<char, Free> memory_;
};

}  // namespace

// A plan made ready to run: memory and pointers for one set of sizes.
class Instance {
 public:
  // `compiled` must outlive it.
  Instance(const Compiled& compiled, Sizes sizes, LimitedPlan made, StateData& state)
      : sizes_(std::move(sizes)),
        plan_(std::move(made.plan)),
        recomputed_(std::move(made.recomputed)),
        compiled_(recomputed_ ? *recomputed_ : compiled),
        arena_(plan_.arena_bytes) {
    const GraphData& graph = *compiled_.computation.graph.data();
    for (const TensorType& type : plan_.outputs) outputs_.emplace_back(type.dtype, type.shape);
    const auto resolve = [&](const Storage& s) -> void* {
      switch (s.kind) {
        case Storage::Kind::variable: return state.variables[s.index].raw();
        case Storage::Kind::constant: return const_cast<void*>(graph.constants[s.index]->raw());
        case Storage::Kind::arena: return arena_.at(plan_.buffers[s.index].offset);
        case Storage::Kind::output: return outputs_[s.index].raw();
        case Storage::Kind::feed:  // patched in each run
        case Storage::Kind::none: break;
      }
      return nullptr;
    };
    std::size_t count = 0;
    for (const PlannedStep& step : plan_.steps) count += step.inputs.size() + step.outputs.size();
    pointers_.reserve(count);  // their addresses are kept below
    for (PlannedStep& step : plan_.steps) {
      const std::size_t inputs = pointers_.size();
      for (const Storage& s : step.inputs) {
        if (s.kind == Storage::Kind::feed) patches_.push_back({s.index, pointers_.size()});
        pointers_.push_back(resolve(s));
      }
      const std::size_t outputs = pointers_.size();
      for (const Storage& s : step.outputs) pointers_.push_back(resolve(s));
      void* workspace = step.workspace == PlannedStep::none ? nullptr : resolve({Storage::Kind::arena, step.workspace});
      const StepBuffers buffers{const_cast<const void* const*>(pointers_.data() + inputs), pointers_.data() + outputs,
                                workspace};
      if (step.once) {
        step.step.run(buffers);
      } else {
        steps_.push_back({std::move(step.step.run), buffers});
      }
    }
    for (const FinalCopy& copy : plan_.copies)
      copies_.push_back({copy.from, resolve(copy.from), resolve(copy.to), copy.bytes});
  }

  // `feeds` by the number of the input.
  void run(const std::vector<const void*>& feeds) {
    for (const Patch& patch : patches_) pointers_[patch.pointer] = const_cast<void*>(feeds[patch.input]);
    if (seconds_.empty()) {
      for (const ReadyStep& step : steps_) step.run(step.buffers);
    } else {
      run_timed();
    }
    for (const ReadyCopy& copy : copies_)
      std::memcpy(copy.to, copy.storage.kind == Storage::Kind::feed ? feeds[copy.storage.index] : copy.from,
                  copy.bytes);
  }

  // From now on runs are timed, step by step; what was measured so far is forgotten.
  void start_profile() {
    seconds_.assign(steps_.size(), 0);
    timed_runs_ = 0;
  }

  void add_profile(std::vector<Profile::Step>& out) const {
    const passes::Computation& computation = compiled_.computation;
    std::size_t ready = 0;
    for (const PlannedStep& step : plan_.steps) {
      if (step.once) continue;
      if (ready >= seconds_.size()) return;
      const NodeData& first = computation.graph.data()->node(step.group.nodes.front());
      out.push_back({plan_.title(step, computation, sizes_), first.at, timed_runs_, seconds_[ready++], step.step.flops,
                     static_cast<double>(step.bytes)});
    }
  }

  [[nodiscard]] const Sizes& sizes() const { return sizes_; }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] std::string explain() const {
    std::string out;
    if (recomputed_)
      out += fmt::format("\nafter recompute for {}\n{}",
                         sizes_.all().empty() ? std::string("fixed sizes") : sizes_.to_string(),
                         passes::to_string(compiled_.computation, compiled_.groups));
    return out + "\n" + plan_.explain(compiled_.computation, sizes_);
  }
  [[nodiscard]] const std::vector<Array>& outputs() const { return outputs_; }

 private:
  void run_timed() {
    using Clock = std::chrono::steady_clock;
    Clock::time_point before = Clock::now();
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      steps_[i].run(steps_[i].buffers);
      const Clock::time_point after = Clock::now();
      seconds_[i] += std::chrono::duration<double>(after - before).count();
      before = after;
    }
    ++timed_runs_;
  }

  struct ReadyStep {
    StepRun run;
    StepBuffers buffers;
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

  Sizes sizes_;
  Plan plan_;
  std::unique_ptr<const Compiled> recomputed_;  // for these sizes, where memory is limited
  const Compiled& compiled_;
  Arena arena_;
  std::vector<Array> outputs_;
  std::vector<void*> pointers_;
  std::vector<ReadyStep> steps_;
  std::vector<ReadyCopy> copies_;
  std::vector<Patch> patches_;
  std::vector<double> seconds_;  // by step; empty where nobody asked
  std::int64_t timed_runs_ = 0;
};

class Executable {
 public:
  Executable(State& state, const Request& request, Location at)
      : state_(state.data()),
        user_graph_(state.graph()),
        outputs_(request.outputs),
        mode_(request.mode),
        memory_limit_(request.memory_limit),
        at_(at) {
    Updates updates = request.updates;
    check(updates);
    if (!updates.empty() && mode_ == Mode::training) add_attached(updates);
    updating_ = !updates.empty();
    state_->grow();

    request_ = passes::Computation{user_graph_, outputs_};
    for (const Update& update : updates) {
      request_.results.push_back(update.expression);
      compiled_.updated.push_back(user_graph_.data()->node(update.variable.id()).payload);
    }
    compiled_.outputs = outputs_.size();
    make_slots();
    compiled_.computation =
        passes::optimize(request_, mode_, [this](std::string_view pass, const passes::Computation& made) {
          // Needed is what the request reads in this mode, even where later passes find that it cancels out.
          if (pass != "select_mode") return;
          const passes::Computation live = passes::remove_dead(made);
          for (const NodeData& node : live.graph.data()->nodes)
            if (node.op == &input_op()) slots_[node.payload].needed = true;
        });
    compiled_.groups = passes::fuse_elementwise(compiled_.computation);
    for (const NodeData& node : compiled_.computation.graph.data()->nodes)
      for (const Dimension d : node.type.shape) symbolic_ = symbolic_ || !d.is_number();
    if (memory_limit_ != 0 && !symbolic_) last_ = &instance_for_sizes(at_);
  }

  Results run(std::span<const Feed> feeds, Location at) {
    bind(feeds, at);
    Instance& instance = instance_for_sizes(at);
    state_->publish_counters();
    instance.run(pointers_);
    if (updating_) {
      ++state_->step;
      state_->publish_counters();
    }
    last_ = &instance;
    return {&outputs_, &instance.outputs()};
  }

  [[nodiscard]] Values inputs() const {
    Values out;
    for (const InputSlot& slot : slots_)
      if (slot.needed) out.emplace_back(user_graph_.data().get(), slot.node);
    return out;
  }

  [[nodiscard]] const Values& outputs() const { return outputs_; }
  [[nodiscard]] bool updating() const { return updating_; }
  [[nodiscard]] const std::shared_ptr<StateData>& state_data() const { return state_; }

  [[nodiscard]] std::string explain() {
    std::string out = "graph\n" + passes::remove_dead(request_).to_string();
    passes::optimize(request_, mode_, [&](std::string_view pass, const passes::Computation& made) {
      out += fmt::format("\nafter {}\n{}", pass, made.to_string());
    });
    out += "\nafter fuse_elementwise\n" + passes::to_string(compiled_.computation, compiled_.groups);
    if (instances_.empty() && !symbolic_) instance_for_sizes(at_);
    for (const Instance& instance : instances_) out += instance.explain();
    return out;
  }

  void start_profile() {
    profiling_ = true;
    for (Instance& instance : instances_) instance.start_profile();
  }

  [[nodiscard]] Profile profile() const {
    Profile out;
    for (const Instance& instance : instances_) instance.add_profile(out.steps);
    return out;
  }

  [[nodiscard]] Program::Memory memory() {
    if (!last_ && !symbolic_) last_ = &instance_for_sizes(at_);
    if (!last_) return {};
    return {last_->plan().arena_bytes, last_->plan().lower_bound, last_->plan().steps.size()};
  }

 private:
  // What a run must be told of an input of the graph.
  struct InputSlot {
    NodeId node = no_node;
    bool needed = false;
    std::vector<std::int64_t> symbols;  // of its extents; -1 for a number
  };

  void check(const Updates& updates) const {
    GraphData* graph = user_graph_.data().get();
    const auto require = [&](Value v, std::string_view what) {
      if (!v.defined())
        throw Error(at_, "program", fmt::format("requires {} of the State's graph, got an empty Value", what));
      if (v.data() != graph)
        throw Error(at_, "program",
                    fmt::format("requires {} of the State's graph, got {} of another graph", what, v.describe()));
    };
    for (const Value output : outputs_) require(output, "outputs");
    std::unordered_set<NodeId> seen;
    for (const Update& update : updates) {
      require(update.variable, "variables");
      require(update.expression, "update expressions");
      const NodeData& variable = graph->node(update.variable.id());
      const NodeData& expression = graph->node(update.expression.id());
      if (variable.op != &variable_op())
        throw Error(
            at_, "program",
            fmt::format("requires updates of parameters and variables, got one of {}", update.variable.describe()));
      if (update.variable.id() == graph->step || update.variable.id() == graph->epoch)
        throw Error(at_, "program",
                    fmt::format("requires updates of variables that the State does not count itself, got one of '{}'",
                                update.variable.name()));
      if (!seen.insert(update.variable.id()).second)
        throw Error(at_, "program",
                    fmt::format("requires one update of each variable, got two of '{}'", update.variable.name()));
      if (!(variable.type == expression.type))
        throw Error(
            at_, "program",
            fmt::format("requires {} {} for '{}', got {} {}", name(variable.type.dtype), to_string(variable.type.shape),
                        update.variable.name(), name(expression.type.dtype), to_string(expression.type.shape)));
    }
    if (outputs_.empty() && updates.empty())
      throw Error(at_, "program", "requires an output or an update, got neither");
  }

  // The updates that ride along with values that this program computes anyway.
  void add_attached(Updates& updates) const {
    GraphData* graph = user_graph_.data().get();
    if (graph->attached.empty()) return;
    std::vector<char> computed(graph->nodes.size(), 0);
    for (const Value output : outputs_) computed[output.id()] = 1;
    for (const Update& update : updates) computed[update.expression.id()] = 1;
    for (auto id = static_cast<NodeId>(computed.size()); id-- > 0;)
      if (computed[id])
        for (const NodeId input : graph->node(id).inputs) computed[input] = 1;
    for (const AttachedUpdate& attached : graph->attached) {
      if (!computed[attached.owner]) continue;
      const bool own = std::any_of(updates.begin(), updates.end(),
                                   [&](const Update& u) { return u.variable.id() == attached.variable; });
      if (!own) updates.push_back({{graph, attached.variable}, {graph, attached.expression}});
    }
  }

  void make_slots() {
    const GraphData& user = *user_graph_.data();
    slots_.resize(user.leaves->inputs.size());
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      slots_[i].node = user.leaves->inputs[i].node;
      for (const Dimension d : user.node(slots_[i].node).type.shape) slots_[i].symbols.push_back(d.symbol_id());
    }
    pointers_.assign(slots_.size(), nullptr);
    // Made here, since a run allocates nothing.
    for (const InputSlot& slot : slots_) numbers_.emplace_back(user.node(slot.node).type.dtype, Dims{});
  }

  // Whether a number is one of a dtype, but for the rounding of a floating one.
  static bool holds(DType dtype, double value) {
    if (dtype == boolean) return value == 0 || value == 1;
    return dtype != int64 || (std::abs(value) < 0x1p63 && std::trunc(value) == value);
  }

  static double value_of(const Feed& number) {
    return visit_dtype(number.dtype(),
                       [&](auto t) { return static_cast<double>(*static_cast<const decltype(t)*>(number.data())); });
  }

  // Checks the feeds and takes down their sizes and pointers.
  void bind(std::span<const Feed> feeds, Location at) {
    const GraphData& graph = *user_graph_.data();
    sizes_.clear();
    std::fill(pointers_.begin(), pointers_.end(), nullptr);
    for (const Feed& feed : feeds) {
      const std::size_t number = slot_of(feed, at);
      const InputSlot& slot = slots_[number];
      const NodeData& node = graph.node(slot.node);
      const std::string& input = graph.leaves->inputs[number].name;
      if (pointers_[number])
        throw Error(at, "run", fmt::format("requires one feed for each input, got two for '{}'", input));
      const Shape& shape = node.type.shape;
      const auto wrong = [&](std::string_view why) {
        throw Error(
            at, "run",
            fmt::format("requires {} {} for input '{}' ({}), got {} {}{}", name(node.type.dtype), to_string(shape),
                        input, node.at.to_string(), name(feed.dtype()), to_string(feed.shape()), why));
      };
      if (feed.dtype() != node.type.dtype && !feed.is_number()) wrong("");
      if (feed.shape().rank() != shape.rank()) wrong("");
      for (std::size_t i = 0; i < shape.rank(); ++i) {
        const std::int64_t extent = feed.shape()[i];
        if (shape[i].is_number() && extent != shape[i].extent()) wrong("");
        if (slot.symbols[i] < 0) continue;
        if (extent == 0)
          wrong(fmt::format(": {} must be at least 1, an empty batch has no mean", shape[i].to_string()));
        if (!sizes_.bind(slot.symbols[i], extent))
          wrong(fmt::format(": {} is {} in another input", shape[i].to_string(), *sizes_.find(slot.symbols[i])));
      }
      // An array of no elements has no numbers to point to.
      pointers_[number] = feed.data() ? feed.data() : static_cast<const void*>(&no_elements_);
      if (feed.is_number() && feed.dtype() != node.type.dtype) {
        const double value = value_of(feed);
        if (!holds(node.type.dtype, value)) wrong(fmt::format(": {}", value));
        numbers_[number].set(0, value);
        pointers_[number] = numbers_[number].raw();
      }
    }
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (!slots_[i].needed || pointers_[i]) continue;
      const NodeData& node = graph.node(slots_[i].node);
      throw Error(at, "run",
                  fmt::format("requires a feed for input '{}', {} {} ({}), got none", graph.leaves->inputs[i].name,
                              name(node.type.dtype), to_string(node.type.shape), node.at.to_string()));
    }
    check_compound(feeds, at);
  }

  // Extents of inputs that are sums ("batch + 1") are checked when all symbols are known.
  void check_compound(std::span<const Feed> feeds, Location at) const {
    const GraphData& graph = *user_graph_.data();
    for (const Feed& feed : feeds) {
      const std::size_t number = slot_of(feed, at);
      const Shape& shape = graph.node(slots_[number].node).type.shape;
      for (std::size_t i = 0; i < shape.rank(); ++i)
        if (!shape[i].is_number() && slots_[number].symbols[i] < 0 && evaluate_at(shape[i], at) != feed.shape()[i])
          throw Error(at, "run",
                      fmt::format("requires {} for input '{}', got {} ({})", to_string(shape),
                                  graph.leaves->inputs[number].name, to_string(feed.shape()), sizes_.to_string()));
    }
  }

  [[nodiscard]] std::int64_t evaluate_at(Dimension dimension, Location at) const {
    try {
      return dimension.evaluate(sizes_);
    } catch (const Error& error) {
      throw Error(at, "", error.what());
    }
  }

  [[nodiscard]] std::size_t slot_of(const Feed& feed, Location at) const {
    const GraphData* graph = user_graph_.data().get();
    // By a name without making a string of it: a run allocates nothing.
    for (std::size_t i = 0; !feed.name().empty() && i < slots_.size(); ++i)
      if (graph->leaves->inputs[i].name == feed.name()) return i;
    const Value input = feed.name().empty() ? feed.input() : user_graph_.find(feed.name(), at);
    if (!input.defined()) throw Error(at, "run", "requires feeds of inputs, got one of an empty Value");
    if (input.data() != graph)
      throw Error(
          at, "run",
          fmt::format("requires feeds of inputs of the program's graph, got '{}' of another", input.describe()));
    const NodeData& node = graph->node(input.id());
    if (node.op != &input_op())
      throw Error(at, "run", fmt::format("requires feeds of inputs, got one of {}", input.describe()));
    if (node.payload >= slots_.size())
      throw Error(at, "run",
                  fmt::format("requires feeds of inputs that the program knows, got '{}', which was added to "
                              "the graph after the program was compiled",
                              input.name()));
    return node.payload;
  }

  Instance& instance_for_sizes(Location at) {
    if (last_ && last_->sizes() == sizes_) return *last_;
    for (Instance& instance : instances_)
      if (instance.sizes() == sizes_) return instance;
    try {
      instances_.emplace_back(compiled_, sizes_, make_plan_within(memory_limit_, compiled_, sizes_), *state_);
    } catch (const Error& error) {
      if (error.location().known()) throw;
      throw Error(at, "", error.what());
    }
    if (profiling_) instances_.back().start_profile();
    return instances_.back();
  }

  std::shared_ptr<StateData> state_;
  Graph user_graph_;
  Values outputs_;
  Mode mode_;
  std::size_t memory_limit_;
  Location at_;
  passes::Computation request_{user_graph_, {}};
  Compiled compiled_{passes::Computation{user_graph_, {}}, {}, 0, {}};
  bool updating_ = false;
  bool symbolic_ = false;
  bool profiling_ = false;

  std::vector<InputSlot> slots_;  // by an input's number
  Sizes sizes_;
  std::vector<const void*> pointers_;
  std::vector<Array> numbers_;
  char no_elements_ = 0;
  std::deque<Instance> instances_;
  Instance* last_ = nullptr;
};

}  // namespace detail

// ---- Program

Program::Program(State& state, const Request& request, Location at)
    : executable_(std::make_unique<detail::Executable>(state, request, at)) {}
Program::~Program() = default;
Program::Program(Program&&) noexcept = default;
Program& Program::operator=(Program&&) noexcept = default;

Results Program::run(std::initializer_list<Feed> feeds, Location at) {
  return executable_->run(std::span<const Feed>(feeds.begin(), feeds.size()), at);
}
Results Program::run(std::span<const Feed> feeds, Location at) { return executable_->run(feeds, at); }
Values Program::inputs() const { return executable_->inputs(); }
const Values& Program::outputs() const { return executable_->outputs(); }
bool Program::has_updates() const { return executable_->updating(); }
const std::shared_ptr<detail::StateData>& Program::state_data() const { return executable_->state_data(); }
std::string Program::explain() const { return executable_->explain(); }
Program::Memory Program::memory() const { return executable_->memory(); }
void Program::start_profile() { executable_->start_profile(); }
Profile Program::profile() const { return executable_->profile(); }

// ---- Profile

double Profile::seconds() const {
  double total = 0;
  for (const Step& step : steps) total += step.seconds;
  return total;
}

std::string Profile::to_string() const {
  std::vector<Step> sorted = steps;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Step& a, const Step& b) { return a.seconds > b.seconds; });
  const double total = seconds();
  std::string out =
      fmt::format("{:>6} {:>9} {:>12} {:>8} {:>8}  step\n", "share", "calls", "us / call", "GFLOP/s", "GB/s");
  for (const Step& step : sorted) {
    const double calls = std::max(1.0, static_cast<double>(step.calls));
    const auto rate = [&](double work) {
      return work > 0 && step.seconds > 0 ? fmt::format("{:.1f}", work * calls / step.seconds * 1e-9)
                                          : std::string("-");
    };
    out += fmt::format("{:>5.1f}% {:>9} {:>12.3f} {:>8} {:>8}  {}{}\n", total > 0 ? 100 * step.seconds / total : 0.0,
                       step.calls, step.seconds / calls * 1e6, rate(step.flops), rate(step.bytes), step.title,
                       step.location.known() ? fmt::format("  ({})", step.location.to_string()) : "");
  }
  return out;
}

}  // namespace chainrule
