#include <chainrule/framework/run/program.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iterator>
#include <list>
#include <new>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/fused/generate.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/framework/plan/memory_limit.hpp>
#include <chainrule/framework/run/state_data.hpp>

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
class Memory {
 public:
  // At least so many bytes, whatever was in there.
  void reserve(std::size_t bytes) {
    if (bytes <= bytes_) return;
    clear();
    memory_.reset(static_cast<char*>(::operator new(bytes, alignment)));
    bytes_ = bytes;
  }
  void clear() {
    memory_.reset();
    bytes_ = 0;
  }
  [[nodiscard]] char* data() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(char* memory) const { ::operator delete(memory, alignment); }
  };
  std::unique_ptr<char, Free> memory_;
  std::size_t bytes_ = 0;
};

// Calls f(dimension, node) for the dimensions of a graph that are no numbers, for each at the first node that has it.
template <class F>
void for_each_symbolic(const GraphData& graph, F f) {
  std::unordered_set<std::size_t> seen;
  const Shape* last = nullptr;
  const auto look_at = [&](const Shape& shape, NodeId id) {
    for (const Dimension d : shape)
      if (!d.is_number() && !d.is_inferred() && seen.insert(d.hash()).second) f(d, id);
  };
  for (NodeId id = 0; id < graph.nodes.size(); ++id) {
    const NodeData& node = graph.node(id);
    if (const Shape& shape = node.type.shape; &shape != last) {
      look_at(shape, id);
      last = &shape;
    }
    if (node.attributes.empty()) continue;
    node.attributes.for_each([&](const std::string&, const Attribute& attribute) {
      if (const auto* shape = std::get_if<Shape>(&attribute.variant())) look_at(*shape, id);
    });
  }
}

