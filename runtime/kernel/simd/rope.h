// The rotation of rows that serve as keys, split so that a small table serves any position:
// <q, R(t0 + i) c> = <R(t0)^T q, R(i) c>. Queries are turned back once per tile.
#pragma once

#include "layout.h"

namespace onekv {
namespace {

// Angles of the first positions relative to position 0: a mode's own form of each row.
struct TileTable {
  const char* rows;
  int64_t row_bytes;

  const char* row(int i) const { return rows + i * row_bytes; }
  TileTable from(int i) const { return {row(i), row_bytes}; }
};

// Cosines then sines of position t relative to position 0, each padded to `half`. Pairs lie in
// halves whatever the pairing. `last` is the last row of the tables that may be read.
static inline void relative_angles(const Problem& p, int half, int64_t t, float* to) {
  const onekv_attend_args& a = *p.args;
  if (t >= a.table_length) t = 0;
  const float* cos = a.cos + t * a.table_stride;
  const float* sin = a.sin + t * a.table_stride;
  int pairs = p.head_dim / 2;
  for (int i = 0; i < pairs; ++i) {
    // Dividing by row 0 takes out the attention factor and where the angles start.
    float c0 = a.cos[i], s0 = a.sin[i], size = c0 * c0 + s0 * s0;
    float inverse = size > 0 ? 1 / size : 0;
    to[i] = size > 0 ? (cos[i] * c0 + sin[i] * s0) * inverse : 1;
    to[half + i] = (sin[i] * c0 - cos[i] * s0) * inverse;
  }
  for (int i = pairs; i < half; ++i) to[i] = 1, to[half + i] = 0;
}

template <class Mode>
static void fill_tile_table(const Problem& p, int half, int rows, char* table) {
  float angles[kMaxHeadDim + 2 * Mode::kBlock];
  for (int t = 0; p.args->cos && t < rows; ++t) {
    relative_angles(p, half, t, angles);
    Mode::fill_table_row(p, angles, half, table + t * Mode::table_row_bytes(p, half));
  }
}

// One query's halves [2][half], turned back by the angles of `position`.
template <class V>
static inline void turn_back(const Problem& p, int64_t position, int half,
                             const float* __restrict from, float* __restrict to) {
  const float* cos = p.args->cos + position * p.args->table_stride;
  const float* sin = p.args->sin + position * p.args->table_stride;
  int pairs = p.head_dim / 2;
  int i = 0;
  for (; i + V::kLanes <= pairs; i += V::kLanes) {
    auto x = load<typename V::F>(from + i), y = load<typename V::F>(from + half + i);
    auto c = load<typename V::F>(cos + i), s = load<typename V::F>(sin + i);
    store(to + i, x * c + y * s);
    store(to + half + i, y * c - x * s);
  }
  for (; i < pairs; ++i) {
    to[i] = from[i] * cos[i] + from[half + i] * sin[i];
    to[half + i] = from[half + i] * cos[i] - from[i] * sin[i];
  }
  for (; i < half; ++i) to[i] = to[half + i] = 0;
}

}  // namespace
}  // namespace onekv
