// Records to rows. Static, so that each instruction set's file gets its own vectorised copy.
#pragma once

#include "formats.h"

namespace onekv {

static inline void decode_floats(onekv_format format, int dim, const void* record, float* row) {
  if (format == ONEKV_FP32) {
    std::memcpy(row, record, dim * sizeof(float));
    return;
  }
  const uint16_t* half = static_cast<const uint16_t*>(record);
  if (format == ONEKV_FP16) {
    for (int i = 0; i < dim; ++i) row[i] = fp16_to_float(half[i]);
  } else {
    for (int i = 0; i < dim; ++i) row[i] = bf16_to_float(half[i]);
  }
}

static inline void decode_int8(const uint8_t* record, int dim, float* row) {
  float scale;
  std::memcpy(&scale, record + dim, sizeof scale);
  for (int i = 0; i < dim; ++i) row[i] = static_cast<int8_t>(record[i]) * scale;
}

static inline void decode_int4(const uint8_t* record, int dim, float* row) {
  int half = dim / 2;
  for (int i = 0; i < half; ++i) {
    row[i] = static_cast<float>((record[i] & 15) - 8);
    row[half + i] = static_cast<float>((record[i] >> 4) - 8);
  }
  for (int start = 0; start < dim; start += kInt4Group) {
    uint16_t stored;
    std::memcpy(&stored, record + half + start / kInt4Group * 2, sizeof stored);
    float scale = fp16_to_float(stored);
    int end = start + kInt4Group < dim ? start + kInt4Group : dim;
    for (int i = start; i < end; ++i) row[i] *= scale;
  }
}

static inline void decode_record(onekv_format format, int dim, const void* record, float* row) {
  if (format == ONEKV_INT8) return decode_int8(static_cast<const uint8_t*>(record), dim, row);
  if (format == ONEKV_INT4) return decode_int4(static_cast<const uint8_t*>(record), dim, row);
  decode_floats(format, dim, record, row);
}

}  // namespace onekv
