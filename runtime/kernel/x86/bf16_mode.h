// bf16 rows with bf16 dot products: two dimensions per lane for scores, two positions for values.
#pragma once

#include "../simd/float_mode.h"
#include "avx512.h"

namespace onekv {

struct Bf16Mode {
  using V = Avx512;
  using F = V::F;
  using Lanes = __m512i;
  using Sum = F;
  static constexpr int kBlock = 16;  // a vector of each half becomes one vector of bf16
  static constexpr int kKeyBytes = 2;
  static constexpr int kDims = 32;  // in one vector of a row

  struct Scratch {
    uint16_t* weights;  // [padded][kSuperTile + kRowPadding], bf16
    void take(const Problem&, int padded, Arena& arena) {
      weights = arena.take<uint16_t>(int64_t{padded} * (kSuperTile + kRowPadding));
    }
  };

  static bool takes(const Problem& p) {
    const onekv_attend_args& a = *p.args;
    bool plain_pairs = !a.cos || (a.pairing == ONEKV_HALF_SPLIT && !a.key_gain);
    return a.format == ONEKV_BF16 && plain_pairs && p.part_dim % kDims == 0;
  }

  static Sum dot(Sum sum, Lanes q, Lanes row) {
    return (F)_mm512_dpbf16_ps((__m512)sum, (__m512bh)q, (__m512bh)row);
  }
  static F to_float(Sum sum) { return sum; }

  static void convert_table(int, int, float*) {}

  static void put(char* row, int i, F x, F y) {
    store(row + i * 4, (Lanes)_mm512_cvtne2ps_pbh((__m512)y, (__m512)x));
  }

  static void stage_query(Workspace<Bf16Mode>& w, const float* halves, int) {
    for (int i = 0; i < w.half; i += kBlock) {
      put(w.turned, i, load<F>(halves + i), load<F>(halves + w.half + i));
    }
  }

  static void stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, Workspace<Bf16Mode>& w) {
    for (int r = 0; r < count; ++r) {
      const uint8_t* x = span.part[0] + (first + r) * span.stride;
      const uint8_t* y = p.parts == 2 ? span.part[1] + (first + r) * span.stride : x + w.half * 2;
      char* to = w.keys + int64_t{r} * w.row_bytes;
      for (int i = 0; i < w.half; i += kBlock) {
        F low = V::load_bf16(x + 2 * i), high = V::load_bf16(y + 2 * i);
        if (p.args->cos) turn<V>(table, r, i, low, high);
        put(to, i, low, high);
      }
    }
  }

  static void scale_scores(Workspace<Bf16Mode>&, int, int) {}

  static void add_values(const Problem& p, const RowSpan& span, Workspace<Bf16Mode>& w,
                         const Partial& result) {
    int stride = w.kScoreStride;
    for (int m = 0; m < w.queries; ++m) {
      for (int t = 0; t < span.count; t += 16) {
        __m512 weights = (__m512)load<F>(w.scores + m * stride + t);
        store(w.mode.weights + m * stride + t, (__m256i)_mm512_cvtneps_pbh(weights));
      }
    }
    for (int part = 0; part < p.parts; ++part) {
      float* out = result.out + part * p.part_dim;
      for (int m = 0; m < w.queries;) {
        int taken = w.queries - m >= 4 ? 4 : w.queries - m >= 2 ? 2 : 1;
        auto add = taken == 4 ? add_pairs<4> : taken == 2 ? add_pairs<2> : add_pairs<1>;
        for (int d = 0; d < p.part_dim; d += kDims) {
          add(span.part[part] + 2 * d, span.stride, span.count, w.mode.weights + m * stride, stride,
              w.alpha + m, out + int64_t{m} * p.head_dim + d, p.head_dim);
        }
        m += taken;
      }
    }
  }

  // Adds up kDims dimensions of pairs of rows for Queries queries.
  template <int Queries>
  static void add_pairs(const uint8_t* rows, int64_t stride, int count, const uint16_t* weights,
                        int weight_stride, const float* alpha, float* out, int out_stride) {
    __m512 sums[Queries][2] = {};
    for (int t = 0; t < count; t += 2, rows += 2 * stride) {
      // The last row of an odd count pairs with itself, at weight 0.
      __m512i a = _mm512_loadu_si512(rows);
      __m512i b = _mm512_loadu_si512(rows + (t + 1 < count ? stride : 0));
      __m512bh low = (__m512bh)_mm512_unpacklo_epi16(a, b);
      __m512bh high = (__m512bh)_mm512_unpackhi_epi16(a, b);
      for (int m = 0; m < Queries; ++m) {
        __m512bh pair = (__m512bh)_mm512_set1_epi32(load<int32_t>(weights + m * weight_stride + t));
        sums[m][0] = _mm512_dpbf16_ps(sums[m][0], pair, low);
        sums[m][1] = _mm512_dpbf16_ps(sums[m][1], pair, high);
      }
    }
    for (int m = 0; m < Queries; ++m) add_in_order(sums[m], alpha[m], out + m * out_stride);
  }

  // Unpacking left dimensions 8 l .. 8 l + 3 in lane l of `sums[0]` and the next four in `sums[1]`.
  static void add_in_order(const __m512* sums, float alpha, float* out) {
    __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    F first = (F)_mm512_permutex2var_ps(sums[0], low, sums[1]);
    F second = (F)_mm512_permutex2var_ps(sums[0], high, sums[1]);
    store(out, load<F>(out) * alpha + first);
    store(out + 16, load<F>(out + 16) * alpha + second);
  }
};

}  // namespace onekv
