#include <chainrule/framework/run/program.hpp>

#include <list>
#include <optional>
#include <unordered_map>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/fused/generate.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/framework/run/feeds.hpp>
#include <chainrule/framework/run/instance.hpp>
#include <chainrule/framework/run/request.hpp>

namespace chainrule {

namespace detail {

namespace {

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

class Executable {
 public:
  Executable(State& state, const Request& request, Location at)
      : state_(state.data()),
        seat_(&state_->lock.take_seat()),
        user_graph_(state.graph()),
        outputs_(request.outputs),
        mode_(request.mode),
        passes_(request.passes),
        draws_(request.draws),
        noise_(request.noise_in_inference),
        optimize_(request.optimize),
        memory_limit_(request.memory_limit),
        plan_memory_(request.plan_memory),
        at_(at),
        feeds_(user_graph_, at) {
    check_environment();
    Updates updates = request.updates;
    check(user_graph_, outputs_, updates, at_);
    std::vector<passes::Chain> chains;
    if (!updates.empty() && mode_ == Mode::training) chains = add_attached(user_graph_, outputs_, updates);
    updating_ = !updates.empty();
    state_->grow();
    if (request.check_finite) watcher_ = watcher(state, updates);
    computed_ = optimize_ ? outputs_ : with_all_that_they_need(user_graph_, outputs_, updates);

    request_ = passes::Computation{user_graph_, computed_};
    for (const Update& update : updates) {
      request_.results.push_back(update.expression);
      compiled_.updated.push_back(user_graph_.data()->node(update.variable.id()).payload);
    }
    compiled_.outputs = computed_.size();
    for (passes::Chain& chain : chains) chain.result += computed_.size();
    request_ = passes::chain_updates(request_, chains);
    compiled_.computation = run_passes([this](std::string_view pass, const passes::Computation& made) {
      // Needed is what the request reads in this mode, even where later passes find that it cancels out.
      if (pass == "select_mode" && optimize_) feeds_.require(*passes::remove_dead(made).graph.data());
    });
    if (!optimize_) leave_out_what_this_mode_does_without();
    if (draws_ == Draws::each_run) draw_each_run();
    compiled_.groups =
        optimize_ ? passes::fuse_elementwise(compiled_.computation) : passes::each_alone(compiled_.computation);
    for (const NodeData& node : compiled_.computation.graph.data()->nodes) symbolic_ = symbolic_ || has_symbols(node);
    if (memory_limit_ != 0 && !symbolic_) last_ = &instance_for_sizes(at_);
  }

  Results run(std::span<const Feed> feeds, Location at) {
    if (draws_ == Draws::each_update) return run_as(0, feeds, at);
    TakenDraw draw(state_->draws);
    const Results results = run_as(draw.number(), feeds, at);
    draw.keep();
    return results;
  }

  [[nodiscard]] Values inputs() const { return feeds_.inputs(); }
  [[nodiscard]] const Values& outputs() const { return outputs_; }
  [[nodiscard]] bool updating() const { return updating_; }
  [[nodiscard]] const std::shared_ptr<StateData>& state_data() const { return state_; }

