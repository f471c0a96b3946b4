#include <chainrule/framework/core/thread_pool.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include <fmt/core.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <chainrule/framework/core/threads.hpp>

namespace chainrule {

namespace detail {

int processors_of([[maybe_unused]] int thread) {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(thread, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

namespace {

constexpr int most_threads = 1024;
constexpr std::size_t alignment = 64;
// Longer than the gaps between the steps of a run, shorter than anyone would notice.
constexpr double spin_seconds = 50e-6;
// Jobs at once. Of more, each stays on the thread that started it.
constexpr std::size_t most_jobs = 32;
// Ranges of a job: of more threads several begin with one.
constexpr unsigned most_ranges = 16;
constexpr std::size_t most_chunks = std::size_t{1} << 30;
// Scratch memory for threads that help with what they started side by side.
constexpr std::size_t spares = 4;
// Jobs of a thread after which the number of processors is looked up again.
constexpr unsigned jobs_between_looks = 256;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");  // waits about as long as x86's pause; "yield" does not wait on most processors
#endif
}

// How often to pause in spin_seconds: on some processors a pause is four times as long as on others.
int spins_of_a_wait() {
  using Clock = std::chrono::steady_clock;
  constexpr int pauses = 32;
  double least = 1;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < pauses; ++i) pause();
    least = std::min(least, std::chrono::duration<double>(Clock::now() - begin).count() / pauses);
  }
  return static_cast<int>(std::clamp(spin_seconds / std::max(least, 1e-9), 100.0, 20'000.0));
}

struct Free {
  void operator()(char* memory) const { ::operator delete (memory, std::align_val_t{alignment}); }
};
using Scratch = std::unique_ptr<char, Free>;

Scratch make_scratch(std::size_t bytes) {
  return Scratch(static_cast<char*>(::operator new (bytes, std::align_val_t{alignment})));
}

int threads_asked_for() {
  const char* text = std::getenv("CHAINRULE_NUM_THREADS");
  if (!text || *text == 0) return std::min(processors_of(0), most_threads);
  int threads = 0;
  const char* end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, threads);
  if (error != std::errc{} || rest != end || threads < 1 || threads > most_threads)
    throw Error(Location{}, "CHAINRULE_NUM_THREADS",
                fmt::format("requires a number from 1 to {}, got '{}'", most_threads, text));
  return threads;
}

struct Job {
  ChunkRun run = nullptr;
  const void* context = nullptr;
  std::size_t chunks = 0;
  unsigned ranges = 1;

  // The number of the chunk when so many of its range are left, that one included.
  [[nodiscard]] std::size_t chunk(unsigned range, std::int32_t left) const {
    return begin(range + 1) - static_cast<std::size_t>(left);
  }
  [[nodiscard]] std::size_t begin(unsigned range) const { return chunks * range / ranges; }
};

// The place of a job. One after the other has it, and a thread may still be looking at it for an earlier one: what
// that thread sees may be out of date until it has taken a chunk. Then the job is the one that stands, for whoever
// started it does not go on before all of its chunks are done.
struct Slot {
  Job job;
  std::atomic<unsigned> ranges{1};           // the job's
  std::atomic<const Slot*> parent{nullptr};  // the job of whose chunk it was started
  alignas(alignment) std::atomic<std::uint32_t> done{0};
  // Chunks left, by range; 0 or less where there are none.
  struct alignas(alignment) Left {
    std::atomic<std::int32_t> chunks{0};
  };
  std::array<Left, most_ranges> left;

  [[nodiscard]] bool has_left() const {
    const unsigned count = ranges.load(std::memory_order_relaxed);
    return std::any_of(left.begin(), left.begin() + count,
                       [](const Left& l) { return l.chunks.load(std::memory_order_relaxed) > 0; });
  }
};

struct alignas(alignment) Worker {
  std::atomic<std::uint32_t> asleep{0};
  unsigned number = 0;
  Scratch scratch;
  std::thread thread;
};

// What the pool knows of a thread.
struct Here {
  int depth = 0;              // chunks under way, one inside the other; of a worker one more
  unsigned position = 0;      // the range of a job with which it begins
  const Slot* job = nullptr;  // whose chunk is under way
  std::size_t slot = 0;       // of its last job
  unsigned jobs = 0;
  int scopes = 0;  // ChunkScopes that live
  ChunkOrder order = ChunkOrder::any;
  CutRecorder* recorder = nullptr;
};
constinit thread_local Here here;

class Pool {
 public:
  explicit Pool(int threads, std::size_t scratch_bytes = 64) : threads_(threads), scratch_bytes_(scratch_bytes) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { stop(); }

  [[nodiscard]] int threads() const { return threads_.load(std::memory_order_relaxed); }

  void set_threads(int threads) {
    const Closed closed(*this);
    if (threads == this->threads()) return;
    stop();
    threads_ = threads;
  }

  [[nodiscard]] bool has_scratch(std::size_t bytes) const {
    return bytes <= scratch_bytes_.load(std::memory_order_relaxed);
  }
  void reserve(std::size_t bytes) {
    if (has_scratch(bytes)) return;
    const Closed closed(*this);
    if (bytes <= scratch_bytes_) return;
    std::vector<Scratch> larger;
    for (std::size_t i = 0; i < workers_.size() + spares_.size(); ++i) larger.push_back(make_scratch(bytes));
    // Nothing throws from here on. Scratch memory is used in a chunk only, and none is under way.
    auto next = larger.begin();
    for (const auto& worker : workers_) worker->scratch = std::move(*next++);
    for (Scratch& spare : spares_) spare = std::move(*next++);
    scratch_bytes_ = bytes;
  }

  void run(std::size_t chunks, ChunkRun chunk_run, const void* context, bool helps) {
    if (chunks < 2 || chunks > most_chunks || threads() == 1) return run_alone(chunks, chunk_run, context);
    const Visit visit(*this);
    const std::size_t at = visit.welcome && is_helped() ? take_slot() : most_jobs;
    if (at == most_jobs) return run_alone(chunks, chunk_run, context);
    Slot& slot = slots_[at];
    post(slot, {chunk_run, context, chunks, std::min({static_cast<unsigned>(chunks), count() + 1, most_ranges})});
    states_[at].store(State::open, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    wake(chunks > 2 ? 2 : 1);
    work_on(slot, nullptr);
    states_[at].store(State::taken, std::memory_order_relaxed);  // nobody need look at it
    wait_for(slot, static_cast<std::uint32_t>(chunks), helps);
    states_[at].store(State::free, std::memory_order_release);
  }

  void assume_processors(int processors) {
    assumed_processors_ = processors;
    look_for_processors();
  }

  // ---- fork: what is inherited has no workers; another pool is made in its place

  void before_fork() { mutex_.lock(); }
  void after_fork() { mutex_.unlock(); }
  [[nodiscard]] Pool* in_the_child() const {
    auto* made = new Pool(threads_, scratch_bytes_);  // NOLINT(cppcoreguidelines-owning-memory): see ThePool
    made->assumed_processors_ = assumed_processors_.load();
    made->processors_ = processors_.load();
    made->inherited_ = this;
    return made;
  }

 private:
  enum class State : std::uint8_t { free, taken, open };

  // The threads outside of the pool that use it; while it is closed there is none.
  class Visit {
   public:
    explicit Visit(Pool& pool) : pool_(pool), counts_(here.depth == 0) {
      if (!counts_) return;
      pool_.visitors_.fetch_add(1, std::memory_order_seq_cst);
      welcome = !pool_.closed_.load(std::memory_order_seq_cst);
    }
    ~Visit() {
      if (counts_ && pool_.visitors_.fetch_sub(1, std::memory_order_seq_cst) == 1 && pool_.closed_)
        pool_.visitors_.notify_all();
    }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    bool welcome = true;

   private:
    Pool& pool_;
    bool counts_;
  };

  class Closed {
   public:
    explicit Closed(Pool& pool) : pool_(pool) {
      pool_.mutex_.lock();
      pool_.closed_.store(true, std::memory_order_seq_cst);
      for (int now = 0; (now = pool_.visitors_.load(std::memory_order_seq_cst)) != 0;) pool_.visitors_.wait(now);
    }
    ~Closed() {
      pool_.closed_.store(false, std::memory_order_seq_cst);
      pool_.mutex_.unlock();
    }
    Closed(const Closed&) = delete;
    Closed& operator=(const Closed&) = delete;

   private:
    Pool& pool_;
  };

  static void run_alone(std::size_t chunks, ChunkRun chunk_run, const void* context) {
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) chunk_run(context, chunk, nullptr);
  }

  // ---- who works

  [[nodiscard]] unsigned count() const { return count_.load(std::memory_order_acquire); }

  // Threads that have a processor, but for those that are waiting for one.
  [[nodiscard]] int running() const {
    return visitors_.load(std::memory_order_relaxed) + awake_.load(std::memory_order_seq_cst);
  }
  [[nodiscard]] bool may_wake() const { return running() < processors_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool may_spin() const { return running() <= processors_.load(std::memory_order_relaxed); }

  void look_for_processors() {
    const int assumed = assumed_processors_;
    processors_ = assumed != 0 ? assumed : processors_of(first_worker_);
  }

  // Whether there are workers that could take part.
  bool is_helped() {
    if (here.jobs++ % jobs_between_looks == 0) look_for_processors();
    if (!started_.load(std::memory_order_acquire)) {
      if (processors_ < 2) return false;
      const std::unique_lock lock(mutex_, std::try_to_lock);
      if (!lock) return false;
      if (!started_) start();
    }
    return count() > 0 && (awake_.load(std::memory_order_relaxed) > 0 || may_wake());
  }

  // Where the system has no further thread or memory for it, those that there are have to do.
  void start() {
    stopping_ = false;
    spins_ = spins_of_a_wait();
    try {
      const auto wanted = static_cast<unsigned>(threads()) - 1;
      for (std::size_t i = spares_.size(); i < spares; ++i) spares_.push_back(make_scratch(scratch_bytes_));
      workers_.reserve(wanted);
      while (workers_.size() < wanted) {
        auto worker = std::make_unique<Worker>();
        worker->number = static_cast<unsigned>(workers_.size());
        worker->scratch = make_scratch(scratch_bytes_);
        workers_.push_back(std::move(worker));
        start(*workers_.back());
        count_.store(static_cast<unsigned>(workers_.size()), std::memory_order_release);
      }
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
    started_.store(true, std::memory_order_release);
  }

  void start(Worker& worker) {
    awake_.fetch_add(1);
    try {
      worker.thread = std::thread([this, &worker] { work(worker); });
    } catch (...) {
      awake_.fetch_sub(1);
      workers_.pop_back();
      throw;
    }
  }

  void stop() {
    stopping_ = true;
    generation_.fetch_add(1);
    for (const auto& worker : workers_)
      if (take_idle(worker->number)) wake(*worker);
    for (const auto& worker : workers_) worker->thread.join();
    count_ = 0;
    awake_ = 0;
    first_worker_ = 0;
    workers_.clear();
    started_ = false;
  }

  // ---- sleep

  // Whether a worker was asleep, or about to be, and is now to be woken by the caller.
  bool take_idle(unsigned number) {
    const std::uint64_t bit = std::uint64_t{1} << (number % 64);
    if ((idle_[number / 64].fetch_and(~bit, std::memory_order_seq_cst) & bit) == 0) return false;
    awake_.fetch_add(1, std::memory_order_seq_cst);
    return true;
  }

  static void wake(Worker& worker) {
    worker.asleep.store(0, std::memory_order_release);
    worker.asleep.notify_one();
  }

  // Wakes so many workers, the first ones that sleep, where there are processors for them. Who is woken wakes others.
  void wake(int most) {
    for (std::size_t word = 0; word * 64 < count() && may_wake(); ++word) {
      while (const std::uint64_t idle = idle_[word].load(std::memory_order_seq_cst)) {
        const auto number = static_cast<unsigned>(word * 64) + static_cast<unsigned>(std::countr_zero(idle));
        if (!take_idle(number)) continue;
        wake(*workers_[number]);
        if (--most == 0 || !may_wake()) return;
      }
    }
  }

  void sleep(Worker& worker, std::uint32_t seen) {
    worker.asleep.store(1, std::memory_order_relaxed);
    awake_.fetch_sub(1, std::memory_order_seq_cst);
    idle_[worker.number / 64].fetch_or(std::uint64_t{1} << (worker.number % 64), std::memory_order_seq_cst);
    // Whoever starts a job from now on sees that this one is idle.
    if (generation_.load(std::memory_order_seq_cst) != seen && take_idle(worker.number)) return;
    worker.asleep.wait(1, std::memory_order_acquire);
  }

  void work(Worker& worker) {
    here.depth = 1;
    here.position = worker.number + 1;
#if defined(__linux__)
    if (worker.number == 0) first_worker_ = gettid();
#endif
    for (;;) {
      const std::uint32_t seen = generation_.load(std::memory_order_seq_cst);
      if (stopping_) return;
      bool worked = false;
      for (std::size_t i = 0; i < most_jobs; ++i) {
        const std::size_t at = (worker.number + i) % most_jobs;
        if (states_[at].load(std::memory_order_acquire) == State::open)
          worked = work_on(slots_[at], &worker.scratch) || worked;
      }
      if (worked) continue;
      for (int i = 0; i < spins_ && generation_.load(std::memory_order_acquire) == seen && may_spin(); ++i) pause();
      if (generation_.load(std::memory_order_acquire) == seen) sleep(worker, seen);
    }
  }

  // ---- jobs

  // Or most_jobs where all are taken.
  std::size_t take_slot() {
    for (std::size_t i = 0; i < most_jobs; ++i) {
      const std::size_t at = (here.slot + i) % most_jobs;
      State expected = State::free;
      if (states_[at].load(std::memory_order_relaxed) != State::free) continue;
      if (!states_[at].compare_exchange_strong(expected, State::taken, std::memory_order_acquire)) continue;
      here.slot = at;
      return at;
    }
    return most_jobs;
  }

  static void post(Slot& slot, const Job& job) {
    slot.job = job;
    slot.done.store(0, std::memory_order_relaxed);
    slot.ranges.store(job.ranges, std::memory_order_relaxed);
    slot.parent.store(here.job, std::memory_order_relaxed);
    for (unsigned i = 0; i < job.ranges; ++i)
      slot.left[i].chunks.store(static_cast<std::int32_t>(job.begin(i + 1) - job.begin(i)), std::memory_order_release);
  }

  // Runs chunks of a job until none is left; whether there was one. What scratch memory there is, is known only then:
  // it changes between jobs.
  bool work_on(Slot& slot, const Scratch* scratch) {
    std::uint32_t ran = 0;
    const unsigned ranges = slot.ranges.load(std::memory_order_relaxed);
    const Slot* const outer = here.job;
    for (unsigned i = 0; i < ranges; ++i) {
      const unsigned range = (here.position + i) % ranges;
      std::atomic<std::int32_t>& left = slot.left[range].chunks;
      while (left.load(std::memory_order_relaxed) > 0) {
        const std::int32_t before = left.fetch_sub(1, std::memory_order_acq_rel);
        if (before <= 0) break;
        if (ran++ == 0) {
          here.job = &slot;
          ++here.depth;
          if (scratch && awake_.load(std::memory_order_relaxed) < static_cast<int>(count()) && slot.has_left()) wake(2);
        }
        slot.job.run(slot.job.context, slot.job.chunk(range, before), scratch ? scratch->get() : nullptr);
      }
    }
    if (ran == 0) return false;
    here.job = outer;
    --here.depth;
    const auto all = static_cast<std::uint32_t>(slot.job.chunks);
    if (slot.done.fetch_add(ran, std::memory_order_seq_cst) + ran == all) slot.done.notify_one();
    return true;
  }

  // With `helps` it works on what the job's chunks started meanwhile.
  void wait_for(Slot& slot, std::uint32_t chunks, bool helps) {
    std::uint32_t looked = generation_.load(std::memory_order_acquire) - 1;
    int spun = 0;
    for (;;) {
      const std::uint32_t done = slot.done.load(std::memory_order_acquire);
      if (done == chunks) return;
      const std::uint32_t now = generation_.load(std::memory_order_acquire);
      if (helps && looked != now) {
        looked = now;
        if (help(slot)) spun = 0;
      } else if (spun < spins_ && may_spin()) {
        pause();
        ++spun;
      } else {
        slot.done.wait(done, std::memory_order_acquire);
      }
    }
  }

  bool help(const Slot& parent) {
    bool helped = false;
    for (std::size_t at = 0; at < most_jobs; ++at) {
      if (states_[at].load(std::memory_order_acquire) != State::open) continue;
      if (slots_[at].parent.load(std::memory_order_relaxed) != &parent) continue;
      const std::size_t spare = take_spare();
      if (spare == spares) break;
      helped = work_on(slots_[at], &spares_[spare]) || helped;
      spares_taken_.fetch_and(~(1U << spare), std::memory_order_release);
    }
    return helped;
  }

  // Or `spares` where all are taken.
  std::size_t take_spare() {
    for (std::size_t i = 0; i < spares; ++i)
      if ((spares_taken_.fetch_or(1U << i, std::memory_order_acquire) & 1U << i) == 0) return i;
    return spares;
  }

  std::atomic<int> threads_;
  std::atomic<std::size_t> scratch_bytes_;
  std::mutex mutex_;  // of what starts and stops workers and what they have
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Scratch> spares_;
  std::atomic<bool> started_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<unsigned> count_{0};  // of workers
  std::atomic<int> spins_{100};
  std::atomic<int> processors_{1};
  std::atomic<int> assumed_processors_{0};
  std::atomic<int> first_worker_{0};  // its number in the system
  const Pool* inherited_ = nullptr;   // kept, for its threads cannot be ended
  std::atomic<std::uint32_t> spares_taken_{0};
  std::atomic<bool> closed_{false};
  // Apart from each other: different threads write them.
  alignas(alignment) std::atomic<std::uint32_t> generation_{0};  // counts jobs
  alignas(alignment) std::atomic<int> visitors_{0};
  std::atomic<int> awake_{0};  // workers
  alignas(alignment) std::array<std::atomic<std::uint64_t>, most_threads / 64> idle_{};
  alignas(alignment) std::array<std::atomic<State>, most_jobs> states_{};
  std::array<Slot, most_jobs> slots_;
};

// The process's pool.
class ThePool {
 public:
  ThePool() : pool_(new Pool(threads_asked_for())) { pthread_atfork(before_fork, after_fork, in_the_child); }
  ThePool(const ThePool&) = delete;
  ThePool& operator=(const ThePool&) = delete;
  ~ThePool() { delete pool_.load(); }  // NOLINT(cppcoreguidelines-owning-memory)
  [[nodiscard]] Pool& operator*() const { return *pool_.load(std::memory_order_relaxed); }

  static ThePool& get() {
    static ThePool the_pool;
    return the_pool;
  }

 private:
  static void before_fork() { (*get()).before_fork(); }
  static void after_fork() { (*get()).after_fork(); }
  static void in_the_child() {
    here.depth = 0;
    here.position = 0;
    here.job = nullptr;
    get().pool_ = (*get()).in_the_child();
  }

  std::atomic<Pool*> pool_;
};

Pool& pool() { return *ThePool::get(); }

// Of what waits for all chunks that are under way.
void require_no_chunk(std::string_view what, Location at) {
  if (here.depth > 0) throw Error(at, what, "requires a call from outside of parallel_for(), got one in a range of it");
}

}  // namespace

void run_chunks(std::size_t chunks, ChunkRun run, const void* context, ChunkWork work) {
  if (here.recorder) here.recorder->add(chunks, context, work);
  if (here.order == ChunkOrder::any) return pool().run(chunks, run, context, false);
  for (std::size_t i = 0; i < chunks; ++i)
    run(context, here.order == ChunkOrder::ascending ? i : chunks - 1 - i, nullptr);
}

void run_side_by_side(std::size_t count, ChunkRun run, const void* context) {
  if (here.order == ChunkOrder::any) return pool().run(count, run, context, true);
  run_chunks(count, run, context);
}

ChunkScope::ChunkScope(ChunkOrder order) : outer_(here.order) {
  here.order = order;
  ++here.scopes;
}
ChunkScope::~ChunkScope() {
  here.order = outer_;
  --here.scopes;
}
bool ChunkScope::any() { return here.scopes > 0; }

CutRecorder::CutRecorder() : outer_(here.recorder) { here.recorder = this; }
CutRecorder::~CutRecorder() { here.recorder = outer_; }

void CutRecorder::add(std::size_t chunks, const void* context, ChunkWork work) {
  double longest = 0;
  double sum = 0;
  for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
    const double one = work ? work(context, chunk) : 1;
    longest = std::max(longest, one);
    sum += one;
  }
  parts_ = std::max(parts_, chunks);
  longest_ += longest;
  all_ += sum;
}

Cut CutRecorder::take() {
  const Cut cut{parts_, all_ > 0 ? longest_ / all_ : 1.0};
  parts_ = 1;
  longest_ = all_ = 0;
  return cut;
}

void reserve_scratch(std::size_t bytes) {
  if (!pool().has_scratch(bytes)) require_no_chunk("program", Location{});
  pool().reserve(bytes);
}

AssumedProcessors::AssumedProcessors(int processors) { pool().assume_processors(processors); }
AssumedProcessors::~AssumedProcessors() { pool().assume_processors(0); }

}  // namespace detail

int num_threads() { return detail::pool().threads(); }

void set_num_threads(int threads, Location at) {
  if (threads < 1 || threads > detail::most_threads)
    throw Error(at, "set_num_threads",
                fmt::format("requires a number from 1 to {}, got {}", detail::most_threads, threads));
  detail::require_no_chunk("set_num_threads", at);
  detail::pool().set_threads(threads);
}

}  // namespace chainrule
