// 16-bit integers as two signed bytes, 128 * high + low, for the byte products of ARM; and the sums
// of such products by two instructions. What is split lies in spans: high bytes, then low ones.
#pragma once

#include "neon.h"

namespace onekv {
namespace {

struct SplitBytes {
  int8x8_t high, low;

  explicit SplitBytes(int16x8_t x) {
    high = vqrshrn_n_s16(x, 7);
    low = vmovn_s16(vsubq_s16(x, vshll_n_s8(high, 7)));
  }
};

// Armv8.2's dot products. low * low is left out: it is below 2^-14 of the largest product.
struct SplitDot : Neon {
  struct Lanes {
    int8x16_t high, low;
  };
  struct Sum {
    int32x4_t high, cross;
  };

  template <int Units>
  static Lanes spread(const void* p) {
    return load<Lanes>(p);
  }
  static Sum dot(Sum sum, Lanes q, Lanes row) {
    sum.high = vdotq_s32(sum.high, q.high, row.high);
    sum.cross = vdotq_s32(vdotq_s32(sum.cross, q.high, row.low), q.low, row.high);
    return sum;
  }
  static I joined(Sum sum) {
    return (I)vshlq_n_s32(vaddq_s32(vshlq_n_s32(sum.high, 7), sum.cross), 7);
  }
  static void store_span(const int16x8_t* x, int8_t* to) {
    SplitBytes first(x[0]), second(x[1]);
    vst1q_s8(to, vcombine_s8(first.high, second.high));
    vst1q_s8(to + 16, vcombine_s8(first.low, second.low));
  }
};

#if defined(__ARM_FEATURE_MATMUL_INT8)
// Armv8.6's 2 x 2 products of 8 bytes: all four of (high, low) by (high, low) at once.
struct SplitProduct : Neon {
  using Lanes = int8x16_t;
  using Sum = int32x4_t;

  static Sum dot(Sum sum, Lanes q, I row) { return vmmlaq_s32(sum, q, (int8x16_t)row); }
  static I joined(Sum sum) {
    const int32x4_t places = {14, 7, 7, 0};
    return (I)vshlq_s32(sum, places);
  }
  static void store_span(const int16x8_t* x, int8_t* to) {
    for (int i = 0; i < 2; ++i) {
      SplitBytes bytes(x[i]);
      vst1q_s8(to + 16 * i, vcombine_s8(bytes.high, bytes.low));
    }
  }
};
#endif

}  // namespace
}  // namespace onekv
