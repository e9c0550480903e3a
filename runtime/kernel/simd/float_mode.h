// Arithmetic in fp32, for every format: rows are widened as they are loaded.
#pragma once

#include "piece.h"

namespace onekv {
namespace {

// How rows of a format become fp32 vectors.
template <class V_, onekv_format Format>
struct Reader {
  static constexpr bool kScaled = Format == ONEKV_INT8;
  static constexpr int kElementBytes = Format == ONEKV_FP32 ? 4 : Format == ONEKV_INT8 ? 1 : 2;

  static typename V_::F at(const uint8_t* row, int element) {
    const uint8_t* from = row + element * kElementBytes;
    if constexpr (Format == ONEKV_FP32) return load<typename V_::F>(from);
    if constexpr (Format == ONEKV_FP16) return V_::load_fp16(from);
    if constexpr (Format == ONEKV_BF16) return V_::load_bf16(from);
    if constexpr (Format == ONEKV_INT8) return V_::load_int8(from);
  }
};

// Adds up rows for Queries queries, Vectors vectors of dimensions at `element`.
template <class R, class V, int Queries, int Vectors>
static inline void add_rows(const uint8_t* rows, int64_t stride, int count, int element,
                            const float* weights, int weight_stride, const float* alpha, float* out,
                            int out_stride, Lines ahead) {
  using F = typename V::F;
  F sums[Queries][Vectors];
  for (int m = 0; m < Queries; ++m) {
    for (int v = 0; v < Vectors; ++v) {
      sums[m][v] = load<F>(out + m * out_stride + v * V::kLanes) * alpha[m];
    }
  }
  for (int t = 0; t < count; ++t, rows += stride) {
    F row[Vectors];
    ahead.ask();
    for (int v = 0; v < Vectors; ++v) row[v] = R::at(rows, element + v * V::kLanes);
    for (int m = 0; m < Queries; ++m) {
      F weight = V::all(weights[m * weight_stride + t]);
      for (int v = 0; v < Vectors; ++v) sums[m][v] += weight * row[v];
    }
  }
  for (int m = 0; m < Queries; ++m) {
    for (int v = 0; v < Vectors; ++v) store(out + m * out_stride + v * V::kLanes, sums[m][v]);
  }
}

// The same for any number of queries and `dims` dimensions, a multiple of the lanes.
template <class R, class V>
static void add_all_rows(const uint8_t* rows, int64_t stride, int count, int dims,
                         const float* weights, int weight_stride, const float* alpha, int queries,
                         float* out, int out_stride, Ahead& ahead) {
  constexpr int wide = 4 * V::kLanes;
  int64_t calls = int64_t{queries + 3} / 4 * ((dims + wide - 1) / wide);
  int64_t share = ahead.bytes / calls;
  for (int d = 0; d < dims;) {
    for (int m = 0; m < queries;) {
      int taken = queries - m >= 4 ? 4 : queries - m >= 2 ? 2 : 1;
      bool is_wide = dims - d >= wide;
      auto add = taken == 4   ? (is_wide ? add_rows<R, V, 4, 4> : add_rows<R, V, 4, 1>)
                 : taken == 2 ? (is_wide ? add_rows<R, V, 2, 4> : add_rows<R, V, 2, 1>)
                              : (is_wide ? add_rows<R, V, 1, 4> : add_rows<R, V, 1, 1>);
      add(rows, stride, count, d, weights + m * weight_stride, weight_stride, alpha + m,
          out + int64_t{m} * out_stride + d, out_stride, ahead.take(share, count));
      m += taken;
    }
    d += dims - d >= wide ? wide : V::kLanes;
  }
}

// Keys of fp32: the first halves of the pairs, then the second.
template <class V_>
struct FloatKeys {
  using V = V_;
  using Lanes = typename V::F;
  using Sum = typename V::F;
  static constexpr int kBlock = V::kLanes;
  static constexpr int kKeyBytes = 4;
  static constexpr int kMostHeads = V::kLanes;

  template <class Row>
  static Sum dot(Sum sum, Lanes q, Row row) {
    return sum + q * (Lanes)row;
  }
  template <int Units>
  static typename V::F total(const Sum* sums) {
    return reduce<Units, V>(sums);
  }

  // Cosines and sines for x, then for y where a gain makes them differ.
  static int64_t table_row_bytes(const Problem& p, int half) {
    return int64_t{half} * 4 * (p.args->key_gain ? 4 : 2);
  }
  static void fill_table_row(const Problem& p, const float* angles, int half, char* to) {
    float* row = reinterpret_cast<float*>(to);
    std::memcpy(row, angles, sizeof(float) * 2 * half);
    if (!p.args->key_gain) return;
    for (int i = 0; i < half; ++i) {
      float x = i < p.head_dim / 2 ? first_gain(p, i) : 0;
      float y = i < p.head_dim / 2 ? second_gain(p, i) : 0;
      row[i] = angles[i] * x, row[half + i] = angles[half + i] * x;
      row[2 * half + i] = angles[i] * y, row[3 * half + i] = angles[half + i] * y;
    }
  }

