// int4 rows as int8 rows: every group's levels are looked up, scaled to the row's largest group.
#pragma once

#include "layout.h"

namespace onekv {
namespace {

// kLevels.of[m][n] is (n - 8) * m / 7, rounded: a group whose scale is m / 127 of the largest.
struct Int4Levels {
  alignas(64) int8_t of[128][16];

  constexpr Int4Levels() : of() {
    for (int m = 0; m < 128; ++m) {
      for (int n = 0; n < 16; ++n) {
        int twice = 2 * (n - 8) * m / 7;
        int level = (twice + (twice > 0) - (twice < 0)) / 2;
        of[m][n] = static_cast<int8_t>(level < -127 ? -127 : level);
      }
    }
  }
};
constexpr Int4Levels kLevels;

// So many rows are opened by one call: enough that reading their scales first, all of them, hides how
// long the first lines of rows take to come.
constexpr int kOpenedTogether = 64;

// Opener::open(records, stride, count, dim, to, to_stride, ask) writes the int8 records of `count` int4
// records, at most kOpenedTogether, and calls ask() at each.
template <class Opener>
struct Int4Rows {
  uint8_t* rows[2];  // [kSuperTile][stride] for each part
  int64_t stride;

  void take(const Problem& p, Arena& arena) {
    stride = p.part_dim + 64;  // the scale, and rows that begin with a line
    for (int part = 0; part < p.parts; ++part) rows[part] = arena.take<uint8_t>(kSuperTile * stride);
  }

  RowSpan open(const Problem& p, const RowSpan& span, Ahead& ahead) {
    RowSpan opened{{rows[0], rows[1]}, stride, span.count};
    int asks = static_cast<int>(ahead.bytes / 4 / span.count / 64 + 1);
    Lines lines = ahead.take(ahead.bytes / 4, int64_t{asks} * span.count);
    auto ask = [&] {
      for (int i = 0; i < asks; ++i) lines.ask();
    };
    for (int t = 0; t < span.count; t += kOpenedTogether) {
      int count = span.count - t < kOpenedTogether ? span.count - t : kOpenedTogether;
      Opener::open(span.part[0] + t * span.stride, span.stride, count, p.part_dim,
                   rows[0] + t * stride, stride, ask);
      if (p.parts == 1) continue;
      Opener::open(span.part[1] + t * span.stride, span.stride, count, p.part_dim,
                   rows[1] + t * stride, stride, [] {});
    }
    return opened;
  }
};

}  // namespace
}  // namespace onekv
