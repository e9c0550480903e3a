// NEON as every 64-bit ARM CPU has it.
#pragma once

#include <arm_neon.h>

#include "../simd/vector.h"

namespace onekv {
namespace {

struct Neon {
  static constexpr int kLanes = 4;
  using F = Vector<float, 4>;
  using I = Vector<int32_t, 4>;

  static F load_fp16(const void* p) {
    return (F)vcvt_f32_f16(vreinterpret_f16_u16(load<uint16x4_t>(p)));
  }
  static F load_bf16(const void* p) { return (F)vshll_n_u16(load<uint16x4_t>(p), 16); }
  static F load_int8(const void* p) {
    int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(load<uint32_t>(p)));
    return (F)vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
  }
  static F max(F a, F b) { return (F)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
  static F all(float x) { return (F)vdupq_n_f32(x); }

  // The Units 32-bit values at p, repeated over all lanes.
  template <int Units>
  static I spread(const void* p) {
    if constexpr (Units == 4) return load<I>(p);
    if constexpr (Units == 2) return (I)vdupq_n_s64(load<int64_t>(p));
    if constexpr (Units == 1) return (I)vdupq_n_s32(load<int32_t>(p));
  }
};

}  // namespace
}  // namespace onekv
