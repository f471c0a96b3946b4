#include <chainrule/framework/io/atomic_file.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fmt/core.h>

namespace chainrule::detail {

namespace {

// A descriptor that is closed at the end of its scope.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int number() const { return number_; }

 private:
  int number_;
};

}  // namespace

AtomicFile::AtomicFile(const std::string& path, std::string_view op, Location at, Start start)
    : given_(path), path_(path), op_(op), at_(at) {
  struct stat old {};
  const bool exists = stat(path.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode))
    throw Error(at_, op_,
                fmt::format("requires the path of a file to write, got '{}', which is no regular file", given_));
  if (exists) {
    const std::unique_ptr<char, decltype(&std::free)> resolved(realpath(path.c_str(), nullptr), &std::free);
    if (resolved) path_ = resolved.get();
    // A new file in its place would need no permission but the folder's. (Nothing is forbidden to root, who may still
    // have meant a file that nobody may write.)
    if ((old.st_mode & 0222) == 0 || faccessat(AT_FDCWD, path_.c_str(), W_OK, AT_EACCESS) != 0)
      fail("it is write-protected");
  }
  const auto slash = path_.find_last_of('/');
  const std::string name = slash == std::string::npos ? path_ : path_.substr(slash + 1);
  folder_ = slash == std::string::npos ? "./" : path_.substr(0, slash + 1);
  temporary_ = folder_ + "." + name + ".part";
  if (start == Start::named || !open_unnamed()) open_named();
  // Permissions stay. Where this fails the numbers are still worth writing.
  if (exists) (void)!fchmod(file_, old.st_mode & 07777);
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  if (named_) unlink(temporary_.c_str());
  close(file_);
}

bool AtomicFile::open_unnamed() {
  file_ = open(folder_.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  if (file_ >= 0) return true;
  // EISDIR: kernels that do not know O_TMPFILE.
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) fail(errno);
  return false;
}

void AtomicFile::open_named() {
  named_ = true;
  for (;;) {
    file_ = open(temporary_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file_ < 0) {
      named_ = false;
      fail(errno);
    }
    // One at a time. Who waited for another finds that the file meanwhile has its final name.
    struct stat mine {};
    struct stat there {};
    while (flock(file_, LOCK_EX) != 0 && errno == EINTR) {
    }
    if (fstat(file_, &mine) == 0 && stat(temporary_.c_str(), &there) == 0 && mine.st_ino == there.st_ino &&
        mine.st_dev == there.st_dev)
      break;
    close(file_);
  }
  if (ftruncate(file_, 0) != 0) fail(errno);
}

// Of several processes that save to one path each in turn gives its file the name, and renames it.
void AtomicFile::give_name() {
  for (;;) {
    if (linkat(AT_FDCWD, fmt::format("/proc/self/fd/{}", file_).c_str(), AT_FDCWD, temporary_.c_str(),
               AT_SYMLINK_FOLLOW) == 0)
      break;
    // Left by a process that was killed between the two.
    if (errno != EEXIST || (unlink(temporary_.c_str()) != 0 && errno != ENOENT)) fail(errno);
  }
  named_ = true;
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
  const Descriptor folder(open(folder_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (!named_) {
    while (folder.number() >= 0 && flock(folder.number(), LOCK_EX) != 0 && errno == EINTR) {
    }
    give_name();
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
  named_ = false;
  const bool closed = close(file_) == 0;
  const int error = errno;
  file_ = -1;
  if (!closed) fail(error);
  // The new name, too, is to survive a power failure; not all file systems can be asked for that.
  if (folder.number() >= 0) fsync(folder.number());
}

void AtomicFile::fail(const std::string& why, int error) const {
  throw Error(at_, op_,
              fmt::format("requires a file that can be written, got '{}': {}", given_,
                          why.empty() ? std::strerror(error) : why));
}

}  // namespace chainrule::detail
