#include <chainrule/framework/run/instance.hpp>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <numeric>
#include <optional>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>

namespace chainrule::detail {

Instance::Instance(const Compiled& compiled, Sizes sizes, LimitedPlan made, const StateData& state)
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

void Instance::take_over(char* arena) {
  if (arena != arena_) place_in(arena);
  for (const ReadyStep& step : once_) step.run(step.buffers);
}

void Instance::run(const std::vector<const void*>& feeds) {
  set_feeds(feeds);
  if (!seconds_.empty()) {
    run_timed();
  } else if (!begins_.empty()) {
    run_beside();
  } else {
    for (const ReadyStep& step : steps_) step.run(step.buffers);
  }
  for (const ReadyCopy& copy : copies_)
    std::memcpy(copy.to, copy.storage.kind == Storage::Kind::feed ? feeds[copy.storage.index] : copy.from, copy.bytes);
}

// Most runs are fed what the one before was.
void Instance::set_feeds(const std::vector<const void*>& feeds) {
  for (const Patch& patch : patches_) {
    void* feed = const_cast<void*>(feeds[patch.input]);
    if (pointers_[patch.pointer] == feed) continue;
    pointers_[patch.pointer] = feed;
    tables_of_fed_stand_ = false;
  }
  if (tables_of_fed_stand_) return;
  for (const std::size_t step : fed_) steps_[step].prepare(steps_[step].buffers);
  tables_of_fed_stand_ = true;
}

bool Instance::writes(const void* data, std::size_t bytes) const {
  const auto* first = static_cast<const char*>(data);
  const auto after = std::upper_bound(written_.begin(), written_.end(), first + bytes,
                                      [](const char* end, const Written& w) { return end <= w.begin; });
  return bytes > 0 && after != written_.begin() && first < std::prev(after)->end;
}

std::size_t Instance::bytes() const {
  std::size_t sum = sizeof *this + plan_.steps.size() * bytes_of_a_step;
  if (recomputed_) sum += recomputed_->computation.graph.data()->nodes.size() * sizeof(NodeData);
  for (const Array& output : outputs_) sum += output.bytes();
  return sum;
}

void Instance::start_profile() {
  seconds_.assign(steps_.size(), 0);
  cuts_.assign(steps_.size(), {});
  threads_of_cuts_ = 0;
  timed_runs_ = 0;
}

void Instance::add_profile(std::vector<Profile::Step>& out) const {
  const passes::Computation& computation = compiled_.computation;
  std::size_t ready = 0;
  for (const PlannedStep& step : plan_.steps) {
    if (step.once) continue;
    if (ready >= seconds_.size()) return;
    const NodeData& first = computation.graph.data()->node(step.group.nodes.front());
    out.push_back({plan_.title(step, computation, sizes_), first.at, timed_runs_, seconds_[ready], step.step.flops,
                   static_cast<double>(step.bytes), static_cast<std::int64_t>(cuts_[ready].parts),
                   cuts_[ready].longest});
    ++ready;
  }
}

std::string Instance::explain() const {
  std::string out;
  if (recomputed_)
    out += fmt::format("\nafter recompute for {}\n{}",
                       sizes_.all().empty() ? std::string("fixed sizes") : sizes_.to_string(),
                       passes::to_string(compiled_.computation, compiled_.groups));
  return out + "\n" + plan_.explain(compiled_.computation, sizes_);
}

void Instance::run_timed() {
  using Clock = std::chrono::steady_clock;
  const int threads = num_threads();
  std::optional<CutRecorder> recorder;
  if (threads_of_cuts_ != threads) recorder.emplace();
  Clock::time_point before = Clock::now();
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    steps_[i].run(steps_[i].buffers);
    if (recorder) cuts_[i] = recorder->take();
    const Clock::time_point after = Clock::now();
    seconds_[i] += std::chrono::duration<double>(after - before).count();
    before = after;
  }
  ++timed_runs_;
  threads_of_cuts_ = threads;
}

void Instance::run_beside() {
  for (std::size_t i = 0; i + 1 < begins_.size(); ++i) {
    const std::size_t begin = begins_[i];
    if (begins_[i + 1] == begin + 1) {
      steps_[begin].run(steps_[begin].buffers);
    } else {
      run_beside(begin, begins_[i + 1]);
    }
  }
}

