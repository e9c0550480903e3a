// fp16 rows with fp16 arithmetic: few terms are added up as fp16, their sums in fp32. What overflows
// fp16, or is not finite in the cache, goes by fp32 arithmetic once more.
#pragma once

#include "../simd/fp16_keys.h"
#include "fp16_values.h"
#include "row_scores.h"

namespace onekv {
namespace {

struct Fp16Mode : Fp16Keys<Fp16Mode> {
  using V = Avx512;
  using F = V::F;
  using Lanes = Halves;
  using Sum = HalfSum;
  using W = Workspace<Fp16Mode>;
  static constexpr int kBlock = 16;
  static constexpr int kMostHeads = 4;  // more would leave more terms of a row to one lane
  static constexpr int kMostShared = 128;  // head_dim up to which 4 heads do not
  static constexpr float kQueryTop = 16;
  static constexpr float kTableFactor = 1;

  struct Scratch {
    float* factor;  // [padded]: what a query is multiplied by
    Fp16Sums values;
    void start(int padded) { std::memset(factor, 0, sizeof(float) * padded); }
    void take(const Problem& p, int padded, Arena& arena) {
      factor = arena.take<float>(padded);
      values.take(p, padded, arena);
    }
  };

  static bool takes(const Problem& p) {
    return p.args->format == ONEKV_FP16 && pairs_in_halves(p) && p.part_dim % kFp16Dims == 0 &&
           p.head_dim % kFp16Dims == 0;
  }

  static Sum dot(Sum sum, Lanes q, __m512i row) { return {sum.lanes + q * (Halves)row}; }
  static Sum dot(Sum sum, Lanes q, Lanes row) { return {sum.lanes + q * row}; }
  static F to_float(__m512 sum) { return (F)sum; }
  template <int Units>
  static F total(const Sum* sums) {
    return (F)total_of_halves<16 / Units>(sums);
  }

  static void narrow(const float* from, float factor, void* to) {
    store(to, _mm512_cvtps_ph((__m512)(load<F>(from) * factor), _MM_FROUND_TO_NEAREST_INT));
  }

  template <bool Gain>
  static void turn_row(const uint8_t* x, const uint8_t* y, int half, const char* table, char* to) {
    int at = 0;
    for (; at + 64 <= 2 * half; at += 64) turn_pairs<Halves, Gain>(x, y, table, half, at, to);
    if (at < 2 * half) turn_pairs<Vector<_Float16, 16>, Gain>(x, y, table, half, at, to);
  }

  static constexpr int kHalfBytes = 32;  // of a row for each vector of its key

  template <int N, bool Turn, bool Split>
  static ONEKV_INLINE void make_key(const Problem&, const uint8_t* x, const uint8_t* y,
                                    const char* table, float*, Lanes* key) {
    for (int n = 0; n < N / 2; ++n) {
      Halves low = load<Halves>(x + 64 * n), high = load<Halves>(y + 64 * n);
      if (Turn) {
        Halves cos = load<Halves>(table + 64 * n), sin = load<Halves>(table + 32 * N + 64 * n);
        key[n] = low * cos - high * sin, key[N / 2 + n] = high * cos + low * sin;
      } else {
        key[n] = low, key[N / 2 + n] = high;
      }
    }
  }

  static bool has_few_keys(const Problem& p, int queries) {
    return has_few<Fp16Mode>(p, queries) && !(p.args->cos && p.args->key_gain);
  }
  static bool keeps_apart(const Problem& p, int queries) {
    return p.head_dim > kMostShared || has_few_keys(p, queries);
  }
  static void score(const Problem& p, const RowSpan& span, int64_t position,
                    const TileTable& table, W& w) {
    has_few_keys(p, w.queries) ? score_few(p, span, position, table, w)
                               : score_span(p, span, position, table, w);
    bool finite = true;
    for (int m = 0; m < w.queries; ++m) finite &= unscale(w, m, span.count);
    if (!finite) score_in_fp32(p, span, position, w);
  }

  // Takes the query's factor out of its scores; false where one is not finite.
  static bool unscale(W& w, int m, int count) {
    F inverse = V::all(1 / w.mode.factor[m]), probe = {};
    float* scores = w.scores + m * w.kScoreStride;
    for (int t = 0; t < count; t += 16) {
      __mmask16 inside = count - t < 16 ? (1u << (count - t)) - 1 : 0xffff;
      F score = (F)_mm512_maskz_loadu_ps(inside, scores + t) * inverse;
      probe += score * 0;
      store(scores + t, score);
    }
    return sum_of<V>(probe) == 0;
  }

  // The scores by the definition: rows are turned by their own angles, queries are not.
  static void score_in_fp32(const Problem& p, const RowSpan& span, int64_t position, W& w) {
    float key[kMaxHeadDim];
    for (int t = 0; t < span.count; ++t) {
      for (int part = 0; part < p.parts; ++part) {
        const uint8_t* row = span.part[part] + t * span.stride;
        for (int d = 0; d < p.part_dim; d += 16) {
          store(key + part * p.part_dim + d, V::load_fp16(row + 2 * d));
        }
      }
      if (p.args->cos) turn_key(p, position + t, key);
      for (int m = 0; m < w.queries; ++m) {
        F sum = {};
        const float* query = w.halves + int64_t{m} * p.head_dim;
        for (int d = 0; d < p.head_dim; d += 16) sum += load<F>(query + d) * load<F>(key + d);
        w.scores[m * w.kScoreStride + t] = sum_of<V>(sum);
      }
    }
  }

  static void turn_key(const Problem& p, int64_t position, float* key) {
    const float* cos = p.args->cos + position * p.args->table_stride;
    const float* sin = p.args->sin + position * p.args->table_stride;
    int half = p.head_dim / 2;
    for (int i = 0; i < half; i += 16) {
      F x = load<F>(key + i), y = load<F>(key + half + i);
      if (p.args->key_gain) {
        x *= load<F>(p.args->key_gain + i), y *= load<F>(p.args->key_gain + half + i);
      }
      F c = load<F>(cos + i), s = load<F>(sin + i);
      store(key + i, x * c - y * s);
      store(key + half + i, y * c + x * s);
    }
  }

  static void scale_scores(const Problem&, W&, int, int) {}

  static void add_values(const Problem& p, const RowSpan& span, W& w, const Partial& result) {
    add_fp16_values(p, span, w, result);
  }
};

}  // namespace
}  // namespace onekv
