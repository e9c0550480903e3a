// The small functions of the C interface.
#include "problem.h"
#include "records.h"

extern "C" const char* onekv_status_text(onekv_status status) {
  switch (status) {
    case ONEKV_OK: return "ok";
    case ONEKV_BAD_ABI: return "the caller was built against another version of attend.h";
    case ONEKV_NULL_ARGUMENT: return "a tensor is missing: q, new rows, cache, out, or one of a pair";
    case ONEKV_BAD_SHAPE: return "batch, new tokens, cache length or threads is out of range";
    case ONEKV_BAD_HEADS: return "the query heads cannot be split over the kv heads";
    case ONEKV_BAD_HEAD_DIM:
      return "head_dim must be a multiple of 8 (16 for rows in two parts) and at most 512";
    case ONEKV_BAD_FORMAT: return "an unknown row format, activation type or rotary pairing";
    case ONEKV_BAD_STRIDE: return "strides that overlap, are negative, misaligned or too large";
    case ONEKV_MISALIGNED: return "a pointer is not aligned to its elements";
    case ONEKV_BAD_POSITION: return "the position or the window is negative or too large";
    case ONEKV_CACHE_OVERFLOW: return "the new rows do not fit into the cache";
    case ONEKV_SHORT_TABLE: return "the rotary tables end before the last position";
    case ONEKV_BAD_SCALE: return "the scale is not finite";
    case ONEKV_NOT_FINITE: return "queries or new rows hold a value that is not finite";
    case ONEKV_OUT_OF_RANGE: return "a new row holds a value that the cache's format cannot";
    case ONEKV_NO_MEMORY: return "no memory for the scratch buffers";
    case ONEKV_NO_ISA: return "this CPU or this build lacks the instruction set asked for";
  }
  return "an unknown status";
}

extern "C" int64_t onekv_row_bytes(onekv_format format, int64_t dim) {
  return onekv::row_bytes(format, dim);
}

namespace {

bool valid_row(onekv_format format, int64_t dim) {
  return onekv::row_bytes(format, 8) > 0 && dim > 0 && dim <= onekv::kMaxHeadDim && dim % 8 == 0;
}

}  // namespace

extern "C" onekv_status onekv_encode_row(onekv_format format, int64_t dim, const float* row,
                                         void* record) {
  if (!row || !record) return ONEKV_NULL_ARGUMENT;
  if (!valid_row(format, dim)) return ONEKV_BAD_HEAD_DIM;
  int count = static_cast<int>(dim);
  onekv_status status = onekv::check_values(row, count, onekv::largest_value(format));
  if (status == ONEKV_OK) onekv::encode_row(format, count, row, record);
  return status;
}

extern "C" onekv_status onekv_decode_row(onekv_format format, int64_t dim, const void* record,
                                         float* row) {
  if (!row || !record) return ONEKV_NULL_ARGUMENT;
  if (!valid_row(format, dim)) return ONEKV_BAD_HEAD_DIM;
  onekv::decode_row(format, static_cast<int>(dim), record, row);
  return ONEKV_OK;
}
