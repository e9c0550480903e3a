// The queries of a piece: read once, then turned and packed for each tile of rows.
#pragma once

#include "../records.h"
#include "rope.h"

namespace onekv {
namespace {

// Reads the queries into halves, with what every score is multiplied by folded in.
template <class Mode>
static void read_queries(const Problem& p, const Piece& piece, Workspace<Mode>& w) {
  const onekv_attend_args& a = *p.args;
  bool interleaved = a.cos && a.pairing == ONEKV_INTERLEAVED;
  int pairs = p.head_dim / 2;
  for (int m = 0; m < w.queries; ++m) {
    int64_t head = piece.kv_head * p.group + m % p.group;
    int64_t offset = offset_of(a.q, piece.batch, piece.first_token + m / p.group, head);
    float row[kMaxHeadDim];
    read_activations(a.activations, a.q.data, offset, p.head_dim, row);
    float* to = w.halves + int64_t{m} * 2 * w.half;
    for (int i = 0; i < w.half; ++i) {
      int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + pairs;
      // Without rotation the gain of the keys may as well be the queries'.
      bool gain = a.key_gain && !a.cos;
      to[i] = i < pairs ? row[first] * a.scale * kLog2E * (gain ? a.key_gain[first] : 1) : 0;
      to[w.half + i] =
          i < pairs ? row[second] * a.scale * kLog2E * (gain ? a.key_gain[second] : 1) : 0;
    }
  }
}

// Copies a staged query to its lanes: chunk k of query h goes to lanes [h * units, ...) of vector k.
template <int Heads, class V>
static void pack_query(const char* turned, int row_bytes, int lane, char* packed) {
  constexpr int chunk = 4 * V::kLanes / Heads;
  char* to = packed + lane * chunk;
  for (int at = 0; at < row_bytes; at += chunk, to += 4 * V::kLanes) {
    std::memcpy(to, turned + at, chunk);
  }
}

// Stages every query for rows that are turned relative to `position`.
template <class Mode, int Heads>
static void pack_queries(const Problem& p, int64_t position, Workspace<Mode>& w) {
  using V = typename Mode::V;
  for (int m = 0; m < w.queries; ++m) {
    const float* halves = w.halves + int64_t{m} * 2 * w.half;
    if (p.args->cos) {
      // By fours, so that no query waits for what was just stored.
      for (int next = m; m % 4 == 0 && next < m + 4 && next < w.queries; ++next) {
        turn_back<V>(p, position, w.half, w.halves + int64_t{next} * 2 * w.half,
                     w.wide + next % 4 * 2 * w.half);
      }
      halves = w.wide + m % 4 * 2 * w.half;
    }
    if constexpr (Heads == 1) {
      Mode::stage_query(p, w, halves, m, w.packed + int64_t{m} * w.row_bytes);
      continue;
    }
    Mode::stage_query(p, w, halves, m, w.turned);
    pack_query<Heads, V>(w.turned, w.row_bytes, m % Heads,
                         w.packed + int64_t{m / Heads} * Heads * w.row_bytes);
  }
}

}  // namespace
}  // namespace onekv
