// Mode: whether a program trains. Draws: which of its runs draw new random numbers.
#pragma once

#include <cstdint>

namespace chainrule {

// In training, dropout drops and batch_norm uses its batch; in inference they do not.
enum class Mode : std::uint8_t { training, inference };

// each_update  random numbers are those of the State's step: new in each run of a program that updates, and in all runs
//              between two updates the same
// each_run     new in each run: also of the State's count of such runs (State::draws())
enum class Draws : std::uint8_t { each_update, each_run };

}  // namespace chainrule
