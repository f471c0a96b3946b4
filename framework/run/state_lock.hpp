// The lock of a State: any number of readers or one writer. Not installed.
//
// A program's run is to take it for as good as nothing where nobody is in its way. So each program has a seat, a word
// of its own, that says whether it is running, which a second thread must be told anyway, and whether it reads: a
// reading run takes one atomic exchange, in its seat, where a count that all readers share would take three. A writer
// looks at all seats. Who finds the lock taken looks again after a while; nobody is woken, so that nobody has to ask at
// the end of a run whether there is someone to wake.
//
// Neither training nor inference in a tight loop shuts the other out: readers that come while a writer writes, or waits
// for readers, wait; and a writer lets those that waited go first.
#pragma once

#include <atomic>
#include <cstdint>

#include <chainrule/framework/core/error.hpp>

namespace chainrule::detail {

class StateLock {
 public:
  // Of one program, which is run by one thread at a time.
  class alignas(64) Seat {
   public:
    // `free`: it does not run. `busy`: it does, and does not read (yet).
    enum class Use : std::uint8_t { free, busy, reading };
    // False where the seat is in use.
    [[nodiscard]] bool sit(Use use) {
      Use now = Use::free;
      return use_.compare_exchange_strong(now, use, std::memory_order_seq_cst);
    }
    void stand_up() { use_.store(Use::free, std::memory_order_release); }

   private:
    friend class StateLock;
    std::atomic<Use> use_{Use::free};
    std::atomic<bool> taken_{true};  // by a program
    Seat* next_ = nullptr;
  };

  StateLock() = default;
  // What is copied is what the lock guards; each copy has a lock of its own.
  StateLock(const StateLock& /*other*/) {}
  StateLock& operator=(const StateLock& /*other*/) = delete;
  ~StateLock();

  [[nodiscard]] Seat& take_seat();
  static void give_back(Seat& seat) { seat.taken_.store(false, std::memory_order_release); }

  // For a seat that says that it reads: waits until it may.
  void read(Seat& seat) {
    if (writer_.load(std::memory_order_seq_cst)) wait_to_read(seat);
  }
  // For readers without a seat.
  void lock_shared();
  void unlock_shared() { guests_.fetch_sub(1, std::memory_order_release); }

  void lock();
  void unlock() { writer_.store(false, std::memory_order_release); }

 private:
  void wait_to_read(Seat& seat);
  void wait_for_readers();
  // For one that said that it reads: leave() takes that back, enter() says it again.
  template <class Leave, class Enter>
  void wait_for_writer(Leave leave, Enter enter);

  // Whether one writes, or has only to wait for those that still read.
  std::atomic<bool> writer_{false};
  std::atomic<int> waiting_readers_{0};
  std::atomic<int> guests_{0};
  std::atomic<Seat*> seats_{nullptr};  // a list that only grows; seats are taken again
};

// Holds a State's lock while it lives. What its thread holds already, by a guard further out, it does not wait for: a
// kernel may look into the State of the run that it is part of. To write where the thread only reads is an Error.
class StateGuard {
 public:
  enum class For : std::uint8_t { reading, writing };
  StateGuard(StateLock& lock, For use, Location at = {});
  // For reading, of a program whose seat says that it does.
  StateGuard(StateLock& lock, StateLock::Seat& seat);
  ~StateGuard();
  StateGuard(const StateGuard&) = delete;
  StateGuard& operator=(const StateGuard&) = delete;

 private:
  enum class Unlock : std::uint8_t { nothing, shared, exclusive };
  [[nodiscard]] bool held(Location at) const;

  StateLock& lock_;
  For use_;
  Unlock unlock_ = Unlock::nothing;
  const StateGuard* outer_;
};

}  // namespace chainrule::detail
