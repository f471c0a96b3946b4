// The library's threads themselves: several jobs at once, jobs of jobs, how many work, sleep, and fork.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/core/thread_pool.hpp>

#include "support.hpp"

using namespace chainrule;
using detail::AssumedProcessors;
using detail::Cut;
using detail::CutRecorder;

namespace {

// Sets the number of threads back.
struct Threads {
  int before = num_threads();
  explicit Threads(int now) { set_num_threads(now); }
  ~Threads() { set_num_threads(before); }
};

void nap(int microseconds) { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); }

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Which threads took part, and how many at once.
class Seen {
 public:
  void enter() {
    const std::lock_guard lock(mutex_);
    threads_.insert(std::this_thread::get_id());
    most_ = std::max(most_, ++now_);
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    --now_;
  }
  [[nodiscard]] std::size_t threads() const { return threads_.size(); }
  [[nodiscard]] int most() const { return most_; }

 private:
  std::mutex mutex_;
  std::set<std::thread::id> threads_;
  int now_ = 0;
  int most_ = 0;
};

// What a child process of this one answers: whether f() is true there.
template <class F>
bool in_a_child(F f) {
  const pid_t child = fork();
  if (child == 0) _exit(f() ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST_CASE("jobs of several threads are served at once, each chunk once") {
  const AssumedProcessors processors(8);
  const Threads threads(5);
  const std::size_t users = GENERATE(std::size_t{2}, std::size_t{6}, std::size_t{40});  // of 40 some wait for no worker
  std::vector<std::vector<int>> runs(users, std::vector<int>(300, 0));
  std::vector<std::thread> all;
  for (std::size_t user = 0; user < users; ++user)
    all.emplace_back([&, user] {
      for (int repeat = 0; repeat < 50; ++repeat)
        detail::parallel_for(runs[user].size(), [&](std::size_t chunk, void*) { ++runs[user][chunk]; });
    });
  for (std::thread& user : all) user.join();
  for (const auto& chunks : runs) CHECK(chunks == std::vector<int>(300, 50));
}

TEST_CASE("two jobs that wait for each other's chunks both end: they run at the same time") {
  const AssumedProcessors processors(8);
  const Threads threads(8);
  std::atomic<int> inside = 0;
  // Each job's chunks wait until chunks of both are under way, for a while.
  const auto run = [&] {
    std::atomic<bool> met = false;
    std::atomic<bool> counted = false;
    detail::parallel_for(8, [&](std::size_t, void*) {
      if (!counted.exchange(true)) ++inside;
      for (int i = 0; i < 200'000 && inside < 2; ++i) std::this_thread::yield();
      if (inside == 2) met = true;
    });
    return met.load();
  };
  bool other = false;
  std::thread user([&] { other = run(); });
  const bool own = run();
  user.join();
  CHECK(own);
  CHECK(other);
}

TEST_CASE("there are no more workers than num_threads() - 1, whoever runs how much") {
  const AssumedProcessors processors(64);
  const Threads threads(4);
  Seen seen;  // of the workers: they have scratch memory
  std::vector<std::thread> users;
  for (int user = 0; user < 5; ++user)
    users.emplace_back([&] {
      for (int repeat = 0; repeat < 20; ++repeat)
        detail::parallel_for(20, [&](std::size_t, void* scratch) {
          if (!scratch) return;
          seen.enter();
          nap(20);
          seen.leave();
        });
    });
  for (std::thread& user : users) user.join();
  CHECK(seen.threads() <= 3);
  CHECK(seen.most() <= 3);
}

TEST_CASE("chunks start jobs of their own") {
  const AssumedProcessors processors(8);
  const Threads threads(GENERATE(1, 2, 5));
  std::vector<std::atomic<int>> runs(6 * 5 * 40);
  for (int repeat = 0; repeat < 20; ++repeat)
    detail::parallel_for(6, [&](std::size_t i, void*) {
      detail::parallel_for(5, [&](std::size_t j, void*) {
        detail::parallel_for(40, [&](std::size_t k, void*) { ++runs[(i * 5 + j) * 40 + k]; });
      });
    });
  CHECK(std::all_of(runs.begin(), runs.end(), [](const auto& n) { return n == 20; }));
}

TEST_CASE("what runs side by side starts jobs, whose chunks have scratch memory of their own") {
  const AssumedProcessors processors(8);
  const Threads threads(4);
  constexpr std::size_t bytes = 4096;
  detail::reserve_scratch(bytes);
  std::vector<std::atomic<int>> runs(3 * 60);
  std::atomic<int> wrong = 0;
  for (int repeat = 0; repeat < 50; ++repeat)
    detail::side_by_side(3, [&](std::size_t i) {
      std::vector<unsigned char> own(bytes);
      detail::parallel_for(60, [&](std::size_t j, void* scratch) {
        auto* memory = scratch ? static_cast<unsigned char*>(scratch) : own.data();
        const auto mark = static_cast<unsigned char>(i * 60 + j);
        std::fill(memory, memory + bytes, mark);
        nap(1);
        wrong += std::count(memory, memory + bytes, mark) == bytes ? 0 : 1;
        ++runs[i * 60 + j];
      });
    });
  CHECK(wrong == 0);
  CHECK(std::all_of(runs.begin(), runs.end(), [](const auto& n) { return n == 50; }));
}

TEST_CASE("a thread whose own part is done helps with what the others started") {
  const AssumedProcessors processors(8);
  const Threads threads(2);  // one worker: all other chunks of its job are this thread's to help with
  const auto here = std::this_thread::get_id();
  std::atomic<int> helped = 0;
  for (int repeat = 0; repeat < 50 && helped == 0; ++repeat) {
    std::atomic<bool> shared = false;
    detail::side_by_side(2, [&](std::size_t) {
      if (std::this_thread::get_id() == here) {
        for (int i = 0; i < 1000 && !shared; ++i) nap(100);
        return;
      }
      shared = true;
      detail::parallel_for(200, [&](std::size_t, void*) {
        helped += std::this_thread::get_id() == here ? 1 : 0;
        nap(20);
      });
    });
  }
  CHECK(helped > 0);
}

TEST_CASE("scratch memory grows and the number of threads changes while others run") {
  const AssumedProcessors processors(8);
  const Threads threads(4);
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> users;
  for (int user = 0; user < 3; ++user)
    users.emplace_back([&] {
      while (!stop) {
        std::vector<int> runs(64, 0);
        detail::parallel_for(runs.size(), [&](std::size_t chunk, void* scratch) {
          if (scratch) std::fill_n(static_cast<char*>(scratch), 64, 'x');
          ++runs[chunk];
        });
        wrong += runs == std::vector<int>(64, 1) ? 0 : 1;
      }
    });
  for (int i = 0; i < 30; ++i) {
    detail::reserve_scratch((std::size_t{1} << 18) + static_cast<std::size_t>(i) * 64);
    set_num_threads(1 + i % 5);
    nap(200);
  }
  stop = true;
  for (std::thread& user : users) user.join();
  CHECK(wrong == 0);
}

TEST_CASE("in a range of parallel_for() the number of threads cannot be set") {
  const AssumedProcessors processors(8);
  const Threads threads(3);
  const auto error =
      test::error_of([] { parallel_for(100, 1, [](std::int64_t, std::int64_t) { set_num_threads(2); }); });
  CHECK_THAT(error.what(), Catch::Contains("set_num_threads: requires a call from outside of parallel_for()"));
  CHECK(num_threads() == 3);
}

// ---- processors

TEST_CASE("no more threads work than the process has processors") {
  const Threads threads(8);
  {
    const AssumedProcessors one(1);
    Seen seen;
    for (int repeat = 0; repeat < 20; ++repeat)
      detail::parallel_for(30, [&](std::size_t, void*) {
        seen.enter();
        nap(1);
        seen.leave();
      });
    CHECK(seen.threads() == 1);
  }
  const AssumedProcessors two(2);
  const auto run = [&](Seen& seen) {
    detail::parallel_for(30, [&](std::size_t, void*) {
      seen.enter();
      nap(50);
      seen.leave();
    });
  };
  Seen first;
  run(first);  // starts them all
  nap(20'000);
  Seen seen;
  for (int repeat = 0; repeat < 20; ++repeat) run(seen);
  CHECK(seen.most() <= 2);
}

TEST_CASE("idle threads sleep") {
  const AssumedProcessors processors(8);
  const Threads threads(8);
  detail::parallel_for(100, [](std::size_t, void*) { nap(10); });
  nap(20'000);
  const double before = processor_seconds();
  nap(200'000);
  CHECK(processor_seconds() - before < 0.02);
}

TEST_CASE("a thread that waits for a long chunk sleeps") {
  const AssumedProcessors processors(8);
  const Threads threads(2);
  const double before = processor_seconds();
  for (int repeat = 0; repeat < 4; ++repeat)
    detail::parallel_for(2, [](std::size_t, void* scratch) { nap(scratch ? 50'000 : 10); });
  CHECK(processor_seconds() - before < 0.05);
}

// ---- fork

// (The thread sanitizer does not let a child of several threads start one.)
#if !defined(__SANITIZE_THREAD__)
TEST_CASE("a child of a process that has run programs runs programs itself, and so does its child") {
  const AssumedProcessors processors(8);
  const Threads threads(4);
  Graph graph;
  const auto x = graph.input("x", {300, 400});
  const auto y = sum(exp(x) * tanh(x + 1.0), 0) + sum(matmul(x, transpose(x)));
  State state(graph);
  Program program(state, {.outputs = {y}});
  const Array fed = test::compute(graph, {broadcast_to(graph.constant(0.5), {300, 400})})[0];
  const Array right = program.run({{x, fed}})[0];
  const auto same = [&] {
    Seen seen;
    detail::parallel_for(64, [&](std::size_t, void*) {
      seen.enter();
      nap(500);
      seen.leave();
    });
    return seen.threads() > 1 && program.run({{x, fed}})[0].identical(right) && num_threads() == 4;
  };
  CHECK(in_a_child(same));
  CHECK(in_a_child([&] { return same() && in_a_child(same) && same(); }));
  CHECK(same());
}

TEST_CASE("fork while other threads run") {
  const AssumedProcessors processors(8);
  const Threads threads(4);
  std::atomic<bool> stop = false;
  std::thread user([&] {
    while (!stop) detail::parallel_for(50, [](std::size_t, void*) { nap(1); });
  });
  for (int i = 0; i < 10; ++i)
    CHECK(in_a_child([&] {
      std::vector<int> runs(100, 0);
      detail::parallel_for(runs.size(), [&](std::size_t chunk, void*) { ++runs[chunk]; });
      return runs == std::vector<int>(100, 1);
    }));
  stop = true;
  user.join();
}
#endif

// ---- how work is cut

TEST_CASE("a recorder notes the parts of what a thread starts, and the longest part's share") {
  const Threads threads(GENERATE(1, 3));
  CutRecorder recorder;
  const auto is = [](const Cut& cut, std::size_t parts, double longest) {
    return cut.parts == parts && std::abs(cut.longest - longest) < 1e-12;
  };
  CHECK(is(recorder.take(), 1, 1));
  detail::parallel_for(8, [](std::size_t, void*) {});
  CHECK(is(recorder.take(), 8, 1.0 / 8));
  // 10 + 10 + 10 + 5 elements.
  parallel_for(35, 10, [](std::int64_t, std::int64_t) {});
  CHECK(is(recorder.take(), 4, 10.0 / 35));
  // One after the other: the longest of each, of all.
  parallel_for(35, 10, [](std::int64_t, std::int64_t) {});
  parallel_for(6, 3, [](std::int64_t, std::int64_t) {});
  CHECK(is(recorder.take(), 4, 13.0 / 41));
  detail::parallel_for(
      3, [](std::size_t, void*) {}, [](std::size_t chunk) { return 1 + chunk; });
  CHECK(is(recorder.take(), 3, 3.0 / 6));
  CHECK(is(recorder.take(), 1, 1));
}
