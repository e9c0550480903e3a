#include <sys/auxv.h>

#include "../engines.h"
#include "../simd/engine.h"
#include "fp16_mode.h"
#include "integer_mode.h"

namespace onekv {
namespace {

constexpr unsigned long kHalves = 1 << 10;    // HWCAP_ASIMDHP: fp16 arithmetic
constexpr unsigned long kWidening = 1 << 23;  // HWCAP_ASIMDFHM: FMLAL
constexpr unsigned long kProducts = 1 << 13;  // HWCAP2_I8MM

bool supported() {
  unsigned long wanted = kHalves | kWidening;
  return neon_dotprod_engine.supported() && (getauxval(AT_HWCAP) & wanted) == wanted &&
         (getauxval(AT_HWCAP2) & kProducts) != 0;
}

}  // namespace

const Engine neon_i8mm_engine =
    make_engine<ModeList<Fp16Mode, IntegerMode<SplitProduct, ONEKV_INT8>,
                         IntegerMode<SplitProduct, ONEKV_INT4>, FloatMode<Neon, ONEKV_FP32>,
                         FloatMode<Neon, ONEKV_FP16>, FloatMode<Neon, ONEKV_BF16>,
                         FloatMode<Neon, ONEKV_INT8>, AnyMode<Neon>>>("neon_i8mm", supported);

}  // namespace onekv
