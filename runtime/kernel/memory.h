// The scratch memory of a call.
#pragma once

#include <cstdint>

namespace onekv {

// 64-byte aligned; null when there is none.
char* take_memory(int64_t bytes);

// To the next call: faulting fresh pages in takes as long as a short call computes.
void keep_memory(char* memory);

// To the system.
void release_memory(char* memory);

}  // namespace onekv
