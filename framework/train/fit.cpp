#include <chainrule/framework/train/fit.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

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

// The means over a data set's examples of a program's outputs, which are scalars.
std::vector<double> means(Program& program, const data::Dataset& dataset, const DatasetInputs& inputs,
                          std::int64_t batch_size, Location at) {
  std::vector<double> sums(program.outputs().size(), 0.0);
  for (const auto& batch : data::batches(dataset, batch_size, at)) {
    const Results results = run(program, inputs, batch, at);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += results[i][0] * static_cast<double>(batch.size());
  }
  for (double& sum : sums) sum /= static_cast<double>(dataset.size());
  return sums;
}

// A line for each epoch in a file.
class Log {
 public:
  Log(std::string path, std::size_t numbers, bool goes_on, Location at)
      : path_(std::move(path)), is_json_(path_.ends_with(".jsonl")), at_(at) {
    if (path_.empty()) return;
    const bool keeps = goes_on && std::filesystem::exists(path_) && std::filesystem::file_size(path_) > 0;
    file_.open(path_, keeps ? std::ios::app : std::ios::trunc);
    if (!keeps && !is_json_) {
      file_ << "epoch,seconds,cost";
      for (std::size_t i = 0; i < numbers; ++i) file_ << ",validation_" << i;
      file_ << "\n";
    }
    flush();
  }

  void write(const EpochReport& report) {
    if (path_.empty()) return;
    file_ << (is_json_ ? json(report) : csv(report)) << "\n";
    flush();
  }

 private:
  static std::string csv(const EpochReport& report) {
    std::string line = fmt::format("{},{:.3f},{}", report.epoch, report.seconds, report.cost);
    for (const double x : report.validation) line += fmt::format(",{}", x);
    return line;
  }
  // JSON has no number that is not finite: null.
  static std::string json(const EpochReport& report) {
    const auto number = [](double x) { return std::isfinite(x) ? fmt::format("{}", x) : "null"; };
    std::string line = fmt::format(R"({{"epoch": {}, "seconds": {:.3f}, "cost": {})", report.epoch, report.seconds,
                                   number(report.cost));
    if (!report.validation.empty()) {
      line += R"(, "validation": [)";
      for (std::size_t i = 0; i < report.validation.size(); ++i)
        line += (i == 0 ? "" : ", ") + number(report.validation[i]);
      line += "]";
    }
    return line + "}";
  }
  void flush() {
    file_.flush();
    if (!file_) throw Error(at_, "fit", fmt::format("cannot write the log '{}'", path_));
  }

  std::string path_;
  bool is_json_;
  Location at_;
  std::ofstream file_;
};

// The best number so far.
class Best {
 public:
  explicit Best(const Monitor& monitor) : monitor_(monitor) {}

  // Whether this number is better. NaN is not.
  bool improves(double now) {
    const double gain = monitor_.higher_is_better ? now - best_ : best_ - now;
    if (std::isnan(now) || (has_best_ && !(gain > 0 && gain >= monitor_.least))) {
      ++epochs_without_;
      return false;
    }
    best_ = now;
    has_best_ = true;
    epochs_without_ = 0;
    return true;
  }
  // Since the last improvement, or the beginning.
  [[nodiscard]] std::int64_t epochs_without() const { return epochs_without_; }

 private:
  Monitor monitor_;
  double best_ = 0;
  bool has_best_ = false;
  std::int64_t epochs_without_ = 0;
};

constexpr std::int64_t seeds = std::int64_t{1} << 32;

