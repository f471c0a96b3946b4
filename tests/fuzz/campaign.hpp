// What the fuzzers of graphs and of calls have in common: cases by number, run in child processes, so that a crash or
// a case without an end is one fault more and not the end; faults that are explained once each.
//
// The process that counts never computes anything of the library's: so each child may choose another set of kernels by
// its environment, and has no threads before it forks.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace chainrule::fuzz {

struct CampaignOptions {
  double minutes = 0;  // 0: by count
  std::uint64_t count = 0;
  std::uint64_t seed = 1;
  std::int64_t only = -1;  // this case alone, in full
  int stop_after = 20;     // different faults
  int jobs = 0;

  // Of one of the cases.
  [[nodiscard]] std::uint64_t seed_of(std::uint64_t index) const { return seed * 1'000'000'007U + index; }
};

// A fault as a child reports it: its kind (all that shrinking must keep), what it is about, and a message.
struct Record {
  std::uint64_t index = 0;
  int kind = 0;
  char about[64] = {};
  char message[1500] = {};
  std::uint64_t progress = 0;  // of a case that never ended: Shared::progress then

  static void put(char* to, std::size_t size, std::string_view text) {
    const std::size_t n = std::min(size - 1, text.size());
    std::memcpy(to, text.data(), n);
    to[n] = '\0';
  }
};

// What a child and its parent both see. It survives the child.
struct Shared {
  std::atomic<std::uint64_t> current;   // the case under way
  std::atomic<std::uint64_t> progress;  // in it, for whoever looks for the place of a crash
  std::atomic<std::uint64_t> finished;
  std::array<std::uint64_t, 16> counters;
  std::array<unsigned char, 4096> reached;
  std::uint32_t records;
  std::array<Record, 64> record;

  void report(std::uint64_t index, int kind, std::string_view about, std::string_view message) {
    if (records == record.size()) return;
    Record& r = record[records++];
    r.index = index;
    r.kind = kind;
    Record::put(r.about, sizeof r.about, about);
    Record::put(r.message, sizeof r.message, message);
  }
};

// Memory that children share.
template <class T>
class SharedMemory {
 public:
  SharedMemory() {
    void* memory = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("fuzz: no shared memory");
    at_ = new (memory) T();
  }
  ~SharedMemory() {
    if (at_) munmap(at_, sizeof(T));
  }
  SharedMemory(SharedMemory&& other) noexcept : at_(std::exchange(other.at_, nullptr)) {}
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  T* operator->() const { return at_; }
  T& operator*() const { return *at_; }

 private:
  T* at_;
};

// Where a child's errors go.
class ErrorFile {
 public:
  ErrorFile() : file_(memfd_create("stderr", 0)) {}
  ~ErrorFile() {
    if (file_ >= 0) close(file_);
  }
  ErrorFile(ErrorFile&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  ErrorFile(const ErrorFile&) = delete;
  ErrorFile& operator=(const ErrorFile&) = delete;
  void take_over() const {
    dup2(file_, STDERR_FILENO);
    dup2(file_, STDOUT_FILENO);
  }
  [[nodiscard]] std::string text() const {
    std::string out(static_cast<std::size_t>(std::max<off_t>(lseek(file_, 0, SEEK_END), 0)), '\0');
    const auto n = pread(file_, out.data(), out.size(), 0);
    out.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return out;
  }
  // What a sanitizer or an assertion says in one line.
  [[nodiscard]] std::string summary() const {
    const std::string all = text();
    for (const char* mark : {"runtime error: ", "SUMMARY: ", "Assertion '", "terminate called"}) {
      const auto at = all.find(mark);
      if (at != std::string::npos) return all.substr(at, all.find('\n', at) - at);
    }
    return {};
  }

 private:
  int file_;
};

inline constexpr int no_end_seconds = 120;
inline constexpr int kind_of_ending = 99;  // the kind of a fault that ends the process, or does not

// Runs f in a child; its exit status, or -1 where it crashed or did not end. (A child that ends with `return` from f
// has the status that f gives; sanitizers end it with 1.)
template <class F>
int in_child(const ErrorFile& errors, int seconds, F f) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    errors.take_over();
    alarm(static_cast<unsigned>(seconds));
    int status = 1;
    try {
      status = f();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "terminate called: %s\n", error.what());
    }
    std::fflush(stdout);
    _exit(status);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) != 1 ? WEXITSTATUS(status) : -1;
}

// What became of a case that was run in a child of its own.
struct Outcome {
  int kind = 0;
  std::string about;
  std::string message;
};

