// Mode: whether a program trains.
#pragma once

#include <cstdint>

namespace chainrule {

// In training, dropout drops and batch_norm uses its batch; in inference they do not.
enum class Mode : std::uint8_t { training, inference };

}  // namespace chainrule