void check(const Validation& validation, const Program& trained, const Monitor& monitor, Location at) {
  if (validation.program == nullptr || validation.dataset == nullptr)
    throw Error(at, "fit",
                fmt::format("requires a validation of a program and a data set, got no {}",
                            validation.program == nullptr ? "program" : "data set"));
  const Program& program = *validation.program;
  if (program.state_data() != trained.state_data())
    throw Error(at, "fit", "requires a validation program of the State that is trained, got one of another");
  if (program.has_updates()) throw Error(at, "fit", "requires a validation program without updates, got one with");
  for (const Value output : program.outputs())
    if (!is_scalar(output.shape()))
      throw Error(
          at, "fit",
          fmt::format("requires a validation program whose outputs are scalars, got {}", to_string(output.shape())));
  if (monitor.output >= program.outputs().size())
    throw Error(at, "fit",
                fmt::format("requires a monitor of one of the validation's {} outputs, got number {}",
                            program.outputs().size(), monitor.output));
  (void)data::batches(*validation.dataset, validation.batch, at);  // throws for what it refuses
}

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
  if (options.patience && *options.patience < 1)
    throw Error(at, "fit", fmt::format("requires a patience of 1 epoch or more, got {}", *options.patience));
  if (!(options.monitor.least >= 0))
    throw Error(at, "fit", fmt::format("requires a monitor.least of 0 or more, got {}", options.monitor.least));
  if (options.validation) check(*options.validation, program, options.monitor, at);
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
  Log log(options.log, options.validation ? options.validation->program->outputs().size() : 0, out.first_epoch > 0, at);
  Best best(options.monitor);
  bool begun = false;
  bool stopped = false;
  // Returns whether all of its batches were run.
  const auto run_epoch = [&](std::int64_t epoch) {
    counters.set_epoch(std::max<std::int64_t>(epoch - 1, 0));
    double total = 0;
    std::int64_t seen = 0;
    std::int64_t done = 0;
    for (const auto& batch : batches_of(dataset, options, epoch, at)) {
      if (interrupt && interrupt->requested()) return false;
      const double cost = run(program, options.inputs, batch, at)[0][0];
      total += cost * static_cast<double>(batch.size());
      begun = true;
      seen += batch.size();
      report.batch(epoch, ++done, total / static_cast<double>(seen));
      if (!options.after_batch) continue;
      BatchReport now{epoch, done - 1, batches, cost};
      options.after_batch(now);
      stopped = now.stop;
      if (stopped && done < batches) return false;
    }
    out.costs.push_back(total / static_cast<double>(seen));
    counters.set_epoch(epoch);
    return true;
  };
  for (std::int64_t epoch = out.first_epoch; epoch < out.first_epoch + options.epochs; ++epoch) {
    const auto start = std::chrono::steady_clock::now();
    try {
      if (!run_epoch(epoch)) break;
    } catch (...) {
      if (!begun) counters.restore();  // refused: all is as it was
      throw;
    }
    EpochReport end{epoch, out.costs.back()};
    end.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    end.stop = stopped;
    if (options.validation) {
      const Validation& validation = *options.validation;
      end.validation = means(*validation.program, *validation.dataset,
                             validation.inputs.x.defined() ? validation.inputs : options.inputs, validation.batch, at);
      out.validation.push_back(end.validation);
    }
    end.improved = best.improves(options.validation ? end.validation[options.monitor.output] : end.cost);
    if (end.improved) out.best_epoch = epoch;
    log.write(end);
    if (!options.last_checkpoint.empty()) program.state_data()->save(options.last_checkpoint, "fit", at);
    if (end.improved && !options.best_checkpoint.empty())
      program.state_data()->save(options.best_checkpoint, "fit", at);
    report.epoch(end);
    if (options.after_epoch) options.after_epoch(end);
    if (end.stop) break;
    out.ran_out_of_patience = options.patience && best.epochs_without() >= *options.patience;
    if (out.ran_out_of_patience) break;
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

Array predict(Program& program, const data::Dataset& dataset, const PredictOptions& options, Location at) {
  constexpr std::string_view function = "predict";
  if (program.outputs().empty()) throw Error(at, function, "requires a program with an output, got one without");
  const std::size_t rank = program.outputs()[0].rank();
  const std::size_t axis = options.axis.value_or(dataset.axis < rank ? dataset.axis : 0);
  if (axis >= rank)
    throw Error(at, function,
                fmt::format("requires an output with an axis of examples, number {}, got {}", axis,
                            program.outputs()[0].describe()));
  Array out;
  std::int64_t done = 0;
  for (const auto& batch : data::batches(dataset, options.batch, at)) {
    const Array& part = run(program, options.inputs, batch, at)[0];
    if (part.shape()[axis] != batch.size())
      throw Error(at, function,
                  fmt::format("requires an output with an entry for each of {} examples, got {}", batch.size(),
                              to_string(part.shape())));
    if (done == 0) {
      Dims dims = part.shape();
      dims[axis] = dataset.size();
      out = Array(part.dtype(), dims);
    }
    // Rows of all that lies behind the axis.
    std::size_t inner = size_of(part.dtype());
    std::size_t outer = 1;
    for (std::size_t i = 0; i < rank; ++i)
      (i < axis ? outer : inner) *= i == axis ? 1 : static_cast<std::size_t>(part.shape()[i]);
    const std::size_t rows = inner * static_cast<std::size_t>(batch.size());
    const std::size_t all_rows = inner * static_cast<std::size_t>(dataset.size());
    const std::size_t begin = inner * static_cast<std::size_t>(done);
    if (rows > 0)
      for (std::size_t o = 0; o < outer; ++o)
        std::memcpy(static_cast<std::byte*>(out.raw()) + o * all_rows + begin,
                    static_cast<const std::byte*>(part.raw()) + o * rows, rows);
    done += batch.size();
  }
  return out;
}

}  // namespace chainrule
