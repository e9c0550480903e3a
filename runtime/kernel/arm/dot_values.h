// Sums of int8 rows by the byte dot products of Armv8.2: four positions per lane.
#pragma once

#include "../simd/layout.h"
#include "neon.h"

namespace onekv {
namespace {

// Weights times scales as 14-bit fractions of the largest, in two bytes of 7 bits: the instruction
// multiplies signed bytes.
struct DotValues {
  static constexpr int kDims = 16;
  static constexpr int kStride = kSuperTile + kRowPadding;
  static constexpr float kSteps = 16383;

  struct Scratch {
    int8_t* high;  // [padded][kStride]
    int8_t* low;
    float* step;  // [padded]
    void take(const Problem&, int padded, Arena& arena) {
      high = arena.take<int8_t>(int64_t{padded} * kStride);
      low = arena.take<int8_t>(int64_t{padded} * kStride);
      step = arena.take<float>(padded);
    }
  };

  template <class W>
  static void add(const Problem& p, const uint8_t* rows, const RowSpan& span, W& w,
                  const Scratch& weights, float* out) {
    for (int m = 0; m < w.queries; ++m) {
      fill(weights, m, w.scores + m * w.kScoreStride, rows + p.part_dim, span);
    }
    int64_t share = w.ahead.bytes / (int64_t{w.queries + 3} / 4 * (p.head_dim / kDims));
    for (int d = 0; d < p.part_dim; d += kDims) {
      for (int m = 0; m < w.queries;) {
        int taken = w.queries - m >= 4 ? 4 : w.queries - m >= 2 ? 2 : 1;
        auto add_block = taken == 4 ? add_dots<4> : taken == 2 ? add_dots<2> : add_dots<1>;
        add_block(rows + d, span, weights, m, w.alpha + m, out + int64_t{m} * p.head_dim + d,
                  p.head_dim, w.ahead.take(share, (span.count + 3) / 4));
        m += taken;
      }
    }
  }

  // Weights beyond the last up to the next four become 0.
  static void fill(const Scratch& to, int m, const float* weights, const uint8_t* scale,
                   const RowSpan& span) {
    float scaled[kSuperTile], top = 0;
    for (int t = 0; t < span.count; ++t) {
      scaled[t] = weights[t] * load<float>(scale + t * span.stride);
      top = scaled[t] > top ? scaled[t] : top;
    }
    float factor = top > 0 ? kSteps / top : 0;
    to.step[m] = top / kSteps;
    for (int t = 0; t < round_up(span.count, 4); ++t) {
      int level = t < span.count ? static_cast<int>(scaled[t] * factor + 0.5f) : 0;
      to.high[m * kStride + t] = static_cast<int8_t>(level >> 7);
      to.low[m * kStride + t] = static_cast<int8_t>(level & 127);
    }
  }

  // Four rows of 16 dimensions as four vectors of 4 dimensions by 4 rows.
  static void quads(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                    int8x16_t* to) {
    int8x16_t ra = load<int8x16_t>(a), rb = load<int8x16_t>(b);
    int8x16_t rc = load<int8x16_t>(c), rd = load<int8x16_t>(d);
    for (int half = 0; half < 2; ++half) {
      int16x8_t ab = vreinterpretq_s16_s8(half ? vzip2q_s8(ra, rb) : vzip1q_s8(ra, rb));
      int16x8_t cd = vreinterpretq_s16_s8(half ? vzip2q_s8(rc, rd) : vzip1q_s8(rc, rd));
      to[2 * half] = vreinterpretq_s8_s16(vzip1q_s16(ab, cd));
      to[2 * half + 1] = vreinterpretq_s8_s16(vzip2q_s16(ab, cd));
    }
  }

  static int8x16_t four(const int8_t* weights) {
    return vreinterpretq_s8_s32(vdupq_n_s32(load<int32_t>(weights)));
  }

  template <int Queries>
  static void add_dots(const uint8_t* rows, const RowSpan& span, const Scratch& w, int m,
                       const float* alpha, float* out, int out_stride, Lines ahead) {
    int32x4_t high[Queries][4] = {}, low[Queries][4] = {};
    for (int t = 0; t < span.count; t += 4) {
      ahead.ask();
      // Rows beyond the last are the last again, at weight 0.
      auto row = [&](int i) {
        return rows + (t + i < span.count ? t + i : span.count - 1) * span.stride;
      };
      int8x16_t quad[4];
      quads(row(0), row(1), row(2), row(3), quad);
      for (int q = 0; q < Queries; ++q) {
        int8x16_t first = four(w.high + (m + q) * kStride + t);
        int8x16_t second = four(w.low + (m + q) * kStride + t);
        for (int j = 0; j < 4; ++j) {
          high[q][j] = vdotq_s32(high[q][j], quad[j], first);
          low[q][j] = vdotq_s32(low[q][j], quad[j], second);
        }
      }
    }
    for (int q = 0; q < Queries; ++q) {
      for (int j = 0; j < 4; ++j) {
        int32x4_t total = vaddq_s32(vshlq_n_s32(high[q][j], 7), low[q][j]);
        float* to = out + int64_t{q} * out_stride + 4 * j;
        float32x4_t sum = vmulq_n_f32(vcvtq_f32_s32(total), w.step[m + q]);
        vst1q_f32(to, vfmaq_n_f32(sum, vld1q_f32(to), alpha[q]));
      }
    }
  }
};

}  // namespace
}  // namespace onekv
