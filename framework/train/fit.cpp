#include <chainrule/framework/train/fit.hpp>

#include <algorithm>
#include <chrono>

#include <fmt/core.h>

#include <chainrule/framework/run/state_data.hpp>
#include <chainrule/framework/train/interrupt.hpp>
#include <chainrule/framework/train/progress.hpp>

namespace chainrule {

namespace {

Results run(Program& program, const DatasetInputs& inputs, const data::Dataset& batch, Location at) {
  if (!inputs.y.defined()) return program.run({{inputs.x, batch.x}}, at);
  return program.run({{inputs.x, batch.x}, {inputs.y, batch.y}}, at);
}

bool is_scalar(const Shape& shape) {
  return std::all_of(shape.begin(), shape.end(), [](Dimension d) { return d.is(1); });
}

// A line at the foot of a terminal; elsewhere lines at the ends of epochs, some seconds apart.
class Report {
 public:
  Report(bool wanted, std::int64_t epochs, std::int64_t batches, std::int64_t first_epoch)
      : wanted_(wanted), epochs_(epochs), batches_(batches), first_(first_epoch), bar_("training", epochs * batches) {}

  void batch(std::int64_t epoch, std::int64_t done, double cost) {
    if (!wanted_ || !bar_.terminal()) return;
    bar_.update((epoch - first_) * batches_ + done, fmt::format("epoch {}, cost {:.6f}", epoch, cost));
  }

  void epoch(const EpochReport& report) {
    bar_.clear();  // the caller may print something now
    if (!wanted_ || bar_.terminal()) return;
    const auto now = Clock::now();
    const std::int64_t done = report.epoch - first_ + 1;
    if (done < epochs_ && now - printed_ < std::chrono::seconds(5)) return;
    printed_ = now;
    const double left = std::chrono::duration<double>(now - start_).count() / static_cast<double>(done) *
                        static_cast<double>(epochs_ - done);
    fmt::print(stderr, "epoch {}: cost {:.6f}{}\n", report.epoch, report.cost,
               done < epochs_ ? fmt::format(", {} left", in_words(left)) : "");
  }

 private:
  using Clock = std::chrono::steady_clock;
  bool wanted_;
  std::int64_t epochs_;
  std::int64_t batches_;
  std::int64_t first_;
  Progress bar_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point printed_ = start_;
};

constexpr std::int64_t seeds = std::int64_t{1} << 32;

void check(const Program& program, const FitOptions& options, Location at) {
  if (options.epochs < 0) throw Error(at, "fit", fmt::format("requires 0 epochs or more, got {}", options.epochs));
  if (options.seed < 0 || options.seed >= seeds)
    throw Error(at, "fit", fmt::format("requires a seed within [0, 2^32), got {}", options.seed));
  if (options.first_epoch && *options.first_epoch < 0)
    throw Error(at, "fit", fmt::format("requires a first epoch of 0 or more, got {}", *options.first_epoch));

  if (program.outputs().empty() || !is_scalar(program.outputs()[0].shape()))
    throw Error(at, "fit",
                fmt::format("requires a program whose first output is the cost, a scalar, got {}",
                            program.outputs().empty() ? "none" : to_string(program.outputs()[0].shape())));
  if (!program.has_updates()) throw Error(at, "fit", "requires a program with updates, got one without");
}

data::Batches batches_of(const data::Dataset& dataset, const FitOptions& options, std::int64_t epoch, Location at) {
  if (!options.shuffle) return data::batches(dataset, options.batch, at);
  return data::mini_batches(dataset, options.batch, numpy::RandomState((options.seed + epoch) % seeds, at), at);
}

// The state's counters, of which fit() sets the epoch.
class Counters {
 public:
  Counters(detail::StateData& state, Location at) : state_(state), at_(at) {
    const detail::StateGuard reading(state.lock, detail::StateGuard::For::reading);
    step_before_ = state.step;
    epoch_before_ = state.epoch;
  }

  [[nodiscard]] std::int64_t next_epoch(std::int64_t batches) const {
    const bool fresh = epoch_before_ <= 0 && step_before_ < batches;
    return fresh ? 0 : epoch_before_ + 1;
  }
  void set_epoch(std::int64_t epoch) {
    const detail::StateGuard writing(state_.lock, detail::StateGuard::For::writing, at_);
    state_.set_counters(state_.step, epoch);
  }
  void restore() { set_epoch(epoch_before_); }

 private:
  detail::StateData& state_;
  Location at_;
  std::int64_t step_before_ = 0;
  std::int64_t epoch_before_ = 0;
};

}  // namespace

History fit(Program& program, const data::Dataset& dataset, const FitOptions& options, Location at) {
  check(program, options, at);
  Counters counters(*program.state_data(), at);
  const std::int64_t batches = data::batches(dataset, options.batch, at).size();
  History out;
  out.first_epoch = options.first_epoch.value_or(counters.next_epoch(batches));

  std::optional<Interrupt> interrupt;
  if (options.interruptible) interrupt.emplace();
  Report report(options.progress, options.epochs, batches, out.first_epoch);
  bool begun = false;
  // Returns whether all of its batches were run.
  const auto run_epoch = [&](std::int64_t epoch) {
    counters.set_epoch(std::max<std::int64_t>(epoch - 1, 0));
    double total = 0;
    std::int64_t seen = 0;
    std::int64_t done = 0;
    for (const auto& batch : batches_of(dataset, options, epoch, at)) {
      if (interrupt && interrupt->requested()) return false;
      total += run(program, options.inputs, batch, at)[0][0] * static_cast<double>(batch.size());
      begun = true;
      seen += batch.size();
      report.batch(epoch, ++done, total / static_cast<double>(seen));
    }
    out.costs.push_back(total / static_cast<double>(seen));
    counters.set_epoch(epoch);
    return true;
  };
  for (std::int64_t epoch = out.first_epoch; epoch < out.first_epoch + options.epochs; ++epoch) {
    try {
      if (!run_epoch(epoch)) break;
    } catch (...) {
      if (!begun) counters.restore();  // refused: all is as it was
      throw;
    }
    EpochReport end{epoch, out.costs.back()};
    report.epoch(end);
    if (options.after_epoch) options.after_epoch(end);
    if (end.stop) break;
  }
  out.interrupted = interrupt && interrupt->requested();
  return out;
}

double accuracy(Program& program, const data::Dataset& dataset, const AccuracyOptions& options, Location at) {
  if (program.outputs().empty()) throw Error(at, "accuracy", "requires a program with an output, got one without");
  std::int64_t right = 0;
  std::int64_t all = 0;
  for (const auto& batch : data::batches(dataset, options.batch, at)) {
    const Array& answers = run(program, options.inputs, batch, at)[0];
    if (!(answers.shape() == batch.y.shape()))
      throw Error(
          at, "accuracy",
          fmt::format("requires an output in the shape of the labels, {}, got {} (an argmax over the classes is)",
                      to_string(batch.y.shape()), to_string(answers.shape())));
    all += answers.size();
    const bool probabilities = is_floating(answers.dtype());
    for (std::int64_t i = 0; i < answers.size(); ++i) {
      const double answer = probabilities ? (answers[i] > 0.5 ? 1 : 0) : answers[i];
      if (answer == batch.y[i]) ++right;
    }
  }
  return static_cast<double>(right) / static_cast<double>(all);
}

}  // namespace chainrule
