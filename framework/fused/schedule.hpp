// The order of vector code's instructions. Not installed.
#pragma once

#include <chainrule/framework/fused/vector_code.hpp>

namespace chainrule::detail {

// Registers for values: of vectors, and of masks or 0 where these are vectors like all others.
struct RegisterFiles {
  int vectors = 0;
  int masks = 0;
};

// The same code in an order in which instructions that do not wait for each other alternate: the exponentials of a
// group, say, each a chain of instructions that take four cycles before the next can start. A processor finds such by
// itself no farther ahead than its schedulers hold, and a chain fills these. The order is that of a machine that starts
// an instruction a cycle, always the one with the longest way to the end (list scheduling), but for one that frees
// registers where these become few. (That of two a cycle, as processors are, was slower: they begin the next turn of
// the loop before one ends.) Which numbers are computed, and how, stays the same.
VectorCode scheduled(const VectorCode& code, RegisterFiles registers);

}  // namespace chainrule::detail
