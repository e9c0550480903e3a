// Which engines this build has, and which of them this CPU can run.
#include <cstdlib>
#include <cstring>

#include "engines.h"

namespace onekv {
namespace {

const Engine* const kEngines[] = {
    &plain_engine,
#if defined(__x86_64__)
    &avx2_engine,
    &avx512_engine,
    &avx512_vnni_engine,
    &avx512_bf16_engine,
#if defined(ONEKV_AVX512_FP16)
    &avx512_fp16_engine,
#endif
#elif defined(__aarch64__)
    &neon_engine,
#if defined(__linux__)
    &neon_dotprod_engine,
    &neon_i8mm_engine,
#endif
#endif
};

constexpr int32_t kCount = sizeof kEngines / sizeof *kEngines;

struct Supported {
  bool by_isa[kCount];

  Supported() {
    for (int32_t isa = 0; isa < kCount; ++isa) by_isa[isa] = kEngines[isa]->supported();
  }
};

// Asked once: where a hypervisor answers for the CPU, asking takes longer than a short call.
bool supported(int32_t isa) {
  static const Supported known;
  return known.by_isa[isa];
}

int32_t find_best() {
  int32_t best = 0;
  for (int32_t isa = 0; isa < kCount; ++isa) {
    if (supported(isa)) best = isa;
  }
  const char* wanted = std::getenv("ONEKV_ISA");
  for (int32_t isa = 0; wanted && isa <= best; ++isa) {
    if (std::strcmp(wanted, kEngines[isa]->name) == 0 && supported(isa)) return isa;
  }
  return best;
}

}  // namespace

const Engine* engine(int32_t isa) { return kEngines[isa]; }

}  // namespace onekv

extern "C" int32_t onekv_isa_count(void) { return onekv::kCount; }

extern "C" const char* onekv_isa_name(int32_t isa) {
  return isa >= 0 && isa < onekv::kCount ? onekv::kEngines[isa]->name : "";
}

extern "C" int32_t onekv_isa_supported(int32_t isa) {
  return isa >= 0 && isa < onekv::kCount && onekv::supported(isa);
}

extern "C" int32_t onekv_isa_best(void) {
  static const int32_t best = onekv::find_best();
  return best;
}
