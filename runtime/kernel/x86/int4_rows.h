// One int4 row as an int8 row, by byte shuffles.
#pragma once

#include "../simd/int4_rows.h"
#include "avx512.h"

namespace onekv {
namespace {

struct ShuffleInt4 {
  // By 16 groups at most, which is head_dim 512.
  static void open(const uint8_t* record, int dim, uint8_t* to) {
    const int groups = dim / kInt4Group;
    alignas(64) int32_t of[16];
    float largest = groups > 4 ? levels_of_many(record + dim / 2, groups, of)
                               : levels_of_few(record + dim / 2, groups, of);
    __m256i nibble = _mm256_set1_epi8(15);
    for (int g = 0; g < groups / 2; ++g) {
      __m256i both = load<__m256i>(record + 32 * g);
      __m256i low = _mm256_and_si256(both, nibble);
      __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
      store(to + 32 * g, _mm256_shuffle_epi8(levels(of[g]), low));
      store(to + 32 * (groups / 2 + g), _mm256_shuffle_epi8(levels(of[groups / 2 + g]), high));
    }
    float scale = largest * (7.0f / 127);
    std::memcpy(to + dim, &scale, sizeof scale);
  }

  // The largest scale; `of` gets every group's in 127ths of it.
  static float levels_of_many(const uint8_t* from, int groups, int32_t* of) {
    __mmask16 real = static_cast<__mmask16>((1 << groups) - 1);
    __m512 scales = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(real, from));
    float largest = _mm512_reduce_max_ps(scales), factor = largest > 0 ? 127 / largest : 0;
    store(of, _mm512_cvtps_epi32(_mm512_mul_ps(scales, _mm512_set1_ps(factor))));
    return largest;
  }
  static float levels_of_few(const uint8_t* from, int groups, int32_t* of) {
    __mmask8 real = static_cast<__mmask8>((1 << groups) - 1);
    __m128 scales = _mm_cvtph_ps(_mm_maskz_loadu_epi16(real, from));
    __m128 most = _mm_max_ps(scales, _mm_movehl_ps(scales, scales));
    float largest = _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
    float factor = largest > 0 ? 127 / largest : 0;
    store(of, _mm_cvtps_epi32(_mm_mul_ps(scales, _mm_set1_ps(factor))));
    return largest;
  }

  static __m256i levels(int32_t m) {
    return _mm256_broadcastsi128_si256(load<__m128i>(kLevels.of[m & 127]));
  }
};

}  // namespace
}  // namespace onekv
