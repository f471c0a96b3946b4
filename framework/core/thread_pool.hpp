// The library's threads. Not installed.
//
// One pool for the process. Work is cut into chunks whose number and bounds follow from sizes alone, never from the
// number of threads, so every thread count gives the same bits; threads take chunks as they become free, so one that
// the machine holds up delays the others by a chunk at most. Idle threads spin for some microseconds, then sleep.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chainrule::detail {

// Calls run(context, chunk, scratch) for each chunk below `chunks`, in any order and on several threads, and returns
// when all have ended. `scratch` is memory of the thread's own of what reserve_scratch() asked for, or null on the
// calling thread, which has its own. Runs on the calling thread alone where another one is using the pool. `run` must
// not throw.
using ChunkRun = void (*)(const void* context, std::size_t chunk, void* scratch);
void run_chunks(std::size_t chunks, ChunkRun run, const void* context);

template <class F>
void parallel_for(std::size_t chunks, const F& f) {
  run_chunks(
      chunks,
      [](const void* context, std::size_t chunk, void* scratch) { (*static_cast<const F*>(context))(chunk, scratch); },
      &f);
}

// While one lives, what this thread starts stays on it, and chunks run in order, or from the last to the first: the
// checker's way of finding a kernel that minds.
enum class ChunkOrder : std::uint8_t { any, ascending, descending };
class ChunkScope {
 public:
  explicit ChunkScope(ChunkOrder order);
  ~ChunkScope();
  ChunkScope(const ChunkScope&) = delete;
  ChunkScope& operator=(const ChunkScope&) = delete;

 private:
  ChunkOrder outer_;
};

// How many processors this process may use.
int processors();

// Sees to it that each thread's scratch memory has at least so many bytes, now and after set_num_threads().
void reserve_scratch(std::size_t bytes);

}  // namespace chainrule::detail
