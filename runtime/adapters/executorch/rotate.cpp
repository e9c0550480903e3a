// Queries and keys on their way to attention. XNNPACK would wake its threads for so little work.
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>

#include "operators.h"

namespace onekv::executorch_ops {
namespace {

using executorch::aten::ScalarType;
using executorch::runtime::Error;

bool fits(const Tensor& x, const Tensor& angles) {
  return angles.scalar_type() == ScalarType::Float && angles.dim() == 3 && angles.size(1) == 1 &&
         angles.size(0) == x.size(1) && 2 * angles.size(2) == x.size(3) &&
         executorch::runtime::is_contiguous_dim_order(angles.dim_order().data(), 3);
}

const char* check(const Tensor& x, const Tensor& cos, const Tensor& sin, Tensor& out) {
  if (x.dim() != 4 || x.scalar_type() != ScalarType::Float || out.scalar_type() != ScalarType::Float ||
      !executorch::runtime::is_contiguous_dim_order(x.dim_order().data(), 4)) {
    return "x and out are contiguous float tensors of four dimensions";
  }
  if (!fits(x, cos) || !fits(x, sin)) return "cos and sin have a row for each token of x";
  return executorch::runtime::resize_tensor(out, x.sizes()) == Error::Ok
             ? nullptr
             : "out cannot take the shape of x";
}

// Dimension i turns with i + half.
void turn(const float* x, const float* cos, const float* sin, int64_t half, float* out) {
  for (int64_t i = 0; i < half; ++i) {
    out[i] = x[i] * cos[i] - x[i + half] * sin[i];
    out[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
  }
}

}  // namespace

Tensor& rotate_out(KernelRuntimeContext& context, const Tensor& x, const Tensor& cos,
                   const Tensor& sin, Tensor& out) {
  if (const char* wrong = check(x, cos, sin, out)) {
    ET_LOG(Error, "onekv::rotate: %s", wrong);
    context.fail(Error::InvalidArgument);
    return out;
  }
  const int64_t tokens = x.size(1), heads = x.size(2), dim = x.size(3), half = dim / 2;
  const float* from = x.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  for (int64_t row = 0; row < x.size(0) * tokens * heads; ++row) {
    const int64_t angle = row / heads % tokens * half;
    turn(from + row * dim, cos.const_data_ptr<float>() + angle, sin.const_data_ptr<float>() + angle,
         half, to + row * dim);
  }
  return out;
}

}  // namespace onekv::executorch_ops
