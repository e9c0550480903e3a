// Asks memory for the rows of the next super-tile while this one is computed, evenly spread: what
// is asked for in bursts waits for the few misses that a core can have under way.
#pragma once

#include "../problem.h"

namespace onekv {
namespace {

// Consecutive rows of the cache: part p of row i starts at part[p] + i * stride.
struct RowSpan {
  const uint8_t* part[2];
  int64_t stride;
  int count;
};

// A run of addresses to ask for: `at`, then every `step` bytes.
struct Lines {
  const uint8_t* at;
  int64_t step;

  void ask() {
    __builtin_prefetch(at, 0, 2);
    at += step;
  }
};

struct Ahead {
  struct Range {
    const uint8_t* at;
    const uint8_t* end;
  };
  Range ranges[4];
  int count = 0;
  int64_t bytes = 0;

  // Rows that do not follow each other without a gap are left to the hardware.
  void add(const Problem& p, const RowSpan& span) {
    int64_t bytes_each = row_bytes(p.args->format, p.part_dim);
    for (int part = 0; part < p.parts && span.stride == bytes_each; ++part) {
      ranges[count++] = {span.part[part], span.part[part] + span.stride * span.count};
      bytes += span.stride * span.count;
    }
  }

  // The next `share` bytes, to be asked for in `times` steps; a line more than once when there are
  // more steps than lines.
  Lines take(int64_t share, int64_t times) {
    while (count > 0 && ranges[count - 1].at >= ranges[count - 1].end) --count;
    if (count == 0 || times == 0) return {reinterpret_cast<const uint8_t*>(this), 0};
    Range& range = ranges[count - 1];
    int64_t step = share / times;
    if (step > 64) step = 64;
    Lines lines{range.at, step};
    range.at += step * times;
    bytes -= step * times;
    return lines;
  }
};

}  // namespace
}  // namespace onekv
