// Attention over a cache that keeps ONE row per token, used as key and as value.
//
// The definition of what is computed is runtime/reference.py; the row formats are listed in
// runtime/rows.py. This header is C, includes no framework, and is all that an adapter needs.
#ifndef ONEKV_ATTEND_H
#define ONEKV_ATTEND_H

#include <stddef.h>
#include <stdint.h>

#if defined(ONEKV_BUILD)
#define ONEKV_API __attribute__((visibility("default")))
#else
#define ONEKV_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Raised whenever a structure below changes.
#define ONEKV_ABI 1

// How one row of D elements is stored. A quantised row is one record: its elements, then its scales.
typedef enum onekv_format {
  ONEKV_FP32 = 0,  // 4 D bytes
  ONEKV_FP16 = 1,  // 2 D bytes
  ONEKV_BF16 = 2,  // 2 D bytes
  ONEKV_INT8 = 3,  // D signed bytes, then one fp32 scale: D + 4 bytes
  // D / 2 bytes, then ceil(D / 32) fp16 scales, one for each 32 dimensions. Byte i holds
  // dimension i in its low half and dimension i + D / 2 in its high half, each plus 8.
  ONEKV_INT4 = 4,
} onekv_format;

// Which elements a rotary embedding turns together.
typedef enum onekv_pairing {
  ONEKV_HALF_SPLIT = 0,   // i with i + D / 2
  ONEKV_INTERLEAVED = 1,  // 2 i with 2 i + 1
} onekv_pairing;

typedef enum onekv_status {
  ONEKV_OK = 0,
  ONEKV_BAD_ABI,
  ONEKV_NULL_ARGUMENT,
  ONEKV_BAD_SHAPE,
  ONEKV_BAD_HEADS,
  ONEKV_BAD_HEAD_DIM,
  ONEKV_BAD_FORMAT,
  ONEKV_BAD_STRIDE,
  ONEKV_MISALIGNED,
  ONEKV_BAD_POSITION,
  ONEKV_CACHE_OVERFLOW,
  ONEKV_SHORT_TABLE,
  ONEKV_BAD_SCALE,
  ONEKV_NOT_FINITE,
  ONEKV_OUT_OF_RANGE,
  ONEKV_NO_MEMORY,
  ONEKV_NO_ISA,
} onekv_status;

// A tensor [B, S, heads, D] of activations. Strides count elements; D is contiguous.
typedef struct onekv_tensor {
  void* data;
  int64_t batch_stride;
  int64_t token_stride;
  int64_t head_stride;
} onekv_tensor;

// Cached rows [B, Hkv, L], each in one record, or in two: dimensions [0, D/2) and [D/2, D).
// Strides count bytes and hold for both parts.
typedef struct onekv_rows {
  void* part[2];  // part[1] is NULL when a row is one record
  int64_t batch_stride;
  int64_t head_stride;
  int64_t row_stride;
} onekv_rows;

// Runs body(body_context, task) for every task in [0, tasks), in any order and on any threads,
// and returns when all have returned. It may run them one after the other.
typedef void (*onekv_parallel_fn)(void* context, int tasks,
                                  void (*body)(void* body_context, int task), void* body_context);

typedef struct onekv_attend_args {
  uint32_t abi;   // ONEKV_ABI
  uint32_t size;  // sizeof(onekv_attend_args)

  int64_t batch;       // B >= 1
  int64_t new_tokens;  // S >= 1
  int64_t heads;       // Hq, a multiple of Hkv
  int64_t kv_heads;    // Hkv
  int64_t head_dim;    // D: a multiple of 8 up to 512; of 16 when rows lie in two parts
  int64_t length;      // L, the rows of the cache
  int64_t position;    // tokens cached before this call
  int64_t window;      // positions that a query sees, itself included; 0 for all (see reference.py)
  float scale;         // factor on the scores

  onekv_format activations;  // of q, new_rows, new_values and out: ONEKV_FP32, FP16 or BF16
  onekv_tensor q;            // [B, S, Hq, D], already rotated
  onekv_tensor new_rows;     // [B, S, Hkv, D]: the shared rows, not rotated; or keys
  onekv_tensor new_values;   // data NULL for one tensor
  onekv_tensor out;          // [B, S, Hq, D]

  onekv_format format;  // of the cached rows
  onekv_rows rows;      // rows position .. position+S-1 are written (modulo L with a window)
  onekv_rows values;    // part[0] NULL for one tensor; else an ordinary two-tensor cache

  // The rotation of a row that serves as key: angles by position. Row t of a table must be row 0
  // turned t times by fixed angles (any static RoPE, with its attention factor).
  const float* cos;       // [table_length, D/2]; NULL without RoPE
  const float* sin;
  int64_t table_length;   // >= position + S
  int64_t table_stride;   // elements between rows of the tables, >= D/2
  onekv_pairing pairing;
  const float* key_gain;  // [D], applied before rotation; or NULL

  onekv_parallel_fn parallel;  // NULL: onekv's own pool, whose idle threads sleep
  void* parallel_context;
  int32_t threads;  // how many to use; 0: all that the machine has and the call is worth
  int32_t isa;      // -1: the best that this CPU has; else an index below onekv_isa_count()
} onekv_attend_args;

// Appends the new rows, then attends over all that each query sees. On any status but ONEKV_OK
// nothing was written. Several calls may run at once on different caches.
ONEKV_API onekv_status onekv_attend(const onekv_attend_args* args);

// A sentence for a person: what is wrong with which argument.
ONEKV_API const char* onekv_status_text(onekv_status status);

// Bytes of a row (or of one part of it) of `dim` elements; 0 for an unknown format.
ONEKV_API int64_t onekv_row_bytes(onekv_format format, int64_t dim);

// Converts one row to and from its record. `encode` fails on values the format cannot hold.
ONEKV_API onekv_status onekv_encode_row(onekv_format format, int64_t dim, const float* row,
                                        void* record);
ONEKV_API onekv_status onekv_decode_row(onekv_format format, int64_t dim, const void* record,
                                        float* row);

// The instruction sets that this library was built for, best last; 0 is plain C++.
ONEKV_API int32_t onekv_isa_count(void);
ONEKV_API const char* onekv_isa_name(int32_t isa);
ONEKV_API int32_t onekv_isa_supported(int32_t isa);  // by this CPU
ONEKV_API int32_t onekv_isa_best(void);              // the environment's ONEKV_ISA may name a lesser one

#ifdef __cplusplus
}
#endif
#endif
