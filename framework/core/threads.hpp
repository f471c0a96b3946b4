// How many threads a run may use, and their use by kernels.
#pragma once

#include <cstdint>

#include <chainrule/framework/core/error.hpp>

namespace chainrule {

// At most this many threads work on one run, the calling one included; 1: no other thread is ever started. At first it
// is the environment variable CHAINRULE_NUM_THREADS, or where that is not set the number of processors that the process
// may use. Only large steps are split. Results do not depend on the number, to the bit; so where the system refuses to
// start as many, a run goes on with those that there are (until set_num_threads() is called again).
// Runs of several programs at once share these threads: beside the threads that call, there are num_threads() - 1 in
// the process, of which no more work at a time than it has processors left. Those that have nothing to do sleep after
// some 50 us. The child of a fork has threads of its own. Which steps run side by side is decided when a plan is made,
// for the number of that time.
//
// num_threads() throws Error where the environment variable is no number from 1 to 1024 (and so does Program's
// constructor, so that a run need not), set_num_threads() for one outside of that range. Both may be called from any
// thread; set_num_threads() waits for a step that is under way in another one, and throws Error in a range of
// parallel_for(), which it would wait for.
[[nodiscard]] int num_threads();
void set_num_threads(int threads, Location at = Location::here());

namespace detail {
using RangeRun = void (*)(const void* context, std::int64_t begin, std::int64_t end);
void run_ranges(std::int64_t count, std::int64_t grain, RangeRun run, const void* context);
}  // namespace detail

// For kernels: calls f(begin, end) for ranges that together are [0, count), on the library's threads and in any order,
// and returns when all have ended. A range has `grain` elements, the last maybe fewer: that follows from sizes alone,
// so where f writes what is its range's and reads what no other writes, results have the same bits for every number of
// threads. (check_gradients() tries that with small ranges, in several orders.) A grain that is worth another thread's
// while takes some 10 us. Of what calls of f throw, that of the first range is thrown. Throws Error for a grain
// below 1.
template <class F>
void parallel_for(std::int64_t count, std::int64_t grain, const F& f) {
  detail::run_ranges(
      count, grain,
      [](const void* context, std::int64_t begin, std::int64_t end) { (*static_cast<const F*>(context))(begin, end); },
      &f);
}

}  // namespace chainrule
