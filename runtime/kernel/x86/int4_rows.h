// int4 rows as int8 rows, by byte shuffles.
#pragma once

#include "../simd/int4_rows.h"
#include "avx512.h"

namespace onekv {
namespace {

struct ShuffleInt4 {
  static constexpr float kStep = 7.0f / 127;

  // The usual head_dims take their scales together: what is left of a row is otherwise mostly those.
  template <class Ask>
  static void open(const uint8_t* records, int64_t stride, int count, int dim, uint8_t* to,
                   int64_t to_stride, const Ask& ask) {
    if (dim == 64) return open_some<2>(records, stride, count, to, to_stride, ask);
    if (dim == 128) return open_some<4>(records, stride, count, to, to_stride, ask);
    for (int r = 0; r < count; ++r) {
      ask();
      open_row(records + r * stride, dim, to + r * to_stride);
    }
  }

  // By 16 groups at most, which is head_dim 512.
  static void open_row(const uint8_t* record, int dim, uint8_t* to) {
    const int groups = dim / kInt4Group;
    alignas(64) int32_t of[16];
    __mmask16 real = static_cast<__mmask16>((1 << groups) - 1);
    __m512 scales = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(real, record + dim / 2));
    float largest = _mm512_reduce_max_ps(scales), factor = largest > 0 ? 127 / largest : 0;
    store(of, steps_of(scales, _mm512_set1_ps(factor)));
    for (int g = 0; g < groups / 2; ++g) {
      __m256i both = load<__m256i>(record + 32 * g), nibble = _mm256_set1_epi8(15);
      __m256i upper = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
      store(to + 32 * g, _mm256_shuffle_epi8(levels(of[g]), _mm256_and_si256(both, nibble)));
      store(to + dim / 2 + 32 * g, _mm256_shuffle_epi8(levels(of[groups / 2 + g]), upper));
    }
    store(to + dim, largest * kStep);
  }

  // Scales as 1/127 of the largest of their row.
  static __m512i steps_of(__m512 scales, __m512 factor) {
    __m512i steps = _mm512_cvtps_epi32(_mm512_mul_ps(scales, factor));
    return _mm512_and_si512(steps, _mm512_set1_epi32(127));
  }

  static __m256i levels(int32_t m) { return _mm256_broadcastsi128_si256(load<__m128i>(kLevels.of[m])); }

  template <int Groups, class Ask>
  static void open_some(const uint8_t* records, int64_t stride, int count, uint8_t* to,
                        int64_t to_stride, const Ask& ask) {
    constexpr int dim = Groups * kInt4Group, all = kOpenedTogether * Groups;
    alignas(64) uint16_t scales[all];
    alignas(64) int32_t steps[all];
    alignas(64) float largest[all];
    for (int r = 0; r < count; ++r) {
      std::memcpy(scales + r * Groups, records + r * stride + dim / 2, 2 * Groups);
    }
    for (int i = 0; i < count * Groups; i += 16) {
      __m512 some = _mm512_cvtph_ps(load<__m256i>(scales + i));
      __m512 most = _mm512_max_ps(some, _mm512_permute_ps(some, 0xb1));  // of neighbours
      if (Groups == 4) most = _mm512_max_ps(most, _mm512_permute_ps(most, 0x4e));
      // A row of zeros divides by zero; its steps do not matter.
      store(steps + i, steps_of(some, _mm512_div_ps(_mm512_set1_ps(127), most)));
      store(largest + i, _mm512_mul_ps(most, _mm512_set1_ps(kStep)));
    }
    for (int r = 0; r < count; ++r) {
      ask();
      open_groups<Groups>(records + r * stride, steps + r * Groups, to + r * to_stride);
      store(to + r * to_stride + dim, largest[r * Groups]);
    }
  }

  template <int Groups>
  static ONEKV_INLINE void open_groups(const uint8_t* from, const int32_t* steps, uint8_t* to) {
    __m512i nibble = _mm512_set1_epi8(15);
    if constexpr (Groups == 2) {
      __m256i both = load<__m256i>(from);
      __m512i each = _mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1);
      store(to, _mm512_shuffle_epi8(two_levels(steps[0], steps[1]), _mm512_and_si512(each, nibble)));
    } else {
      __m512i both = load<__m512i>(from), upper = _mm512_srli_epi16(both, 4);
      store(to, _mm512_shuffle_epi8(two_levels(steps[0], steps[1]), _mm512_and_si512(both, nibble)));
      store(to + 64, _mm512_shuffle_epi8(two_levels(steps[2], steps[3]), _mm512_and_si512(upper, nibble)));
    }
  }

  // The levels of one group in the lower half, of another in the upper.
  static ONEKV_INLINE __m512i two_levels(int32_t lower, int32_t upper) {
    __m512i levels = _mm512_broadcast_i32x4(load<__m128i>(kLevels.of[lower]));
    return _mm512_mask_broadcast_i32x4(levels, 0xff00, load<__m128i>(kLevels.of[upper]));
  }
};

}  // namespace
}  // namespace onekv
