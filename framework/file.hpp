// A file to be read, with the words for its errors. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/framework/error.hpp>

namespace chainrule::detail {

// A file that a user named.
struct File {
  std::string_view op;      // the function that reads it: "load_npy"
  std::string_view format;  // what it should be: "a NumPy file (.npy)"
  std::string path;
  Location at;

  // Throws the Error "op: requires format, got 'path': found".
  [[noreturn]] void fail(std::string_view found) const;
  // Fails unless it is there, can be read, is no folder and is not empty. Returns its size.
  std::uint64_t require() const;  // NOLINT(modernize-use-nodiscard): also called for its checks alone
  // All of its bytes; fails as require().
  [[nodiscard]] std::string read() const;
};

// The number of elements of a shape that a file claims to have, or fails: for a rank above 8, negative extents, more
// elements than memory has bytes.
std::int64_t checked_count(const File& file, const std::vector<std::int64_t>& extents);

// Fails where a file of this size cannot have so many elements, even compressed by deflate (at most 1032 to 1): before
// memory for them is asked for.
void check_plausible(const File& file, std::int64_t count);

// As text for an error: printable characters as they are, others as \xNN, cut to `limit` bytes.
std::string printable(std::string_view bytes, std::size_t limit = 40);

}  // namespace chainrule::detail
