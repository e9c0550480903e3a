// The rotation of rows that serve as keys, split so that a small table serves any position:
// <q, R(t0 + i) c> = <R(t0)^T q, R(i) c>. Queries are turned back once per tile.
#pragma once

#include "layout.h"

namespace onekv {

// Angles of the first positions relative to position 0, per position: cosines, then sines,
// each padded to `half`. Pairs lie in halves whatever the pairing.
struct TileTable {
  const float* rows;
  int half;

  const float* cos(int i) const { return rows + int64_t{i} * 2 * half; }
  const float* sin(int i) const { return cos(i) + half; }
};

static inline int64_t tile_table_floats(const Problem& p, int half, int rows) {
  return p.args->cos ? int64_t{rows} * 2 * half : 0;
}

static inline void fill_tile_table(const Problem& p, int half, int rows, float* table) {
  const onekv_attend_args& a = *p.args;
  if (!a.cos) return;
  int64_t known = a.table_length < rows ? a.table_length : rows;
  for (int64_t t = 0; t < rows; ++t) {
    const float* cos = a.cos + (t < known ? t : 0) * a.table_stride;
    const float* sin = a.sin + (t < known ? t : 0) * a.table_stride;
    float* to = table + t * 2 * half;
    for (int i = 0; i < half; ++i) {
      bool real = i < p.head_dim / 2;
      // Dividing by row 0 takes out the attention factor and where the angles start.
      float c0 = real ? a.cos[i] : 1, s0 = real ? a.sin[i] : 0, size = c0 * c0 + s0 * s0;
      to[i] = real && size > 0 ? (cos[i] * c0 + sin[i] * s0) / size : 1;
      to[half + i] = real && size > 0 ? (sin[i] * c0 - cos[i] * s0) / size : 0;
    }
  }
}

// One query's halves [2][half], turned back by the angles of `position`.
static inline void turn_back(const Problem& p, int64_t position, int half, const float* from,
                             float* to) {
  const float* cos = p.args->cos + position * p.args->table_stride;
  const float* sin = p.args->sin + position * p.args->table_stride;
  int pairs = p.head_dim / 2;
  for (int i = 0; i < pairs; ++i) {
    to[i] = from[i] * cos[i] + from[half + i] * sin[i];
    to[half + i] = from[half + i] * cos[i] - from[i] * sin[i];
  }
  for (int i = pairs; i < half; ++i) to[i] = to[half + i] = 0;
}

}  // namespace onekv
