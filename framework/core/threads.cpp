#include <chainrule/framework/core/threads.hpp>

#include <algorithm>
#include <exception>
#include <mutex>

#include <fmt/core.h>

#include <chainrule/framework/core/thread_pool.hpp>

namespace chainrule::detail {

void run_ranges(std::int64_t count, std::int64_t grain, RangeRun run, const void* context) {
  if (grain < 1) throw Error("parallel_for", fmt::format("requires a grain of 1 or more, got {}", grain));
  if (count <= 0) return;
  if (ChunkScope::any()) grain = std::min(grain, std::max<std::int64_t>(1, (count + 3) / 4));  // samples are small
  struct Work {
    std::int64_t count;
    std::int64_t grain;
    RangeRun run;
    const void* context;
    std::mutex mutex;
    std::size_t first_failed = ~std::size_t{0};
    std::exception_ptr error;

    [[nodiscard]] std::int64_t begin(std::size_t chunk) const { return static_cast<std::int64_t>(chunk) * grain; }
    [[nodiscard]] std::int64_t end(std::size_t chunk) const {
      return begin(chunk) + std::min(grain, count - begin(chunk));
    }
  } work{count, grain, run, context, {}, ~std::size_t{0}, {}};
  run_chunks(
      static_cast<std::size_t>((count - 1) / grain + 1),
      [](const void* all, std::size_t chunk, void* /*scratch*/) {
        auto& w = *static_cast<Work*>(const_cast<void*>(all));
        try {
          w.run(w.context, w.begin(chunk), w.end(chunk));
        } catch (...) {
          const std::lock_guard lock(w.mutex);
          if (chunk >= w.first_failed) return;
          w.first_failed = chunk;
          w.error = std::current_exception();
        }
      },
      &work,
      [](const void* all, std::size_t chunk) {
        const auto& w = *static_cast<const Work*>(all);
        return static_cast<double>(w.end(chunk) - w.begin(chunk));
      });
  if (work.error) std::rethrow_exception(work.error);
}

}  // namespace chainrule::detail