struct SizesHash {
  std::size_t operator()(const Sizes& sizes) const {
    std::uint64_t h = 0;
    for (const auto& [symbol, extent] : sizes.all()) {
      h = (h ^ static_cast<std::uint64_t>(symbol)) * 0x9E3779B97F4A7C15u;
      h = (h ^ (h >> 29) ^ static_cast<std::uint64_t>(extent)) * 0xBF58476D1CE4E5B9u;
    }
    return static_cast<std::size_t>(h ^ (h >> 32));
  }
};

}  // namespace

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
  Instance(const Compiled& compiled, Sizes sizes, LimitedPlan made, const StateData& state)
      : sizes_(std::move(sizes)),
        plan_(std::move(made.plan)),
        recomputed_(std::move(made.recomputed)),
        compiled_(recomputed_ ? *recomputed_ : compiled) {
    for (const TensorType& type : plan_.outputs) outputs_.emplace_back(type.dtype, type.shape);
    resolve_steps(state);
    for (const FinalCopy& copy : plan_.copies)
      copies_.push_back({copy.from, resolve(copy.from, state), resolve(copy.to, state), copy.bytes});
    list_feeds();
    list_written(state);
  }

  // Makes this the plan that uses the arena, where others may have run: what depends on sizes alone is computed.
  void take_over(char* arena) {
    if (arena != arena_) place_in(arena);
    for (const ReadyStep& step : once_) step.run(step.buffers);
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

  [[nodiscard]] const std::vector<Fed>& feeds() const { return feeds_; }
  // Whether a run writes any of these bytes.
  [[nodiscard]] bool writes(const void* data, std::size_t bytes) const {
    const auto* first = static_cast<const char*>(data);
    const auto after = std::upper_bound(written_.begin(), written_.end(), first + bytes,
                                        [](const char* end, const Written& w) { return end <= w.begin; });
    return bytes > 0 && after != written_.begin() && first < std::prev(after)->end;
  }

  // About what it takes beside the arena.
  [[nodiscard]] std::size_t bytes() const {
    std::size_t sum = sizeof *this + plan_.steps.size() * bytes_of_a_step;
    if (recomputed_) sum += recomputed_->computation.graph.data()->nodes.size() * sizeof(NodeData);
    for (const Array& output : outputs_) sum += output.bytes();
    return sum;
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
  std::int64_t used = 0;  // by which run last

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

  static constexpr std::size_t bytes_of_a_step = 4096;  // closures and lists, about

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
  struct Written {
    const char* begin;
    const char* end;
  };

  // Null for what is patched in later: feeds in each run, the arena by place_in().
  void* resolve(const Storage& s, const StateData& state) {
    switch (s.kind) {
      case Storage::Kind::variable: return const_cast<void*>(state.variables[s.index].raw());
      case Storage::Kind::constant: return const_cast<void*>(constant(s.index).raw());
      case Storage::Kind::output: return outputs_[s.index].raw();
      case Storage::Kind::arena:
      case Storage::Kind::feed:
      case Storage::Kind::none: break;
    }
    return nullptr;
  }
  [[nodiscard]] const Array& constant(std::size_t number) const {
    return *compiled_.computation.graph.data()->constants[number];
  }

  void resolve_steps(const StateData& state) {
    std::size_t count = 0;
    for (const PlannedStep& step : plan_.steps) count += step.inputs.size() + step.outputs.size();
    pointers_.reserve(count);  // their addresses are kept below
    for (PlannedStep& step : plan_.steps) {
      const std::size_t inputs = pointers_.size();
      for (const Storage& s : step.inputs) {
        if (s.kind == Storage::Kind::feed) patches_.push_back({s.index, pointers_.size()});
        pointers_.push_back(resolve(s, state));
      }
      const std::size_t outputs = pointers_.size();
      for (const Storage& s : step.outputs) pointers_.push_back(resolve(s, state));
      (step.once ? once_ : steps_)
          .push_back(
              {std::move(step.step.run),
               {const_cast<const void* const*>(pointers_.data() + inputs), pointers_.data() + outputs, nullptr}});
    }
  }

  void place_in(char* arena) {
    const auto place = [&](const Storage& s, auto& pointer) {
      if (s.kind == Storage::Kind::arena) pointer = arena + plan_.buffers[s.index].offset;
    };
    auto pointer = pointers_.begin();
    auto once = once_.begin();
    auto each_run = steps_.begin();
    for (const PlannedStep& step : plan_.steps) {
      for (const Storage& s : step.inputs) place(s, *pointer++);
      for (const Storage& s : step.outputs) place(s, *pointer++);
      StepBuffers& buffers = (step.once ? once++ : each_run++)->buffers;
      if (step.workspace != PlannedStep::none) place({Storage::Kind::arena, step.workspace}, buffers.workspace);
    }
    auto copy = copies_.begin();
    for (const FinalCopy& planned : plan_.copies) {
      place(planned.from, copy->from);
      place(planned.to, copy->to);
      ++copy;
    }
    arena_ = arena;
  }

  void list_feeds() {
    const GraphData& graph = *compiled_.computation.graph.data();
    std::vector<char> read(graph.leaves->inputs.size(), 0);
    for (const Patch& patch : patches_) read[patch.input] = 1;
    for (const ReadyCopy& copy : copies_)
      if (copy.storage.kind == Storage::Kind::feed) read[copy.storage.index] = 1;
    for (const NodeData& node : graph.nodes)
      if (node.op == &input_op() && read[node.payload])
        feeds_.push_back({node.payload, static_cast<std::size_t>(count(evaluate(node.type.shape, sizes_))) *
                                            size_of(node.type.dtype)});
  }

  void list_written(const StateData& state) {
    const auto add = [&](const Array& array) {
      const auto* begin = static_cast<const char*>(array.raw());
      if (array.bytes() > 0) written_.push_back({begin, begin + array.bytes()});
    };
    for (const Array& output : outputs_) add(output);
    for (const std::size_t variable : compiled_.updated) add(state.variables[variable]);
    std::sort(written_.begin(), written_.end(), [](const Written& a, const Written& b) { return a.begin < b.begin; });
  }

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
  std::vector<Fed> feeds_;
  std::vector<Written> written_;  // disjoint, by address
  std::vector<double> seconds_;   // by step; empty where nobody asked
  std::int64_t timed_runs_ = 0;
};

class Executable {
 public:
  Executable(State& state, const Request& request, Location at)
      : state_(state.data()),
        seat_(&state_->lock.take_seat()),
        user_graph_(state.graph()),
        outputs_(request.outputs),
        mode_(request.mode),
        memory_limit_(request.memory_limit),
        plan_memory_(request.plan_memory),
        at_(at) {
    check_environment();
    Updates updates = request.updates;
    check(updates);
    std::vector<passes::Chain> chains;
    if (!updates.empty() && mode_ == Mode::training) chains = add_attached(updates);
    updating_ = !updates.empty();
    state_->grow();

    request_ = passes::Computation{user_graph_, outputs_};
    for (const Update& update : updates) {
      request_.results.push_back(update.expression);
      compiled_.updated.push_back(user_graph_.data()->node(update.variable.id()).payload);
    }
    compiled_.outputs = outputs_.size();
    request_ = passes::chain_updates(request_, chains);
    make_slots();
    compiled_.computation =
        passes::optimize(request_, mode_, [this](std::string_view pass, const passes::Computation& made) {
          // Needed is what the request reads in this mode, even where later passes find that it cancels out.
          if (pass != "select_mode") return;
          const passes::Computation live = passes::remove_dead(made);
          for (const NodeData& node : live.graph.data()->nodes)
            if (node.op == &input_op()) slots_[node.payload].needed = true;
          find_size_inputs(*live.graph.data());
        });
    compiled_.groups = passes::fuse_elementwise(compiled_.computation);
    for (const NodeData& node : compiled_.computation.graph.data()->nodes) symbolic_ = symbolic_ || has_symbols(node);
    if (memory_limit_ != 0 && !symbolic_) last_ = &instance_for_sizes(at_);
  }

  Results run(std::span<const Feed> feeds, Location at) {
    const InUse in_use(*this, "run", at, updating_ ? Seat::Use::busy : Seat::Use::reading);
    std::optional<StateGuard> held;
    if (!updating_) held.emplace(state_->lock, *seat_);
    bind(feeds, at);
    Instance& instance = instance_for_sizes(at);
    if (arena_user_ != &instance) give_arena(instance);
    instance.used = ++runs_;
    if (updating_) held.emplace(state_->lock, StateGuard::For::writing, at);
    copy_what_is_written(instance);
    instance.run(pointers_);
    if (updating_) state_->count_step();
    last_ = &instance;
    return {&outputs_, &instance.outputs()};
  }

  [[nodiscard]] Values inputs() const {
    Values out;
    for (const InputSlot& slot : slots_)
      if (slot.needed || slot.gives_size) out.emplace_back(user_graph_.data().get(), slot.node);
    return out;
  }

  [[nodiscard]] const Values& outputs() const { return outputs_; }
  [[nodiscard]] bool updating() const { return updating_; }
  [[nodiscard]] const std::shared_ptr<StateData>& state_data() const { return state_; }

  [[nodiscard]] std::string explain() {
    const InUse in_use(*this, "explain", at_);
    std::string out = "graph\n" + passes::remove_dead(request_).to_string();
    passes::optimize(request_, mode_, [&](std::string_view pass, const passes::Computation& made) {
      out += fmt::format("\nafter {}\n{}", pass, made.to_string());
    });
    out += "\nafter fuse_elementwise\n" + passes::to_string(compiled_.computation, compiled_.groups);
    if (instances_.empty() && !symbolic_) instance_for_sizes(at_);
    for (const Instance& instance : instances_) out += instance.explain();
    return out;
  }

  void clear(Location at) {
    const InUse in_use(*this, "clear", at);
    last_ = nullptr;
    arena_user_ = nullptr;
    by_sizes_.clear();
    instances_.clear();
    plans_bytes_ = 0;
    arena_.clear();
    for (Memory& copy : fed_copies_) copy.clear();
  }

  void start_profile() {
    const InUse in_use(*this, "start_profile", at_);
    profiling_ = true;
    for (Instance& instance : instances_) instance.start_profile();
  }

  [[nodiscard]] Profile profile() {
    const InUse in_use(*this, "profile", at_);
    Profile out;
    for (const Instance& instance : instances_) instance.add_profile(out.steps);
    return out;
  }

  [[nodiscard]] Program::Memory memory() {
    const InUse in_use(*this, "memory", at_);
    if (!last_ && !symbolic_) last_ = &instance_for_sizes(at_);
    if (!last_) return {};
    return {last_->plan().arena_bytes, last_->plan().lower_bound, last_->plan().steps.size()};
  }

 private:
  using Seat = StateLock::Seat;
  struct GiveBack {
    void operator()(Seat* seat) const { StateLock::give_back(*seat); }
  };

  // What a run must be told of an input of the graph.
  struct InputSlot {
    NodeId node = no_node;
    bool needed = false;
    bool gives_size = false;            // that no needed one has
    std::vector<std::int64_t> symbols;  // of its extents; -1 for others
    [[nodiscard]] bool has(std::int64_t symbol) const {
      return std::find(symbols.begin(), symbols.end(), symbol) != symbols.end();
    }
  };
  // A size that is needed of an input which is not.
  struct SizeInput {
    std::int64_t symbol;
    std::size_t input;
  };

  // While one lives, a call from another thread is an Error.
  class InUse {
   public:
    InUse(Executable& executable, std::string_view call, Location at, Seat::Use use = Seat::Use::busy)
        : seat_(*executable.seat_) {
      if (!seat_.sit(use))
        throw Error(at, call,
                    "requires a program that is not running, got one that runs in another thread (each thread needs a "
                    "Program of its own; they can share a State)");
    }
    ~InUse() { seat_.stand_up(); }
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;

   private:
    Seat& seat_;
  };

  // Of variables that say nothing of use: before anything is made, rather than in the middle of a run.
  void check_environment() const {
    try {
      static_cast<void>(num_threads());
      static_cast<void>(kernels::tables());
      static_cast<void>(can_generate());
    } catch (const Error& error) {
      throw Error(at_, "", error.what());
    }
  }

  // `live`: what the request reads.
  void find_size_inputs(const GraphData& live) {
    for_each_symbolic(live, [&](Dimension dimension, NodeId id) {
      for (const std::int64_t symbol : symbols_of(dimension)) {
        const auto has = [symbol](const InputSlot& slot) { return slot.has(symbol); };
        const auto needed = [&](const InputSlot& slot) { return (slot.needed || slot.gives_size) && has(slot); };
        if (std::any_of(slots_.begin(), slots_.end(), needed)) continue;
        const auto first = std::find_if(slots_.begin(), slots_.end(), has);
        if (first == slots_.end()) {
          const NodeData& node = live.node(id);
          throw Error(
              at_, "program",
              fmt::format("requires an input with the dimension '{}', which the size of {} needs ({}), got none",
                          symbol_name(symbol), node.op->name, node.at.to_string()));
        }
        first->gives_size = true;
        size_inputs_.push_back({symbol, static_cast<std::size_t>(first - slots_.begin())});
      }
    });
  }

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

  // Adds the updates that ride along with values that this program computes anyway. Of those of one variable the first
  // is added, and all are returned.
  [[nodiscard]] std::vector<passes::Chain> add_attached(Updates& updates) const {
    GraphData* graph = user_graph_.data().get();
    if (graph->attached.empty()) return {};
    std::vector<char> computed(graph->nodes.size(), 0);
    for (const Value output : outputs_) computed[output.id()] = 1;
    for (const Update& update : updates) computed[update.expression.id()] = 1;
    for (auto id = static_cast<NodeId>(computed.size()); id-- > 0;)
      if (computed[id])
        for (const NodeId input : graph->node(id).inputs) computed[input] = 1;
    const std::size_t own = updates.size();
    std::vector<passes::Chain> chains;  // one for each update that is added
    std::unordered_map<NodeId, std::size_t> update_of;
    for (std::size_t i = 0; i < own; ++i) update_of.emplace(updates[i].variable.id(), i);
    for (const AttachedUpdate& attached : graph->attached) {
      if (!computed[attached.owner]) continue;
      const auto [it, first] = update_of.try_emplace(attached.variable, updates.size());
      if (it->second < own) continue;
      if (first) {
        updates.push_back({{graph, attached.variable}, {graph, attached.expression}});
        chains.push_back({outputs_.size() + it->second, {graph, attached.variable}, {}, {}});
      }
      passes::Chain& chain = chains[it->second - own];
      chain.owners.emplace_back(graph, attached.owner);
      chain.expressions.emplace_back(graph, attached.expression);
    }
    std::erase_if(chains, [](const passes::Chain& chain) { return chain.expressions.size() == 1; });
    return chains;
  }

  void make_slots() {
    const GraphData& user = *user_graph_.data();
    slots_.resize(user.leaves->inputs.size());
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      slots_[i].node = user.leaves->inputs[i].node;
      for (const Dimension d : user.node(slots_[i].node).type.shape) {
        slots_[i].symbols.push_back(d.symbol_id());
        compound_ = compound_ || (!d.is_number() && slots_[i].symbols.back() < 0);
      }
    }
    pointers_.assign(slots_.size(), nullptr);
    fed_copies_.resize(slots_.size());
    // For C++ numbers of another dtype: made here, since a run with these allocates nothing.
    for (const InputSlot& slot : slots_) converted_.emplace_back(user.node(slot.node).type.dtype, Dims{});
  }

  // The numbers of a feed in the input's dtype, or nullptr and in `why` which of them it cannot have.
  const void* converted(const Block& from, std::size_t number, DType dtype, std::string& why) {
    Array& to = converted_[number];
    if (!(to.shape() == from.shape)) to = Array(dtype, from.shape);
    const std::int64_t lost = convert(from, to);
    if (lost < 0) return to.raw();
    why = fmt::format(": {} cannot have {}", name(dtype), element_text(from, lost));
    return nullptr;
  }

  // Checks the feeds and takes down their sizes and pointers.
  void bind(std::span<const Feed> feeds, Location at) {
    const GraphData& graph = *user_graph_.data();
    sizes_.clear();
    std::fill(pointers_.begin(), pointers_.end(), nullptr);
    Dims room;
    for (const Feed& feed : feeds) {
      const std::size_t number = slot_of(feed, at);
      const InputSlot& slot = slots_[number];
      const NodeData& node = graph.node(slot.node);
      const std::string& input = graph.leaves->inputs[number].name;
      if (pointers_[number])
        throw Error(at, "run", fmt::format("requires one feed for each input, got two for '{}'", input));
      const Shape& shape = node.type.shape;
      const Feed::Numbers fed = feed.numbers(room);
      const auto wrong = [&](std::string_view why) {
        throw Error(
            at, "run",
            fmt::format("requires {} {} for input '{}' ({}), got {} {}{}", name(node.type.dtype), to_string(shape),
                        input, node.at.to_string(), name(fed.dtype), to_string(fed.shape), why));
      };
      if (fed.shape.rank() != shape.rank()) wrong("");
      for (std::size_t i = 0; i < shape.rank(); ++i) {
        const std::int64_t extent = fed.shape[i];
        if (shape[i].is_number() && extent != shape[i].extent()) wrong("");
        if (slot.symbols[i] < 0) continue;
        if (extent == 0)
          wrong(fmt::format(": {} must be at least 1, an empty batch has no mean", shape[i].to_string()));
        if (!sizes_.bind(slot.symbols[i], extent))
          wrong(fmt::format(": {} is {} in another input", shape[i].to_string(), *sizes_.find(slot.symbols[i])));
      }
      // An array of no elements has no numbers to point to.
      if (!fed.data) invariant(count(fed.shape) == 0, "a feed of elements that lie nowhere");
      pointers_[number] = fed.data ? fed.data : static_cast<const void*>(&no_elements_);
      if (fed.dtype == node.type.dtype) continue;
      std::string why;
      pointers_[number] = converted({fed.dtype, fed.shape, fed.data}, number, node.type.dtype, why);
      if (!why.empty()) wrong(why);
    }
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].needed && !pointers_[i]) throw missing(i, "", at);
    for (const SizeInput& size : size_inputs_)
      if (!sizes_.find(size.symbol))
        throw missing(size.input, fmt::format(": the size of '{}' follows from no other", symbol_name(size.symbol)),
                      at);
    check_compound(feeds, at);
  }

  [[nodiscard]] Error missing(std::size_t input, std::string_view why, Location at) const {
    const GraphData& graph = *user_graph_.data();
    const NodeData& node = graph.node(slots_[input].node);
    return {at, "run",
            fmt::format("requires a feed for input '{}', {} {} ({}), got none{}", graph.leaves->inputs[input].name,
                        name(node.type.dtype), to_string(node.type.shape), node.at.to_string(), why)};
  }

  // Extents of inputs that are sums ("batch + 1") are checked when all symbols are known.
  void check_compound(std::span<const Feed> feeds, Location at) const {
    if (!compound_) return;
    const GraphData& graph = *user_graph_.data();
    for (const Feed& feed : feeds) {
      const std::size_t number = slot_of(feed, at);
      const Shape& shape = graph.node(slots_[number].node).type.shape;
      const Dims fed = feed.shape();
      for (std::size_t i = 0; i < shape.rank(); ++i)
        if (!shape[i].is_number() && slots_[number].symbols[i] < 0 && evaluate_at(shape[i], at) != fed[i])
          throw Error(at, "run",
                      fmt::format("requires {} for input '{}', got {} ({})", to_string(shape),
                                  graph.leaves->inputs[number].name, to_string(fed), sizes_.to_string()));
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
    if (!(input == Value(user_graph_.data().get(), input.id())))
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
    const auto known = by_sizes_.find(sizes_);
    return known != by_sizes_.end() ? *known->second : add_instance(at);
  }

  Instance& add_instance(Location at) {
    std::list<Instance> made;
    try {
      LimitedPlan plan = make_plan_within(memory_limit_, compiled_, sizes_);
      const StateGuard reading(state_->lock, StateGuard::For::reading);
      made.emplace_back(compiled_, sizes_, std::move(plan), *state_);
    } catch (const Error& error) {
      if (error.location().known()) throw;
      throw Error(at, "", error.what());
    }
    Instance& instance = made.back();
    if (profiling_) instance.start_profile();
    by_sizes_.emplace(sizes_, &instance);
    // Nothing throws from here on.
    instances_.splice(instances_.end(), made);
    plans_bytes_ += instance.bytes();
    while (plans_bytes_ > plan_memory_ && forget_one(instance)) {
    }
    return instance;
  }

  // The least recently used, but for this one and that of the last run, whose results may be what the next is fed.
  bool forget_one(const Instance& kept) {
    auto oldest = instances_.end();
    for (auto i = instances_.begin(); i != instances_.end(); ++i)
      if (&*i != &kept && &*i != last_ && (oldest == instances_.end() || i->used < oldest->used)) oldest = i;
    if (oldest == instances_.end()) return false;
    if (arena_user_ == &*oldest) arena_user_ = nullptr;
    plans_bytes_ -= oldest->bytes();
    by_sizes_.erase(oldest->sizes());
    instances_.erase(oldest);
    return true;
  }

  void give_arena(Instance& instance) {
    arena_user_ = nullptr;  // should there be no memory
    arena_.reserve(instance.plan().arena_bytes);
    instance.take_over(arena_.data());
    arena_user_ = &instance;
  }

  void copy_what_is_written(const Instance& instance) {
    for (const auto [input, bytes] : instance.feeds()) {
      if (!instance.writes(pointers_[input], bytes)) continue;
      Memory& copy = fed_copies_[input];
      copy.reserve(bytes);
      std::memcpy(copy.data(), pointers_[input], bytes);
      pointers_[input] = copy.data();
    }
  }

  std::shared_ptr<StateData> state_;
  std::unique_ptr<Seat, GiveBack> seat_;
  Graph user_graph_;
  Values outputs_;
  Mode mode_;
  std::size_t memory_limit_;
  std::size_t plan_memory_;
  Location at_;
  passes::Computation request_{user_graph_, {}};
  Compiled compiled_{passes::Computation{user_graph_, {}}, {}, 0, {}};
  bool updating_ = false;
  bool symbolic_ = false;
  bool profiling_ = false;
  bool compound_ = false;  // an input has an extent that is neither a number nor a symbol, but "batch + 1"

  std::vector<InputSlot> slots_;  // by an input's number
  std::vector<SizeInput> size_inputs_;
  Sizes sizes_;
  std::vector<const void*> pointers_;
  std::vector<Array> converted_;  // by an input's number: feeds of another dtype
  char no_elements_ = 0;
  std::vector<Memory> fed_copies_;  // by input: of feeds that a run would write

  std::list<Instance> instances_;  // in the order in which they were made
  std::unordered_map<Sizes, Instance*, SizesHash> by_sizes_;
  std::size_t plans_bytes_ = 0;
  Instance* last_ = nullptr;
  std::int64_t runs_ = 0;
  Memory arena_;
  Instance* arena_user_ = nullptr;  // whose values lie in it
};

}  // namespace detail

