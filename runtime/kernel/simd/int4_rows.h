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

// Opener::open(record, dim, to) writes the int8 record of an int4 record.
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
    for (int t = 0; t < span.count; ++t) {
      for (int i = 0; i < asks; ++i) lines.ask();
      for (int part = 0; part < p.parts; ++part) {
        Opener::open(span.part[part] + t * span.stride, p.part_dim, rows[part] + t * stride);
      }
    }
    return opened;
  }
};

}  // namespace
}  // namespace onekv
