#include <chainrule/framework/io/file.hpp>

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>

#include <fmt/core.h>

namespace chainrule::detail {

void File::fail(std::string_view found) const {
  throw FileError(at, op, fmt::format("requires {}, got '{}': {}", format, path, found), found);
}

std::uint64_t File::require() const {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) fail(std::strerror(errno));
  if (S_ISDIR(status.st_mode)) fail("it is a folder");
  if (S_ISREG(status.st_mode) && status.st_size == 0) fail("the file is empty");
  return static_cast<std::uint64_t>(status.st_size);
}

// ---- inputs

std::string Input::read(std::size_t bytes) {
  constexpr std::size_t first = std::size_t{1} << 16;
  std::string out;
  while (out.size() < bytes) {
    const std::size_t before = out.size();
    const std::size_t wanted = std::min(bytes - before, std::max(first, before));
    out.resize(before + wanted);
    const std::size_t got = read(out.data() + before, wanted);
    out.resize(before + got);
    if (got < wanted) break;
  }
  return out;
}

std::uint64_t Input::skip(std::uint64_t bytes) {
  char buffer[1 << 14];
  std::uint64_t done = 0;
  while (done < bytes) {
    const std::size_t wanted = std::min<std::uint64_t>(bytes - done, sizeof buffer);
    const std::size_t got = read(buffer, wanted);
    done += got;
    if (got < wanted) break;
  }
  return done;
}

FileInput::FileInput(const File& file) : file_(file), stream_(nullptr, &std::fclose) {
  left_ = file.require();
  stream_.reset(std::fopen(file.path.c_str(), "rb"));
  if (!stream_) file.fail(std::strerror(errno));
  // What is no regular file (a pipe) has no size to go by.
  struct stat status {};
  regular_ = fstat(fileno(stream_.get()), &status) == 0 && S_ISREG(status.st_mode);
  if (!regular_) left_ = std::numeric_limits<std::uint64_t>::max();
}

std::size_t FileInput::read(char* to, std::size_t bytes) {
  const std::size_t got = std::fread(to, 1, bytes, stream_.get());
  if (got < bytes && std::ferror(stream_.get()) != 0) file_.fail(std::strerror(errno));
  if (regular_) left_ -= std::min<std::uint64_t>(left_, got);
  return got;
}

std::uint64_t FileInput::skip(std::uint64_t bytes) {
  if (!regular_) return Input::skip(bytes);
  const std::uint64_t passed = std::min(bytes, left_);
  if (fseeko(stream_.get(), static_cast<off_t>(passed), SEEK_CUR) != 0) file_.fail(std::strerror(errno));
  left_ -= passed;
  return passed;
}

// ---- limits

namespace {

// What this process can have: the machine's memory, or less where a limit says so (ulimit -v, a container's).
std::uint64_t memory_limit() {
  std::uint64_t out =
      static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  for (const auto resource : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit limit{};
    if (getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
      out = std::min<std::uint64_t>(out, limit.rlim_cur);
  }
  for (const char* const group : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (std::uint64_t limit = 0; std::ifstream(group) >> limit) out = std::min(out, limit);
  return out;
}

}  // namespace

void check_memory(std::uint64_t bytes) {
  constexpr std::uint64_t little = 1 << 26;
  if (bytes <= little) return;
  if (const std::uint64_t limit = memory_limit(); bytes > limit)
    throw Unsupported(
        fmt::format("an array of {}, where this process can have {}", printable_bytes(bytes), printable_bytes(limit)));
}

Dims checked_shape(const File& file, const std::vector<std::int64_t>& extents, std::size_t element_bytes) {
  if (extents.size() > max_rank)
    throw Unsupported(
        fmt::format("an array of {} dimensions, where at most {} are supported", extents.size(), max_rank));
  auto bytes = static_cast<std::int64_t>(element_bytes);
  bool fits = true;
  for (const std::int64_t extent : extents) {
    if (extent < 0) file.fail(fmt::format("an array with the negative extent {}", extent));
    fits = fits && !__builtin_mul_overflow(bytes, std::max<std::int64_t>(extent, 1), &bytes);
  }
  const Dims shape(extents);
  if (!fits) throw Unsupported(fmt::format("shape {}: more elements than any memory holds", to_string(shape)));
  check_memory(static_cast<std::uint64_t>(bytes));
  return shape;
}

// ---- words

std::string printable(std::string_view bytes, std::size_t limit) {
  std::string out;
  for (const char c : bytes.substr(0, limit)) {
    const auto code = static_cast<unsigned char>(c);
    out += code >= 32 && code < 127 ? std::string(1, c) : fmt::format("\\x{:02x}", code);
  }
  return bytes.size() > limit ? out + "..." : out;
}

std::string printable_bytes(std::uint64_t bytes) {
  if (bytes < 1'000'000) return fmt::format("{} bytes", bytes);
  constexpr std::string_view units[] = {"MB", "GB", "TB", "PB", "EB"};
  double size = static_cast<double>(bytes) / 1e6;
  std::size_t unit = 0;
  for (; size >= 1000; ++unit) size /= 1000;
  return fmt::format("{:.3g} {}", size, units[unit]);
}

}  // namespace chainrule::detail