  [[nodiscard]] std::string explain() {
    const InUse in_use(*this, "explain", at_);
    std::string out = "graph\n" + passes::remove_dead(request_).to_string();
    run_passes([&](std::string_view pass, const passes::Computation& made) {
      out += fmt::format("\nafter {}\n{}", pass, made.to_string());
    });
    out += (optimize_ ? "\nafter fuse_elementwise\n" : "\nsteps\n") +
           passes::to_string(compiled_.computation, compiled_.groups);
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
    feeds_.clear();
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

  // The number that a run takes of the State, and gives back where it throws.
  class TakenDraw {
   public:
    explicit TakenDraw(DrawCount& of) : of_(of), number_(of.take()) {}
    ~TakenDraw() {
      if (!kept_) of_.give_back(number_);
    }
    TakenDraw(const TakenDraw&) = delete;
    TakenDraw& operator=(const TakenDraw&) = delete;
    [[nodiscard]] std::int64_t number() const { return number_; }
    void keep() { kept_ = true; }

   private:
    DrawCount& of_;
    std::int64_t number_;
    bool kept_ = false;
  };

  Results run_as(std::int64_t draw, std::span<const Feed> feeds, Location at) {
    const InUse in_use(*this, "run", at, updating_ ? Seat::Use::busy : Seat::Use::reading);
    if (watcher_) require_finite(watcher_->run_as(draw, feeds, at), watcher_->computed_, at);
    std::optional<StateGuard> held;
    if (!updating_) held.emplace(state_->lock, *seat_);
    feeds_.bind(feeds, at);
    Instance& instance = instance_for_sizes(at);
    if (arena_user_ != &instance) give_arena(instance);
    instance.used = ++runs_;
    if (updating_) held.emplace(state_->lock, StateGuard::For::writing, at);
    feeds_.copy_what_is_written(instance);
    // None is a step by itself, from which other programs draw.
    drawn_by_ = static_cast<std::int64_t>((static_cast<std::uint64_t>(draw) + 1) << 32 |
                                          static_cast<std::uint32_t>(state_->step));
    instance.run(feeds_.pointers());
    if (updating_) state_->count_step();
    last_ = &instance;
    return {&computed_, &instance.outputs(), outputs_.size()};
  }

  passes::Computation run_passes(const passes::Log& log) const {
    try {
      return optimize_ ? passes::optimize(request_, mode_, log, passes_, noise_)
                       : passes::as_built(request_, mode_, log, passes_, noise_);
    } catch (const Error& error) {
      if (error.location().known()) throw;
      throw Error(at_, "", error.what());  // of a pass of the user's own
    }
  }

  // Of the values that the graph needs as it was built: the side of a by_mode that is not chosen, say, and inputs that
  // only that reads.
  void leave_out_what_this_mode_does_without() {
    passes::Computation& all = compiled_.computation;
    const auto values = all.results.begin();
    const auto updated = values + static_cast<std::ptrdiff_t>(computed_.size());
    passes::Computation kept{all.graph, Values(values, values + static_cast<std::ptrdiff_t>(outputs_.size()))};
    kept.results.insert(kept.results.end(), updated, all.results.end());
    const std::vector<char> needed = passes::needed_nodes(kept);
    Values computed = outputs_;
    kept.results.resize(outputs_.size());
    for (std::size_t i = outputs_.size(); i < computed_.size(); ++i) {
      if (!needed[all.results[i].id()]) continue;
      computed.push_back(computed_[i]);
      kept.results.push_back(all.results[i]);
    }
    kept.results.insert(kept.results.end(), updated, all.results.end());
    all = passes::remove_dead(kept);
    computed_ = std::move(computed);
    compiled_.outputs = computed_.size();
    feeds_.require(*all.graph.data());
  }

  void draw_each_run() {
    compiled_.computation = passes::draw_each_run(compiled_.computation, user_graph_.data()->step);
    feeds_.draw_by(&drawn_by_);
  }

  // A program that computes what this one does node by node, and changes nothing.
  [[nodiscard]] std::unique_ptr<Executable> watcher(State& state, const Updates& updates) const {
    Request all{.outputs = outputs_,
                .mode = mode_,
                .draws = draws_,
                .noise_in_inference = noise_,
                .passes = passes_,
                .optimize = false};
    for (const Update& update : updates) all.outputs.push_back(update.expression);
    return std::make_unique<Executable>(state, all, at_);
  }

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

  Instance& instance_for_sizes(Location at) {
    if (last_ && last_->sizes() == feeds_.sizes()) return *last_;
    const auto known = by_sizes_.find(feeds_.sizes());
    return known != by_sizes_.end() ? *known->second : add_instance(at);
  }

  Instance& add_instance(Location at) {
    std::list<Instance> made;
    try {
      LimitedPlan plan = make_plan_within(memory_limit_, compiled_, feeds_.sizes());
      const StateGuard reading(state_->lock, StateGuard::For::reading);
      made.emplace_back(compiled_, feeds_.sizes(), std::move(plan), *state_);
    } catch (const Error& error) {
      if (error.location().known()) throw;
      throw Error(at, "", error.what());
    }
    Instance& instance = made.back();
    if (profiling_) instance.start_profile();
    by_sizes_.emplace(feeds_.sizes(), &instance);
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

  std::shared_ptr<StateData> state_;
  std::unique_ptr<Seat, GiveBack> seat_;
  Graph user_graph_;
  Values outputs_;
  Values computed_;  // these, and without optimization what else they need
  Mode mode_;
  std::vector<passes::Pass> passes_;
  Draws draws_;
  bool noise_;  // in inference too
  bool optimize_;
  std::size_t memory_limit_;
  std::size_t plan_memory_;
  Location at_;
  Feeds feeds_;
  std::unique_ptr<Executable> watcher_;  // where a run is to look for what is not finite
  passes::Computation request_{user_graph_, {}};
  Compiled compiled_{passes::Computation{user_graph_, {}}, {}, 0, {}};
  std::int64_t drawn_by_ = 0;  // what the run's random numbers are made from, where it draws its own
  bool updating_ = false;
  bool symbolic_ = false;
  bool profiling_ = false;

  std::list<Instance> instances_;  // in the order in which they were made
  std::unordered_map<Sizes, Instance*, SizesHash> by_sizes_;
  std::size_t plans_bytes_ = 0;
  Instance* last_ = nullptr;
  std::int64_t runs_ = 0;
  Memory arena_;
  Instance* arena_user_ = nullptr;  // whose values lie in it
};

}  // namespace detail

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

}  // namespace chainrule
