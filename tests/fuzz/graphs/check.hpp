// One recipe, checked: its program against the interpreter, and against itself with other threads, with less memory,
// run again, without optimization, and with a watch for what is not finite.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "recipe.hpp"

namespace chainrule::fuzz {

// What is wrong. A shrunk recipe must have the same kind.
enum class Fault : std::uint8_t {
  none,
  building,   // something else than an Error came out of building the graph
  compiling,  // a Program could not be made of it
  running,    // an error where the interpreter has none, or one that is not an Error
  value,      // another result than the interpreter's
  bits,       // other bits on the second run, with other threads, or with a memory_limit
  state,      // a State changed that should not have, or not as it should
  gradient,   // the gradient checker fails it
};
std::string_view name(Fault fault);

struct Verdict {
  Fault fault = Fault::none;
  std::string message;
  std::string op;  // of the value concerned, if there is one
};

struct Counts {
  std::uint64_t nodes = 0;     // of the graphs, gradients included
  std::uint64_t elements = 0;  // compared
  std::uint64_t unstable = 0;  // elements that rounding decides (a comparison of nearly equal numbers)
  std::uint64_t refused = 0;   // graphs whose run throws in both worlds
  std::uint64_t limited = 0;   // programs that kept a memory_limit below what they took
  std::uint64_t as_built = 0;  // programs without Request::optimize
  std::uint64_t watched = 0;   // runs with Request::check_finite
  std::uint64_t checked = 0;   // by the gradient checker
  std::uint64_t inconclusive = 0;
};

// `reached`, by the op's place in the registry, is set for ops whose values a program was asked for.
Verdict check(const Recipe& recipe, Counts& counts, std::vector<char>& reached);

}  // namespace chainrule::fuzz
