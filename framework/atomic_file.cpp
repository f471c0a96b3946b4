#include <chainrule/framework/atomic_file.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fmt/core.h>

namespace chainrule::detail {

namespace {

std::string folder_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// The permissions that open() would give a new file. (Only umask() itself can tell the mask.)
mode_t usual_mode() {
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path, std::string_view op, Location at)
    : given_(path), path_(path), op_(op), at_(at) {
  struct stat old {};
  const bool exists = stat(path.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode))
    throw Error(at_, op_,
                fmt::format("requires the path of a file to write, got '{}', which is no regular file", given_));
  if (exists) {
    const std::unique_ptr<char, decltype(&std::free)> resolved(realpath(path.c_str(), nullptr), &std::free);
    if (resolved) path_ = resolved.get();
  }
  temporary_ = path_ + ".XXXXXX";
  file_ = mkostemp(temporary_.data(), O_CLOEXEC);
  if (file_ < 0) fail(errno);
  // mkostemp's files are for the owner only. Where this fails the numbers are still worth writing.
  (void)!fchmod(file_, exists ? old.st_mode & 07777 : usual_mode());
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  close(file_);
  unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(file_, from, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(errno);
    from += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  if (fsync(file_) != 0 && errno != EINVAL && errno != EROFS) fail(errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
  const bool closed = close(file_) == 0;
  const int error = errno;
  file_ = -1;
  if (!closed) fail(error);
  // The new name, too, is to survive a power failure; not all file systems can be asked for that.
  const int folder = open(folder_of(path_).c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (folder >= 0) {
    fsync(folder);
    close(folder);
  }
}

void AtomicFile::fail(int error) const {
  throw Error(at_, op_, fmt::format("requires a file that can be written, got '{}': {}", given_, std::strerror(error)));
}

}  // namespace chainrule::detail
