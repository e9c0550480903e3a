// The row formats in scalar form: what an element is and how many bytes a record takes.
// Functions here are static: files built for an instruction set must not lend their copies to others.
#pragma once

#include <cstdint>
#include <cstring>

#include "attend.h"

namespace onekv {

constexpr int kInt4Group = 32;

static inline int64_t row_bytes(onekv_format format, int64_t dim) {
  switch (format) {
    case ONEKV_FP32: return 4 * dim;
    case ONEKV_FP16:
    case ONEKV_BF16: return 2 * dim;
    case ONEKV_INT8: return dim + 4;
    case ONEKV_INT4: return dim / 2 + 2 * ((dim + kInt4Group - 1) / kInt4Group);
  }
  return 0;
}

// What the address and the strides of a record must be multiples of.
static inline int64_t alignment(onekv_format format) {
  return format == ONEKV_FP32 || format == ONEKV_INT8 ? 4 : 2;
}

static inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

static inline float bf16_to_float(uint16_t half) { return float_of(uint32_t{half} << 16); }

// Rounds to nearest, ties to even. NaN is not expected.
static inline uint16_t float_to_bf16(float x) {
  uint32_t bits = bits_of(x);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline float fp16_to_float(uint16_t half) {
  // Scaling by 2^112 moves the exponent's bias and makes subnormals normal.
  float magnitude = float_of((half & 0x7fffu) << 13) * float_of(0x77800000);
  if ((half & 0x7c00u) == 0x7c00u) magnitude = float_of(0x7f800000 | (half & 0x3ffu) << 13);
  return float_of(bits_of(magnitude) | (half & 0x8000u) << 16);
}

// Rounds to nearest, ties to even; beyond the range gives infinity. NaN is not expected.
static inline uint16_t float_to_fp16(float x) {
  uint32_t sign = (bits_of(x) >> 16) & 0x8000u;
  uint32_t bits = bits_of(x) & 0x7fffffffu;
  if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (bits < 0x38800000u) {
    // Adding 0.5 leaves the subnormal's bits at the bottom, rounded by the addition itself.
    return static_cast<uint16_t>(sign | (bits_of(float_of(bits) + 0.5f) - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1)) >> 13));
}

}  // namespace onekv
