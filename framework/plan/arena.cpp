// Where buffers lie in the arena: dynamic storage allocation with all lifetimes known.
//
// Two heuristics, the better result taken. In turn: from several orders (those of the busiest step first, the largest,
// the longest-lived, ...) each buffer in the gap that fits it best during its whole life, or in the lowest; as long as
// that needs more than the lower bound, the buffer that reaches highest goes to the front and all are placed again; and
// where that ends well above the bound, buffers change places at random. It nearly always meets the bound, and takes
// time in proportion to the pairs of buffers in use at the same time. In time: as a best-fit allocator would, from the
// first step to the last, or from the last to the first; n log n, for graphs of many thousand steps.
#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <tuple>

#include <chainrule/framework/plan/plan.hpp>

namespace chainrule::detail {

namespace {

constexpr std::size_t most_pairs = 1'000'000;  // in use at the same time; of more none is placed in turn
constexpr std::size_t most_attempts = 100;     // from an order
constexpr std::size_t most_exchanges = 3000;
constexpr double close_enough = 1.02;                // of the lower bound: nothing is exchanged for less
constexpr std::size_t most_comparisons = 4'000'000;  // of two buffers, in all attempts: some 50 ms

using Order = std::vector<std::size_t>;

// Buffers alive in the busiest step first, then those of the next busy one; long-lived and large ones before others.
Order by_busiest_step(const std::vector<Buffer>& buffers) {
  std::size_t steps = 0;
  for (const Buffer& b : buffers) steps = std::max(steps, b.last + 1);
  std::vector<std::size_t> use(steps, 0);
  for (const Buffer& b : buffers)
    for (std::size_t s = b.first; s <= b.last; ++s) use[s] += b.bytes;
  std::vector<std::size_t> busiest;
  busiest.reserve(buffers.size());
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

// Of the gaps that are large enough.
enum class Fit : std::uint8_t { best, lowest };

class Turns {
 public:
  Turns(std::vector<Buffer> buffers, std::size_t bound) : buffers_(std::move(buffers)), bound_(bound) {}

  // Sets the offsets and returns the size of the arena, unless there are too many pairs of buffers.
  std::optional<std::size_t> place(std::vector<Buffer>& buffers) {
    if (!find_neighbours()) return {};
    improve(by_busiest_step(buffers_), Fit::best);
    const auto by = [&](auto&& size) {
      Order order(buffers_.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(),
                       [&](std::size_t a, std::size_t b) { return size(buffers_[a]) > size(buffers_[b]); });
      return order;
    };
    const auto life = [](const Buffer& b) { return b.last - b.first + 1; };
    for (const Fit fit : {Fit::lowest, Fit::best}) {
      improve(by([](const Buffer& b) { return b.bytes; }), fit);
      improve(by([&](const Buffer& b) { return b.bytes * life(b); }), fit);
      improve(by([&](const Buffer& b) { return std::pair(life(b), b.bytes); }), fit);
    }
    improve(by_busiest_step(buffers_), Fit::lowest);
    exchange();
    buffers = std::move(best_);
    return least_;
  }

 private:
  // Of each buffer those that are in use at the same time.
  bool find_neighbours() {
    const std::size_t n = buffers_.size();
    Order starts(n);
    std::iota(starts.begin(), starts.end(), std::size_t{0});
    std::sort(starts.begin(), starts.end(),
              [&](std::size_t a, std::size_t b) { return buffers_[a].first < buffers_[b].first; });
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    Order alive;
    for (const std::size_t i : starts) {
      std::erase_if(alive, [&](std::size_t k) { return buffers_[k].last < buffers_[i].first; });
      for (const std::size_t k : alive) pairs.emplace_back(i, k);
      alive.push_back(i);
      if (pairs.size() > most_pairs) return false;
    }
    begins_.assign(n + 2, 0);
    for (const auto& [a, b] : pairs) {
      ++begins_[a + 2];
      ++begins_[b + 2];
    }
    std::partial_sum(begins_.begin(), begins_.end(), begins_.begin());
    neighbours_.resize(2 * pairs.size());
    for (const auto& [a, b] : pairs) {
      neighbours_[begins_[a + 1]++] = b;
      neighbours_[begins_[b + 1]++] = a;
    }
    return true;
  }

  // Sets the offsets, up to the first buffer that reaches higher than `limit`: that one is returned, or none.
  std::size_t place_in_order(const Order& order, Fit fit, std::size_t limit) {
    placed_.assign(buffers_.size(), 0);
    arena_ = 0;
    for (const std::size_t i : order) {
      Buffer& buffer = buffers_[i];
      taken_.clear();
      for (std::size_t k = begins_[i]; k < begins_[i + 1]; ++k)
        if (const Buffer& other = buffers_[neighbours_[k]]; placed_[neighbours_[k]])
          taken_.emplace_back(other.offset, other.offset + other.bytes);
      comparisons_ += begins_[i + 1] - begins_[i] + 1;
      std::sort(taken_.begin(), taken_.end());
      std::size_t offset = 0;
      std::size_t best = none;
      std::size_t best_gap = none;
      for (const auto& [begin, end] : taken_) {
        if (begin >= offset + buffer.bytes && begin - offset < best_gap) {
          best = offset;
          best_gap = begin - offset;
          if (fit == Fit::lowest) break;
        }
        offset = std::max(offset, end);
      }
      buffer.offset = best == none ? offset : best;
      placed_[i] = 1;
      arena_ = std::max(arena_, buffer.offset + buffer.bytes);
      if (arena_ > limit) return i;
    }
    return none;
  }

  // Whether there is something to gain, and time.
  [[nodiscard]] bool going_on() const { return least_ == none || (least_ > bound_ && comparisons_ < most_comparisons); }

  // Notes a placement of all buffers, if it is the best so far.
  void note(const Order& order, Fit fit) {
    if (arena_ >= least_) return;
    least_ = arena_;
    best_ = buffers_;
    best_order_ = order;
    best_fit_ = fit;
  }

  // The first that does not find a place below the best arena so far goes to the front.
  void improve(Order order, Fit fit) {
    const std::size_t until = comparisons_ + (most_comparisons - std::min(most_comparisons, comparisons_)) / 4;
    for (std::size_t i = 0; i < most_attempts && going_on() && (i == 0 || comparisons_ < until); ++i) {
      std::size_t outside = place_in_order(order, fit, least_ == none ? none : least_ - 1);
      if (outside == none) {
        note(order, fit);
        outside = *std::find_if(order.begin(), order.end(),
                                [&](std::size_t k) { return buffers_[k].offset + buffers_[k].bytes == arena_; });
      }
      const auto at = std::find(order.begin(), order.end(), outside);
      std::rotate(order.begin(), at, at + 1);
    }
  }

  // From the best order so far: one buffer goes to a place before its own, or two change places. What makes it worse is
  // taken back.
  void exchange() {
    Order order = best_order_;
    auto random = [state = std::uint32_t{1}](std::size_t below) mutable {
      state = state * 1664525U + 1013904223U;
      return static_cast<std::size_t>((std::uint64_t{state} * below) >> 32U);
    };
    for (std::size_t i = 0; i < most_exchanges && going_on(); ++i) {
      if (static_cast<double>(least_) <= close_enough * static_cast<double>(bound_)) return;
      Order other = order;
      if (const std::size_t a = random(other.size()); i % 2 == 0) {
        std::swap(other[a], other[random(other.size())]);
      } else {
        const std::size_t to = random(a + 1);
        std::rotate(other.begin() + static_cast<std::ptrdiff_t>(to), other.begin() + static_cast<std::ptrdiff_t>(a),
                    other.begin() + static_cast<std::ptrdiff_t>(a) + 1);
      }
      if (place_in_order(other, best_fit_, least_) != none) continue;
      note(other, best_fit_);
      order = std::move(other);
    }
  }

  static constexpr std::size_t none = ~std::size_t{0};
  std::vector<Buffer> buffers_;
  std::size_t bound_;
  Order neighbours_;  // of buffer i from begins_[i] to begins_[i + 1]
  std::vector<std::size_t> begins_;
  std::vector<char> placed_;
  std::vector<std::pair<std::size_t, std::size_t>> taken_;
  std::size_t comparisons_ = 0;
  std::size_t arena_ = 0;
  std::size_t least_ = none;
  std::vector<Buffer> best_;
  Order best_order_;
  Fit best_fit_ = Fit::best;
};

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

// The same from the last step to the first: the size of the arena, and `placed` so, if it is less than `arena`.
std::size_t place_against_time(const std::vector<Buffer>& buffers, std::size_t arena, std::vector<Buffer>& placed) {
  std::size_t end = 0;
  for (const Buffer& b : buffers) end = std::max(end, b.last);
  std::vector<Buffer> reversed = buffers;
  for (Buffer& b : reversed) std::tie(b.first, b.last) = std::pair(end - b.last, end - b.first);
  const std::size_t needed = place_in_time(reversed);
  if (needed >= arena) return arena;
  for (std::size_t i = 0; i < buffers.size(); ++i) placed[i].offset = reversed[i].offset;
  return needed;
}

}  // namespace

std::size_t place_buffers(std::vector<Buffer>& buffers) {
  if (buffers.empty()) return 0;
  std::vector<Buffer> in_time = buffers;
  std::size_t arena_in_time = place_in_time(in_time);
  const std::size_t bound = largest_overlap(buffers);
  if (arena_in_time > bound) arena_in_time = place_against_time(buffers, arena_in_time, in_time);
  if (arena_in_time > bound)
    if (const auto arena = Turns(buffers, bound).place(buffers); arena && *arena <= arena_in_time) return *arena;
  buffers = std::move(in_time);
  return arena_in_time;
}

std::size_t largest_overlap(const std::vector<Buffer>& buffers, std::size_t* step) {
  std::size_t steps = 0;
  for (const Buffer& b : buffers) steps = std::max(steps, b.last + 1);
  std::vector<std::ptrdiff_t> change(steps + 1, 0);  // at a step: what begins less what ended before it
  for (const Buffer& b : buffers) {
    change[b.first] += static_cast<std::ptrdiff_t>(b.bytes);
    change[b.last + 1] -= static_cast<std::ptrdiff_t>(b.bytes);
  }
  std::ptrdiff_t now = 0;
  std::ptrdiff_t most = 0;
  for (std::size_t at = 0; at < change.size(); ++at) {
    now += change[at];
    if (now <= most) continue;
    most = now;
    if (step) *step = at;
  }
  return static_cast<std::size_t>(most);
}

}  // namespace chainrule::detail
