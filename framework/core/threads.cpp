#include <chainrule/framework/core/threads.hpp>

#include <algorithm>

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
    FirstError error;

    [[nodiscard]] std::int64_t begin(std::size_t chunk) const { return static_cast<std::int64_t>(chunk) * grain; }
    [[nodiscard]] std::int64_t size(std::size_t chunk) const { return std::min(grain, count - begin(chunk)); }
  } work{count, grain, run, context, {}};
  run_chunks(
      static_cast<std::size_t>((count - 1) / grain + 1),
      [](const void* all, std::size_t chunk, void* /*scratch*/) {
        auto& w = *static_cast<Work*>(const_cast<void*>(all));
        w.error.keep(chunk, [&] { w.run(w.context, w.begin(chunk), w.begin(chunk) + w.size(chunk)); });
      },
      &work,
      [](const void* all, std::size_t chunk) {
        return static_cast<double>(static_cast<const Work*>(all)->size(chunk));
      });
  work.error.rethrow();
}

}  // namespace chainrule::detail
