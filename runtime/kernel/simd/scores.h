// Scores of staged keys: rows are broadcast, queries lie in lanes, so a row loaded once meets
// all queries of its kv head and few lanes are left to add up.
#pragma once

#include "queries.h"

namespace onekv {

// Rows [0, Rows) against Vectors vectors of Heads queries each.
template <class Mode, int Heads, int Vectors, int Rows>
static inline void score_block(const char* packed, int64_t vector_bytes, const char* keys,
                               int64_t row_bytes, float* scores, int stride) {
  using V = typename Mode::V;
  constexpr int units = V::kLanes / Heads;
  typename Mode::Sum sums[Vectors][Rows] = {};
  int chunks = static_cast<int>(row_bytes / (4 * units));
  for (int k = 0; k < chunks; ++k) {
    typename Mode::Lanes q[Vectors];
    for (int j = 0; j < Vectors; ++j) {
      q[j] = load<typename Mode::Lanes>(packed + j * vector_bytes + int64_t{k} * 4 * V::kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      auto row = V::template spread<units>(keys + r * row_bytes + int64_t{k} * 4 * units);
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) sums[j][r] = Mode::dot(sums[j][r], q[j], row);
    }
  }
  for (int j = 0; j < Vectors; ++j) {
    for (int r = 0; r < Rows; r += units) {
      auto total = Mode::to_float(reduce<units, V>(&sums[j][r]));
      float lanes[V::kLanes];
      store(lanes, total);
      for (int h = 0; h < Heads; ++h) {
        std::memcpy(scores + (j * Heads + h) * stride + r, lanes + h * units, 4 * units);
      }
    }
  }
}

// Asks for the rows [first, first + count) of a span, which need not exist: scores are computed
// from memory that the previous super-tile asked for.
static inline void prefetch(const Problem& p, const RowSpan& span, int first, int count) {
  int64_t bytes = row_bytes(p.args->format, p.part_dim);
  for (int part = 0; part < p.parts; ++part) {
    const uint8_t* row = span.part[part] + first * span.stride;
    for (int r = 0; r < count; ++r, row += span.stride) {
      for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 0, 3);
    }
  }
}

template <class Mode, int Heads>
static void score_rows(const Problem& p, const RowSpan& span, const RowSpan& values,
                       const Workspace<Mode>& w, int first, int count) {
  using V = typename Mode::V;
  constexpr int units = V::kLanes / Heads;
  constexpr int rows = units > 8 ? units : 8;
  int64_t vector_bytes = int64_t{Heads} * w.row_bytes;
  for (int r = 0; r < count; r += rows) {
    prefetch(p, span, first + r + kSuperTile, rows);
    if (p.args->values.part[0]) prefetch(p, values, first + r, rows);
    const char* keys = w.keys + int64_t{r} * w.row_bytes;
    float* scores = w.scores + first + r;
    int m = 0;
    if constexpr (rows == 8) {
      for (; m + 2 * Heads <= w.padded; m += 2 * Heads) {
        score_block<Mode, Heads, 2, rows>(w.packed + int64_t{m} * w.row_bytes, vector_bytes, keys,
                                          w.row_bytes, scores + m * w.kScoreStride, w.kScoreStride);
      }
    }
    for (; m < w.padded; m += Heads) {
      score_block<Mode, Heads, 1, rows>(w.packed + int64_t{m} * w.row_bytes, vector_bytes, keys,
                                        w.row_bytes, scores + m * w.kScoreStride, w.kScoreStride);
    }
  }
}

// Calls body with the number of queries per vector as a constant.
template <class V, class Body>
static void with_heads(int heads, const Body& body) {
  switch (heads) {
    case 1: return body(std::integral_constant<int, 1>());
    case 2: return body(std::integral_constant<int, 2>());
    case 4: return body(std::integral_constant<int, 4>());
    case 8:
      if constexpr (V::kLanes >= 8) return body(std::integral_constant<int, 8>());
      break;
    default:
      if constexpr (V::kLanes >= 16) return body(std::integral_constant<int, 16>());
  }
}

// Scores of the rows of a super-tile, tile by tile.
template <class Mode>
static void score_span(const Problem& p, const RowSpan& span, const RowSpan& values,
                       int64_t position, const TileTable& table, Workspace<Mode>& w) {
  with_heads<typename Mode::V>(w.per_vector, [&](auto heads) {
    constexpr int kHeads = decltype(heads)::value;
    int step = tile_rows(w.queries);
    for (int first = 0; first < span.count; first += step) {
      int count = span.count - first < step ? span.count - first : step;
      if (p.args->cos) pack_queries<Mode, kHeads>(p, position + first, w);
      Mode::stage_keys(p, span, first, count, table, w);
      score_rows<Mode, kHeads>(p, span, values, w, first, count);
    }
  });
}

}  // namespace onekv
