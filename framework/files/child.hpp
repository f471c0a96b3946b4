// Work in a child process: for libraries that damaged files can crash or keep busy for ever. Not installed.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/io/file.hpp>

namespace chainrule::detail {

// What a child process sends to its parent.
class Sender {
 public:
  explicit Sender(int pipe);
  void kind(char kind) { bytes(&kind, 1); }
  void text(const std::string& text);
  void array(const Array& array);
  // Before work whose result has so many bytes: what it may take of memory and of processor time.
  void allow(std::uint64_t bytes);
  // As much memory as the parent may have: for comparing sizes with that.
  void allow_all_memory();

 private:
  void bytes(const void* from, std::size_t count) const;
  int pipe_;
  rlimit memory_{};  // the parent's limit
};

// A child process that does `work` for reading a file. What it sends is read in the same order.
class Child {
 public:
  // After work() it sends the kind '.' (so work() uses others).
  Child(const File& file, const std::function<void(Sender&)>& work);
  ~Child();  // ends it, if it is still at work
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // What it sent next. What work() threw is thrown here; fails if it crashed or took too long.
  char kind();
  std::string text();
  Array array();

 private:
  void bytes(void* to, std::size_t count);
  [[noreturn]] void died();

  const File& file_;
  pid_t process_ = -1;
  int pipe_ = -1;
};

}  // namespace chainrule::detail
