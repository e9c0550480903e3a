// One piece: super-tiles of scores, softmax and values.
#pragma once

#include "scores.h"
#include "softmax.h"

namespace onekv {

template <class Mode>
static void attend_piece(const Problem& p, const Piece& piece, const void* shared, void* scratch,
                         Partial result) {
  Workspace<Mode> w(p, piece.tokens * p.group, scratch);
  TileTable table{static_cast<const float*>(shared), w.half};
  for (int m = 0; m < w.queries; ++m) {
    result.max[m] = -INFINITY;
    result.sum[m] = 0;
  }
  std::memset(result.out, 0, sizeof(float) * w.queries * p.head_dim);
  std::memset(w.packed, 0, static_cast<size_t>(w.padded) * w.row_bytes);
  read_queries(p, piece, w);
  if (!p.args->cos) {
    with_heads<typename Mode::V>(
        w.per_vector, [&](auto heads) { pack_queries<Mode, decltype(heads)::value>(p, 0, w); });
  }
  for (int64_t at = piece.begin; at < piece.end;) {
    // A super-tile ends where the ring does.
    int64_t left = p.args->length - at % p.args->length;
    int64_t most = left < kSuperTile ? left : kSuperTile;
    int count = static_cast<int>(piece.end - at < most ? piece.end - at : most);
    RowSpan values = span_at(p, value_rows(p), piece, at, count);
    score_span(p, span_at(p, p.args->rows, piece, at, count), values, at, table, w);
    softmax_span(p, piece, at, count, w, result);
    Mode::add_values(p, values, w, result);
    at += count;
  }
}

template <class Mode>
static int64_t scratch_for(const Problem& p) {
  Workspace<Mode> w(p, most_tokens(p) * p.group, nullptr);
  return w.end - static_cast<char*>(nullptr);
}

}  // namespace onekv
