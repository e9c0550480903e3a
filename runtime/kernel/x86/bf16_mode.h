// bf16 rows with bf16 dot products: two dimensions per lane for scores, two positions for values.
#pragma once

#include "../simd/float_mode.h"
#include "row_scores.h"

namespace onekv {
namespace {

struct Bf16Mode {
  using V = Avx512;
  using F = V::F;
  using Lanes = __m512i;
  using Sum = F;
  static constexpr int kBlock = 16;  // a vector of each half becomes one vector of bf16
  static constexpr int kKeyBytes = 2;
  static constexpr int kMostHeads = V::kLanes;
  static constexpr int kDims = 32;  // in one vector of a row

  struct Scratch {
    void start(int) {}
    uint16_t* weights;  // [padded][kSuperTile + kRowPadding], bf16
    void take(const Problem&, int padded, Arena& arena) {
      weights = arena.take<uint16_t>(int64_t{padded} * (kSuperTile + kRowPadding));
    }
  };

  static bool takes(const Problem& p) {
    return p.args->format == ONEKV_BF16 && pairs_in_halves(p) && p.part_dim % kDims == 0 &&
           p.head_dim % kDims == 0 && pays(p);
  }

  // On Intel's processors a bf16 dot takes as long as four FMAs: it pays where few queries meet a
  // row, so that what it saves is the widening of the row.
  static bool pays(const Problem& p) {
    static const bool slow = __builtin_cpu_is("intel");
    return !slow || p.group * p.args->new_tokens <= 2;
  }

  static Sum dot(Sum sum, Lanes q, Lanes row) {
    return (F)_mm512_dpbf16_ps((__m512)sum, (__m512bh)q, (__m512bh)row);
  }
  static F to_float(Sum sum) { return sum; }
  template <int Units>
  static F total(const Sum* sums) {
    return reduce<Units, V>(sums);
  }

  // What interleaving two registers of 16-bit elements leaves: 4 of every 8 elements, of 32; or
  // both such halves of 16.
  struct Order {
    F first, second;
  };
  static Order interleaved(const float* from) {
    __m512 low = (__m512)load<F>(from), high = (__m512)load<F>(from + 16);
    return {(F)_mm512_shuffle_f32x4(low, high, 0x88), (F)_mm512_shuffle_f32x4(low, high, 0xdd)};
  }
  static F interleaved_half(const float* from) {
    __m512 all = (__m512)load<F>(from);
    return (F)_mm512_shuffle_f32x4(all, all, 0xd8);
  }

  // Calls body(i, vector of `half` floats in the order of staged pairs) for every 16 pairs.
  template <class Body>
  static void in_staged_order(const float* x, const float* y, int half, const Body& body) {
    int i = 0;
    for (; i + 32 <= half; i += 32) {
      Order first = interleaved(x + i), second = interleaved(y + i);
      body(i, first.first, second.first);
      body(i + 16, first.second, second.second);
    }
    if (i < half) body(i, interleaved_half(x + i), interleaved_half(y + i));
  }

