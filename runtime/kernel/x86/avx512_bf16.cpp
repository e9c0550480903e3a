#include "../engines.h"
#include "../simd/engine.h"
#include "bf16_mode.h"
#include "integer_mode.h"

namespace onekv {

const Engine avx512_bf16_engine =
    make_engine<ModeList<Bf16Mode, IntegerMode<ONEKV_INT8>, IntegerMode<ONEKV_INT4>,
                         FloatMode<Avx512, ONEKV_FP32>, FloatMode<Avx512, ONEKV_FP16>,
                         FloatMode<Avx512, ONEKV_INT8>, AnyMode<Avx512>>>("avx512_bf16", [] {
      return avx512_vnni_engine.supported() && __builtin_cpu_supports("avx512bf16");
    });

}  // namespace onekv
