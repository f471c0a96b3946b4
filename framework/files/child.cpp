#include <chainrule/framework/files/child.hpp>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include <fmt/core.h>

namespace chainrule::detail {

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;  // needs terabytes of addresses, and says on stderr what it finds
#else
constexpr bool sanitized = false;
#endif

// Only of the child: what its parent has arranged for signals and its output is not its own.
void become_child() {
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGPIPE, SIGXCPU}) std::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, nullptr);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (sanitized) return;
  // The C library's last words ("free(): invalid pointer").
  if (const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC); nowhere >= 0) dup2(nowhere, STDERR_FILENO);
}

// What a child does, to its end.
void run(Sender& sender, const std::function<void(Sender&)>& work) {
  try {
    sender.allow(0);
    work(sender);
    sender.kind('.');
  } catch (const FileError& error) {
    sender.kind('!');
    sender.text(error.found());
  } catch (const Unsupported& reason) {
    sender.kind('?');
    sender.text(reason.what());
  } catch (const NoMemory&) {
    sender.kind('m');
  } catch (const std::bad_alloc&) {
    sender.kind('m');
  } catch (...) {  // the parent sees that the end is missing
  }
}

}  // namespace

// ---- the child's side

Sender::Sender(int pipe) : pipe_(pipe) { getrlimit(RLIMIT_AS, &memory_); }

void Sender::bytes(const void* from, std::size_t count) const {
  const char* at = static_cast<const char*>(from);
  while (count > 0) {
    const ssize_t written = write(pipe_, at, count);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) _exit(1);
    at += written;
    count -= static_cast<std::size_t>(written);
  }
}

void Sender::text(const std::string& text) {
  const std::uint64_t size = text.size();
  bytes(&size, sizeof size);
  bytes(text.data(), text.size());
}

void Sender::array(const Array& array) {
  const DType dtype = array.dtype();
  const Dims shape = array.shape();
  bytes(&dtype, sizeof dtype);
  bytes(&shape, sizeof shape);
  bytes(array.raw(), array.bytes());
}

void Sender::allow(std::uint64_t bytes) {
  constexpr rlim_t seconds = 10;
  constexpr std::uint64_t bytes_a_second = 10'000'000;
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  rlimit time{};
  getrlimit(RLIMIT_CPU, &time);
  time.rlim_cur = std::min(time.rlim_max, static_cast<rlim_t>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + seconds +
                                              bytes / bytes_a_second);
  setrlimit(RLIMIT_CPU, &time);
  if (sanitized) return;
  constexpr std::uint64_t room = std::uint64_t{1} << 29;
  std::uint64_t pages = 0;
  if (!(std::ifstream("/proc/self/statm") >> pages)) return;
  rlimit memory = memory_;
  memory.rlim_cur =
      std::min<rlim_t>(memory.rlim_cur, pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) + room + 3 * bytes);
  setrlimit(RLIMIT_AS, &memory);
}

void Sender::allow_all_memory() { setrlimit(RLIMIT_AS, &memory_); }

// ---- the parent's side

Child::Child(const File& file, const std::function<void(Sender&)>& work) : file_(file) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) file_.fail(fmt::format("no pipe to read it through ({})", std::strerror(errno)));
  process_ = fork();
  if (process_ == 0) {
    become_child();
    Sender sender(ends[1]);
    run(sender, work);
    _exit(0);
  }
  const int error = errno;
  close(ends[1]);
  pipe_ = ends[0];
  if (process_ < 0) {
    close(pipe_);
    file_.fail(fmt::format("no process to read it in ({})", std::strerror(error)));
  }
}

Child::~Child() {
  close(pipe_);
  if (process_ < 0) return;
  kill(process_, SIGKILL);
  while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void Child::died() {
  int status = 0;
  pid_t ended = 0;
  while ((ended = waitpid(process_, &status, 0)) < 0 && errno == EINTR) {
  }
  process_ = -1;
  // (Not ours to learn where the program itself waits for all of its children.)
  const int signal = ended > 0 && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  if (signal == SIGXCPU || signal == SIGKILL)
    file_.fail("damaged, or too large: the HDF5 library did not come to an end");
  file_.fail(fmt::format("damaged: the HDF5 library crashed{}",
                         signal != 0 ? fmt::format(" ({})", strsignal(signal)) : std::string()));
}

void Child::bytes(void* to, std::size_t count) {
  char* at = static_cast<char*>(to);
  while (count > 0) {
    const ssize_t got = read(pipe_, at, count);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) died();
    at += got;
    count -= static_cast<std::size_t>(got);
  }
}

char Child::kind() {
  char kind = 0;
  bytes(&kind, 1);
  if (kind == '!') file_.fail(text());
  if (kind == '?') throw Unsupported(text());
  if (kind == 'm') throw std::bad_alloc();
  return kind;
}

std::string Child::text() {
  std::uint64_t size = 0;
  bytes(&size, sizeof size);
  std::string out(size, '\0');
  bytes(out.data(), size);
  return out;
}

Array Child::array() {
  DType dtype{};
  Dims shape;
  bytes(&dtype, sizeof dtype);
  bytes(&shape, sizeof shape);
  Array out(dtype, shape);
  bytes(out.raw(), out.bytes());
  return out;
}

}  // namespace chainrule::detail
