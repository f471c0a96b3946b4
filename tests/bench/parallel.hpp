// A loop over [0, count) cut into one piece a thread, for what is written by hand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace bench {

// f(begin, end, thread)
template <class F>
void parallel_for(std::int64_t count, int threads, const F& f) {
  const std::int64_t piece = (count + threads - 1) / threads;
  std::vector<std::jthread> others;
  for (int i = 1; i < threads; ++i)
    others.emplace_back([&, i] { f(std::min(count, i * piece), std::min(count, (i + 1) * piece), i); });
  f(0, std::min(count, piece), 0);
}

}  // namespace bench
