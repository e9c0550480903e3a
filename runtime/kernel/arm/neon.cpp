#include "neon.h"

#include "../engines.h"
#include "../simd/engine.h"

namespace onekv {

const Engine neon_engine = make_engine<ModeList<
    FloatMode<Neon, ONEKV_FP32>, FloatMode<Neon, ONEKV_FP16>, FloatMode<Neon, ONEKV_BF16>,
    FloatMode<Neon, ONEKV_INT8>, AnyMode<Neon>>>("neon", [] { return true; });

}  // namespace onekv