// f(record) says there what it is about, as long as it can, and returns the kind.
template <class F>
Outcome outcome_in_child(F f) {
  const SharedMemory<Record> record;
  const ErrorFile errors;
  const int status = in_child(errors, 20, [&] { return 10 + f(*record); });
  if (status >= 10) return {status - 10, record->about, record->message};
  const std::string said = record->message;
  return {kind_of_ending, record->about, said + (said.empty() ? "" : ": ") + errors.summary()};
}

// How long a fault is shrunk: so many tries, and no longer than a minute.
class Patience {
 public:
  static constexpr int tries = 400;
  bool lasts() { return left_-- > 0 && std::chrono::steady_clock::now() - begin_ < std::chrono::seconds(60); }

 private:
  int left_ = tries;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// The names of those that no case reached: ", NOTHING_MISSING" where all were, else ", MISSING: a, b".
template <class F>
std::string reached_or_not(const Shared& total, std::size_t count, F name, std::string_view nothing_missing,
                           std::string_view missing) {
  std::string names;
  for (std::size_t i = 0; i < count; ++i)
    if (!total.reached[i]) names += (names.empty() ? " " : ", ") + name(i);
  return names.empty() ? fmt::format(", {}", nothing_missing) : fmt::format(", {}:{}", missing, names);
}

class Campaign {
 public:
  std::string unit = "cases";
  CampaignOptions options = {};
  std::uint64_t batch = 100;
  // Settings of the environment ("A=1 B=2") for the child that runs a batch.
  std::function<std::string(std::uint64_t batch)> environment = [](std::uint64_t) { return std::string(); };
  // One case, in a child.
  std::function<void(std::uint64_t index, Shared& shared)> one;
  // In a child: a fault shrunk and printed. The first line is what tells it from others.
  std::function<std::string(const Record& record)> explain;
  // After the number of cases: ", 123 nodes".
  std::function<std::string(const Shared& total)> counts = [](const Shared&) { return std::string(); };

  // The options that every fuzzer has; then what the command line says.
  void add_options(CLI::App& app) {
    app.add_option("--minutes", options.minutes, "Stop after so many minutes");
    app.add_option("--count", options.count, "Stop after so many " + unit);
    app.add_option("--seed", options.seed, "Of the first; a run with the same seed is the same")->capture_default_str();
    app.add_option("--only", options.only, "Run this one alone");
    app.add_option("--stop-after", options.stop_after, "Stop after so many different faults")->capture_default_str();
    app.add_option("--jobs", options.jobs, "Processes; 0: as many as there are processors");
  }

