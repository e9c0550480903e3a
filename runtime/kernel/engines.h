// The engines that a build may hold; dispatch.cpp lists those that it does.
#pragma once

#include "problem.h"

namespace onekv {

extern const Engine plain_engine;
extern const Engine avx2_engine;
extern const Engine avx512_engine;
extern const Engine avx512_vnni_engine;
extern const Engine avx512_bf16_engine;
extern const Engine avx512_fp16_engine;
extern const Engine neon_engine;
extern const Engine neon_dotprod_engine;
extern const Engine neon_i8mm_engine;

}  // namespace onekv
