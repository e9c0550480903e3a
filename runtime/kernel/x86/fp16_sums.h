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

// A sum whose lanes are still to be added up.
struct HalfSum {
  Halves lanes;
};

// Of four sums: in every 8 elements, two parts of each.
static inline Halves add_four(const HalfSum* sums) {
  return add_pairs_of_words(add_pairs_of_halves(sums[0].lanes, sums[1].lanes),
                            add_pairs_of_halves(sums[2].lanes, sums[3].lanes));
}
// Of eight sums: in every 8 elements, one part of each.
static inline Halves add_eight(const HalfSum* sums) {
  return add_pairs_of_words(add_four(sums), add_four(sums + 4));
}

// Eight lanes are the sum of the halves of x.low, the next eight of x.high.
static inline __m512 add_half_vectors(Wide x) {
  return _mm512_shuffle_f32x4(x.low, x.high, 0x44) + _mm512_shuffle_f32x4(x.low, x.high, 0xee);
}
// Sixteen sums of which a and b hold eight each, as add_eight leaves them.
static inline __m512 add_sixteen(Halves a, Halves b) {
  Wide first = widen(a), second = widen(b);
  return add_half_vectors({first.low + first.high, second.low + second.high});
}

// Sums of 16 / Heads rows, whose lanes belong to Heads queries: lane h * rows + r is the whole sum
// of row r and query h.
template <int Heads>
static inline __m512 total_of_halves(const HalfSum* sums) {
  if constexpr (Heads == 4) {
    Wide parts = widen(add_four(sums));
    __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    return (__m512)_mm512_permutex2var_pd((__m512d)parts.low, even, (__m512d)parts.high) +
           (__m512)_mm512_permutex2var_pd((__m512d)parts.low, odd, (__m512d)parts.high);
  } else if constexpr (Heads == 2) {
    return add_half_vectors(widen(add_eight(sums)));
  } else {
    return add_sixteen(add_eight(sums), add_eight(sums + 8));
  }
}

// For x86/row_scores.h: of four sums, and of four such results the sixteen whole sums.
static inline HalfSum sum_fours(HalfSum a, HalfSum b, HalfSum c, HalfSum d) {
  HalfSum sums[] = {a, b, c, d};
  return {add_four(sums)};
}
static inline __m512 sum_lanes(const HalfSum* fours) {
  return add_sixteen(add_pairs_of_words(fours[0].lanes, fours[1].lanes),
                     add_pairs_of_words(fours[2].lanes, fours[3].lanes));
}

}  // namespace
}  // namespace onekv
