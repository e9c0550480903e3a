// Arithmetic in fp32 for what no faster mode takes: any format, head_dim, pairing, gain and parts.
// Rows are decoded one by one into fp32 tiles.
#pragma once

#include "../decode.h"
#include "float_mode.h"

namespace onekv {
namespace {

template <class V_>
struct AnyMode : FloatKeys<V_> {
  using V = V_;
  using F = typename V::F;

  struct Scratch {
    void start(int) {}
    float* values;  // [kSuperTile][dim]
    float* sums;    // [queries][dim]
    int dim;        // head_dim in whole vectors

    void take(const Problem& p, int padded, Arena& arena) {
      dim = round_up(p.head_dim, V::kLanes);
      values = arena.take<float>(int64_t{kSuperTile} * dim);
      sums = arena.take<float>(int64_t{padded} * dim);
    }
  };

  static void decode(const Problem& p, const RowSpan& span, int row, float* to) {
    for (int part = 0; part < p.parts; ++part) {
      decode_record(p.args->format, p.part_dim, span.part[part] + row * span.stride,
                 to + part * p.part_dim);
    }
  }

  // The pairs of the rotation in halves.
  static void split_row(const Problem& p, const float* row, int half, float* to) {
    bool halves = pairs_in_halves(p);
    int pairs = p.head_dim / 2;
    for (int i = 0; i < pairs; ++i) {
      to[i] = row[halves ? i : 2 * i];
      to[half + i] = row[halves ? i + pairs : 2 * i + 1];
    }
    for (int i = pairs; i < half; ++i) to[i] = to[half + i] = 0;
  }

  static Keys stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, Workspace<AnyMode>& w) {
    float row[kMaxHeadDim];
    for (int r = 0; r < count; ++r) {
      decode(p, span, first + r, row);
      split_row(p, row, w.half, w.wide);
      char* to = w.keys + int64_t{r} * w.row_bytes;
      for (int i = 0; i < w.half; i += V::kLanes) {
        F x = load<F>(w.wide + i), y = load<F>(w.wide + w.half + i);
        if (p.args->key_gain && p.args->cos) {
          turn<V, true>(table.row(r), w.half, i, x, y);
        } else if (p.args->cos) {
          turn<V, false>(table.row(r), w.half, i, x, y);
        }
        store(to + 4 * i, x);
        store(to + 4 * (w.half + i), y);
      }
    }
    return {w.keys, w.row_bytes};
  }

  static void scale_scores(const Problem&, Workspace<AnyMode>&, int, int) {}

  static void add_values(const Problem& p, const RowSpan& span, Workspace<AnyMode>& w,
                         const Partial& result) {
    int dim = w.mode.dim;
    for (int t = 0; t < span.count; ++t) {
      float* row = w.mode.values + int64_t{t} * dim;
      decode(p, span, t, row);
      for (int d = p.head_dim; d < dim; ++d) row[d] = 0;
    }
    for (int m = 0; m < w.queries; ++m) {
      float* sums = w.mode.sums + int64_t{m} * dim;
      for (int d = 0; d < dim; ++d) {
        sums[d] = d < p.head_dim ? result.out[int64_t{m} * p.head_dim + d] : 0;
      }
    }
    add_all_rows<Reader<V, ONEKV_FP32>, V>(reinterpret_cast<const uint8_t*>(w.mode.values),
                                           int64_t{dim} * 4, span.count, dim, w.scores,
                                           w.kScoreStride, w.alpha, w.queries, w.mode.sums, dim, w.ahead);
    for (int m = 0; m < w.queries; ++m) {
      std::memcpy(result.out + int64_t{m} * p.head_dim, w.mode.sums + int64_t{m} * dim,
                  sizeof(float) * p.head_dim);
    }
  }
};

}  // namespace
}  // namespace onekv
