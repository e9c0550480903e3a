#include <sys/auxv.h>

#include "../engines.h"
#include "../simd/engine.h"
#include "../simd/float_mode.h"
#include "integer_mode.h"

namespace onekv {
namespace {

constexpr unsigned long kDotProducts = 1 << 20;  // HWCAP_ASIMDDP

}  // namespace

const Engine neon_dotprod_engine =
    make_engine<ModeList<IntegerMode<SplitDot, ONEKV_INT8>, IntegerMode<SplitDot, ONEKV_INT4>,
                         FloatMode<Neon, ONEKV_FP32>, FloatMode<Neon, ONEKV_FP16>,
                         FloatMode<Neon, ONEKV_BF16>, FloatMode<Neon, ONEKV_INT8>, AnyMode<Neon>>>(
        "neon_dotprod", [] { return (getauxval(AT_HWCAP) & kDotProducts) != 0; });

}  // namespace onekv
