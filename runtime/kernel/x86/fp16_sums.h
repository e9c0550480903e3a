// Adds up the lanes of sums of fp16, for several rows at once: by fp16 while few terms are in a
// lane, then in fp32.
#pragma once

#include "avx512.h"

namespace onekv {
namespace {

using Halves = Vector<_Float16, 32>;

// Element 2 i is the sum of elements 2 i and 2 i + 1 of a, element 2 i + 1 that of b.
static inline Halves add_pairs_of_halves(Halves a, Halves b) {
  constexpr __mmask32 odd = 0xaaaaaaaa;
  __m512i straight = _mm512_mask_blend_epi16(odd, (__m512i)a, (__m512i)b);
  __m512i crossed = _mm512_mask_blend_epi16(odd, (__m512i)b, (__m512i)a);
  return (Halves)straight + (Halves)_mm512_ror_epi32(crossed, 16);
}

// The same by elements of 32 bits, two of a, then two of b in every four.
static inline Halves add_pairs_of_words(Halves a, Halves b) {
  __m512 even = _mm512_shuffle_ps((__m512)a, (__m512)b, 0x88);
  __m512 odd = _mm512_shuffle_ps((__m512)a, (__m512)b, 0xdd);
  return (Halves)even + (Halves)odd;
}

struct Wide {
  __m512 low, high;
};

static inline Wide widen(Halves x) {
  __m512i bits = (__m512i)x;
  return {_mm512_cvtxph_ps((__m256h)_mm512_castsi512_si256(bits)),
          _mm512_cvtxph_ps((__m256h)_mm512_extracti64x4_epi64(bits, 1))};
}

// Of four sums: in every 8 elements, two parts of each.
static inline Halves add_four(const Halves* sums) {
  return add_pairs_of_words(add_pairs_of_halves(sums[0], sums[1]),
                            add_pairs_of_halves(sums[2], sums[3]));
}
// Of eight sums: in every 8 elements, one part of each.
static inline Halves add_eight(const Halves* sums) {
  return add_pairs_of_words(add_four(sums), add_four(sums + 4));
}

// Sums of 16 / Heads rows, whose lanes belong to Heads queries: lane h * rows + r is the whole sum
// of row r and query h.
template <int Heads>
static inline __m512 total_of_halves(const Halves* sums) {
  if constexpr (Heads == 4) {
    Wide parts = widen(add_four(sums));
    __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    return (__m512)_mm512_permutex2var_pd((__m512d)parts.low, even, (__m512d)parts.high) +
           (__m512)_mm512_permutex2var_pd((__m512d)parts.low, odd, (__m512d)parts.high);
  } else {
    Wide first = widen(add_eight(sums));
    if constexpr (Heads == 1) {
      Wide second = widen(add_eight(sums + 8));
      first = {first.low + first.high, second.low + second.high};
    }
    return _mm512_shuffle_f32x4(first.low, first.high, 0x44) +
           _mm512_shuffle_f32x4(first.low, first.high, 0xee);
  }
}

}  // namespace
}  // namespace onekv
