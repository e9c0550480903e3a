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

// Angles of any position relative to position 0, cosines then sines, each padded to `half`. Pairs lie
// in halves whatever the pairing.
struct RelativeAngles {
  const onekv_attend_args& args;
  int pairs, half;
  // Multiplying by position 0 turned the other way, over its squared length, takes out the attention
  // factor and where the angles start. A pair without length is not turned.
  float cos[kMaxHeadDim / 2], sin[kMaxHeadDim / 2], unturned[kMaxHeadDim / 2];

  RelativeAngles(const Problem& p, int padded) : args(*p.args), pairs(p.head_dim / 2), half(padded) {
    for (int i = 0; i < pairs; ++i) {
      float c = args.cos[i], s = args.sin[i], size = c * c + s * s;
      float inverse = size > 0 ? 1 / size : 0;
      cos[i] = c * inverse, sin[i] = s * inverse, unturned[i] = size > 0 ? 0 : 1;
    }
  }

  void of(int64_t position, float* __restrict to) const {
    if (position >= args.table_length) position = 0;
    const float* c = args.cos + position * args.table_stride;
    const float* s = args.sin + position * args.table_stride;
    for (int i = 0; i < pairs; ++i) {
      to[i] = c[i] * cos[i] + s[i] * sin[i] + unturned[i];
      to[half + i] = s[i] * cos[i] - c[i] * sin[i];
    }
    for (int i = pairs; i < half; ++i) to[i] = 1, to[half + i] = 0;
  }
};

template <class Mode>
static void fill_tile_table(const Problem& p, int half, int rows, char* table) {
  if (!p.args->cos) return;
  float row[kMaxHeadDim + 2 * Mode::kBlock];
  RelativeAngles angles(p, half);
  for (int t = 0; t < rows; ++t) {
    angles.of(t, row);
    Mode::fill_table_row(p, row, half, table + t * Mode::table_row_bytes(p, half));
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
