// The library's threads. Not installed.
//
// One pool for the process, which serves several jobs at once: those of programs that run at the same time, and those
// that a chunk of another job starts. A job is cut into chunks whose number and bounds follow from sizes alone, or
// whose results do not depend on them, so every thread count gives the same bits. The thread that starts a job and the
// pool's workers each begin with a range of chunks of their own, which is the same one whenever they are as many (what
// they wrote last time may still be in their caches), then take what is left of the others': so one that the machine
// holds up delays the others by a chunk at most.
//
// There are num_threads() - 1 workers, whoever runs how much. Idle ones spin for some microseconds, then sleep. No more
// of them are woken, and none spins, than there are processors left for: where the process has a single one, a job is
// run by the thread that starts it as if there were no pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>

namespace chainrule::detail {

// Calls run(context, chunk, scratch) for each chunk below `chunks`, in any order and on several threads, and returns
// when all have ended. `scratch` is memory of the thread's own of what reserve_scratch() asked for, or null on the
// calling thread, which has its own. `run` must not throw; it may itself call this. `work` says how much work a chunk
// is, in any unit (null: all are alike); it is asked by CutRecorder only.
using ChunkRun = void (*)(const void* context, std::size_t chunk, void* scratch);
using ChunkWork = double (*)(const void* context, std::size_t chunk);
void run_chunks(std::size_t chunks, ChunkRun run, const void* context, ChunkWork work = nullptr);

template <class F>
void parallel_for(std::size_t chunks, const F& f) {
  run_chunks(
      chunks,
      [](const void* context, std::size_t chunk, void* scratch) { (*static_cast<const F*>(context))(chunk, scratch); },
      &f);
}

// The same, with work(chunk).
template <class F, class W>
void parallel_for(std::size_t chunks, const F& f, const W& work) {
  struct Both {
    const F& f;
    const W& work;
  } const both{f, work};
  run_chunks(
      chunks,
      [](const void* context, std::size_t chunk, void* scratch) {
        static_cast<const Both*>(context)->f(chunk, scratch);
      },
      &both,
      [](const void* context, std::size_t chunk) {
        return static_cast<double>(static_cast<const Both*>(context)->work(chunk));
      });
}

// Calls run(context, i, ...) for each i below `count`, on several threads where there are any, and returns when all
// have ended: a few things that start jobs of their own, with which a thread that has nothing else to do helps.
void run_side_by_side(std::size_t count, ChunkRun run, const void* context);

template <class F>
void side_by_side(std::size_t count, const F& f) {
  run_side_by_side(
      count, [](const void* context, std::size_t i, void*) { (*static_cast<const F*>(context))(i); }, &f);
}

// Of what chunks throw, what the first of them does.
class FirstError {
 public:
  // f(), of this chunk.
  template <class F>
  void keep(std::size_t chunk, const F& f) {
    try {
      f();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (chunk >= first_) return;
      first_ = chunk;
      error_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::size_t first_ = ~std::size_t{0};
  std::exception_ptr error_;
};

// While one lives, what this thread starts stays on it, and chunks run in order, or from the last to the first: the
// checker's way of finding a kernel that minds.
enum class ChunkOrder : std::uint8_t { any, ascending, descending };
class ChunkScope {
 public:
  explicit ChunkScope(ChunkOrder order);
  ~ChunkScope();
  ChunkScope(const ChunkScope&) = delete;
  ChunkScope& operator=(const ChunkScope&) = delete;
  // Whether one lives on this thread.
  [[nodiscard]] static bool any();

 private:
  ChunkOrder outer_;
};

// How what was run is cut: the number of parts (the most that a job of it had), and what share of all its work is in
// the longest ones, one of each job. What starts no job is one part.
struct Cut {
  std::size_t parts = 1;
  double longest = 1;
};

// While one lives, it notes the jobs that this thread starts.
class CutRecorder {
 public:
  CutRecorder();
  ~CutRecorder();
  CutRecorder(const CutRecorder&) = delete;
  CutRecorder& operator=(const CutRecorder&) = delete;

  // Since it was made, or since this was called last.
  [[nodiscard]] Cut take();
  void add(std::size_t chunks, const void* context, ChunkWork work);

 private:
  CutRecorder* outer_;
  std::size_t parts_ = 1;
  double longest_ = 0;
  double all_ = 0;
};

// How many processors a thread may use; 0: the calling one.
int processors_of(int thread = 0);

// Sees to it that each thread's scratch memory has at least so many bytes, now and after set_num_threads(). Waits for
// the jobs that are under way. Throws Error where that would be for ever, in a chunk.
void reserve_scratch(std::size_t bytes);

// While one lives, the pool takes it that the process may use so many processors: for tests.
class AssumedProcessors {
 public:
  explicit AssumedProcessors(int processors);
  ~AssumedProcessors();
  AssumedProcessors(const AssumedProcessors&) = delete;
  AssumedProcessors& operator=(const AssumedProcessors&) = delete;
};

}  // namespace chainrule::detail
