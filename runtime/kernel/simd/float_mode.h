// Arithmetic in fp32, for every format: rows are widened as they are loaded.
#pragma once

#include "piece.h"

namespace onekv {

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
                            int out_stride) {
  using F = typename V::F;
  F sums[Queries][Vectors];
  for (int m = 0; m < Queries; ++m) {
    for (int v = 0; v < Vectors; ++v) {
      sums[m][v] = load<F>(out + m * out_stride + v * V::kLanes) * alpha[m];
    }
  }
  for (int t = 0; t < count; ++t, rows += stride) {
    F row[Vectors];
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
                         float* out, int out_stride) {
  constexpr int wide = 4 * V::kLanes;
  for (int m = 0; m < queries;) {
    int taken = queries - m >= 4 ? 4 : queries - m >= 2 ? 2 : 1;
    for (int d = 0; d < dims;) {
      bool is_wide = dims - d >= wide;
      auto add = taken == 4   ? (is_wide ? add_rows<R, V, 4, 4> : add_rows<R, V, 4, 1>)
                 : taken == 2 ? (is_wide ? add_rows<R, V, 2, 4> : add_rows<R, V, 2, 1>)
                              : (is_wide ? add_rows<R, V, 1, 4> : add_rows<R, V, 1, 1>);
      add(rows, stride, count, d, weights + m * weight_stride, weight_stride, alpha + m,
          out + int64_t{m} * out_stride + d, out_stride);
      d += is_wide ? wide : V::kLanes;
    }
    m += taken;
  }
}

// Keys are staged as blocks of one vector of the first half and one of the second.
template <class V_>
struct FloatKeys {
  using V = V_;
  using Lanes = typename V::F;
  using Sum = typename V::F;
  static constexpr int kBlock = V::kLanes;
  static constexpr int kKeyBytes = 4;

  template <class Row>
  static Sum dot(Sum sum, Lanes q, Row row) {
    return sum + q * (Lanes)row;
  }
  static Sum to_float(Sum sum) { return sum; }

  static void convert_table(int, int, float*) {}

  static void put(char* row, int i, Lanes x, Lanes y) {
    store(row + i * 8, x);
    store(row + i * 8 + 4 * V::kLanes, y);
  }

  template <class W>
  static void stage_query(W& w, const float* halves, int) {
    for (int i = 0; i < w.half; i += kBlock) {
      put(w.turned, i, load<Lanes>(halves + i), load<Lanes>(halves + w.half + i));
    }
  }
};

// Rotates the vectors x, y of the pairs from i on by the angles of a tile's row.
template <class V>
static inline void turn(const TileTable& table, int row, int i, typename V::F& x,
                        typename V::F& y) {
  using F = typename V::F;
  F cos = load<F>(table.cos(row) + i), sin = load<F>(table.sin(row) + i);
  F turned = x * cos - y * sin;
  y = y * cos + x * sin;
  x = turned;
}

// Rows whose halves are whole vectors, in half-split pairing, without a gain to rotate with.
template <class V_, onekv_format Format>
struct FloatMode : FloatKeys<V_> {
  using V = V_;
  using R = Reader<V, Format>;

  struct Scratch {
    void take(const Problem&, int, Arena&) {}
  };

  static bool takes(const Problem& p) {
    const onekv_attend_args& a = *p.args;
    bool plain_pairs = !a.cos || (a.pairing == ONEKV_HALF_SPLIT && !a.key_gain);
    return a.format == Format && plain_pairs && p.head_dim % (2 * V::kLanes) == 0 &&
           !(R::kScaled && (p.parts == 2 || a.values.part[0]));
  }

  static void stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, Workspace<FloatMode>& w) {
    for (int r = 0; r < count; ++r) {
      const uint8_t* x = span.part[0] + (first + r) * span.stride;
      const uint8_t* y = p.parts == 2 ? span.part[1] + (first + r) * span.stride
                                      : x + w.half * R::kElementBytes;
      char* to = w.keys + int64_t{r} * w.row_bytes;
      if (R::kScaled) w.scales[first + r] = load<float>(x + p.head_dim);
      for (int i = 0; i < w.half; i += V::kLanes) {
        typename V::F low = R::at(x, i), high = R::at(y, i);
        if (p.args->cos) turn<V>(table, r, i, low, high);
        FloatKeys<V>::put(to, i, low, high);
      }
    }
  }

  static void scale_scores(Workspace<FloatMode>& w, int m, int count) {
    if (!R::kScaled) return;
    float* scores = w.scores + m * w.kScoreStride;
    for (int t = 0; t < count; ++t) scores[t] *= w.scales[t];
  }

  static void add_values(const Problem& p, const RowSpan& span, Workspace<FloatMode>& w,
                         const Partial& result) {
    for (int m = 0; R::kScaled && m < w.queries; ++m) {
      for (int t = 0; t < span.count; ++t) w.scores[m * w.kScoreStride + t] *= w.scales[t];
    }
    for (int part = 0; part < p.parts; ++part) {
      add_all_rows<R, V>(span.part[part], span.stride, span.count, p.part_dim, w.scores,
                         w.kScoreStride, w.alpha, w.queries, result.out + part * p.part_dim,
                         p.head_dim);
    }
  }
};

}  // namespace onekv
