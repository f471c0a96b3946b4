// The lock of a State: any number of readers or one writer. Not installed.
//
// It is phase-fair: readers that come while a writer writes or waits read right after it, all together, and a writer
// waits for the readers of one phase at most. So neither training nor inference in a tight loop shuts the other out,
// which std::shared_mutex does not promise. Locked and released without a rival it takes two atomic operations.
#pragma once

#include <atomic>
#include <cstdint>

#include <chainrule/framework/error.hpp>

namespace chainrule::detail {

class StateLock {
 public:
  StateLock() = default;
  // What is copied is what the lock guards; each copy has a lock of its own.
  StateLock(const StateLock& /*other*/) {}
  StateLock& operator=(const StateLock& /*other*/) { return *this; }
  ~StateLock() = default;

  void lock_shared() {
    std::uint64_t now = word_.load(std::memory_order_relaxed);
    if ((now & (writer | all_waiting_writers)) != 0 ||
        !word_.compare_exchange_strong(now, now + reader, std::memory_order_acquire))
      wait_to_read();
  }
  void unlock_shared() {
    word_.fetch_sub(reader, std::memory_order_seq_cst);
    wake();
  }
  void lock() {
    std::uint64_t now = word_.load(std::memory_order_relaxed);
    if ((now & ~phase) != 0 || !word_.compare_exchange_strong(now, now | writer, std::memory_order_acquire))
      wait_to_write();
  }
  void unlock() {
    std::uint64_t now = word_.load(std::memory_order_relaxed);
    // Those that wait to read do so from here on.
    while (!word_.compare_exchange_weak(now, handed_over(now), std::memory_order_seq_cst, std::memory_order_relaxed)) {
    }
    wake();
  }

 private:
  // The fields of the word: numbers of readers, of threads that wait to read and to write; whether there is a writer;
  // and a bit that changes whenever a writer hands over to waiting readers.
  static constexpr int field = 20;
  static constexpr std::uint64_t reader = 1;
  static constexpr std::uint64_t waiting_reader = reader << field;
  static constexpr std::uint64_t waiting_writer = waiting_reader << field;
  static constexpr std::uint64_t writer = waiting_writer << field;
  static constexpr std::uint64_t phase = writer << 1;
  static constexpr std::uint64_t all_readers = waiting_reader - reader;
  static constexpr std::uint64_t all_waiting_readers = waiting_writer - waiting_reader;
  static constexpr std::uint64_t all_waiting_writers = writer - waiting_writer;

  static constexpr std::uint64_t handed_over(std::uint64_t now) {
    const std::uint64_t readers = (now & all_waiting_readers) >> field;
    return ((now & ~writer & ~all_waiting_readers) | readers) ^ (readers > 0 ? phase : 0);
  }
  void wake() {
    if (sleepers_.load(std::memory_order_seq_cst) > 0) word_.notify_all();
  }
  void wait_to_read();
  void wait_to_write();
  // Until the word is no longer this, or for no reason.
  void wait_for_change(int& spins, std::uint64_t from);

  std::atomic<std::uint64_t> word_{0};
  std::atomic<int> sleepers_{0};
};

// Holds a State's lock while it lives. What its thread holds already, by a guard further out, it does not wait for: a
// kernel may look into the State of the run that it is part of. To write where the thread only reads is an Error.
class StateGuard {
 public:
  enum class For : std::uint8_t { reading, writing };
  StateGuard(StateLock& lock, For use, Location at = {});
  ~StateGuard();
  StateGuard(const StateGuard&) = delete;
  StateGuard& operator=(const StateGuard&) = delete;

 private:
  [[nodiscard]] bool held(Location at) const;

  StateLock* lock_;  // null where an outer guard holds it
  const StateLock* of_;
  For use_;
  const StateGuard* outer_;
};

}  // namespace chainrule::detail