  // bf16 of x in the even and of y in the odd elements.
  static Lanes pairs(F x, F y) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)x));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)y));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
  // bf16 of x, then of y.
  static Lanes join(F x, F y) { return (Lanes)_mm512_cvtne2ps_pbh((__m512)y, (__m512)x); }

  // For 16 pairs (x, y): what gives the turned x by one dot, then what gives the turned y.
  static int64_t table_row_bytes(const Problem&, int half) { return int64_t{half} * 8; }
  static void fill_table_row(const Problem& p, const float* angles, int half, char* to) {
    float terms[4][kMaxHeadDim / 2];
    for (int i = 0; i < half; ++i) {
      float x = first_gain(p, i), y = second_gain(p, i);
      terms[0][i] = angles[i] * x, terms[1][i] = -angles[half + i] * y;
      terms[2][i] = angles[half + i] * x, terms[3][i] = angles[i] * y;
    }
    in_staged_order(terms[0], terms[1], half, [&](int i, F x, F y) { store(to + 8 * i, pairs(x, y)); });
    in_staged_order(terms[2], terms[3], half,
                    [&](int i, F x, F y) { store(to + 8 * i + 64, pairs(x, y)); });
  }

  static void stage_query(const Problem& p, Workspace<Bf16Mode>& w, const float* halves, int,
                          char* to) {
    if (p.args->cos) {
      in_staged_order(halves, halves + w.half, w.half,
                      [&](int i, F x, F y) { store(to + 4 * i, round_pairs(x, y)); });
      return;
    }
    for (int i = 0; i < 2 * w.half; i += 32) {
      store(to + 2 * i, join(load<F>(halves + i), load<F>(halves + i + 16)));
    }
  }

  // bf16 of x in the even and of y in the odd elements, halves rounded up: three cheap
  // instructions where the processor's own conversion takes five times as long.
  static Lanes round_pairs(F x, F y) {
    Lanes half = _mm512_set1_epi32(0x8000);
    Lanes low = _mm512_srli_epi32(_mm512_add_epi32((Lanes)x, half), 16);
    return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_add_epi32((Lanes)y, half));
  }

  // Turns 16 pairs.
  static Lanes turn(Lanes pair, const char* table) {
    F zero = {};
    return round_pairs(dot(zero, pair, load<Lanes>(table)),
                       dot(zero, pair, load<Lanes>(table + 64)));
  }

  // Turns 32 pairs.
  static void turn_block(const uint8_t* x, const uint8_t* y, const char* table, Lanes& first,
                         Lanes& second) {
    Lanes low = load<Lanes>(x), high = load<Lanes>(y);
    first = turn(_mm512_unpacklo_epi16(low, high), table);
    second = turn(_mm512_unpackhi_epi16(low, high), table + 128);
  }

  static constexpr int kHalfBytes = 32;  // of a row for each vector of its key

  template <int N, bool Turn, bool Split>
  static ONEKV_INLINE void make_key(const Problem&, const uint8_t* x, const uint8_t* y, const char* table,
                       float*, Lanes* key) {
    for (int n = 0; n < N / 2; ++n) {
      if (Turn) {
        turn_block(x + 64 * n, y + 64 * n, table + 256 * n, key[2 * n], key[2 * n + 1]);
      } else {
        key[n] = load<Lanes>(x + 64 * n), key[N / 2 + n] = load<Lanes>(y + 64 * n);
      }
    }
  }

  template <class W>
  static RowSpan open(const Problem&, const RowSpan& span, W&) {
    return span;
  }

  static bool keeps_apart(const Problem& p, int queries) { return has_few<Bf16Mode>(p, queries); }
  static void score(const Problem& p, const RowSpan& span, int64_t position,
                    const TileTable& table, Workspace<Bf16Mode>& w) {
    if (keeps_apart(p, w.queries)) return score_few(p, span, position, table, w);
    score_span(p, span, position, table, w);
  }

  static void turn_row(const uint8_t* x, const uint8_t* y, int half, const char* table, char* to) {
    int i = 0;
    for (; i + 32 <= half; i += 32) {
      Lanes first, second;
      turn_block(x + 2 * i, y + 2 * i, table + 8 * i, first, second);
      store(to + 4 * i, first);
      store(to + 4 * i + 64, second);
    }
    if (i == half) return;
    __m256i low = load<__m256i>(x + 2 * i), high = load<__m256i>(y + 2 * i);
    Lanes pair = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_unpacklo_epi16(low, high)),
                                    _mm256_unpackhi_epi16(low, high), 1);
    store(to + 4 * i, turn(pair, table + 8 * i));
  }

  // Rows that are not turned are keys as they lie in the cache.
  static Keys stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, Workspace<Bf16Mode>& w) {
    bool turns = p.args->cos;
    const uint8_t* rows = span.part[0] + first * span.stride;
    if (!turns && p.parts == 1 && count == w.block) {
      return {reinterpret_cast<const char*>(rows), span.stride};
    }
    for (int r = 0; r < count; ++r) {
      const uint8_t* x = rows + r * span.stride;
      const uint8_t* y = p.parts == 2 ? span.part[1] + (first + r) * span.stride : x + w.half * 2;
      char* to = w.keys + int64_t{r} * w.row_bytes;
      if (turns) {
        turn_row(x, y, w.half, table.row(r), to);
      } else {
        std::memcpy(to, x, w.half * 2);
        std::memcpy(to + w.half * 2, y, w.half * 2);
      }
    }
    return {w.keys, w.row_bytes};
  }

  static void scale_scores(const Problem&, Workspace<Bf16Mode>&, int, int) {}

  static void add_values(const Problem& p, const RowSpan& span, Workspace<Bf16Mode>& w,
                         const Partial& result) {
    int stride = w.kScoreStride;
    for (int m = 0; m < w.queries; ++m) {
      for (int t = 0; t < span.count; t += 16) {
        __m512 weights = (__m512)load<F>(w.scores + m * stride + t);
        store(w.mode.weights + m * stride + t, (__m256i)_mm512_cvtneps_pbh(weights));
      }
    }
    int64_t share = w.ahead.bytes / (int64_t{w.queries + 3} / 4 * (p.head_dim / kDims));
    for (int part = 0; part < p.parts; ++part) {
      float* out = result.out + part * p.part_dim;
      for (int d = 0; d < p.part_dim; d += kDims) {
        for (int m = 0; m < w.queries;) {
          int taken = w.queries - m >= 4 ? 4 : w.queries - m >= 2 ? 2 : 1;
          auto add = taken == 4 ? add_pairs<4> : taken == 2 ? add_pairs<2> : add_pairs<1>;
          add(span.part[part] + 2 * d, span.stride, span.count, w.mode.weights + m * stride, stride,
              w.alpha + m, out + int64_t{m} * p.head_dim + d, p.head_dim,
              w.ahead.take(share, span.count / 2));
          m += taken;
        }
      }
    }
  }

  // Adds up kDims dimensions of pairs of rows for Queries queries.
  template <int Queries>
  static void add_pairs(const uint8_t* rows, int64_t stride, int count, const uint16_t* weights,
                        int weight_stride, const float* alpha, float* out, int out_stride,
                        Lines ahead) {
    __m512 sums[Queries][2] = {};
    for (int t = 0; t < count; t += 2, rows += 2 * stride) {
      ahead.ask();
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

}  // namespace
}  // namespace onekv
