// Rows to records and back: the C++ form of runtime/row_codec.py.
#pragma once

#include "attend.h"

namespace onekv {

// The largest magnitude that a format can hold.
float largest_value(onekv_format format);

// `row` and `record` hold `dim` elements; every value is finite and within largest_value.
void encode_row(onekv_format format, int dim, const float* row, void* record);
void decode_row(onekv_format format, int dim, const void* record, float* row);

// Activations (fp32, fp16, bf16) to fp32 and back.
void read_activations(onekv_format format, const void* data, int64_t offset, int count, float* out);
void write_activations(onekv_format format, const float* values, int count, void* data,
                       int64_t offset);

// The status of values about to be stored: finite and within the format's range.
onekv_status check_values(const float* values, int count, float largest);

}  // namespace onekv
