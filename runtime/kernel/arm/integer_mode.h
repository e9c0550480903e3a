// int8 and int4 rows with integer products. Keys are turned as 16-bit integers, which products of
// bytes take in two halves; values are summed as bytes.
#pragma once

#include "../simd/integer_rows.h"
#include "dot_values.h"
#include "int4_rows.h"
#include "split_bytes.h"

namespace onekv {
namespace {

// Products is one of split_bytes.h.
template <class Products, onekv_format Format>
struct IntegerMode : IntegerRows<Neon, Format, DotValues, TableInt4> {
  using Base = IntegerRows<Neon, Format, DotValues, TableInt4>;
  using V = Products;
  using F = Neon::F;
  using Lanes = typename Products::Lanes;
  using Sum = typename Products::Sum;
  static constexpr int kBlock = 16;
  static constexpr int kMostHeads = 1;  // the lanes of a vector are summed into one score
  static constexpr float kMostQuery = 16200;  // whose high byte is below 128

  static bool takes(const Problem& p) {
    return Base::takes_rows(p) && p.head_dim % (2 * kBlock) == 0 &&
           p.part_dim % DotValues::kDims == 0;
  }

  template <class Row>
  static Sum dot(Sum sum, Lanes q, Row row) {
    return Products::dot(sum, q, row);
  }
  template <int Units>
  static F total(const Sum* sums) {
    Neon::I joined[Units];
    for (int i = 0; i < Units; ++i) joined[i] = Products::joined(sums[i]);
    return (F)vcvtq_f32_s32((int32x4_t)reduce<Units, Neon>(joined));
  }

  static int16x8_t to_int16(const float* from, float factor) {
    int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(from), factor));
    int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(from + 4), factor));
    return vcombine_s16(vqmovn_s32(low), vqmovn_s32(high));
  }

  template <class W>
  static void stage_query(const Problem&, W& w, const float* halves, int m, char* to) {
    float factor = Base::query_factor(w, halves, m, kMostQuery);
    for (int i = 0; i < 2 * w.half; i += 16) {
      int16x8_t some[2] = {to_int16(halves + i, factor), to_int16(halves + i + 8, factor)};
      Products::store_span(some, reinterpret_cast<int8_t*>(to) + 2 * i);
    }
  }

  // Cosines, then sines.
  static int64_t table_row_bytes(const Problem&, int half) { return int64_t{half} * 4; }
  static void fill_table_row(const Problem&, const float* angles, int half, char* to) {
    for (int i = 0; i < 2 * half; i += 8) store(to + 2 * i, to_int16(angles + i, Base::kOne));
  }

  static bool keeps_apart(const Problem&, int) { return true; }
  template <class W>
  static void score(const Problem& p, const RowSpan& span, int64_t position,
                    const TileTable& table, W& w) {
    score_span(p, span, position, table, w);
  }

  template <class W>
  static Keys stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, W& w) {
    auto stage = p.args->cos ? stage_row<true> : stage_row<false>;
    for (int r = 0; r < count; ++r) {
      const uint8_t* x = span.part[0] + (first + r) * span.stride;
      const uint8_t* y = p.parts == 2 ? span.part[1] + (first + r) * span.stride : x + w.half;
      float* scale = w.scales + first + r;
      *scale = load<float>(x + p.part_dim);
      float ratio = p.parts == 2 ? Base::join_scales(load<float>(y + p.part_dim), scale) : 1;
      stage(x, y, ratio, table.row(r), w.half, w.keys + int64_t{r} * w.row_bytes);
    }
    return {w.keys, w.row_bytes};
  }

  template <bool Turn>
  static void stage_row(const uint8_t* x, const uint8_t* y, float ratio, const char* table,
                        int half, char* keys) {
    int8_t* to = reinterpret_cast<int8_t*>(keys);
    for (int i = 0; i < half; i += 16) {
      int16x8_t low[2], high[2];
      widen(x + i, low);
      widen(y + i, high);
      for (int j = 0; j < 2; ++j) {
        if (ratio != 1) shrink(ratio > 0 ? low[j] : high[j], ratio);
        if (Turn) {
          const char* angles = table + 2 * (i + 8 * j);
          turn(load<int16x8_t>(angles), load<int16x8_t>(angles + 2 * half), low[j], high[j]);
        } else {
          low[j] = vshrq_n_s16(low[j], 2), high[j] = vshrq_n_s16(high[j], 2);
        }
      }
      Products::store_span(low, to + 2 * i);
      Products::store_span(high, to + 2 * (half + i));
    }
  }

  static void widen(const uint8_t* from, int16x8_t* to) {
    int8x16_t bytes = load<int8x16_t>(from), zero = vdupq_n_s8(0);
    to[0] = vreinterpretq_s16_s8(vzip1q_s8(zero, bytes));
    to[1] = vreinterpretq_s16_s8(vzip2q_s8(zero, bytes));
  }

  static void shrink(int16x8_t& row, float ratio) {
    row = vqrdmulhq_n_s16(row, Base::shrink_steps(ratio));
  }

  static void turn(int16x8_t cos, int16x8_t sin, int16x8_t& x, int16x8_t& y) {
    int16x8_t turned = vsubq_s16(vqrdmulhq_s16(x, cos), vqrdmulhq_s16(y, sin));
    y = vaddq_s16(vqrdmulhq_s16(y, cos), vqrdmulhq_s16(x, sin));
    x = turned;
  }

  template <class W>
  static void add_values(const Problem& p, const RowSpan& span, W& w, const Partial& result) {
    for (int part = 0; part < p.parts; ++part) {
      DotValues::add(p, span.part[part], span, w, w.mode.values, result.out + part * p.part_dim);
    }
  }
};

}  // namespace
}  // namespace onekv
