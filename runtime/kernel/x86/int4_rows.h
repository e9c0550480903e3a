// One int4 row as an int8 row, by byte shuffles.
#pragma once

#include "../simd/int4_rows.h"
#include "avx512.h"

namespace onekv {
namespace {

struct ShuffleInt4 {
  // By 16 groups at most, which is head_dim 512. The usual ones as constants: what is left of a row
  // is otherwise mostly loops.
  static void open(const uint8_t* record, int dim, uint8_t* to) {
    if (dim == 64) return open_few<2>(record, to);
    if (dim == 128) return open_few<4>(record, to);
    const int groups = dim / kInt4Group;
    alignas(64) int32_t of[16];
    __mmask16 real = static_cast<__mmask16>((1 << groups) - 1);
    __m512 scales = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(real, record + dim / 2));
    float largest = _mm512_reduce_max_ps(scales), factor = largest > 0 ? 127 / largest : 0;
    store(of, _mm512_cvtps_epi32(_mm512_mul_ps(scales, _mm512_set1_ps(factor))));
    for (int g = 0; g < groups / 2; ++g) {
      open_groups(record + 32 * g, of[g], of[groups / 2 + g], to + 32 * g, to + dim / 2 + 32 * g);
    }
    store(to + dim, largest * kStep);
  }

  template <int Groups>
  static void open_few(const uint8_t* record, uint8_t* to) {
    constexpr int dim = Groups * kInt4Group;
    using Stored = std::conditional_t<Groups == 2, int32_t, int64_t>;
    __m128 scales = _mm_cvtph_ps(_mm_cvtsi64_si128(load<Stored>(record + dim / 2)));
    __m128 most = Groups == 2 ? scales : _mm_max_ps(scales, _mm_movehl_ps(scales, scales));
    most = _mm_max_ss(most, _mm_movehdup_ps(most));
    float largest = _mm_cvtss_f32(most), factor = largest > 0 ? 127 / largest : 0;
    __m128i of = _mm_cvtps_epi32(_mm_mul_ps(scales, _mm_set1_ps(factor)));
    if constexpr (Groups == 2) {
      open_groups(record, _mm_extract_epi32(of, 0), _mm_extract_epi32(of, 1), to, to + 32);
    } else {
      open_groups(record, _mm_extract_epi32(of, 0), _mm_extract_epi32(of, 2), to, to + 64);
      open_groups(record + 32, _mm_extract_epi32(of, 1), _mm_extract_epi32(of, 3), to + 32, to + 96);
    }
    store(to + dim, largest * kStep);
  }

  static constexpr float kStep = 7.0f / 127;

  // Two groups lie in the halves of 32 bytes.
  static void open_groups(const uint8_t* from, int first, int second, uint8_t* low, uint8_t* high) {
    __m256i both = load<__m256i>(from), nibble = _mm256_set1_epi8(15);
    __m256i upper = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
    store(low, _mm256_shuffle_epi8(levels(first), _mm256_and_si256(both, nibble)));
    store(high, _mm256_shuffle_epi8(levels(second), upper));
  }

  static __m256i levels(int32_t m) {
    return _mm256_broadcastsi128_si256(load<__m128i>(kLevels.of[m & 127]));
  }
};

}  // namespace
}  // namespace onekv
