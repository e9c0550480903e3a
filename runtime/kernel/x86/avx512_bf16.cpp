#include "../engines.h"
#include "../simd/engine.h"
#include "bf16_mode.h"

namespace onekv {

const Engine avx512_bf16_engine =
    layered_engine<Bf16Mode, avx512_vnni_engine>("avx512_bf16", [] {
      return avx512_vnni_engine.supported() && __builtin_cpu_supports("avx512bf16");
    });

}  // namespace onekv
