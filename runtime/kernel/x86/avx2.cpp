#include "avx2.h"

#include "../engines.h"
#include "../simd/engine.h"

namespace onekv {

const Engine avx2_engine = make_engine<ModeList<
    FloatMode<Avx2, ONEKV_FP32>, FloatMode<Avx2, ONEKV_FP16>, FloatMode<Avx2, ONEKV_BF16>,
    FloatMode<Avx2, ONEKV_INT8>, AnyMode<Avx2>>>("avx2", [] {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
});

}  // namespace onekv
