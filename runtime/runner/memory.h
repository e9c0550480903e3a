// What Linux tells of this process' memory. Bytes; -1 is unknown.
#pragma once

#include <cstdint>

namespace onekv::runner {

// /proc/self/status: counters that the kernel keeps, so cheap to read.
struct Counters {
  int64_t rss = -1;         // VmRSS
  int64_t anonymous = -1;   // RssAnon
  int64_t swap = -1;        // VmSwap
  int64_t high_water = -1;  // VmHWM
};

// /proc/self/smaps_rollup: the kernel walks all pages for it.
struct Split {
  int64_t pss_anon = -1;
  int64_t pss_file = -1;
  int64_t swap = -1;  // SwapPss
  int64_t rss = -1;

  int64_t anonymous() const { return pss_anon < 0 || swap < 0 ? -1 : pss_anon + swap; }
};

Counters read_counters();
Split read_split();

// Makes VmHWM start again from the present size; false where the kernel does not allow it.
bool reset_high_water();

}  // namespace onekv::runner