// What steps throw, that of the first is thrown.
void Instance::run_beside(std::size_t begin, std::size_t end) {
  FirstError error;
  side_by_side(end - begin, [&](std::size_t i) {
    const ReadyStep& step = steps_[begin + i];
    error.keep(i, [&] { step.run(step.buffers); });
  });
  error.rethrow();
}

void* Instance::resolve(const Storage& s, const StateData& state) {
  switch (s.kind) {
    case Storage::Kind::variable: return const_cast<void*>(state.variables[s.index].raw());
    case Storage::Kind::constant: return const_cast<void*>(constant(s.index).raw());
    case Storage::Kind::output: return outputs_[s.index].raw();
    case Storage::Kind::arena:
    case Storage::Kind::feed:
    case Storage::Kind::unread:
    case Storage::Kind::none: break;
  }
  return nullptr;
}

void Instance::resolve_steps(const StateData& state) {
  std::size_t count = 0;
  for (const PlannedStep& step : plan_.steps) count += step.inputs.size() + step.outputs.size();
  pointers_.reserve(count);  // their addresses are kept below
  std::vector<std::size_t> tables;
  for (PlannedStep& step : plan_.steps) {
    const std::size_t inputs = pointers_.size();
    bool fed = false;
    for (const Storage& s : step.inputs) {
      if (s.kind == Storage::Kind::feed) patches_.push_back({s.index, pointers_.size()});
      fed = fed || s.kind == Storage::Kind::feed;
      pointers_.push_back(resolve(s, state));
    }
    if (!step.once && !step.beside) begins_.push_back(steps_.size());
    const std::size_t outputs = pointers_.size();
    for (const Storage& s : step.outputs) pointers_.push_back(resolve(s, state));
    const bool kept = !step.once && step.step.table > 0;
    if (!step.once) {
      if (fed && kept) fed_.push_back(steps_.size());
      tables.push_back(step.step.table);
    }
    (step.once ? once_ : steps_)
        .push_back({std::move(kept ? step.step.run_kept : step.step.run),
                    {const_cast<const void* const*>(pointers_.data() + inputs), pointers_.data() + outputs, nullptr},
                    std::move(step.step.prepare)});
  }
  make_tables(tables);
  if (begins_.size() == steps_.size()) {
    begins_.clear();
  } else {
    begins_.push_back(steps_.size());
  }
}

void Instance::make_tables(const std::vector<std::size_t>& sizes) {
  tables_.resize(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}));
  void** table = tables_.data();
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] > 0) steps_[i].buffers.table = table;
    table += sizes[i];
  }
}

void Instance::place_in(char* arena) {
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
  auto fed = fed_.begin();
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (fed != fed_.end() && *fed == i) {
      ++fed;
    } else if (steps_[i].buffers.table) {
      steps_[i].prepare(steps_[i].buffers);
    }
  }
  tables_of_fed_stand_ = false;
  arena_ = arena;
}

void Instance::list_feeds() {
  const GraphData& graph = *compiled_.computation.graph.data();
  std::vector<char> read(graph.leaves->inputs.size(), 0);
  for (const Patch& patch : patches_) read[patch.input] = 1;
  for (const ReadyCopy& copy : copies_)
    if (copy.storage.kind == Storage::Kind::feed) read[copy.storage.index] = 1;
  for (const NodeData& node : graph.nodes)
    if (node.op == &input_op() && read[node.payload])
      feeds_.push_back({node.payload,
                        static_cast<std::size_t>(count(evaluate(node.type.shape, sizes_))) * size_of(node.type.dtype)});
}

void Instance::list_written(const StateData& state) {
  const auto add = [&](const Array& array) {
    const auto* begin = static_cast<const char*>(array.raw());
    if (array.bytes() > 0) written_.push_back({begin, begin + array.bytes()});
  };
  for (const Array& output : outputs_) add(output);
  for (const std::size_t variable : compiled_.updated) add(state.variables[variable]);
  std::sort(written_.begin(), written_.end(), [](const Written& a, const Written& b) { return a.begin < b.begin; });
}

}  // namespace chainrule::detail
