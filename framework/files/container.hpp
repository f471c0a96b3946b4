// What the loaders of files of several arrays have in common. Not installed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <fmt/core.h>

#include <chainrule/framework/files/files.hpp>
#include <chainrule/framework/io/file.hpp>

namespace chainrule::detail {

// Adds what `read` returns under a name, or why that is Unsupported to what is skipped.
template <class F>
void add(data::Arrays& to, const std::string& name, F read) {
  to.erase(name);
  to.skipped.erase(name);
  try {
    to.emplace(name, read());
  } catch (const Unsupported& reason) {
    to.skipped.emplace(name, reason.what());
  }
}

// What `read` returns; if it is Unsupported, an Error that says so of `what` ("member 'x'").
template <class F>
Array require(const File& file, const std::string& what, F read) {
  try {
    return read();
  } catch (const Unsupported& reason) {
    file.fail(fmt::format("{}: {}", what, reason.what()));
  }
}

// "no variable 'c', only 'a', 'b'"
[[noreturn]] inline void fail_missing(const File& file, std::string_view what, const std::string& name,
                                      const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& one : names) list += fmt::format("{}'{}'", list.empty() ? "" : ", ", one);
  file.fail(list.empty() ? fmt::format("no {} '{}', nor any other", what, name)
                         : fmt::format("no {} '{}', only {}", what, name, list));
}

}  // namespace chainrule::detail
