#include <cpuid.h>

#include "../engines.h"
#include "../simd/engine.h"
#include "bf16_mode.h"
#include "fp16_mode.h"
#include "integer_mode.h"

namespace onekv {
namespace {

// Compilers differ in whether they have a name for it.
bool has_fp16() {
  unsigned eax, ebx, ecx, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & 1 << 23);
}

}  // namespace

const Engine avx512_fp16_engine =
    make_engine<ModeList<Fp16Mode, Bf16Mode, IntegerMode<ONEKV_INT8>, IntegerMode<ONEKV_INT4>,
                         FloatMode<Avx512, ONEKV_FP32>, FloatMode<Avx512, ONEKV_FP16>,
                         FloatMode<Avx512, ONEKV_INT8>, AnyMode<Avx512>>>("avx512_fp16", [] {
      return avx512_bf16_engine.supported() && has_fp16();
    });

}  // namespace onekv
