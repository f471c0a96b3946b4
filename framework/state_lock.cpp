#include <chainrule/framework/state_lock.hpp>

#include <thread>

namespace chainrule::detail {

namespace {

// Of this thread: the one that was made last.
constinit thread_local const StateGuard* innermost = nullptr;

constexpr int most_spins = 200;

}  // namespace

void StateLock::wait_for_change(int& spins, std::uint64_t from) {
  if (spins++ < most_spins) {
    std::this_thread::yield();
    return;
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  word_.wait(from, std::memory_order_seq_cst);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

void StateLock::wait_to_read() {
  std::uint64_t now = word_.load(std::memory_order_relaxed);
  for (;;) {
    const bool must_wait = (now & (writer | all_waiting_writers)) != 0;
    if (!word_.compare_exchange_weak(now, now + (must_wait ? waiting_reader : reader), std::memory_order_acquire,
                                     std::memory_order_relaxed))
      continue;
    if (!must_wait) return;
    break;
  }
  // The writer that ends this phase counts it among the readers.
  const std::uint64_t joined = now & phase;
  int spins = 0;
  while (((now = word_.load(std::memory_order_acquire)) & phase) == joined) wait_for_change(spins, now);
}

void StateLock::wait_to_write() {
  word_.fetch_add(waiting_writer, std::memory_order_relaxed);
  int spins = 0;
  for (;;) {
    std::uint64_t now = word_.load(std::memory_order_relaxed);
    if ((now & (writer | all_readers)) != 0) {
      wait_for_change(spins, now);
    } else if (word_.compare_exchange_weak(now, (now - waiting_writer) | writer, std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
      return;
    }
  }
}

StateGuard::StateGuard(StateLock& lock, For use, Location at) : lock_(&lock), of_(&lock), use_(use), outer_(innermost) {
  if (held(at)) {
    lock_ = nullptr;
  } else if (use == For::writing) {
    lock.lock();
  } else {
    lock.lock_shared();
  }
  innermost = this;
}

StateGuard::~StateGuard() {
  innermost = outer_;
  if (!lock_) return;
  if (use_ == For::writing) {
    lock_->unlock();
  } else {
    lock_->unlock_shared();
  }
}

bool StateGuard::held(Location at) const {
  for (const StateGuard* guard = outer_; guard; guard = guard->outer_) {
    if (guard->of_ != of_) continue;
    if (use_ == For::writing && guard->use_ == For::reading)
      throw Error(at, "state", "requires a State that may be written, got one that a run of this thread is reading");
    return true;
  }
  return false;
}

}  // namespace chainrule::detail
