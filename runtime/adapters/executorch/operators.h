// `onekv::attend.out`, `onekv::attend_kv.out` and `onekv::rotate.out`: runtime/reference.py defines what they compute.
#pragma once

#include <executorch/runtime/kernel/kernel_includes.h>

#include <cstdint>
#include <optional>

namespace onekv::executorch_ops {

using executorch::aten::Tensor;
using executorch::runtime::KernelRuntimeContext;

// q [B, S, Hq, D]; c [B, S, Hkv, D]; cache [B, Hkv, L, D] or records of bytes; pos int64 [1];
// cos, sin float [T, D/2]; key_gain float [D]; out [B, S, Hq, D]. An argument that does not fit
// fails the call with InvalidArgument and leaves the cache as it was.
Tensor& attend_out(KernelRuntimeContext& context, const Tensor& q, const Tensor& c, Tensor& cache,
                   const Tensor& pos, const std::optional<Tensor>& cos,
                   const std::optional<Tensor>& sin, const std::optional<Tensor>& key_gain,
                   double scale, int64_t window, Tensor& out);

Tensor& attend_kv_out(KernelRuntimeContext& context, const Tensor& q, const Tensor& k,
                      const Tensor& v, Tensor& keys, Tensor& values, const Tensor& pos,
                      double scale, int64_t window, Tensor& out);

// x, out float [B, S, H, D]; cos, sin float [S, 1, D/2].
Tensor& rotate_out(KernelRuntimeContext& context, const Tensor& x, const Tensor& cos,
                   const Tensor& sin, Tensor& out);

}  // namespace onekv::executorch_ops