// ---- Program

Program::Program(State& state, const Request& request, Location at)
    : executable_(std::make_unique<detail::Executable>(state, request, at)) {}
Program::~Program() = default;
Program::Program(Program&&) noexcept = default;
Program& Program::operator=(Program&&) noexcept = default;

Results Program::run(std::initializer_list<Feed> feeds, Location at) & {
  return executable_->run(std::span<const Feed>(feeds.begin(), feeds.size()), at);
}
Results Program::run(std::span<const Feed> feeds, Location at) & { return executable_->run(feeds, at); }
KeptResults Program::run(std::initializer_list<Feed> feeds, Location at) && {
  return std::move(*this).run(std::span<const Feed>(feeds.begin(), feeds.size()), at);
}
KeptResults Program::run(std::span<const Feed> feeds, Location at) && {
  std::shared_ptr<detail::Executable> executable = executable_.take();
  return {executable->run(feeds, at), executable};
}
Values Program::inputs() const { return executable_->inputs(); }
const Values& Program::outputs() const { return executable_->outputs(); }
bool Program::has_updates() const { return executable_->updating(); }
const std::shared_ptr<detail::StateData>& Program::state_data() const { return executable_->state_data(); }
std::string Program::explain() const { return executable_->explain(); }
Program::Memory Program::memory() const { return executable_->memory(); }
void Program::clear(Location at) { executable_->clear(at); }
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
