#include "process.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <system_error>

namespace bench {

namespace {

cpu_set_t allowed() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) throw std::system_error(errno, std::generic_category(), "affinity");
  return set;
}

// The last ones of those that are allowed: interrupts tend to go to the first.
cpu_set_t last_of_allowed(int threads) {
  const cpu_set_t all = allowed();
  cpu_set_t chosen;
  CPU_ZERO(&chosen);
  for (int cpu = CPU_SETSIZE; cpu-- > 0 && threads > 0;)
    if (CPU_ISSET(cpu, &all)) {
      CPU_SET(cpu, &chosen);
      --threads;
    }
  return chosen;
}

}  // namespace

int processors() {
  const cpu_set_t set = allowed();
  return CPU_COUNT(&set);
}

Output run(const std::vector<std::string>& command, const Pinned& pinned, bool show_errors) {
  std::vector<char*> arguments;
  for (const auto& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const cpu_set_t set = pinned.threads > 0 ? last_of_allowed(pinned.threads) : allowed();

  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child < 0) throw std::system_error(errno, std::generic_category(), "fork");
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    if (!show_errors) dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
    sched_setaffinity(0, sizeof set, &set);
    for (const auto& [name, value] : pinned.environment) setenv(name.c_str(), value.c_str(), 1);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(ends[1]);
  Output out;
  char buffer[4096];
  for (;;) {
    const auto got = read(ends[0], buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    out.text.append(buffer, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  rusage usage{};
  while (wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  out.peak_rss_mb = static_cast<double>(usage.ru_maxrss) / 1024;
  out.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return out;
}

}  // namespace bench
