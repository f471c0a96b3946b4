// Philox 4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as
// 1, 2, 3" (SC 2011): a bijection of a 128-bit counter under a 64-bit key. Element i of a stream is a pure function
// of (key, stream, i), so any thread can make any element, and make it again in the backward pass.
#pragma once

#include <array>
#include <cstdint>

namespace chainrule::philox {

using Block = std::array<std::uint32_t, 4>;

constexpr Block block(Block counter, std::uint64_t seed) {
  auto k0 = static_cast<std::uint32_t>(seed);
  auto k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

// 32 random bits for element i of a stream in step `step`; four elements share a block.
constexpr Block bits(std::uint64_t seed, std::uint32_t stream, std::uint32_t step, std::uint64_t block_index) {
  return block({static_cast<std::uint32_t>(block_index), static_cast<std::uint32_t>(block_index >> 32), stream, step},
               seed);
}

// In [0, 1): the upper 24 bits, exact in float and in double.
constexpr double unit(std::uint32_t bits) { return static_cast<double>(bits >> 8) * 0x1p-24; }

}  // namespace chainrule::philox
