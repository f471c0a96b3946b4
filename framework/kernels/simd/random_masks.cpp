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

// What all elements of a mask share: see VectorTable::keep_mask.
struct Mask {
  std::uint32_t threshold;
  std::uint64_t seed;
  std::uint32_t stream;
  std::uint32_t step;
};

#if defined(__AVX2__)
// As many 64-bit lanes as blocks are made at a time.
#if defined(__AVX512F__)
using Lanes = __m512i;

Lanes all(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
Lanes order() { return _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7); }
Lanes product_of_lower_halves(Lanes a, Lanes b) { return _mm512_mul_epu32(a, b); }
Lanes to_lower_half(Lanes x) { return _mm512_srli_epi64(x, 32); }
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
Lanes to_lower_half(Lanes x) { return _mm256_srli_epi64(x, 32); }
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

constexpr std::size_t mask_blocks = sizeof(Lanes) / 8;

// Of blocks [first, first + mask_blocks). One block lies in each lane, its words in registers of their own, whose upper
// halves are of no consequence: the product of lower halves is one instruction. The lanes' order is that in which the
// words come together again at the end. (g++ and clang add and combine such vectors by operators, lane by lane.)
template <class T>
void mask_of_blocks(std::uint64_t first, const Mask& mask, T* out) {
  Lanes c0 = all(first) + order();
  Lanes c1 = to_lower_half(c0);
  Lanes c2 = all(mask.stream);
  Lanes c3 = all(mask.step);
  Lanes k0 = all(static_cast<std::uint32_t>(mask.seed));
  Lanes k1 = all(static_cast<std::uint32_t>(mask.seed >> 32));
  for (int round = 0; round < 10; ++round) {
    const Lanes p0 = product_of_lower_halves(all(0xD2511F53), c0);
    const Lanes p1 = product_of_lower_halves(all(0xCD9E8D57), c2);
    c0 = to_lower_half(p1) ^ c1 ^ k0;
    c2 = to_lower_half(p0) ^ c3 ^ k1;
    c1 = p1;
    c3 = p0;
    k0 += all(0x9E3779B9);
    k1 += all(0xBB67AE85);
  }
  const Lanes low = all(0xFFFFFFFF);
  const Lanes w01 = (c0 & low) | to_upper_half(c1);
  const Lanes w23 = (c2 & low) | to_upper_half(c3);
  store_kept(first_of_pairs(w01, w23), mask.threshold, out);
  store_kept(second_of_pairs(w01, w23), mask.threshold, out + sizeof(Lanes) / 4);
}
#else
constexpr std::size_t mask_blocks = 1;

template <class T>
void mask_of_blocks(std::uint64_t first, const Mask& mask, T* out) {
  // In place: philox::block, which makes a new array in each round, takes g++ 12 three times as long.
  std::uint32_t c[4] = {static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(first >> 32), mask.stream,
                        mask.step};
  auto k0 = static_cast<std::uint32_t>(mask.seed);
  auto k1 = static_cast<std::uint32_t>(mask.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c[0] = static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0;
    c[2] = static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1;
    c[1] = static_cast<std::uint32_t>(p1);
    c[3] = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
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
