// One piece: super-tiles of scores, softmax and values.
#pragma once

#include "scores.h"
#include "softmax.h"

namespace onekv {
namespace {

// How many rows the super-tile at `position` of a piece has: one ends where the ring does.
static inline int super_tile_at(const Problem& p, const Piece& piece, int64_t position) {
  int64_t left = p.args->length - position % p.args->length;
  int64_t most = super_tile_rows(p);
  if (left < most) most = left;
  return static_cast<int>(piece.end - position < most ? piece.end - position : most);
}

// The rows that are needed after those up to `position`.
static inline Ahead rows_ahead(const Problem& p, const Piece& piece, int64_t position,
                               const Piece* next) {
  Ahead ahead;
  const Piece* of = &piece;
  if (position >= piece.end) {
    if (!next) return ahead;
    of = next;
    position = next->begin;
  }
  int count = super_tile_at(p, *of, position);
  if (p.args->values.part[0]) ahead.add(p, span_at(p, p.args->values, *of, position, count));
  ahead.add(p, span_at(p, p.args->rows, *of, position, count));
  return ahead;
}

template <class Mode>
static void attend_piece(const Problem& p, const Piece& piece, const Piece* next,
                         const void* shared, void* scratch, Partial result) {
  Workspace<Mode> w(p, piece.tokens * p.group, scratch);
  TileTable table{static_cast<const char*>(shared), Mode::table_row_bytes(p, w.half)};
  for (int m = 0; m < w.queries; ++m) {
    result.max[m] = -INFINITY;
    result.sum[m] = 0;
  }
  std::memset(result.out, 0, sizeof(float) * w.queries * p.head_dim);
  std::memset(w.packed, 0, static_cast<size_t>(w.padded) * w.row_bytes);
  w.mode.start(w.padded);
  read_queries(p, piece, w);
  if (!p.args->cos) {
    with_heads<Mode>(
        w.per_vector, [&](auto heads) { pack_queries<Mode, decltype(heads)::value>(p, 0, w); });
  }
  for (int64_t at = piece.begin; at < piece.end;) {
    int count = super_tile_at(p, piece, at);
    w.ahead = rows_ahead(p, piece, at + count, next);
    RowSpan rows = Mode::open(p, span_at(p, p.args->rows, piece, at, count), w);
    Mode::score(p, rows, at, table, w);
    softmax_span(p, piece, at, count, w, result);
    if (p.args->values.part[0]) {
      rows = Mode::open(p, span_at(p, p.args->values, piece, at, count), w);
    }
    Mode::add_values(p, rows, w, result);
    at += count;
  }
}

template <class Mode>
static int64_t scratch_for(const Problem& p) {
  char* start = reinterpret_cast<char*>(64);  // no memory, but not null: offsets from null are undefined
  Workspace<Mode> w(p, most_tokens(p) * p.group, start);
  return w.end - start;
}

}  // namespace
}  // namespace onekv
