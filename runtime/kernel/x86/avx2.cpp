#include "avx2.h"

#include <cpuid.h>

#include "../engines.h"
#include "../simd/engine.h"

namespace onekv {
namespace {

// clang has no name for it.
bool has_f16c() {
  unsigned eax, ebx, ecx = 0, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

}  // namespace

const Engine avx2_engine = make_engine<ModeList<
    FloatMode<Avx2, ONEKV_FP32>, FloatMode<Avx2, ONEKV_FP16>, FloatMode<Avx2, ONEKV_BF16>,
    FloatMode<Avx2, ONEKV_INT8>, AnyMode<Avx2>>>("avx2", [] {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
});

}  // namespace onekv