  template <class W>
  static RowSpan open(const Problem&, const RowSpan& span, W&) {
    return span;
  }

  static bool keeps_apart(const Problem&, int) { return false; }
  template <class W>
  static void score(const Problem& p, const RowSpan& span, int64_t position,
                    const TileTable& table, W& w) {
    score_span(p, span, position, table, w);
  }

  template <class W>
  static void stage_query(const Problem&, W& w, const float* halves, int, char* to) {
    std::memcpy(to, halves, w.row_bytes);
  }
};

// Rotates, and scales by the gain, the pairs (x, y) from i on.
template <class V, bool Gain>
static inline void turn(const char* table_row, int half, int i, typename V::F& x,
                        typename V::F& y) {
  using F = typename V::F;
  const float* first = reinterpret_cast<const float*>(table_row) + i;
  const float* second = first + (Gain ? 2 * half : 0);
  F turned = x * load<F>(first) - y * load<F>(second + half);
  y = y * load<F>(second) + x * load<F>(first + half);
  x = turned;
}

// Rows whose halves are whole vectors, in half-split pairing.
template <class V_, onekv_format Format>
struct FloatMode : FloatKeys<V_> {
  using V = V_;
  using R = Reader<V, Format>;

  struct Scratch {
    float* weights;  // [padded][kScoreStride], times the rows' scales
    void start(int) {}
    void take(const Problem&, int padded, Arena& arena) {
      if (R::kScaled) weights = arena.take<float>(int64_t{padded} * (kSuperTile + kRowPadding));
    }
  };

  static bool takes(const Problem& p) {
    const onekv_attend_args& a = *p.args;
    return a.format == Format && pairs_in_halves(p) && p.head_dim % (2 * V::kLanes) == 0 &&
           p.part_dim % V::kLanes == 0;
  }

  static Keys stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, Workspace<FloatMode>& w) {
    const uint8_t* rows = span.part[0] + first * span.stride;
    if (Format == ONEKV_FP32 && !p.args->cos && p.parts == 1 && count == w.block) {
      return {reinterpret_cast<const char*>(rows), span.stride};
    }
    for (int r = 0; R::kScaled && r < count; ++r) {
      w.scales[first + r] = p.parts == 2 ? 1 : load<float>(rows + r * span.stride + p.head_dim);
    }
    if (!p.args->cos) return stage<false, false>(p, span, first, count, table, w);
    return p.args->key_gain ? stage<true, true>(p, span, first, count, table, w)
                            : stage<true, false>(p, span, first, count, table, w);
  }

  template <bool Turn, bool Gain>
  static Keys stage(const Problem& p, const RowSpan& span, int first, int count,
                    const TileTable& table, Workspace<FloatMode>& w) {
    for (int r = 0; r < count; ++r) {
      const uint8_t* x = span.part[0] + (first + r) * span.stride;
      const uint8_t* y = p.parts == 2 ? span.part[1] + (first + r) * span.stride
                                      : x + w.half * R::kElementBytes;
      char* to = w.keys + int64_t{r} * w.row_bytes;
      bool scales = R::kScaled && p.parts == 2;
      float first_scale = scales ? load<float>(x + p.part_dim) : 1;
      float second_scale = scales ? load<float>(y + p.part_dim) : 1;
      for (int i = 0; i < w.half; i += V::kLanes) {
        typename V::F low = R::at(x, i), high = R::at(y, i);
        if (scales) low *= first_scale, high *= second_scale;
        if (Turn) turn<V, Gain>(table.row(r), w.half, i, low, high);
        store(to + 4 * i, low);
        store(to + 4 * (w.half + i), high);
      }
    }
    return {w.keys, w.row_bytes};
  }

  static void scale_scores(const Problem&, Workspace<FloatMode>& w, int m, int count) {
    if (!R::kScaled) return;
    float* scores = w.scores + m * w.kScoreStride;
    for (int t = 0; t < count; ++t) scores[t] *= w.scales[t];
  }

  static void add_values(const Problem& p, const RowSpan& span, Workspace<FloatMode>& w,
                         const Partial& result) {
    for (int part = 0; part < p.parts; ++part) {
      const uint8_t* rows = span.part[part];
      const float* weights = w.scores;
      if (R::kScaled) {
        weights = w.mode.weights;
        scale_weights(rows + p.part_dim, span, w);
      }
      add_all_rows<R, V>(rows, span.stride, span.count, p.part_dim, weights, w.kScoreStride,
                         w.alpha, w.queries, result.out + part * p.part_dim, p.head_dim, w.ahead);
    }
  }

  // Weights times the rows' scales, which lie span.stride apart from `scale` on.
  static void scale_weights(const uint8_t* scale, const RowSpan& span,
                            Workspace<FloatMode>& w) {
    for (int m = 0; m < w.queries; ++m) {
      for (int t = 0; t < span.count; ++t) {
        int at = m * w.kScoreStride + t;
        w.mode.weights[at] = w.scores[at] * load<float>(scale + t * span.stride);
      }
    }
  }
};

}  // namespace
}  // namespace onekv
