// What the parts of the kernel hand to each other: a checked call, its pieces of work, an engine.
#pragma once

#include "attend.h"
#include "formats.h"

namespace onekv {

constexpr int kMaxHeadDim = 512;
constexpr float kLog2E = 1.4426950408889634f;

// A call whose arguments were checked.
struct Problem {
  const onekv_attend_args* args;
  int head_dim;
  int group;     // query heads per kv head
  int parts;     // records per row, 1 or 2
  int part_dim;  // elements per record
  int64_t end;   // positions filled once the new rows are in: position + S
};

static inline const onekv_rows& value_rows(const Problem& p) {
  return p.args->values.part[0] ? p.args->values : p.args->rows;
}

// The first position that the query at `position` sees.
static inline int64_t first_visible(const Problem& p, int64_t position) {
  int64_t window = p.args->window;
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// Attention of some queries of one kv head over the positions [begin, end).
struct Piece {
  int64_t batch;
  int64_t kv_head;
  int64_t first_token;  // of the call's S
  int tokens;
  int64_t begin;
  int64_t end;
};

// Softmax sums that were not divided yet, of tokens * group queries, token-major.
// A query that saw nothing has sum 0.
struct Partial {
  float* max;  // the largest score times log2(e)
  float* sum;  // of exp2(score - max)
  float* out;  // [tokens * group][head_dim], the rows weighted by exp2(score - max)
};

// One instruction set's way to compute a piece.
struct Engine {
  const char* name;
  bool (*supported)();
  // How many tokens of S a piece takes at most.
  int (*tokens_per_piece)(const Problem&);
  // Bytes that `attend` wants as scratch, 64-byte aligned.
  int64_t (*scratch_bytes)(const Problem&);
  // Fills what the pieces of a call share; `shared` has shared_bytes, 64-byte aligned.
  int64_t (*shared_bytes)(const Problem&);
  void (*prepare)(const Problem&, void* shared);
  // `next`, which may be null, is the piece that this thread computes afterwards.
  void (*attend)(const Problem&, const Piece&, const Piece* next, const void* shared, void* scratch,
                 Partial result);
};

// The engines of this build, plain C++ first, best last.
const Engine* engine(int32_t isa);

static inline const uint8_t* row_at(const onekv_rows& rows, int part, const Piece& piece, int64_t slot) {
  return static_cast<const uint8_t*>(rows.part[part]) + piece.batch * rows.batch_stride +
         piece.kv_head * rows.head_stride + slot * rows.row_stride;
}

static inline int64_t offset_of(const onekv_tensor& tensor, int64_t batch, int64_t token, int64_t head) {
  return batch * tensor.batch_stride + token * tensor.token_stride + head * tensor.head_stride;
}

// Status of the arguments alone: nothing is read through q, the new rows or the cache.
onekv_status check_arguments(const onekv_attend_args& args);
// Whether queries and new rows are finite, and the rows within the format's range.
onekv_status check_contents(const Problem& problem);
// Writes the new rows into the cache.
void append(const Problem& problem);

// Runs body(context, task) for each task, on `threads` threads at most; see pool.cpp.
void run_on_pool(int tasks, void (*body)(void*, int), void* context);
int machine_threads();

}  // namespace onekv
