// A file that is written whole or not at all. Not installed.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <chainrule/framework/core/error.hpp>

namespace chainrule::detail {

// Writes to a file without a name in the folder of `path`, which gets a name and is renamed to `path` when all is on
// the disk: whatever happens in between, `path` is the old file or the new one, and no other file is left. (Where the
// file system knows no files without names, the file has the name ".NAME.part" from the start; if the process is killed
// it stays, and the next AtomicFile of this path takes it over.) A file that is write-protected is not replaced. Errors
// are named after the function `op`.
class AtomicFile {
 public:
  enum class Start : bool { unnamed, named };  // named: as where there are none without

  AtomicFile(const std::string& path, std::string_view op, Location at, Start start = Start::unnamed);
  ~AtomicFile();  // without commit(): removes what was written
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void commit();

 private:
  // False if the folder's file system knows no files without names.
  bool open_unnamed();
  void open_named();
  void give_name();
  [[noreturn]] void fail(int error) const { fail(std::string(), error); }
  [[noreturn]] void fail(const std::string& why, int error = 0) const;

  std::string given_;  // as the caller spelled it
  std::string path_;   // the file itself where that is a link
  std::string folder_;
  std::string temporary_;
  std::string op_;
  Location at_;
  int file_ = -1;
  bool named_ = false;  // as temporary_
};

}  // namespace chainrule::detail
