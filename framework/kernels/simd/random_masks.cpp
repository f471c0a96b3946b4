// Random masks, with the bits of framework/core/philox.hpp.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

constexpr int rounds = 10;

// What all elements of a mask share: see VectorTable::keep_mask.
struct Mask {
  Mask(std::uint32_t keep_below, std::uint64_t seed, std::uint32_t of_stream, std::uint32_t at_step)
      : threshold(keep_below), stream(of_stream), step(at_step) {
    auto k0 = static_cast<std::uint32_t>(seed);
    auto k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < rounds; ++round) {
      keys[round][0] = k0;
      keys[round][1] = k1;
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
  }
  std::uint32_t threshold;
  std::uint32_t stream;
  std::uint32_t step;
  std::uint64_t keys[rounds][2];
};

#if defined(__AVX2__)
// 64-bit lanes.
#if defined(__AVX512F__)
using Lanes = __m512i;

Lanes all(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
Lanes order() { return _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7); }
Lanes product_of_lower_halves(Lanes a, Lanes b) { return _mm512_mul_epu32(a, b); }
// To both halves: a shift would wait for the unit that multiplies.
Lanes to_lower_half(Lanes x) { return _mm512_shuffle_epi32(x, _MM_PERM_DDBB); }
Lanes to_upper_half(Lanes x) { return _mm512_slli_epi64(x, 32); }
Lanes first_of_pairs(Lanes a, Lanes b) { return _mm512_unpacklo_epi64(a, b); }
Lanes second_of_pairs(Lanes a, Lanes b) { return _mm512_unpackhi_epi64(a, b); }

// The elements of as many 32-bit words.
template <class T>
void store_kept(Lanes words, std::uint32_t threshold, T* out) {
  const __mmask16 kept =
      _mm512_cmplt_epu32_mask(_mm512_srli_epi32(words, 8), _mm512_set1_epi32(static_cast<int>(threshold)));
  if constexpr (sizeof(T) == 4) {
    _mm512_storeu_ps(out, _mm512_maskz_mov_ps(kept, _mm512_set1_ps(1)));
  } else {
    const __m512d one = _mm512_set1_pd(1);
    _mm512_storeu_pd(out, _mm512_maskz_mov_pd(static_cast<__mmask8>(kept), one));
    _mm512_storeu_pd(out + 8, _mm512_maskz_mov_pd(static_cast<__mmask8>(kept >> 8), one));
  }
}
#else
using Lanes = __m256i;

Lanes all(std::uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
Lanes order() { return _mm256_setr_epi64x(0, 2, 1, 3); }
Lanes product_of_lower_halves(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
// To both halves: a shift would wait for the units that multiply.
Lanes to_lower_half(Lanes x) { return _mm256_shuffle_epi32(x, 0xF5); }
Lanes to_upper_half(Lanes x) { return _mm256_slli_epi64(x, 32); }
Lanes first_of_pairs(Lanes a, Lanes b) { return _mm256_unpacklo_epi64(a, b); }
Lanes second_of_pairs(Lanes a, Lanes b) { return _mm256_unpackhi_epi64(a, b); }

// The elements of as many 32-bit words.
template <class T>
void store_kept(Lanes words, std::uint32_t threshold, T* out) {
  const __m256i bound = _mm256_set1_epi32(static_cast<int>(threshold));
  const __m256 kept = _mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, _mm256_srli_epi32(words, 8)));
  const __m256 ones = _mm256_and_ps(kept, _mm256_set1_ps(1));
  if constexpr (sizeof(T) == 4) {
    _mm256_storeu_ps(out, ones);
  } else {
    _mm256_storeu_pd(out, _mm256_cvtps_pd(_mm256_castps256_ps128(ones)));
    _mm256_storeu_pd(out + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(ones, 1)));
  }
}
#endif