  // 1 where there were faults.
  int run() {
    if (options.minutes <= 0 && options.count == 0) options.minutes = 1;
    if (options.jobs <= 0) options.jobs = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    if (options.only >= 0) {
      next_ = static_cast<std::uint64_t>(options.only);
      options.count = next_ + 1;
      options.jobs = 1;
    }
    const auto begin = std::chrono::steady_clock::now();
    const auto seconds = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    double shown = 0;
    while (true) {
      const bool stop = (options.count > 0 && next_ >= options.count) ||
                        (options.minutes > 0 && seconds() > 60 * options.minutes) ||
                        static_cast<int>(explained_.size()) >= options.stop_after;
      while (!stop && static_cast<int>(workers_.size()) < options.jobs &&
             !(options.count > 0 && next_ >= options.count))
        start_batch();
      if (workers_.empty()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      collect();
      if (isatty(STDOUT_FILENO) && seconds() > shown + 1) {
        shown = seconds();
        fmt::print("\r{} {} in {:.0f} s, {} faults ", finished(), unit, shown, faults_);
        std::fflush(stdout);
      }
    }
    fmt::print("{}{} {}{}, {} fault{}{}, seed {} ({:.0f} s)\n", isatty(STDOUT_FILENO) ? "\r" : "",
               total_->finished.load(), unit, counts(*total_), faults_, faults_ == 1 ? "" : "s",
               faults_ > 0 ? fmt::format(" ({} different)", explained_.size()) : "", options.seed, seconds());
    return faults_ > 0 ? 1 : 0;
  }

 private:
  struct Worker {
    pid_t child = 0;
    std::uint64_t end = 0;
    std::uint64_t begin = 0;
    SharedMemory<Shared> shared;
    ErrorFile errors;
    std::uint64_t seen = ~std::uint64_t{0};  // the case under way when last looked at
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  };

  [[nodiscard]] std::uint64_t finished() const {
    std::uint64_t n = total_->finished;
    for (const auto& worker : workers_) n += worker->shared->finished;
    return n;
  }

  void set_environment(std::uint64_t index) const {
    const std::string settings = environment(index / batch);
    for (std::size_t at = 0; at < settings.size();) {
      const std::size_t end = std::min(settings.find(' ', at), settings.size());
      const std::size_t equals = settings.find('=', at);
      setenv(settings.substr(at, equals - at).c_str(), settings.substr(equals + 1, end - equals - 1).c_str(), 1);
      at = end + 1;
    }
  }

  void start_batch() {
    const std::uint64_t begin = next_;
    next_ = (begin / batch + 1) * batch;
    if (options.count > 0) next_ = std::min(next_, options.count);
    start(begin, next_);
  }

  void start(std::uint64_t begin, std::uint64_t end) {
    auto worker = std::make_unique<Worker>();
    worker->begin = begin;
    worker->end = end;
    worker->shared->current = begin;
    std::fflush(stdout);
    worker->child = fork();
    if (worker->child == 0) {
      worker->errors.take_over();
      set_environment(begin);
      for (std::uint64_t index = begin; index < end; ++index) {
        worker->shared->current = index;
        worker->shared->progress = 0;
        one(index, *worker->shared);
        ++worker->shared->finished;
      }
      _exit(0);
    }
    workers_.push_back(std::move(worker));
  }

  void collect() {
    for (std::size_t i = 0; i < workers_.size();) {
      Worker& worker = *workers_[i];
      if (worker.shared->current != worker.seen) {
        worker.seen = worker.shared->current;
        worker.since = std::chrono::steady_clock::now();
      }
      const bool endless = std::chrono::steady_clock::now() - worker.since > std::chrono::seconds(no_end_seconds);
      if (endless) kill(worker.child, SIGKILL);
      int status = 0;
      if (waitpid(worker.child, &status, endless ? 0 : WNOHANG) <= 0) {
        ++i;
        continue;
      }
      const auto ended = std::move(workers_[i]);
      workers_.erase(workers_.begin() + static_cast<std::ptrdiff_t>(i));
      add_up(*ended->shared);
      if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        std::string message = endless ? fmt::format("no end after {} s", no_end_seconds) : ended->errors.summary();
        if (message.empty())
          message = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status)) : "the process ended";
        Record record;
        record.index = ended->shared->current;
        record.kind = kind_of_ending;
        record.progress = ended->shared->progress;
        Record::put(record.message, sizeof record.message, message);
        Record::put(record.about, sizeof record.about, place_of(message));
        ++total_->finished;
        if (record.index + 1 < ended->end) start(record.index + 1, ended->end);
        fault(record);
      }
      for (std::uint32_t r = 0; r < ended->shared->records; ++r) fault(ended->shared->record[r]);
    }
  }

  // "heap-buffer-overflow op.cpp:12 in f"
  static std::string place_of(std::string_view summary) {
    const auto slash = summary.find_last_of('/');
    return std::string(slash == std::string_view::npos ? summary : summary.substr(slash + 1));
  }

  void add_up(const Shared& shared) {
    total_->finished += shared.finished;
    for (std::size_t i = 0; i < shared.counters.size(); ++i) total_->counters[i] += shared.counters[i];
    for (std::size_t i = 0; i < shared.reached.size(); ++i) total_->reached[i] |= shared.reached[i];
  }

  void fault(const Record& record) {
    ++faults_;
    // Those that look alike are one fault or a few: some are explained.
    if (static_cast<int>(explained_.size()) >= options.stop_after) return;
    if (++alike_[fmt::format("{} {}", record.kind, record.about)] > 3) return;
    ErrorFile text;
    in_child(text, 600, [&] {
      set_environment(record.index);
      const std::string out = explain(record);
      return write(STDOUT_FILENO, out.data(), out.size()) == static_cast<ssize_t>(out.size()) ? 0 : 2;
    });
    const std::string all = text.text();
    const std::string key = all.substr(0, all.find('\n'));
    if (++explained_[key] > 1) return;
    const std::string settings = environment(record.index / batch);
    fmt::print("{}---- fault {}: {}\n{} --seed {} --only {}{}\n{}\n{}\n", isatty(STDOUT_FILENO) ? "\r" : "",
               explained_.size(), key, unit, options.seed, record.index, settings.empty() ? "" : ", with " + settings,
               record.message, all.size() > key.size() ? all.substr(key.size() + 1) : "");
    std::fflush(stdout);
  }

  std::uint64_t next_ = 0;
  std::vector<std::unique_ptr<Worker>> workers_;
  SharedMemory<Shared> total_;
  std::uint64_t faults_ = 0;
  std::map<std::string, int> alike_;
  std::map<std::string, int> explained_;
};

}  // namespace chainrule::fuzz
