// Errors: who is to blame decides the type. Every user error says where in the user's program it began.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace chainrule {

// A line of the user's program. Builder functions take one as their last parameter, defaulted to the caller's line.
// (clang 14 has no std::source_location; these builtins are evaluated at the call of the outermost function.)
struct Location {
  const char* file = "";
  int line = 0;

  static constexpr Location here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return Location{file, line};
  }
  [[nodiscard]] bool known() const { return line != 0; }
  // "moons.cpp:25": the file without its folders.
  [[nodiscard]] std::string to_string() const;
};

// A mistake in the calling program: a wrong shape, a missing feed, an unknown name. what() reads
// "moons.cpp:25: matmul: requires ..., got ...". Whatever was called left everything as it was.
class Error : public std::runtime_error {
 public:
  Error(Location at, std::string_view op, std::string_view message);
  explicit Error(std::string_view op, std::string_view message) : Error(Location{}, op, message) {}
  [[nodiscard]] Location location() const { return at_; }

 private:
  Location at_;
};

// A broken invariant of the library itself. Please report it.
class InternalError : public std::logic_error {
 public:
  explicit InternalError(std::string_view message, Location at = Location::here());
};

// Throws InternalError unless `holds`.
inline void invariant(bool holds, std::string_view message, Location at = Location::here()) {
  if (!holds) throw InternalError(message, at);
}

}  // namespace chainrule
