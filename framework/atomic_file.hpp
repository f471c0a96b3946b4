// A file that is written whole or not at all. Not installed.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <chainrule/framework/error.hpp>

namespace chainrule::detail {

// Writes to a temporary file in the folder of `path`, and renames it to `path` when all is on the disk: whatever
// happens in between, `path` is the old file or the new one. Errors are named after the function `op`.
class AtomicFile {
 public:
  AtomicFile(const std::string& path, std::string_view op, Location at);
  ~AtomicFile();  // without commit(): removes the temporary file
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(int error) const;

  std::string given_;  // as the caller spelled it
  std::string path_;   // the file itself where that is a link
  std::string temporary_;
  std::string op_;
  Location at_;
  int file_ = -1;
};

}  // namespace chainrule::detail
