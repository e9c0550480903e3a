// How a piece's data lies in scratch memory while it is computed.
#pragma once

#include "ahead.h"
#include "vector.h"

namespace onekv {
namespace {

// Softmax and values work on this many positions at once, so that the sums of the values are
// loaded and stored once for all of them; their rows stay in L2 between the two roles.
constexpr int kSuperTile = 256;
constexpr int64_t kSuperTileBytes = 128 << 10;
constexpr int kMostQueries = 64;  // query heads times tokens that a piece aims at
constexpr int kRowPadding = 16;   // rows that a score block may compute beyond the last

static inline RowSpan span_at(const Problem& p, const onekv_rows& rows, const Piece& piece,
                              int64_t position, int count) {
  int64_t slot = position % p.args->length;
  const uint8_t* second = p.parts == 2 ? row_at(rows, 1, piece, slot) : nullptr;
  return {{row_at(rows, 0, piece, slot), second}, rows.row_stride, count};
}

static inline bool pairs_in_halves(const Problem& p) {
  return !p.args->cos || p.args->pairing == ONEKV_HALF_SPLIT;
}

// The gain of the elements of pair i.
static inline float first_gain(const Problem& p, int i) {
  if (!p.args->key_gain) return 1;
  return p.args->key_gain[pairs_in_halves(p) ? i : 2 * i];
}
static inline float second_gain(const Problem& p, int i) {
  if (!p.args->key_gain) return 1;
  return p.args->key_gain[pairs_in_halves(p) ? i + p.head_dim / 2 : 2 * i + 1];
}

// Staged keys, which may lie in the cache itself.
struct Keys {
  const char* at;
  int64_t stride;
};

// Queries that share lanes: a vector holds `heads` queries times lanes / heads units of a row.
template <class Mode>
static inline int heads_per_vector(int queries) {
  int heads = 1;
  while (heads < queries && heads < Mode::kMostHeads) heads *= 2;
  return heads;
}

// Rows that are scored between two rotations of the queries. Turning a query costs as much as
// turning a row, so many queries want long tiles, few want tables that stay in L1.
static inline int tile_rows(int queries) { return queries <= 8 ? 64 : kSuperTile; }

// Fewer positions where rows are so long that two super-tiles would not stay in L2.
static inline int super_tile_rows(const Problem& p) {
  int64_t rows = kSuperTileBytes / (p.parts * row_bytes(p.args->format, p.part_dim)) / 64 * 64;
  return static_cast<int>(rows < 64 ? 64 : rows > kSuperTile ? kSuperTile : rows);
}

// The padded halves of a row; the block is what one step of a mode converts.
template <class Mode>
static inline int padded_half(const Problem& p) {
  return round_up(p.head_dim / 2, Mode::kBlock);
}

static inline int most_tokens(const Problem& p) {
  int tokens = kMostQueries / p.group;
  return tokens < 1 ? 1 : tokens;
}

// Scratch memory handed out piece by piece, each 64-byte aligned.
struct Arena {
  char* next;

  template <class T>
  T* take(int64_t count) {
    T* taken = reinterpret_cast<T*>(next);
    next += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return taken;
  }
};

template <class Mode>
struct Workspace {
  using V = typename Mode::V;

  int queries;      // of the piece
  int per_vector;   // queries in one vector; 1 also where a mode wants each on its own
  int padded;       // queries rounded up to whole vectors
  int half;         // padded half of a row
  int row_bytes;    // of a staged key
  int block;        // keys that are staged and scored together
  float* halves;    // [queries][2][half]: the queries' halves, scaled
  char* turned;     // one query as a key is staged
  char* packed;     // [padded / per_vector][units of a row][lanes]
  char* keys;       // [kRowPadding][row_bytes]
  float* scores;    // [padded][kSuperTile + kRowPadding]
  float* scales;    // [kSuperTile + kRowPadding] of the rows, where they have them
  float* wide;      // four rows of floats
  float* alpha;     // [padded]: what the old sums are multiplied by
  Ahead ahead;
  typename Mode::Scratch mode;

  Workspace(const Problem& p, int query_count, void* memory) : queries(query_count) {
    per_vector = Mode::keeps_apart(p, queries) ? 1 : heads_per_vector<Mode>(queries);
    padded = round_up(queries, heads_per_vector<Mode>(queries));
    half = padded_half<Mode>(p);
    row_bytes = 2 * half * Mode::kKeyBytes;
    block = V::kLanes / per_vector > 8 ? V::kLanes / per_vector : 8;
    Arena arena{static_cast<char*>(memory)};
    halves = arena.take<float>(int64_t{queries} * 2 * half);
    turned = arena.take<char>(row_bytes);
    packed = arena.take<char>(int64_t{padded} * row_bytes);
    keys = arena.take<char>(int64_t{kRowPadding} * row_bytes);
    scores = arena.take<float>(int64_t{padded} * kScoreStride);
    scales = arena.take<float>(kScoreStride);
    wide = arena.take<float>(8 * half);
    alpha = arena.take<float>(padded);
    mode.take(p, padded, arena);
    end = arena.next;
  }

  static constexpr int kScoreStride = kSuperTile + kRowPadding;
  char* end;
};

}  // namespace
}  // namespace onekv
