// How fast this machine streams memory: what a decode step is limited by.
#pragma once

#include <cstdint>

namespace onekv::runner {

// GB/s at which `threads` threads (0: one for each core) read memory that no cache holds.
double streaming_read(int64_t threads);

}  // namespace onekv::runner
