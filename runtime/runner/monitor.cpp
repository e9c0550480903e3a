#include "monitor.h"

#include <algorithm>

#include "json.h"

namespace onekv::runner {
namespace {

// A walk over all pages grows with them: the next one waits this many times its own length,
// which keeps all sampling below half a percent of the time.
constexpr int kSplitPause = 250;

std::string json(const Split& split) {
  // The schema knows no size of 0: it would be a kernel that does not tell.
  const auto known = [](int64_t bytes) { return bytes > 0 ? bytes : -1; };
  return Line::part()
      .count("pss_anon", known(split.pss_anon))
      .count("pss_file", known(split.pss_file))
      .count("swap", split.swap)
      .count("rss", known(split.rss))
      .object();
}

int64_t resident(const Counters& c) {
  return c.rss < 0 ? -1 : c.rss + std::max<int64_t>(c.swap, 0);
}

// What the counters tell of it. Nothing else shares this process' anonymous pages, so that its
// part of them is all of them; of the file's pages it may not be.
Split split_of(const Counters& c) {
  Split split;
  split.pss_anon = c.anonymous;
  split.swap = c.swap;
  split.rss = c.rss;
  return split;
}

// The moment of the high-water mark, its pages of files being those of the phase's end. With
// swapped pages they cannot be told apart.
Split highest(int64_t high_water, const Split& end) {
  Split split;
  if (high_water < end.rss || end.pss_anon < 0 || end.swap != 0) return split;
  split.rss = high_water;
  split.pss_anon = high_water - (end.rss - end.pss_anon);
  split.swap = 0;
  return split;
}

}  // namespace

Monitor::Monitor(int64_t interval_ms) {
  if (interval_ms > 0)
    thread_ = std::thread([=] { sample_forever(std::chrono::milliseconds(interval_ms)); });
}

Monitor::~Monitor() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  stop_signal_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Monitor::begin(bool files_stay) {
  std::lock_guard<std::mutex> lock(mutex_);
  files_stay_ = files_stay;
  reset_ = reset_high_water();
  high_water_before_ = read_counters().high_water;
  most_resident_ = -1;
  peak_ = {};
  samples_ = 0;
  began_ = next_split_ = Clock::now();
}

void Monitor::end(const char* phase) {
  std::lock_guard<std::mutex> lock(mutex_);
  const double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
  const Counters counters = read_counters();
  const Split split = read_split();
  // The kernel's counters may lag by some pages of each core; a walk does not.
  int64_t high_water = std::max({most_resident_, resident(counters), split.rss});
  // Without a reset the kernel's mark is of this phase only when it moved in it.
  if (reset_ || counters.high_water > high_water_before_)
    high_water = std::max(high_water, counters.high_water);
  if (files_stay_ && reset_) take(highest(counters.high_water, split));
  Line("phase")
      .text("phase", phase)
      .real("seconds", seconds)
      .raw("end", json(split))
      .raw("peak", peak_.anonymous() < 0 ? "null" : json(peak_))
      .count("high_water", high_water)
      .count("samples", samples_)
      .print();
}

void Monitor::sample_forever(std::chrono::milliseconds interval) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_signal_.wait_for(lock, interval, [this] { return stop_; })) sample();
}

void Monitor::sample() {
  ++samples_;
  const Counters counters = read_counters();
  most_resident_ = std::max(most_resident_, resident(counters));
  Split split = split_of(counters);
  const Clock::time_point now = Clock::now();
  if (now >= next_split_) {
    split = read_split();
    const Clock::time_point done = Clock::now();
    next_split_ = done + kSplitPause * (done - now);
  }
  take(split);
}

void Monitor::take(const Split& split) {
  if (split.anonymous() > peak_.anonymous()) peak_ = split;
}

}  // namespace onekv::runner
