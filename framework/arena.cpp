// Where buffers lie in the arena: dynamic storage allocation with all lifetimes known.
//
// Two heuristics, the better result taken. In turn: those of the busiest step first, each in the gap that fits it best
// during its whole life; as long as that needs more than the lower bound, the buffer that reaches highest goes to the
// front and all are placed again. It nearly always meets the bound, and takes time in proportion to the square of the
// buffers. In time: as a best-fit allocator would, from the first step to the last; n log n, for graphs of many
// thousand steps.
#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include <chainrule/framework/plan.hpp>

namespace chainrule::detail {

namespace {

constexpr std::size_t most_in_turn = 3000;  // buffers
constexpr std::size_t most_attempts = 100;
constexpr std::size_t most_comparisons = 20'000'000;  // of two buffers, in all attempts: some 50 ms

bool overlap(const Buffer& a, const Buffer& b) { return a.first <= b.last && b.first <= a.last; }

// Buffers alive in the busiest step first, then those of the next busy one; long-lived and large ones before others.
std::vector<std::size_t> by_busiest_step(const std::vector<Buffer>& buffers) {
  std::size_t steps = 0;
  for (const Buffer& b : buffers) steps = std::max(steps, b.last + 1);
  std::vector<std::size_t> use(steps, 0);
  for (const Buffer& b : buffers)
    for (std::size_t s = b.first; s <= b.last; ++s) use[s] += b.bytes;
  std::vector<std::size_t> busiest;
  for (const Buffer& b : buffers)
    busiest.push_back(*std::max_element(use.begin() + static_cast<std::ptrdiff_t>(b.first),
                                        use.begin() + static_cast<std::ptrdiff_t>(b.last) + 1));
  std::vector<std::size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const auto life = [&](std::size_t i) { return buffers[i].last - buffers[i].first; };
    return std::tuple(busiest[a], life(a), buffers[a].bytes) > std::tuple(busiest[b], life(b), buffers[b].bytes);
  });
  return order;
}

// Sets the offsets and returns the size of the arena.
std::size_t place_in_order(std::vector<Buffer>& buffers, const std::vector<std::size_t>& order) {
  std::vector<std::size_t> placed;  // by offset
  std::size_t arena = 0;
  for (const std::size_t i : order) {
    Buffer& buffer = buffers[i];
    std::size_t offset = 0;
    std::size_t best = ~std::size_t{0};
    std::size_t best_gap = ~std::size_t{0};
    for (const std::size_t j : placed) {
      const Buffer& other = buffers[j];
      if (!overlap(buffer, other)) continue;
      if (other.offset >= offset + buffer.bytes && other.offset - offset < best_gap) {
        best = offset;
        best_gap = other.offset - offset;
      }
      offset = std::max(offset, other.offset + other.bytes);
    }
    buffer.offset = best == ~std::size_t{0} ? offset : best;
    arena = std::max(arena, buffer.offset + buffer.bytes);
    const auto at = std::upper_bound(placed.begin(), placed.end(), i, [&](std::size_t a, std::size_t b) {
      return buffers[a].offset < buffers[b].offset;
    });
    placed.insert(at, i);
  }
  return arena;
}

std::size_t place_in_turn(std::vector<Buffer>& buffers) {
  const std::size_t bound = largest_overlap(buffers);
  const std::size_t n = std::max<std::size_t>(1, buffers.size());
  const std::size_t attempts = std::clamp<std::size_t>(most_comparisons / (n * n), 1, most_attempts);
  std::vector<std::size_t> order = by_busiest_step(buffers);
  std::vector<Buffer> best;
  std::size_t least = ~std::size_t{0};
  for (std::size_t attempt = 0; attempt < attempts && least > bound; ++attempt) {
    const std::size_t arena = place_in_order(buffers, order);
    if (arena < least) {
      least = arena;
      best = buffers;
    }
    const auto highest = std::find_if(order.begin(), order.end(),
                                      [&](std::size_t i) { return buffers[i].offset + buffers[i].bytes == arena; });
    if (highest != order.end()) std::rotate(order.begin(), highest, highest + 1);
  }
  buffers = std::move(best);
  return least;
}

