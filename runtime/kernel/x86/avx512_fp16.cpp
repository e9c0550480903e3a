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

using Own = SimdEngine<ModeList<Fp16Mode>>;

// The other formats are the lesser engine's, so that its code is not there twice.
template <class Function>
auto choose(const Problem& p, Function Engine::*function, Function own) {
  return Fp16Mode::takes(p) ? own : avx512_bf16_engine.*function;
}

}  // namespace

const Engine avx512_fp16_engine = {
    "avx512_fp16",
    [] { return avx512_bf16_engine.supported() && has_fp16(); },
    Own::tokens_per_piece,
    [](const Problem& p) { return choose(p, &Engine::scratch_bytes, Own::scratch_bytes)(p); },
    [](const Problem& p) { return choose(p, &Engine::shared_bytes, Own::shared_bytes)(p); },
    [](const Problem& p, void* shared) { choose(p, &Engine::prepare, Own::prepare)(p, shared); },
    [](const Problem& p, const Piece& piece, const Piece* next, const void* shared, void* scratch,
       Partial result) {
      choose(p, &Engine::attend, Own::attend)(p, piece, next, shared, scratch, result);
    },
};

}  // namespace onekv
