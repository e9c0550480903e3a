// AVX2 with FMA and F16C as the loops of simd/ want it.
#pragma once

#include <immintrin.h>

#include "../simd/vector.h"

namespace onekv {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  using F = Vector<float, 8>;
  using I = Vector<int32_t, 8>;

  static F load_fp16(const void* p) { return (F)_mm256_cvtph_ps(load<__m128i>(p)); }
  static F load_bf16(const void* p) {
    return (F)_mm256_slli_epi32(_mm256_cvtepu16_epi32(load<__m128i>(p)), 16);
  }
  static F load_int8(const void* p) {
    return (F)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
  }
  static F max(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
  static F all(float x) { return (F)_mm256_set1_ps(x); }

  // The Units 32-bit values at p, repeated over all lanes.
  template <int Units>
  static __m256i spread(const void* p) {
    if constexpr (Units == 8) return load<__m256i>(p);
    if constexpr (Units == 4) return _mm256_broadcastsi128_si256(load<__m128i>(p));
    if constexpr (Units == 2) return _mm256_set1_epi64x(load<int64_t>(p));
    if constexpr (Units == 1) return _mm256_set1_epi32(load<int32_t>(p));
  }
};

}  // namespace
}  // namespace onekv
