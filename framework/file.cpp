#include <chainrule/framework/file.hpp>

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include <fmt/core.h>

#include <chainrule/framework/shape.hpp>

namespace chainrule::detail {

void File::fail(std::string_view found) const {
  throw Error(at, op, fmt::format("requires {}, got '{}': {}", format, path, found));
}

std::uint64_t File::require() const {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) fail(std::strerror(errno));
  if (S_ISDIR(status.st_mode)) fail("it is a folder");
  if (S_ISREG(status.st_mode) && status.st_size == 0) fail("the file is empty");
  return static_cast<std::uint64_t>(status.st_size);
}

std::string File::read() const {
  const std::uint64_t size = require();
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!stream) fail(std::strerror(errno));
  std::string out;
  out.resize(size);
  out.resize(std::fread(out.data(), 1, out.size(), stream.get()));
  // What is no regular file (a pipe) has no size to go by.
  char more[4096];
  while (const std::size_t got = std::fread(more, 1, sizeof more, stream.get())) out.append(more, got);
  if (std::ferror(stream.get()) != 0) fail(std::strerror(errno));
  if (out.empty()) fail("the file is empty");
  return out;
}

std::int64_t checked_count(const File& file, const std::vector<std::int64_t>& extents) {
  if (extents.size() > max_rank)
    file.fail(fmt::format("an array of {} dimensions, where at most {} are supported", extents.size(), max_rank));
  std::int64_t count = 1;
  bool fits = true;
  bool empty = false;
  for (const std::int64_t extent : extents) {
    if (extent < 0) file.fail(fmt::format("an array with the negative extent {}", extent));
    empty = empty || extent == 0;
    fits = fits && !__builtin_mul_overflow(count, extent, &count);
  }
  if (empty) return 0;
  if (!fits || count > (std::int64_t{1} << 56)) file.fail("an array of more elements than any memory holds");
  return count;
}

void check_plausible(const File& file, std::int64_t count) {
  constexpr std::uint64_t small = 1 << 16;  // what was never written takes no room in a file
  const std::uint64_t size = file.require();
  if (static_cast<std::uint64_t>(count) / 1032 > size + small)
    file.fail(fmt::format("damaged: it has {} bytes, and is said to hold {} elements", size, count));
}

std::string printable(std::string_view bytes, std::size_t limit) {
  std::string out;
  for (const char c : bytes.substr(0, limit)) {
    const auto code = static_cast<unsigned char>(c);
    out += code >= 32 && code < 127 ? std::string(1, c) : fmt::format("\\x{:02x}", code);
  }
  return bytes.size() > limit ? out + "..." : out;
}

}  // namespace chainrule::detail
