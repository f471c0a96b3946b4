#include <chainrule/framework/train/interrupt.hpp>

#include <atomic>
#include <csignal>
#include <mutex>

namespace chainrule {

namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may use no lock");

std::mutex mutex;
int living = 0;
struct sigaction before {};

extern "C" void note_interrupt(int /*signal*/) { interrupted.store(true, std::memory_order_relaxed); }

}  // namespace

Interrupt::Interrupt() {
  const std::lock_guard lock(mutex);
  if (living++ > 0) return;
  interrupted = false;
  struct sigaction now {};
  now.sa_handler = &note_interrupt;
  // Reset: the second one is the system's to deal with.
  now.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  sigemptyset(&now.sa_mask);
  sigaction(SIGINT, &now, &before);
  if (before.sa_handler == SIG_IGN) sigaction(SIGINT, &before, nullptr);
}

Interrupt::~Interrupt() {
  const std::lock_guard lock(mutex);
  if (--living == 0) sigaction(SIGINT, &before, nullptr);
}

bool Interrupt::requested() const { return interrupted.load(std::memory_order_relaxed); }

}  // namespace chainrule
