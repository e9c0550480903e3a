#include "records.h"

#include <cfloat>
#include <cmath>

#include "decode.h"

namespace onekv {
namespace {

float largest_magnitude(const float* values, int count) {
  uint32_t largest = 0;
  for (int i = 0; i < count; ++i) {
    uint32_t bits = bits_of(values[i]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  return float_of(largest);
}

// The nearest multiple of `scale`, within +-limit.
int quantise(float x, float scale, float limit) {
  float level = scale > 0 ? std::nearbyintf(x / scale) : 0.0f;
  return static_cast<int>(level > limit ? limit : level < -limit ? -limit : level);
}

void encode_int8(const float* row, int dim, uint8_t* record) {
  float scale = largest_magnitude(row, dim) / 127.0f;
  for (int i = 0; i < dim; ++i) record[i] = static_cast<uint8_t>(quantise(row[i], scale, 127));
  std::memcpy(record + dim, &scale, sizeof scale);
}

void encode_int4(const float* row, int dim, uint8_t* record) {
  std::memset(record, 0, dim / 2);
  for (int start = 0; start < dim; start += kInt4Group) {
    int end = start + kInt4Group < dim ? start + kInt4Group : dim;
    uint16_t stored = float_to_fp16(largest_magnitude(row + start, end - start) / 7.0f);
    float scale = fp16_to_float(stored);
    for (int i = start; i < end; ++i) {
      int level = quantise(row[i], scale, 7) + 8;
      if (i < dim / 2) {
        record[i] = static_cast<uint8_t>(record[i] | level);
      } else {
        record[i - dim / 2] = static_cast<uint8_t>(record[i - dim / 2] | level << 4);
      }
    }
    std::memcpy(record + dim / 2 + start / kInt4Group * 2, &stored, sizeof stored);
  }
}

}  // namespace

float largest_value(onekv_format format) {
  switch (format) {
    case ONEKV_FP16: return 65519.99f;  // what still rounds to 65504
    case ONEKV_BF16: return 3.3895e38f;
    case ONEKV_INT4: return 7 * 65504.0f;
    default: return FLT_MAX;
  }
}

void encode_row(onekv_format format, int dim, const float* row, void* record) {
  if (format == ONEKV_INT8) return encode_int8(row, dim, static_cast<uint8_t*>(record));
  if (format == ONEKV_INT4) return encode_int4(row, dim, static_cast<uint8_t*>(record));
  write_activations(format, row, dim, record, 0);
}

void decode_row(onekv_format format, int dim, const void* record, float* row) {
  decode_record(format, dim, record, row);
}

void read_activations(onekv_format format, const void* data, int64_t offset, int count,
                      float* out) {
  const char* from = static_cast<const char*>(data) + offset * row_bytes(format, 1);
  decode_floats(format, count, from, out);
}

void write_activations(onekv_format format, const float* values, int count, void* data,
                       int64_t offset) {
  if (format == ONEKV_FP32) {
    std::memcpy(static_cast<float*>(data) + offset, values, count * sizeof(float));
    return;
  }
  uint16_t* half = static_cast<uint16_t*>(data) + offset;
  for (int i = 0; i < count; ++i) {
    half[i] = format == ONEKV_FP16 ? float_to_fp16(values[i]) : float_to_bf16(values[i]);
  }
}

onekv_status check_values(const float* values, int count, float largest) {
  float found = largest_magnitude(values, count);
  if (!(found <= FLT_MAX)) return ONEKV_NOT_FINITE;
  return found <= largest ? ONEKV_OK : ONEKV_OUT_OF_RANGE;
}

}  // namespace onekv
