// One int4 row as an int8 row, by table look-ups.
#pragma once

#include "../simd/int4_rows.h"
#include "neon.h"

namespace onekv {
namespace {

struct TableInt4 {
  template <class Ask>
  static void open(const uint8_t* records, int64_t stride, int count, int dim, uint8_t* to,
                   int64_t to_stride, const Ask& ask) {
    for (int r = 0; r < count; ++r) {
      ask();
      open_row(records + r * stride, dim, to + r * to_stride);
    }
  }

  static void open_row(const uint8_t* record, int dim, uint8_t* to) {
    const int groups = dim / kInt4Group;
    float scales[kMaxHeadDim / kInt4Group], largest = 0;
    for (int g = 0; g < groups; ++g) {
      scales[g] = fp16_to_float(load<uint16_t>(record + dim / 2 + 2 * g));
      largest = scales[g] > largest ? scales[g] : largest;
    }
    float factor = largest > 0 ? 127 / largest : 0;
    for (int g = 0; g < groups / 2; ++g) {
      int8x16_t first = levels(scales[g] * factor);
      int8x16_t second = levels(scales[groups / 2 + g] * factor);
      for (int i = 32 * g; i < 32 * g + 32; i += 16) {
        uint8x16_t both = vld1q_u8(record + i);
        store(to + i, vqtbl1q_s8(first, vandq_u8(both, vdupq_n_u8(15))));
        store(to + dim / 2 + i, vqtbl1q_s8(second, vshrq_n_u8(both, 4)));
      }
    }
    float scale = largest * (7.0f / 127);
    std::memcpy(to + dim, &scale, sizeof scale);
  }

  static int8x16_t levels(float m) {
    return vld1q_s8(kLevels.of[static_cast<int>(m + 0.5f) & 127]);
  }
};

}  // namespace
}  // namespace onekv