std::size_t place_in_time(std::vector<Buffer>& buffers) {
  std::vector<std::size_t> starts(buffers.size());
  std::iota(starts.begin(), starts.end(), std::size_t{0});
  std::vector<std::size_t> ends = starts;
  // Of those that start together the largest first: small ones fill what is left.
  std::stable_sort(starts.begin(), starts.end(), [&](std::size_t a, std::size_t b) {
    return buffers[a].first != buffers[b].first ? buffers[a].first < buffers[b].first
                                                : buffers[a].bytes > buffers[b].bytes;
  });
  std::stable_sort(ends.begin(), ends.end(),
                   [&](std::size_t a, std::size_t b) { return buffers[a].last < buffers[b].last; });
  std::map<std::size_t, std::size_t> free_at;                  // offset -> bytes
  std::set<std::pair<std::size_t, std::size_t>> free_by_size;  // (bytes, offset)
  const auto add = [&](std::size_t offset, std::size_t bytes) {
    free_at.emplace(offset, bytes);
    free_by_size.emplace(bytes, offset);
  };
  const auto remove = [&](std::map<std::size_t, std::size_t>::iterator it) {
    free_by_size.erase({it->second, it->first});
    return free_at.erase(it);
  };
  std::size_t arena = 0;
  std::size_t ended = 0;
  for (const std::size_t i : starts) {
    for (; ended < ends.size() && buffers[ends[ended]].last < buffers[i].first; ++ended) {
      std::size_t offset = buffers[ends[ended]].offset;
      std::size_t bytes = buffers[ends[ended]].bytes;
      auto next = free_at.lower_bound(offset);
      if (next != free_at.end() && next->first == offset + bytes) {
        bytes += next->second;
        next = remove(next);
      }
      if (next != free_at.begin()) {
        const auto before = std::prev(next);
        if (before->first + before->second == offset) {
          offset = before->first;
          bytes += before->second;
          remove(before);
        }
      }
      add(offset, bytes);
    }
    Buffer& buffer = buffers[i];
    const auto fit = free_by_size.lower_bound({buffer.bytes, 0});
    if (fit != free_by_size.end()) {
      const auto [bytes, offset] = *fit;
      remove(free_at.find(offset));
      buffer.offset = offset;
      if (bytes > buffer.bytes) add(offset + buffer.bytes, bytes - buffer.bytes);
    } else {
      // The last free piece, if it is at the end, is made longer.
      buffer.offset = arena;
      if (!free_at.empty()) {
        const auto last = std::prev(free_at.end());
        if (last->first + last->second == arena) {
          buffer.offset = last->first;
          remove(last);
        }
      }
      arena = buffer.offset + buffer.bytes;
    }
  }
  return arena;
}

}  // namespace

std::size_t place_buffers(std::vector<Buffer>& buffers) {
  if (buffers.empty()) return 0;
  std::vector<Buffer> in_time = buffers;
  const std::size_t arena_in_time = place_in_time(in_time);
  if (buffers.size() <= most_in_turn) {
    const std::size_t arena_in_turn = place_in_turn(buffers);
    if (arena_in_turn <= arena_in_time) return arena_in_turn;
  }
  buffers = std::move(in_time);
  return arena_in_time;
}

std::size_t largest_overlap(const std::vector<Buffer>& buffers) {
  std::size_t steps = 0;
  for (const Buffer& b : buffers) steps = std::max(steps, b.last + 1);
  std::vector<std::ptrdiff_t> change(steps + 1, 0);  // at a step: what begins less what ended before it
  for (const Buffer& b : buffers) {
    change[b.first] += static_cast<std::ptrdiff_t>(b.bytes);
    change[b.last + 1] -= static_cast<std::ptrdiff_t>(b.bytes);
  }
  std::ptrdiff_t now = 0;
  std::ptrdiff_t most = 0;
  for (const std::ptrdiff_t bytes : change) most = std::max(most, now += bytes);
  return static_cast<std::size_t>(most);
}

}  // namespace chainrule::detail