// In each lane of some registers, word by word: so that while one multiplication is under way others can begin.
constexpr std::size_t lanes = sizeof(Lanes) / 8;
constexpr std::size_t several = 4;
constexpr std::size_t mask_blocks = lanes * several;

// Of blocks [first, first + mask_blocks). One block lies in each lane, its words in registers of their own, whose upper
// halves are of no consequence: the product of lower halves is one instruction. The lanes' order is that in which the
// words come together again at the end. (g++ and clang add and combine such vectors by operators, lane by lane.)
template <class T>
void mask_of_blocks(std::uint64_t first, const Mask& mask, T* out) {
  Lanes c[several][4];
  for (std::size_t i = 0; i < several; ++i) {
    c[i][0] = all(first + i * lanes) + order();
    c[i][1] = to_lower_half(c[i][0]);
    c[i][2] = all(mask.stream);
    c[i][3] = all(mask.step);
  }
  const Lanes m0 = all(0xD2511F53);
  const Lanes m1 = all(0xCD9E8D57);
  for (int round = 0; round < rounds; ++round) {
    const Lanes k0 = all(mask.keys[round][0]);
    const Lanes k1 = all(mask.keys[round][1]);
    for (std::size_t i = 0; i < several; ++i) {
      const Lanes p0 = product_of_lower_halves(m0, c[i][0]);
      const Lanes p1 = product_of_lower_halves(m1, c[i][2]);
      c[i][0] = to_lower_half(p1) ^ c[i][1] ^ k0;
      c[i][2] = to_lower_half(p0) ^ c[i][3] ^ k1;
      c[i][1] = p1;
      c[i][3] = p0;
    }
  }
  const Lanes low = all(0xFFFFFFFF);
  for (std::size_t i = 0; i < several; ++i) {
    const Lanes w01 = (c[i][0] & low) | to_upper_half(c[i][1]);
    const Lanes w23 = (c[i][2] & low) | to_upper_half(c[i][3]);
    T* to = out + i * 4 * lanes;
    store_kept(first_of_pairs(w01, w23), mask.threshold, to);
    store_kept(second_of_pairs(w01, w23), mask.threshold, to + 2 * lanes);
  }
}
#else
constexpr std::size_t mask_blocks = 1;

template <class T>
void mask_of_blocks(std::uint64_t first, const Mask& mask, T* out) {
  // In place: philox::block, which makes a new array in each round, takes g++ 12 three times as long.
  std::uint32_t c[4] = {static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(first >> 32), mask.stream,
                        mask.step};
  for (const auto& key : mask.keys) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c[0] = static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ static_cast<std::uint32_t>(key[0]);
    c[2] = static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ static_cast<std::uint32_t>(key[1]);
    c[1] = static_cast<std::uint32_t>(p1);
    c[3] = static_cast<std::uint32_t>(p0);
  }
  for (std::size_t k = 0; k < 4; ++k) out[k] = (c[k] >> 8) < mask.threshold ? T(1) : T(0);
}
#endif

template <class T>
void keep_mask(T* out, std::uint64_t begin, std::size_t n, std::uint32_t threshold, std::uint64_t seed,
               std::uint32_t stream, std::uint32_t step) {
  const Mask mask{threshold, seed, stream, step};
  constexpr std::size_t many = 4 * mask_blocks;
  while (n > 0) {
    const std::size_t skip = begin % 4;
    const std::size_t count = n < many - skip ? n : many - skip;
    if (count == many) {
      mask_of_blocks<T>(begin / 4, mask, out);
    } else {
      T values[many];
      mask_of_blocks<T>(begin / 4, mask, values);
      std::memcpy(out, values + skip, count * sizeof(T));
    }
    out += count;
    begin += count;
    n -= count;
  }
}

}  // namespace

template <class T>
void fill_random_masks(VectorTable<T>& table) {
  table.keep_mask = keep_mask<T>;
}
template void fill_random_masks(VectorTable<float>& table);
template void fill_random_masks(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
