// The new rows: refused when a format cannot hold them, else written into the cache.
#include <cfloat>

#include "problem.h"
#include "records.h"

namespace onekv {
namespace {

onekv_status check_tensor(const Problem& problem, const onekv_tensor& tensor, int64_t heads,
                          float largest) {
  const onekv_attend_args& a = *problem.args;
  float row[kMaxHeadDim];
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t s = 0; s < a.new_tokens; ++s) {
      for (int64_t h = 0; h < heads; ++h) {
        read_activations(a.activations, tensor.data, offset_of(tensor, b, s, h), problem.head_dim,
                         row);
        onekv_status status = check_values(row, problem.head_dim, largest);
        if (status != ONEKV_OK) return status;
      }
    }
  }
  return ONEKV_OK;
}

void append_row(const Problem& problem, const onekv_tensor& from, const onekv_rows& to,
                int64_t offset, const Piece& place, int64_t slot) {
  float row[kMaxHeadDim];
  read_activations(problem.args->activations, from.data, offset, problem.head_dim, row);
  for (int part = 0; part < problem.parts; ++part) {
    encode_row(problem.args->format, problem.part_dim, row + part * problem.part_dim,
               const_cast<uint8_t*>(row_at(to, part, place, slot)));
  }
}

void append_tensor(const Problem& problem, const onekv_tensor& from, const onekv_rows& to) {
  const onekv_attend_args& a = *problem.args;
  for (int64_t b = 0; b < a.batch; ++b) {
    for (int64_t h = 0; h < a.kv_heads; ++h) {
      Piece place{b, h, 0, 0, 0, 0};
      for (int64_t s = 0; s < a.new_tokens; ++s) {
        append_row(problem, from, to, offset_of(from, b, s, h), place, (a.position + s) % a.length);
      }
    }
  }
}

}  // namespace

onekv_status check_contents(const Problem& problem) {
  const onekv_attend_args& a = *problem.args;
  float largest = largest_value(a.format);
  onekv_status status = check_tensor(problem, a.q, a.heads, FLT_MAX);
  if (status == ONEKV_OK) status = check_tensor(problem, a.new_rows, a.kv_heads, largest);
  if (status == ONEKV_OK && a.new_values.data) {
    status = check_tensor(problem, a.new_values, a.kv_heads, largest);
  }
  return status;
}

void append(const Problem& problem) {
  const onekv_attend_args& a = *problem.args;
  append_tensor(problem, a.new_rows, a.rows);
  if (a.new_values.data) append_tensor(problem, a.new_values, a.values);
}

}  // namespace onekv
