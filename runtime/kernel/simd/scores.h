// Scores of staged keys: rows are broadcast, queries lie in lanes, so a row loaded once meets
// all queries of its kv head and few lanes are left to add up.
#pragma once

#include "queries.h"

namespace onekv {
namespace {

// Rows [0, Rows) against Vectors vectors of Heads queries each. A function of its own: inlined into a
// large one, GCC copies all sums at every turn.
template <class Mode, int Heads, int Vectors, int Rows>
static __attribute__((noinline)) void score_block(const char* packed, int64_t vector_bytes, Keys keys,
                               int64_t row_bytes, float* scores, int stride) {
  using V = typename Mode::V;
  constexpr int units = V::kLanes / Heads;
  constexpr int chunk = sizeof(typename Mode::Lanes) / Heads;
  typename Mode::Sum sums[Vectors][Rows] = {};
  int chunks = static_cast<int>(row_bytes / chunk);
  for (int k = 0; k < chunks; ++k) {
    typename Mode::Lanes q[Vectors];
    for (int j = 0; j < Vectors; ++j) {
      q[j] = load<typename Mode::Lanes>(packed + j * vector_bytes + int64_t{k} * Heads * chunk);
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      auto row = V::template spread<units>(keys.at + r * keys.stride + int64_t{k} * chunk);
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) sums[j][r] = Mode::dot(sums[j][r], q[j], row);
    }
  }
  for (int j = 0; j < Vectors; ++j) {
    for (int r = 0; r < Rows; r += units) {
      auto total = Mode::template total<units>(&sums[j][r]);
      float lanes[V::kLanes];
      store(lanes, total);
      for (int h = 0; h < Heads; ++h) {
        std::memcpy(scores + (j * Heads + h) * stride + r, lanes + h * units, 4 * units);
      }
    }
  }
}

// Scores of a block of staged keys against all queries.
template <class Mode, int Heads, int Rows>
static inline void score_keys(const Workspace<Mode>& w, Keys keys, float* scores) {
  int64_t vector_bytes = int64_t{Heads} * w.row_bytes;
  int m = 0;
  if constexpr (Rows == 8) {
    for (; m + 2 * Heads <= w.padded; m += 2 * Heads) {
      score_block<Mode, Heads, 2, Rows>(w.packed + int64_t{m} * w.row_bytes, vector_bytes, keys,
                                        w.row_bytes, scores + m * w.kScoreStride, w.kScoreStride);
    }
  }
  for (; m < w.padded; m += Heads) {
    score_block<Mode, Heads, 1, Rows>(w.packed + int64_t{m} * w.row_bytes, vector_bytes, keys,
                                      w.row_bytes, scores + m * w.kScoreStride, w.kScoreStride);
  }
}

// Calls body with the number of queries per vector as a constant.
template <class Mode, int Heads = Mode::kMostHeads, class Body>
static void with_heads(int heads, const Body& body) {
  if constexpr (Heads > 1) {
    if (heads < Heads) return with_heads<Mode, Heads / 2>(heads, body);
  }
  body(std::integral_constant<int, Heads>());
}

// What part of the next super-tile is asked for while scores are computed, in 1/16.
constexpr int kAheadInScores = 10;

// Scores of the rows of a super-tile. Queries are turned back tile by tile; rows are staged block
// by block, so that the processor overlaps the staging of one with the scores of another.
template <class Mode>
static void score_span(const Problem& p, const RowSpan& span, int64_t position,
                       const TileTable& table, Workspace<Mode>& w) {
  with_heads<Mode>(w.per_vector, [&](auto heads) {
    constexpr int kHeads = decltype(heads)::value;
    constexpr int kUnits = Mode::V::kLanes / kHeads;
    constexpr int kRows = kUnits > 8 ? kUnits : 8;
    int tile = tile_rows(w.queries);
    int64_t share = w.ahead.bytes * kAheadInScores / 16 * kRows / round_up(span.count, kRows);
    for (int first = 0; first < span.count; first += kRows) {
      int count = span.count - first < kRows ? span.count - first : kRows;
      if (p.args->cos && first % tile == 0) pack_queries<Mode, kHeads>(p, position + first, w);
      int64_t asks = (share + 63) / 64;
      Lines lines = w.ahead.take(share, asks);
      for (int64_t i = 0; i < asks; ++i) lines.ask();
      Keys keys = Mode::stage_keys(p, span, first, count, table.from(first % tile), w);
      score_keys<Mode, kHeads, kRows>(w, keys, w.scores + first);
    }
  });
}

}  // namespace
}  // namespace onekv
