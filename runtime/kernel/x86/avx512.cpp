#include "avx512.h"

#include "../engines.h"
#include "../simd/engine.h"

namespace onekv {

const Engine avx512_engine = make_engine<ModeList<
    FloatMode<Avx512, ONEKV_FP32>, FloatMode<Avx512, ONEKV_FP16>, FloatMode<Avx512, ONEKV_BF16>,
    FloatMode<Avx512, ONEKV_INT8>, AnyMode<Avx512>>>("avx512", [] {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
});

}  // namespace onekv
