#include <chainrule/framework/core/threads.hpp>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include <fmt/core.h>
#include <sched.h>

#include <chainrule/framework/core/thread_pool.hpp>

namespace chainrule {

namespace detail {

int processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

namespace {

constexpr int most_threads = 1024;
constexpr std::size_t alignment = 64;
// About 20 microseconds: longer than the gaps between the steps of a run, shorter than anyone would notice.
constexpr int spins = 4000;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");  // waits about as long as x86's pause; "yield" does not wait on most processors
#endif
}

struct Free {
  void operator()(char* memory) const { ::operator delete (memory, std::align_val_t{alignment}); }
};
using Scratch = std::unique_ptr<char, Free>;

int threads_asked_for() {
  const char* text = std::getenv("CHAINRULE_NUM_THREADS");
  if (!text || *text == 0) return std::min(processors(), most_threads);
  int threads = 0;
  const char* end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, threads);
  if (error != std::errc{} || rest != end || threads < 1 || threads > most_threads)
    throw Error(Location{}, "CHAINRULE_NUM_THREADS",
                fmt::format("requires a number from 1 to {}, got '{}'", most_threads, text));
  return threads;
}

class Pool {
 public:
  Pool() : threads_(threads_asked_for()) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { stop(); }

  [[nodiscard]] int threads() const { return threads_.load(std::memory_order_relaxed); }

  void set_threads(int threads) {
    const std::lock_guard lock(mutex_);
    if (threads == this->threads()) return;
    stop();
    threads_ = threads;
  }

  void reserve(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes <= scratch_bytes_) return;
    std::vector<Scratch> larger;
    for (std::size_t i = 0; i < workers_.size(); ++i) larger.push_back(make_scratch(bytes));
    // Nothing throws from here on. Workers touch their scratch in a chunk only, and none is under way.
    for (std::size_t i = 0; i < workers_.size(); ++i) workers_[i]->scratch = std::move(larger[i]);
    scratch_bytes_ = bytes;
  }

  void run(std::size_t chunks, ChunkRun chunk_run, const void* context) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock || threads() == 1 || chunks < 2) {
      run_alone(chunks, chunk_run, context);
      return;
    }
    if (!started_) start();
    if (workers_.empty()) {
      run_alone(chunks, chunk_run, context);
      return;
    }
    job_ = {chunk_run, context, static_cast<std::int64_t>(chunks)};
    done_.store(0, std::memory_order_relaxed);
    left_.store(job_.chunks, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) generation_.notify_all();
    drain();
    for (int i = 0; done_.load(std::memory_order_acquire) < job_.chunks; ++i) {
      if (i < spins) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  struct Job {
    ChunkRun run = nullptr;
    const void* context = nullptr;
    std::int64_t chunks = 0;
  };
  struct Worker {
    std::thread thread;
    Scratch scratch;
  };

  static Scratch make_scratch(std::size_t bytes) {
    return Scratch(static_cast<char*>(::operator new (bytes, std::align_val_t{alignment})));
  }

  static void run_alone(std::size_t chunks, ChunkRun chunk_run, const void* context) {
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) chunk_run(context, chunk, nullptr);
  }

  // Where the system has no further thread or memory for it, those that there are have to do.
  void start() {
    started_ = true;
    stopping_ = false;
    try {
      workers_.reserve(static_cast<std::size_t>(threads()) - 1);
      for (int i = 1; i < threads(); ++i) {
        auto worker = std::make_unique<Worker>();
        worker->scratch = make_scratch(scratch_bytes_);
        worker->thread = std::thread([this, &own = *worker, seen = generation_.load()]() mutable { work(own, seen); });
        workers_.push_back(std::move(worker));
      }
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }

  void stop() {
    stopping_ = true;
    generation_.fetch_add(1);
    generation_.notify_all();
    for (const auto& worker : workers_) worker->thread.join();
    workers_.clear();
    started_ = false;
  }

  // A chunk that was taken here belongs to the job that stands: the thread that posted it does not go on before all of
  // its chunks are done. Where none is left nothing else is looked at.
  void drain(const Worker* worker = nullptr) {
    std::int64_t left = 0;
    while ((left = left_.fetch_sub(1, std::memory_order_acq_rel)) > 0) {
      // Only now: scratch memory may change between two jobs.
      job_.run(job_.context, static_cast<std::size_t>(job_.chunks - left), worker ? worker->scratch.get() : nullptr);
      done_.fetch_add(1, std::memory_order_release);
    }
  }

  void work(Worker& worker, std::uint32_t seen) {
    while (!stopping_) {
      for (int i = 0; i < spins && generation_.load(std::memory_order_acquire) == seen; ++i) pause();
      if (generation_.load(std::memory_order_acquire) == seen) {
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        generation_.wait(seen, std::memory_order_seq_cst);
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      }
      seen = generation_.load(std::memory_order_acquire);
      drain(&worker);
    }
  }

  std::atomic<int> threads_;
  std::mutex mutex_;
  bool started_ = false;
  std::size_t scratch_bytes_ = 64;
  std::vector<std::unique_ptr<Worker>> workers_;
  Job job_;
  // Apart from each other: all threads write left_ and done_.
  alignas(alignment) std::atomic<std::uint32_t> generation_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  alignas(alignment) std::atomic<std::int64_t> left_{0};
  alignas(alignment) std::atomic<std::int64_t> done_{0};
};

