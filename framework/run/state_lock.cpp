#include <chainrule/framework/run/state_lock.hpp>

#include <chrono>
#include <thread>

namespace chainrule::detail {

namespace {

// Of this thread: the one that was made last.
constinit thread_local const StateGuard* innermost = nullptr;

// What waits: others may run first, then for some time.
class Patience {
 public:
  void wait() {
    if (looks_++ < 200) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

 private:
  int looks_ = 0;
};

}  // namespace

StateLock::~StateLock() {
  for (Seat* seat = seats_.load(); seat;) {
    Seat* const next = seat->next_;
    delete seat;
    seat = next;
  }
}

StateLock::Seat& StateLock::take_seat() {
  for (Seat* seat = seats_.load(std::memory_order_acquire); seat; seat = seat->next_)
    if (bool taken = false; seat->taken_.compare_exchange_strong(taken, true)) return *seat;
  auto* seat = new Seat;
  seat->next_ = seats_.load(std::memory_order_relaxed);
  while (!seats_.compare_exchange_weak(seat->next_, seat, std::memory_order_seq_cst)) {
  }
  return *seat;
}

template <class Leave, class Enter>
void StateLock::wait_for_writer(Leave leave, Enter enter) {
  waiting_readers_.fetch_add(1, std::memory_order_seq_cst);
  Patience patience;
  do {
    leave();
    while (writer_.load(std::memory_order_acquire)) patience.wait();
    enter();
  } while (writer_.load(std::memory_order_seq_cst));
  waiting_readers_.fetch_sub(1, std::memory_order_seq_cst);
}

void StateLock::wait_to_read(Seat& seat) {
  wait_for_writer([&] { seat.use_.store(Seat::Use::busy, std::memory_order_release); },
                  [&] { seat.use_.store(Seat::Use::reading, std::memory_order_seq_cst); });
}

void StateLock::lock_shared() {
  guests_.fetch_add(1, std::memory_order_seq_cst);
  if (!writer_.load(std::memory_order_seq_cst)) return;
  wait_for_writer([&] { unlock_shared(); }, [&] { guests_.fetch_add(1, std::memory_order_seq_cst); });
}

void StateLock::lock() {
  Patience patience;
  for (bool writer = false; waiting_readers_.load(std::memory_order_relaxed) > 0 ||
                            !writer_.compare_exchange_strong(writer, true, std::memory_order_seq_cst);
       writer = false)
    patience.wait();
  wait_for_readers();
}

void StateLock::wait_for_readers() {
  Patience patience;
  for (const Seat* seat = seats_.load(std::memory_order_seq_cst); seat; seat = seat->next_)
    while (seat->use_.load(std::memory_order_seq_cst) == Seat::Use::reading) patience.wait();
  while (guests_.load(std::memory_order_seq_cst) > 0) patience.wait();
}

StateGuard::StateGuard(StateLock& lock, For use, Location at) : lock_(lock), use_(use), outer_(innermost) {
  if (!held(at)) {
    if (use == For::writing) {
      lock.lock();
      unlock_ = Unlock::exclusive;
    } else {
      lock.lock_shared();
      unlock_ = Unlock::shared;
    }
  }
  innermost = this;
}

StateGuard::StateGuard(StateLock& lock, StateLock::Seat& seat) : lock_(lock), use_(For::reading), outer_(innermost) {
  if (!held({})) lock.read(seat);
  innermost = this;
}

StateGuard::~StateGuard() {
  innermost = outer_;
  if (unlock_ == Unlock::exclusive) lock_.unlock();
  if (unlock_ == Unlock::shared) lock_.unlock_shared();
}

bool StateGuard::held(Location at) const {
  for (const StateGuard* guard = outer_; guard; guard = guard->outer_) {
    if (&guard->lock_ != &lock_) continue;
    if (use_ == For::writing && guard->use_ == For::reading)
      throw Error(at, "state", "requires a State that may be written, got one that a run of this thread is reading");
    return true;
  }
  return false;
}

}  // namespace chainrule::detail
