// Memory by phase: read at the end of each, and sampled by a thread in between.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "memory.h"

namespace onekv::runner {

class Monitor {
 public:
  // `interval_ms` 0: no thread.
  explicit Monitor(int64_t interval_ms);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // `files_stay`: the phase lets go of no page of a file, so that the kernel's high-water mark
  // tells how much anonymous memory there was, however short it lived.
  void begin(bool files_stay);
  // Prints the line of the phase that began last.
  void end(const char* phase);

 private:
  using Clock = std::chrono::steady_clock;
  void sample_forever(std::chrono::milliseconds interval);
  void sample();
  void take(const Split& split);

  std::mutex mutex_;  // guards everything below
  std::condition_variable stop_signal_;
  bool stop_ = false;
  bool reset_ = false;  // whether VmHWM began with the phase
  bool files_stay_ = false;
  int64_t high_water_before_ = -1;
  int64_t most_resident_ = -1;  // largest VmRSS + VmSwap sampled
  Split peak_;
  int64_t samples_ = 0;
  Clock::time_point began_, next_split_;
  std::thread thread_;
};

}  // namespace onekv::runner