thread_local ChunkOrder order_of_scope = ChunkOrder::any;
thread_local int scopes = 0;  // that live

Pool& pool() {
  static Pool the_pool;
  return the_pool;
}

}  // namespace

void run_chunks(std::size_t chunks, ChunkRun run, const void* context) {
  if (order_of_scope == ChunkOrder::any) return pool().run(chunks, run, context);
  for (std::size_t i = 0; i < chunks; ++i)
    run(context, order_of_scope == ChunkOrder::ascending ? i : chunks - 1 - i, nullptr);
}

ChunkScope::ChunkScope(ChunkOrder order) : outer_(order_of_scope) {
  order_of_scope = order;
  ++scopes;
}
ChunkScope::~ChunkScope() {
  order_of_scope = outer_;
  --scopes;
}

void run_ranges(std::int64_t count, std::int64_t grain, RangeRun run, const void* context) {
  if (grain < 1) throw Error("parallel_for", fmt::format("requires a grain of 1 or more, got {}", grain));
  if (count <= 0) return;
  if (scopes > 0) grain = std::min(grain, std::max<std::int64_t>(1, (count + 3) / 4));  // samples are small
  struct Work {
    std::int64_t count;
    std::int64_t grain;
    RangeRun run;
    const void* context;
    std::mutex mutex;
    std::size_t first_failed = ~std::size_t{0};
    std::exception_ptr error;
  } work{count, grain, run, context, {}, ~std::size_t{0}, {}};
  run_chunks(
      static_cast<std::size_t>((count - 1) / grain + 1),
      [](const void* all, std::size_t chunk, void* /*scratch*/) {
        auto& w = *static_cast<Work*>(const_cast<void*>(all));
        const std::int64_t begin = static_cast<std::int64_t>(chunk) * w.grain;
        try {
          w.run(w.context, begin, begin + std::min(w.grain, w.count - begin));
        } catch (...) {
          const std::lock_guard lock(w.mutex);
          if (chunk >= w.first_failed) return;
          w.first_failed = chunk;
          w.error = std::current_exception();
        }
      },
      &work);
  if (work.error) std::rethrow_exception(work.error);
}

void reserve_scratch(std::size_t bytes) { pool().reserve(bytes); }

}  // namespace detail

int num_threads() { return detail::pool().threads(); }

void set_num_threads(int threads, Location at) {
  if (threads < 1 || threads > detail::most_threads)
    throw Error(at, "set_num_threads",
                fmt::format("requires a number from 1 to {}, got {}", detail::most_threads, threads));
  detail::pool().set_threads(threads);
}

}  // namespace chainrule
