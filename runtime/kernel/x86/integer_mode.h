// int8 and int4 rows with integer dot products. Keys are turned as 16-bit integers with six bits
// below the stored ones; values are summed as bytes. int4 rows become int8 rows first.
#pragma once

#include "../simd/integer_rows.h"
#include "int4_rows.h"
#include "integer_values.h"
#include "row_scores.h"

namespace onekv {
namespace {

template <onekv_format Format>
struct IntegerMode
    : IntegerRows<Avx512, Format, IntegerWeights<Format == ONEKV_INT8>, ShuffleInt4> {
  using Base = IntegerRows<Avx512, Format, IntegerWeights<Format == ONEKV_INT8>, ShuffleInt4>;
  using V = Avx512;
  using F = V::F;
  using Lanes = __m512i;
  using Sum = V::I;
  static constexpr int kBlock = 32;
  static constexpr int kMostHeads = V::kLanes;

  static bool takes(const Problem& p) { return Base::takes_rows(p) && p.part_dim % 64 == 0; }

  static Sum dot(Sum sum, Lanes q, Lanes row) {
    return (Sum)_mm512_dpwssd_epi32((__m512i)sum, q, row);
  }
  static F to_float(Sum sum) { return (F)_mm512_cvtepi32_ps((__m512i)sum); }
  template <int Units>
  static F total(const Sum* sums) {
    return to_float(reduce<Units, V>(sums));
  }

  static void stage_query(const Problem&, Workspace<IntegerMode>& w, const float* halves, int m,
                          char* to) {
    float factor = Base::query_factor(w, halves, m, 32000);
    store_in_order(halves, halves + w.half, w.half, factor, to);
  }

  static __m256i to_int16(const float* from, float factor) {
    return _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)(load<F>(from) * factor)));
  }
  static Lanes two_int16(const float* from, float factor) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(to_int16(from, factor)),
                              to_int16(from + 16, factor), 1);
  }

  // Halves x and y as integers in the order of a staged key: by 64 pairs as unpacking bytes leaves
  // them, then 32 as they lie.
  static void store_in_order(const float* x, const float* y, int half, float factor, char* to) {
    int i = 0;
    for (; i + 64 <= half; i += 64, to += 256) {
      store_unpacked(x + i, factor, to);
      store_unpacked(y + i, factor, to + 128);
    }
    if (i == half) return;
    store(to, two_int16(x + i, factor));
    store(to + 64, two_int16(y + i, factor));
  }
  static void store_unpacked(const float* from, float factor, char* to) {
    Lanes first = two_int16(from, factor), second = two_int16(from + 32, factor);
    store(to, _mm512_shuffle_i32x4(first, second, 0x88));
    store(to + 64, _mm512_shuffle_i32x4(first, second, 0xdd));
  }

  // Cosines and sines in the order of a staged key's x and y.
  static int64_t table_row_bytes(const Problem&, int half) { return int64_t{half} * 4; }
  static void fill_table_row(const Problem&, const float* angles, int half, char* to) {
    store_in_order(angles, angles + half, half, Base::kOne, to);
  }

  static bool keeps_apart(const Problem& p, int queries) { return has_few<IntegerMode>(p, queries); }
  static void score(const Problem& p, const RowSpan& span, int64_t position,
                    const TileTable& table, Workspace<IntegerMode>& w) {
    if (keeps_apart(p, w.queries)) return score_few(p, span, position, table, w);
    score_span(p, span, position, table, w);
  }

  static constexpr int kHalfBytes = 16;  // of a row for each vector of its key

  template <int N, bool Turn, bool Split>
  static ONEKV_INLINE void make_key(const Problem& p, const uint8_t* x, const uint8_t* y, const char* table,
                       float* scale, Lanes* key) {
    *scale = load<float>(x + p.part_dim);
    const float ratio = Split ? Base::join_scales(load<float>(y + p.part_dim), scale) : 1;
    for (int n = 0; n < N; n += 4) {
      Lanes* to = key + n;
      if constexpr (N == 2) {
        to[0] = widen(x), to[1] = widen(y);
      } else {
        Lanes zero = _mm512_setzero_si512(), low = load<Lanes>(x + 16 * n);
        Lanes high = load<Lanes>(y + 16 * n);
        to[0] = _mm512_unpacklo_epi8(zero, low), to[1] = _mm512_unpackhi_epi8(zero, low);
        to[2] = _mm512_unpacklo_epi8(zero, high), to[3] = _mm512_unpackhi_epi8(zero, high);
      }
      finish_key<(N < 4 ? N : 4), Turn, Split>(ratio, table + 64 * n, to);
    }
  }

  // Brings parts to one scale and turns the pairs: N / 2 vectors of x, then of y.
  template <int N, bool Turn, bool Split>
  static ONEKV_INLINE void finish_key(float ratio, const char* table, Lanes* key) {
    for (int n = 0; n < N / 2; ++n) {
      Lanes& x = key[n];
      Lanes& y = key[N / 2 + n];
      if (Split) shrink(ratio > 0 ? x : y, ratio);
      if (Turn) {
        turn(load<Lanes>(table + 64 * n), load<Lanes>(table + 64 * (N / 2 + n)), x, y);
      } else {
        x = _mm512_srai_epi16(x, 2), y = _mm512_srai_epi16(y, 2);
      }
    }
  }

  static Keys stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, Workspace<IntegerMode>& w) {
    for (int r = 0; r < count; ++r) {
      const uint8_t* x = span.part[0] + (first + r) * span.stride;
      const uint8_t* y = p.parts == 2 ? span.part[1] + (first + r) * span.stride : x + w.half;
      stage_row(p, x, y, table.row(r), w.half, w.scales + first + r, w.keys + int64_t{r} * w.row_bytes);
    }
    return {w.keys, w.row_bytes};
  }

  // Turns and joins what the call asks for.
  template <int N>
  static void finish(const Problem& p, float ratio, const char* table, Lanes* key) {
    if (p.args->cos) {
      p.parts == 2 ? finish_key<N, true, true>(ratio, table, key)
                   : finish_key<N, true, false>(ratio, table, key);
    } else {
      p.parts == 2 ? finish_key<N, false, true>(ratio, table, key)
                   : finish_key<N, false, false>(ratio, table, key);
    }
  }

  static void stage_row(const Problem& p, const uint8_t* x, const uint8_t* y, const char* table,
                        int half, float* scale, char* to) {
    Lanes key[4];
    *scale = load<float>(x + p.part_dim);
    float ratio = p.parts == 2 ? Base::join_scales(load<float>(y + p.part_dim), scale) : 1;
    Lanes zero = _mm512_setzero_si512();
    int i = 0;
    for (; i + 64 <= half; i += 64, to += 256, table += 256) {
      Lanes low = load<Lanes>(x + i), high = load<Lanes>(y + i);
      key[0] = _mm512_unpacklo_epi8(zero, low), key[1] = _mm512_unpackhi_epi8(zero, low);
      key[2] = _mm512_unpacklo_epi8(zero, high), key[3] = _mm512_unpackhi_epi8(zero, high);
      finish<4>(p, ratio, table, key);
      std::memcpy(to, key, 256);
    }
    if (i == half) return;
    key[0] = widen(x + i), key[1] = widen(y + i);
    finish<2>(p, ratio, table, key);
    std::memcpy(to, key, 128);
  }

  static __m512i widen(const uint8_t* from) {
    return _mm512_slli_epi16(_mm512_cvtepi8_epi16(load<__m256i>(from)), 8);
  }

  static void shrink(__m512i& row, float ratio) {
    row = _mm512_mulhrs_epi16(row, _mm512_set1_epi16(Base::shrink_steps(ratio)));
  }

  static void turn(Lanes cos, Lanes sin, Lanes& x, Lanes& y) {
    Lanes turned = _mm512_sub_epi16(_mm512_mulhrs_epi16(x, cos), _mm512_mulhrs_epi16(y, sin));
    y = _mm512_add_epi16(_mm512_mulhrs_epi16(y, cos), _mm512_mulhrs_epi16(x, sin));
    x = turned;
  }

  static void add_values(const Problem& p, const RowSpan& span, Workspace<IntegerMode>& w,
                         const Partial& result) {
    bool known = p.parts == 1 && !p.args->values.part[0];
    for (int part = 0; part < p.parts; ++part) {
      const uint8_t* rows = span.part[part];
      for (int t = 0; t < span.count && !known; ++t) {
        w.scales[t] = load<float>(rows + t * span.stride + p.part_dim);
      }
      for (int m = 0; m < w.queries; ++m) {
        w.mode.values.fill(m, w.scores + m * w.kScoreStride, w.scales, span.count);
      }
      add_integer_rows(rows, span.stride, span.count, p.part_dim, w.mode.values, w.alpha, w.queries,
                    result.out + part * p.part_dim, p.head_dim, w.ahead);
    }
  }
};

}  // namespace
}  // namespace onekv
