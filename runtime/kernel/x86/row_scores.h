// Scores of few queries: a row becomes a key in registers and meets all queries there, which saves
// storing it and loading it again element by element.
#pragma once

#include "../simd/scores.h"
#include "avx512.h"

namespace onekv {
namespace {

// Lane 4 l + n of the result is the sum of lanes 4 l .. 4 l + 3 of the n-th argument.
template <class T>
static ONEKV_INLINE T sum_fours(T a, T b, T c, T d) {
  auto lanes = std::make_index_sequence<16>();
  return add_in_fours(add_in_fours(a, b, lanes), add_in_fours(c, d, lanes), lanes);
}

// The rest of it: lane 4 i + n of the result is the sum of lanes n, 4 + n, .. of fours[i].
template <class T>
static ONEKV_INLINE T sum_lanes(const T* fours) {
  auto lanes = std::make_index_sequence<16>();
  return add_neighbours<8>(add_neighbours<4>(fours[0], fours[1], lanes),
                           add_neighbours<4>(fours[2], fours[3], lanes), lanes);
}

// Lane row * Heads + head goes to lane head * (16 / Heads) + row.
template <int Heads, class T, std::size_t... L>
static inline T by_head(T x, std::index_sequence<L...>) {
  constexpr int rows = 16 / Heads;
  return __builtin_shufflevector(x, x, (L % rows * Heads + L / rows)...);
}

// The rows from `first` on of a super-tile, 16 / Heads of them; the last again where there are fewer.
template <class Mode, int N, int Heads, bool Turn, bool Split>
static ONEKV_INLINE void score_row_block(const Problem& p, const RowSpan& span, int first, int last,
                                   const TileTable& table, const typename Mode::Lanes* queries,
                                   Workspace<Mode>& w, Lines& lines, int asks) {
  constexpr int rows = 16 / Heads;
  typename Mode::Sum fours[4];
#pragma GCC unroll 4
  for (int four = 0; four < 4; ++four) {
    typename Mode::Sum sums[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4 / Heads; ++i) {
      int r = four * (4 / Heads) + i;
      for (int a = 0; a < asks; ++a) lines.ask();
      int row = first + r < last ? first + r : last - 1;
      const uint8_t* x = span.part[0] + row * span.stride;
      const uint8_t* y = Split ? span.part[1] + row * span.stride : x + Mode::kHalfBytes * N;
      typename Mode::Lanes key[N];
      Mode::template make_key<N, Turn, Split>(p, x, y, table.row(r), w.scales + row, key);
#pragma GCC unroll 4
      for (int h = 0; h < Heads; ++h) {
        typename Mode::Sum sum = {};
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sum = Mode::dot(sum, queries[h * N + n], key[n]);
        sums[i * Heads + h] = sum;
      }
    }
    fours[four] = sum_fours(sums[0], sums[1], sums[2], sums[3]);
  }
  auto total = by_head<Heads>(Mode::to_float(sum_lanes(fours)), std::make_index_sequence<16>());
  float lanes[16];
  store(lanes, total);
  for (int h = 0; h < Heads; ++h) {
    std::memcpy(w.scores + h * w.kScoreStride + first, lanes + h * rows, 4 * rows);
  }
}

template <class Mode, int N, int Heads, bool Turn, bool Split>
static void score_by_rows(const Problem& p, const RowSpan& span, int64_t position,
                          const TileTable& table, Workspace<Mode>& w) {
  constexpr int rows = 16 / Heads;
  int64_t blocks = (span.count + rows - 1) / rows;
  int64_t share = w.ahead.bytes * kAheadInScores / 16 / blocks;
  int asks = static_cast<int>((share / rows + 63) / 64);
  int tile = tile_rows(w.queries);
  typename Mode::Lanes queries[Heads * N];
  for (int first = 0; first < span.count; first += rows) {
    if (first % tile == 0) {
      if (Turn) pack_queries<Mode, 1>(p, position + first, w);
      std::memcpy(queries, w.packed, sizeof queries);
    }
    Lines lines = w.ahead.take(share, int64_t{asks} * rows);
    score_row_block<Mode, N, Heads, Turn, Split>(p, span, first, span.count, table.from(first % tile),
                                          queries, w, lines, asks);
  }
}

// Whether score_few takes a call.
template <class Mode>
static inline bool has_few(const Problem& p, int queries) {
  int bytes = p.head_dim * Mode::kKeyBytes;
  return queries <= 4 && (bytes == 128 || bytes == 256);
}

template <class Mode>
static void score_few(const Problem& p, const RowSpan& span, int64_t position,
                      const TileTable& table, Workspace<Mode>& w) {
  auto score = [&](auto vectors, auto heads) {
    constexpr int n = decltype(vectors)::value, h = decltype(heads)::value;
    auto score_rows = p.args->cos ? (p.parts == 2 ? score_by_rows<Mode, n, h, true, true>
                                                  : score_by_rows<Mode, n, h, true, false>)
                                  : (p.parts == 2 ? score_by_rows<Mode, n, h, false, true>
                                                  : score_by_rows<Mode, n, h, false, false>);
    score_rows(p, span, position, table, w);
  };
  auto with_vectors = [&](auto heads) {
    if (w.row_bytes == 128) return score(std::integral_constant<int, 2>(), heads);
    score(std::integral_constant<int, 4>(), heads);
  };
  if (w.queries == 1) return with_vectors(std::integral_constant<int, 1>());
  if (w.queries == 2) return with_vectors(std::integral_constant<int, 2>());
  with_vectors(std::integral_constant<int, 4>());
}

}  // namespace
}  // namespace onekv
