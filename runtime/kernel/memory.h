// The scratch memory of a call.
#pragma once

#include <cstdint>

namespace onekv {

// 64-byte aligned; null when there is none. What a call gives back may be the next call's: faulting
// fresh pages in takes as long as a short call computes.
char* take_memory(int64_t bytes);
void give_back(char* memory);

}  // namespace onekv
