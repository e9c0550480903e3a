// fp16 rows with fp16 arithmetic: rows are turned as fp16, products are added up in fp32 by the
// widening FMLAL of Armv8.4. What that rounds is as small as what the rows were rounded by.
#pragma once

#include "../simd/fp16_keys.h"
#include "../simd/scores.h"
#include "neon.h"

namespace onekv {
namespace {

struct Fp16Mode : Fp16Keys<Fp16Mode> {
  using V = Neon;
  using F = V::F;
  using Lanes = float16x8_t;
  using Sum = F;
  static constexpr int kBlock = 8;
  static constexpr int kMostHeads = 1;  // the lanes of a vector are summed into one score
  // Staged queries are fp16 too: their largest element becomes about this.
  static constexpr float kQueryTop = 256;
  // Turned rows are halved, as turning may lengthen an element beyond fp16.
  static constexpr float kTableFactor = 0.5f;

  struct Scratch {
    float* factor;       // [padded]: what a query is multiplied by
    float16_t* weights;  // [padded][kSuperTile + kRowPadding]
    void start(int padded) { std::memset(factor, 0, sizeof(float) * padded); }
    void take(const Problem&, int padded, Arena& arena) {
      factor = arena.take<float>(padded);
      weights = arena.take<float16_t>(int64_t{padded} * (kSuperTile + kRowPadding));
    }
  };
  using W = Workspace<Fp16Mode>;

  static bool takes(const Problem& p) {
    const onekv_attend_args& a = *p.args;
    return a.format == ONEKV_FP16 && pairs_in_halves(p) && !(a.cos && a.key_gain) &&
           p.head_dim % (2 * kBlock) == 0;
  }

  static Sum dot(Sum sum, Lanes q, V::I row) {
    float32x4_t low = vfmlalq_low_f16((float32x4_t)sum, q, (float16x8_t)row);
    return (F)vfmlalq_high_f16(low, q, (float16x8_t)row);
  }
  template <int Units>
  static F total(const Sum* sums) {
    return reduce<Units, V>(sums);
  }

  static void narrow(const float* from, float factor, void* to) {
    float16x4_t low = vcvt_f16_f32(vmulq_n_f32(vld1q_f32(from), factor));
    store(to, vcvt_high_f16_f32(low, vmulq_n_f32(vld1q_f32(from + 4), factor)));
  }

  template <bool Gain>
  static void turn_row(const uint8_t* x, const uint8_t* y, int half, const char* table, char* to) {
    for (int at = 0; at < 2 * half; at += 16) {
      turn_pairs<float16x8_t, Gain>(x, y, table, half, at, to);
    }
  }

  static bool keeps_apart(const Problem&, int) { return true; }
  static void score(const Problem& p, const RowSpan& span, int64_t position,
                    const TileTable& table, W& w) {
    score_span(p, span, position, table, w);
  }

  static void scale_scores(const Problem& p, W& w, int m, int count) {
    float inverse = 1 / (w.mode.factor[m] * (p.args->cos ? kTableFactor : 1));
    float* scores = w.scores + m * w.kScoreStride;
    for (int t = 0; t < count; ++t) scores[t] *= inverse;
  }

  static void add_values(const Problem& p, const RowSpan& span, W& w, const Partial& result) {
    int stride = w.kScoreStride;
    for (int m = 0; m < w.queries; ++m) {
      for (int t = 0; t < span.count; t += 8) {
        narrow(w.scores + m * stride + t, 1, w.mode.weights + m * stride + t);
      }
    }
    int64_t calls = int64_t{w.queries + 3} / 4 * ((p.head_dim + 15) / 16);
    int64_t share = w.ahead.bytes / calls;
    for (int part = 0; part < p.parts; ++part) {
      for (int d = 0; d < p.part_dim;) {
        int dims = p.part_dim - d >= 16 ? 16 : 8;
        for (int m = 0; m < w.queries;) {
          int taken = w.queries - m >= 4 ? 4 : w.queries - m >= 2 ? 2 : 1;
          auto add = taken == 4   ? (dims == 16 ? add_rows<4, 2> : add_rows<4, 1>)
                     : taken == 2 ? (dims == 16 ? add_rows<2, 2> : add_rows<2, 1>)
                                  : (dims == 16 ? add_rows<1, 2> : add_rows<1, 1>);
          add(span.part[part] + 2 * d, span, w.mode.weights + m * stride, stride, w.alpha + m,
              result.out + int64_t{m} * p.head_dim + part * p.part_dim + d, p.head_dim,
              w.ahead.take(share, span.count));
          m += taken;
        }
        d += dims;
      }
    }
  }

  // Adds up 8 * Vectors dimensions of rows for Queries queries.
  template <int Queries, int Vectors>
  static void add_rows(const uint8_t* rows, const RowSpan& span, const float16_t* weights,
                       int weight_stride, const float* alpha, float* out, int out_stride,
                       Lines ahead) {
    float32x4_t low[Queries][Vectors] = {}, high[Queries][Vectors] = {};
    for (int t = 0; t < span.count; ++t, rows += span.stride) {
      ahead.ask();
      for (int v = 0; v < Vectors; ++v) {
        float16x8_t row = load<float16x8_t>(rows + 16 * v);
        for (int m = 0; m < Queries; ++m) {
          float16x8_t weight = vld1q_dup_f16(weights + m * weight_stride + t);
          low[m][v] = vfmlalq_low_f16(low[m][v], row, weight);
          high[m][v] = vfmlalq_high_f16(high[m][v], row, weight);
        }
      }
    }
    for (int m = 0; m < Queries; ++m) {
      for (int v = 0; v < Vectors; ++v) {
        float* to = out + m * out_stride + 8 * v;
        vst1q_f32(to, vfmaq_n_f32(low[m][v], vld1q_f32(to), alpha[m]));
        vst1q_f32(to + 4, vfmaq_n_f32(high[m][v], vld1q_f32(to + 4), alpha[m]));
      }
    }
  }
};

}  // namespace
}  // namespace onekv
