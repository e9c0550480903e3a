// Refuses every call that the kernel cannot carry out, before anything is written.
#include <cmath>

#include "problem.h"

namespace onekv {
namespace {

constexpr int64_t kMostHeads = 1 << 14;
constexpr int64_t kMostTokens = int64_t{1} << 31;

struct Axis {
  int64_t extent;
  int64_t stride;
};

// Whether a block of `unit` can be addressed along three axes without leaving 62 bits.
bool addressable(const Axis (&axes)[3], int64_t unit) {
  int64_t last = unit;
  for (const Axis& axis : axes) {
    int64_t step;
    if (axis.stride < 0 || __builtin_mul_overflow(axis.extent - 1, axis.stride, &step)) return false;
    if (__builtin_add_overflow(last, step, &last)) return false;
  }
  return last < int64_t{1} << 62;
}

// Whether no two blocks of `unit` overlap, so that each may be written on its own.
bool disjoint(Axis (&axes)[3], int64_t unit) {
  for (int taken = 0; taken < 3; ++taken) {  // from the smallest stride to the largest
    int smallest = taken;
    for (int i = taken + 1; i < 3; ++i) {
      if (axes[i].extent > 1 &&
          (axes[smallest].extent == 1 || axes[i].stride < axes[smallest].stride)) {
        smallest = i;
      }
    }
    Axis axis = axes[smallest];
    axes[smallest] = axes[taken];
    if (axis.extent == 1) continue;
    if (axis.stride < unit) return false;
    unit = axis.extent * axis.stride;
  }
  return true;
}

bool aligned(const void* data, int64_t to) { return reinterpret_cast<uintptr_t>(data) % to == 0; }

onekv_status check_shape(const onekv_attend_args& a) {
  if (a.batch < 1 || a.batch > kMostTokens || a.new_tokens < 1 || a.new_tokens > kMostTokens ||
      a.length < 1 || a.length > kMostTokens) {
    return ONEKV_BAD_SHAPE;
  }
  if (a.kv_heads < 1 || a.heads < 1 || a.heads > kMostHeads || a.heads % a.kv_heads) {
    return ONEKV_BAD_HEADS;
  }
  int64_t step = a.rows.part[1] ? 16 : 8;
  if (a.head_dim < step || a.head_dim > kMaxHeadDim || a.head_dim % step) return ONEKV_BAD_HEAD_DIM;
  return std::isfinite(a.scale) ? ONEKV_OK : ONEKV_BAD_SCALE;
}

onekv_status check_position(const onekv_attend_args& a) {
  constexpr int64_t most = int64_t{1} << 48;
  if (a.position < 0 || a.position > most || a.window < 0 || a.window > most) {
    return ONEKV_BAD_POSITION;
  }
  bool wraps = a.position + a.new_tokens > a.length;
  bool ring_is_long_enough = a.window > 0 && a.window + a.new_tokens - 1 <= a.length;
  return wraps && !ring_is_long_enough ? ONEKV_CACHE_OVERFLOW : ONEKV_OK;
}

onekv_status check_tensor(const onekv_attend_args& a, const onekv_tensor& t, int64_t heads,
                          bool written) {
  if (!t.data) return ONEKV_NULL_ARGUMENT;
  int64_t element = row_bytes(a.activations, 1);
  if (!aligned(t.data, element)) return ONEKV_MISALIGNED;
  Axis axes[3] = {
      {a.batch, t.batch_stride}, {a.new_tokens, t.token_stride}, {heads, t.head_stride}};
  if (!addressable(axes, a.head_dim)) return ONEKV_BAD_STRIDE;
  return written && !disjoint(axes, a.head_dim) ? ONEKV_BAD_STRIDE : ONEKV_OK;
}

onekv_status check_rows(const onekv_attend_args& a, const onekv_rows& rows) {
  if (!rows.part[0]) return ONEKV_NULL_ARGUMENT;
  int64_t step = alignment(a.format);
  if (!aligned(rows.part[0], step) || !aligned(rows.part[1], step)) return ONEKV_MISALIGNED;
  if (rows.batch_stride % step || rows.head_stride % step || rows.row_stride % step) {
    return ONEKV_BAD_STRIDE;
  }
  int64_t record = row_bytes(a.format, rows.part[1] ? a.head_dim / 2 : a.head_dim);
  Axis axes[3] = {
      {a.batch, rows.batch_stride}, {a.kv_heads, rows.head_stride}, {a.length, rows.row_stride}};
  return addressable(axes, record) && disjoint(axes, record) ? ONEKV_OK : ONEKV_BAD_STRIDE;
}

onekv_status check_rope(const onekv_attend_args& a) {
  if (!aligned(a.key_gain, 4)) return ONEKV_MISALIGNED;
  if (!a.cos && !a.sin) return ONEKV_OK;
  if (!a.cos || !a.sin) return ONEKV_NULL_ARGUMENT;
  if (!aligned(a.cos, 4) || !aligned(a.sin, 4)) return ONEKV_MISALIGNED;
  if (a.pairing != ONEKV_HALF_SPLIT && a.pairing != ONEKV_INTERLEAVED) return ONEKV_BAD_FORMAT;
  if (a.table_length < a.position + a.new_tokens) return ONEKV_SHORT_TABLE;
  int64_t bytes;
  bool absurd = a.table_stride < a.head_dim / 2 ||
                __builtin_mul_overflow(a.table_length, a.table_stride, &bytes) ||
                bytes > int64_t{1} << 60;
  return absurd ? ONEKV_BAD_STRIDE : ONEKV_OK;
}

bool is_float(onekv_format format) {
  return format == ONEKV_FP32 || format == ONEKV_FP16 || format == ONEKV_BF16;
}

}  // namespace

onekv_status check_arguments(const onekv_attend_args& a) {
  if (a.abi != ONEKV_ABI || a.size != sizeof a) return ONEKV_BAD_ABI;
  if (!is_float(a.activations) || row_bytes(a.format, 8) == 0) return ONEKV_BAD_FORMAT;
  bool two_tensors = a.values.part[0] || a.values.part[1] || a.new_values.data;
  // In this order: later checks compute with what earlier ones have bounded.
  onekv_status status = check_shape(a);
  if (status == ONEKV_OK) status = check_position(a);
  if (status == ONEKV_OK) status = check_tensor(a, a.q, a.heads, false);
  if (status == ONEKV_OK) status = check_tensor(a, a.new_rows, a.kv_heads, false);
  if (status == ONEKV_OK) status = check_tensor(a, a.out, a.heads, true);
  if (status == ONEKV_OK) status = check_rows(a, a.rows);
  if (status == ONEKV_OK) status = check_rope(a);
  if (status == ONEKV_OK && two_tensors) status = check_tensor(a, a.new_values, a.kv_heads, false);
  if (status == ONEKV_OK && two_tensors) status = check_rows(a, a.values);
  if (status != ONEKV_OK) return status;
  if (two_tensors && !a.values.part[1] != !a.rows.part[1]) return ONEKV_NULL_ARGUMENT;
  if (a.threads < 0) return ONEKV_BAD_SHAPE;
  bool known = a.isa == -1 || onekv_isa_supported(a.isa);
  return known ? ONEKV_OK : ONEKV_NO_ISA;
}

}  // namespace onekv
