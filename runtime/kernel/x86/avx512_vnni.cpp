#include "../engines.h"
#include "../simd/engine.h"
#include "integer_mode.h"

namespace onekv {

const Engine avx512_vnni_engine =
    make_engine<ModeList<IntegerMode<ONEKV_INT8>, IntegerMode<ONEKV_INT4>,
                         FloatMode<Avx512, ONEKV_FP32>, FloatMode<Avx512, ONEKV_FP16>,
                         FloatMode<Avx512, ONEKV_BF16>, FloatMode<Avx512, ONEKV_INT8>,
                         AnyMode<Avx512>>>("avx512_vnni", [] {
      return avx512_engine.supported() && __builtin_cpu_supports("avx512vnni");
    });

}  // namespace onekv
