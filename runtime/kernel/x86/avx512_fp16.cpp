#include <cpuid.h>

#include "../engines.h"
#include "../simd/engine.h"
#include "fp16_mode.h"

namespace onekv {
namespace {

// Compilers differ in whether they have a name for it.
bool has_fp16() {
  unsigned eax, ebx, ecx, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & 1 << 23);
}

}  // namespace

const Engine avx512_fp16_engine =
    layered_engine<Fp16Mode, avx512_bf16_engine>(
        "avx512_fp16", [] { return avx512_bf16_engine.supported() && has_fp16(); });

}  // namespace onekv
