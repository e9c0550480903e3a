// AVX-512 (F, BW, VL, DQ) as the loops of simd/ want it.
#pragma once

#include <immintrin.h>

#include "../simd/vector.h"

#define ONEKV_INLINE inline __attribute__((always_inline))

namespace onekv {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16;
  using F = Vector<float, 16>;
  using I = Vector<int32_t, 16>;

  static F load_fp16(const void* p) {
    return (F)_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static F load_bf16(const void* p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
    return (F)_mm512_slli_epi32(wide, 16);
  }
  static F load_int8(const void* p) {
    return (F)_mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }
  static F max(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
  static F all(float x) { return (F)_mm512_set1_ps(x); }

  // The Units 32-bit values at p, repeated over all lanes.
  template <int Units>
  static __m512i spread(const void* p) {
    if constexpr (Units == 16) return _mm512_loadu_si512(p);
    if constexpr (Units == 8) return _mm512_broadcast_i64x4(load<__m256i>(p));
    if constexpr (Units == 4) return _mm512_broadcast_i32x4(load<__m128i>(p));
    if constexpr (Units == 2) return _mm512_set1_epi64(load<int64_t>(p));
    if constexpr (Units == 1) return _mm512_set1_epi32(load<int32_t>(p));
  }
};

}  // namespace
}  // namespace onekv
