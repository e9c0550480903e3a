// The engine in plain C++: the shortest way from the definition to a result, on any CPU.
#include <cmath>
#include <cstring>

#include "../engines.h"
#include "../records.h"

namespace onekv {
namespace {

struct Scratch {
  float key[kMaxHeadDim];
  float value[kMaxHeadDim];
  float queries[1];  // [tokens * group][head_dim]
};

constexpr int kTokensPerPiece = 16;

void read_row(const Problem& p, const onekv_rows& rows, const Piece& piece, int64_t position,
              float* out) {
  for (int part = 0; part < p.parts; ++part) {
    decode_row(p.args->format, p.part_dim, row_at(rows, part, piece, position % p.args->length),
               out + part * p.part_dim);
  }
}

// Turns a row into the key of its position.
void make_key(const Problem& p, int64_t position, float* row) {
  const onekv_attend_args& a = *p.args;
  for (int d = 0; a.key_gain && d < p.head_dim; ++d) row[d] *= a.key_gain[d];
  if (!a.cos) return;
  const float* cos = a.cos + position * a.table_stride;
  const float* sin = a.sin + position * a.table_stride;
  int half = p.head_dim / 2;
  for (int i = 0; i < half; ++i) {
    int first = a.pairing == ONEKV_HALF_SPLIT ? i : 2 * i;
    int second = a.pairing == ONEKV_HALF_SPLIT ? i + half : 2 * i + 1;
    float x = row[first], y = row[second];
    row[first] = x * cos[i] - y * sin[i];
    row[second] = y * cos[i] + x * sin[i];
  }
}

float dot(const float* a, const float* b, int count) {
  float sum = 0;
  for (int i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// Adds one position to a query's softmax sum.
void accumulate(float score, const float* value, int dim, float* max, float* sum, float* out) {
  if (score > *max) {
    float factor = std::exp2(*max - score);
    *sum *= factor;
    for (int d = 0; d < dim; ++d) out[d] *= factor;
    *max = score;
  }
  float weight = std::exp2(score - *max);
  *sum += weight;
  for (int d = 0; d < dim; ++d) out[d] += weight * value[d];
}

void attend(const Problem& p, const Piece& piece, const Piece*, const void*, void* scratch,
            Partial result) {
  const onekv_attend_args& a = *p.args;
  Scratch& s = *static_cast<Scratch*>(scratch);
  int queries = piece.tokens * p.group;
  for (int i = 0; i < queries; ++i) {
    int64_t head = piece.kv_head * p.group + i % p.group;
    int64_t offset = offset_of(a.q, piece.batch, piece.first_token + i / p.group, head);
    read_activations(a.activations, a.q.data, offset, p.head_dim, s.queries + i * p.head_dim);
    result.max[i] = -INFINITY;
    result.sum[i] = 0;
  }
  std::memset(result.out, 0, sizeof(float) * queries * p.head_dim);
  for (int64_t position = piece.begin; position < piece.end; ++position) {
    read_row(p, value_rows(p), piece, position, s.value);
    read_row(p, a.rows, piece, position, s.key);
    make_key(p, position, s.key);
    for (int i = 0; i < queries; ++i) {
      int64_t query = a.position + piece.first_token + i / p.group;
      if (position > query || position < first_visible(p, query)) continue;
      float score = dot(s.queries + i * p.head_dim, s.key, p.head_dim) * a.scale * kLog2E;
      accumulate(score, s.value, p.head_dim, result.max + i, result.sum + i,
                 result.out + int64_t{i} * p.head_dim);
    }
  }
}

int64_t scratch_bytes(const Problem& p) {
  return static_cast<int64_t>(sizeof(Scratch)) +
         int64_t{kTokensPerPiece} * p.group * p.head_dim * static_cast<int64_t>(sizeof(float));
}

}  // namespace

const Engine plain_engine = {
    "plain",
    [] { return true; },
    [](const Problem&) { return kTokensPerPiece; },
    scratch_bytes,
    [](const Problem&) { return int64_t{0}; },
    [](const Problem&, void*) {},
    attend,
};

}  // namespace onekv
