#include <chainrule/framework/files/gnuplot.hpp>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include <fmt/core.h>

namespace chainrule::detail {

namespace {

// A file without a name: gone when it is closed, however the program ends.
using Scratch = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

Scratch make_scratch(Location at) {
  Scratch out(std::tmpfile(), &std::fclose);
  if (!out) throw Error(at, "plot", fmt::format("requires a temporary file, got none: {}", std::strerror(errno)));
  return out;
}

std::string content(std::FILE* file) {
  std::string out;
  std::rewind(file);
  char buffer[4096];
  while (const std::size_t got = std::fread(buffer, 1, sizeof buffer, file)) out.append(buffer, got);
  return out;
}

}  // namespace

std::string run_gnuplot(const std::string& script, Location at) {
  const Scratch input = make_scratch(at);
  const Scratch output = make_scratch(at);
  const Scratch errors = make_scratch(at);
  std::fwrite(script.data(), 1, script.size(), input.get());
  if (std::fflush(input.get()) != 0)
    throw Error(at, "plot", fmt::format("requires room for a temporary file: {}", std::strerror(errno)));
  std::rewind(input.get());

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, fileno(input.get()), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, fileno(output.get()), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, fileno(errors.get()), STDERR_FILENO);
  char name[] = "gnuplot";
  char plain[] = "--default-settings";  // whatever the user's own are
  char* const arguments[] = {name, plain, nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, name, &files, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&files);
  if (error == ENOENT)
    throw Error(at, "plot", "requires the program gnuplot (Debian package gnuplot-nox), got none in the PATH");
  if (error != 0) throw Error(at, "plot", fmt::format("requires gnuplot to run, got: {}", std::strerror(error)));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status))
    throw Error(at, "plot", fmt::format("requires gnuplot to end well, got signal {}", WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0) {
    std::string said = content(errors.get());
    for (char& c : said)
      if (c == '\n') c = ' ';
    throw Error(at, "plot",
                fmt::format("requires gnuplot to end well, got exit code {}: {}", WEXITSTATUS(status), said));
  }
  return content(output.get());
}

std::string gnuplot_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += '\'';  // doubled
    out += c == '\n' || c == '\r' ? ' ' : c;
  }
  return out + "'";
}

}  // namespace chainrule::detail
