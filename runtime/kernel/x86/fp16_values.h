// Values of fp16 rows: weighted rows are added up as fp16 for a few rows, those sums in fp32.
#pragma once

#include "../simd/float_mode.h"
#include "fp16_sums.h"

namespace onekv {
namespace {

constexpr int kFp16Run = 16;   // rows whose sum stays fp16
constexpr int kFp16Dims = 32;  // in one vector of a row

// Scratch memory of the values.
struct Fp16Sums {
  uint32_t* weights;  // [padded][kSuperTile + kRowPadding]: the same fp16 twice
  float* factor;      // [padded]: what the weights of a super-tile were multiplied by
  float* sums;        // [padded][head_dim], of a super-tile

  void take(const Problem& p, int padded, Arena& arena) {
    weights = arena.take<uint32_t>(int64_t{padded} * (kSuperTile + kRowPadding));
    factor = arena.take<float>(padded);
    sums = arena.take<float>(int64_t{padded} * p.head_dim);
  }
};

// The power of two that brings a weight into [0.5, 1).
static inline float lifting_factor(float weight) {
  if (!(weight > 1e-30f)) return 1;
  return float_of((253 - (bits_of(weight) >> 23)) << 23);
}

// Weights of one query as fp16, the largest near 1, so that small ones do not vanish beside the
// weights of other super-tiles. Returns the factor.
static inline float narrow_weights(const float* from, int count, uint32_t* to) {
  using F = Avx512::F;
  F most = {};
  for (int t = 0; t < count; t += 16) most = Avx512::max(most, load<F>(from + t));
  float factor = lifting_factor(max_of<Avx512>(most));
  for (int t = 0; t < count; t += 16) {
    __m512i bits = _mm512_cvtepu16_epi32(
        _mm512_cvtps_ph((__m512)(load<F>(from + t) * factor), _MM_FROUND_TO_NEAREST_INT));
    store(to + t, _mm512_or_si512(bits, _mm512_slli_epi32(bits, 16)));
  }
  return factor;
}

// Adds the weighted sum of at most kFp16Run rows for Queries queries.
template <int Queries, int Vectors>
static inline void add_fp16_run(const uint8_t* rows, int64_t stride, int count,
                                const uint32_t* weights, int weight_stride, float* sums,
                                int sum_stride, Lines ahead) {
  Halves run[Queries][Vectors] = {};
  for (int t = 0; t < count; ++t, rows += stride) {
    ahead.ask();
    Halves row[Vectors];
    for (int v = 0; v < Vectors; ++v) row[v] = load<Halves>(rows + 64 * v);
    for (int m = 0; m < Queries; ++m) {
      Halves weight = (Halves)_mm512_set1_epi32(load<int32_t>(weights + m * weight_stride + t));
      for (int v = 0; v < Vectors; ++v) run[m][v] += weight * row[v];
    }
  }
  for (int m = 0; m < Queries; ++m) {
    for (int v = 0; v < Vectors; ++v) {
      float* to = sums + m * sum_stride + kFp16Dims * v;
      Wide wide = widen(run[m][v]);
      store(to, load<__m512>(to) + wide.low);
      store(to + 16, load<__m512>(to + 16) + wide.high);
    }
  }
}

// The same for all queries and dimensions of one part.
template <class W>
static void add_fp16_rows(const Problem& p, const uint8_t* rows, int64_t stride, int count,
                          int first, float* sums, int64_t share, W& w) {
  const uint32_t* weights = w.mode.values.weights + first;
  for (int d = 0; d < p.part_dim;) {
    int vectors = p.part_dim - d >= 4 * kFp16Dims ? 4 : p.part_dim - d >= 2 * kFp16Dims ? 2 : 1;
    for (int m = 0; m < w.queries;) {
      int taken = w.queries - m >= 4 ? 4 : w.queries - m >= 2 ? 2 : 1;
      auto add = taken == 4   ? (vectors == 4   ? add_fp16_run<4, 4>
                                 : vectors == 2 ? add_fp16_run<4, 2>
                                                : add_fp16_run<4, 1>)
                 : taken == 2 ? (vectors == 4   ? add_fp16_run<2, 4>
                                 : vectors == 2 ? add_fp16_run<2, 2>
                                                : add_fp16_run<2, 1>)
                              : (vectors == 4   ? add_fp16_run<1, 4>
                                 : vectors == 2 ? add_fp16_run<1, 2>
                                                : add_fp16_run<1, 1>);
      add(rows + 2 * d, stride, count, weights + m * w.kScoreStride, w.kScoreStride,
          sums + int64_t{m} * p.head_dim + d, p.head_dim, w.ahead.take(share, count));
      m += taken;
    }
    d += vectors * kFp16Dims;
  }
}

// Adds a query's sums to its result; false, and nothing done, where fp16 overflowed.
template <class W>
static bool merge_fp16_sums(const Problem& p, W& w, int m, float* out) {
  using F = Avx512::F;
  const float* sums = w.mode.values.sums + int64_t{m} * p.head_dim;
  F probe = {};
  for (int d = 0; d < p.head_dim; d += 16) probe += load<F>(sums + d) * 0;
  if (sum_of<Avx512>(probe) != 0) return false;
  float inverse = 1 / w.mode.values.factor[m];
  for (int d = 0; d < p.head_dim; d += 16) {
    store(out + d, load<F>(out + d) * w.alpha[m] + load<F>(sums + d) * inverse);
  }
  return true;
}

template <class W>
static void add_fp16_values(const Problem& p, const RowSpan& span, W& w, const Partial& result) {
  Fp16Sums& values = w.mode.values;
  for (int m = 0; m < w.queries; ++m) {
    int at = m * w.kScoreStride;
    values.factor[m] = narrow_weights(w.scores + at, span.count, values.weights + at);
  }
  std::memset(values.sums, 0, sizeof(float) * w.queries * p.head_dim);
  int64_t runs = (span.count + kFp16Run - 1) / kFp16Run;
  int64_t share = w.ahead.bytes / (runs * ((w.queries + 3) / 4) * ((p.head_dim + 127) / 128));
  for (int t = 0; t < span.count; t += kFp16Run) {
    int count = span.count - t < kFp16Run ? span.count - t : kFp16Run;
    for (int part = 0; part < p.parts; ++part) {
      add_fp16_rows(p, span.part[part] + t * span.stride, span.stride, count, t,
                    values.sums + part * p.part_dim, share, w);
    }
  }
  for (int m = 0; m < w.queries; ++m) {
    float* out = result.out + int64_t{m} * p.head_dim;
    if (merge_fp16_sums(p, w, m, out)) continue;
    for (int part = 0; part < p.parts; ++part) {
      add_all_rows<Reader<Avx512, ONEKV_FP16>, Avx512>(
          span.part[part], span.stride, span.count, p.part_dim, w.scores + m * w.kScoreStride,
          w.kScoreStride, w.alpha + m, 1, out + part * p.part_dim, p.head_dim, w.ahead);
    }
  }
}

}  // namespace
}  // namespace onekv
