// int8 rows with integer dot products. Keys are turned as 16-bit integers with six bits below the
// stored ones; values are summed as bytes against weights of two bytes each.
#pragma once

#include <cmath>

#include "../simd/piece.h"
#include "avx512.h"
#include "int8_values.h"

namespace onekv {

struct Int8Mode {
  using V = Avx512;
  using F = V::F;
  using Lanes = __m512i;
  using Sum = V::I;
  static constexpr int kBlock = 32;
  static constexpr int kKeyBytes = 2;
  static constexpr float kKeySteps = 64;  // a staged key counts in 1/64 of a stored step
  // cos 1 in the table: a row is shifted left by 8 and the product right by 15.
  static constexpr float kOne = 32768 * kKeySteps / 256;

  struct Scratch {
    float* inverse;  // [padded]: what a query's integer scores are multiplied by
    Int8Weights weights;
    void take(const Problem&, int padded, Arena& arena) {
      inverse = arena.take<float>(padded);
      weights.take(padded, arena);
    }
  };

  static bool takes(const Problem& p) {
    const onekv_attend_args& a = *p.args;
    bool plain_pairs = !a.cos || (a.pairing == ONEKV_HALF_SPLIT && !a.key_gain);
    return a.format == ONEKV_INT8 && plain_pairs && p.head_dim % 64 == 0 && p.part_dim % 64 == 0;
  }

  static Sum dot(Sum sum, Lanes q, Lanes row) {
    return (Sum)_mm512_dpwssd_epi32((__m512i)sum, q, row);
  }
  static F to_float(Sum sum) { return (F)_mm512_cvtepi32_ps((__m512i)sum); }

  // A query as integers so large that no sum over any row leaves 31 bits.
  static void stage_query(const Problem&, Workspace<Int8Mode>& w, const float* halves, int m) {
    F squares = {};
    for (int i = 0; i < 2 * w.half; i += 16) squares += load<F>(halves + i) * load<F>(halves + i);
    float size = std::sqrt(sum_of<V>(squares));
    float room = 2.1e9f / (kKeySteps * 127 * std::sqrt(2.0f * w.half));
    float factor = size > 0 ? (room < 32000 ? room : 32000) / size : 0;
    w.mode.inverse[m] = factor > 0 ? 1 / (factor * kKeySteps) : 0;
    for (int i = 0; i < w.half; i += kBlock) {
      char* to = w.turned + 4 * i;
      for (int at = 0; at < kBlock; at += 16) {
        store(to + 2 * at, to_int16(halves + i + at, factor));
        store(to + 2 * kBlock + 2 * at, to_int16(halves + w.half + i + at, factor));
      }
    }
  }

  static __m256i to_int16(const float* from, float factor) {
    return _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)(load<F>(from) * factor)));
  }

  // Cosines then sines as 16-bit integers.
  static int64_t table_row_bytes(const Problem&, int half) { return int64_t{half} * 4; }
  static void fill_table_row(const Problem&, const float* angles, int half, char* to) {
    for (int i = 0; i < 2 * half; i += 16) store(to + 2 * i, to_int16(angles + i, kOne));
  }

  static Keys stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, Workspace<Int8Mode>& w) {
    bool turns = p.args->cos;
    for (int r = 0; r < count; ++r) {
      const uint8_t* x = span.part[0] + (first + r) * span.stride;
      const uint8_t* y = p.parts == 2 ? span.part[1] + (first + r) * span.stride : x + w.half;
      float scale = load<float>(x + p.part_dim), second = load<float>(y + w.half);
      float most = scale > second ? scale : second;
      w.scales[first + r] = most;
      const int16_t* angles = reinterpret_cast<const int16_t*>(table.row(r));
      char* to = w.keys + int64_t{r} * w.row_bytes;
      for (int i = 0; i < w.half; i += kBlock) {
        __m512i low = widen(x + i), high = widen(y + i);
        if (p.parts == 2) low = shrink(low, scale, most), high = shrink(high, second, most);
        if (turns) {
          turn(angles + i, angles + w.half + i, low, high);
        } else {
          low = _mm512_srai_epi16(low, 2), high = _mm512_srai_epi16(high, 2);
        }
        store(to + 4 * i, low);
        store(to + 4 * i + 64, high);
      }
    }
    return {w.keys, w.row_bytes};
  }

  static __m512i widen(const uint8_t* from) {
    return _mm512_slli_epi16(_mm512_cvtepi8_epi16(load<__m256i>(from)), 8);
  }

  // Brings the elements of one part to the larger scale of the two.
  static __m512i shrink(__m512i row, float scale, float most) {
    int ratio = most > 0 ? static_cast<int>(32767 * (scale / most)) : 0;
    return _mm512_mulhrs_epi16(row, _mm512_set1_epi16(static_cast<int16_t>(ratio)));
  }

  static void turn(const int16_t* cosines, const int16_t* sines, __m512i& low, __m512i& high) {
    __m512i cos = load<__m512i>(cosines), sin = load<__m512i>(sines);
    __m512i turned =
        _mm512_sub_epi16(_mm512_mulhrs_epi16(low, cos), _mm512_mulhrs_epi16(high, sin));
    high = _mm512_add_epi16(_mm512_mulhrs_epi16(high, cos), _mm512_mulhrs_epi16(low, sin));
    low = turned;
  }

  static void scale_scores(Workspace<Int8Mode>& w, int m, int count) {
    float* scores = w.scores + m * w.kScoreStride;
    for (int t = 0; t < count; t += 16) {
      store(scores + t, load<F>(scores + t) * load<F>(w.scales + t) * w.mode.inverse[m]);
    }
  }

  static void add_values(const Problem& p, const RowSpan& span, Workspace<Int8Mode>& w,
                         const Partial& result) {
    for (int part = 0; part < p.parts; ++part) {
      const uint8_t* rows = span.part[part];
      for (int t = 0; t < span.count; ++t) {
        w.scales[t] = load<float>(rows + t * span.stride + p.part_dim);
      }
      for (int m = 0; m < w.queries; ++m) {
        w.mode.weights.fill(m, w.scores + m * w.kScoreStride, w.scales, span.count);
      }
      add_int8_rows(rows, span.stride, span.count, p.part_dim, w.mode.weights, w.alpha, w.queries,
                    result.out + part * p.part_dim, p.head_dim, w.ahead);
    }
  }
};

}  // namespace onekv
