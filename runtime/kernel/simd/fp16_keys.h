// fp16 rows as keys: queries are staged as fp16, rows turned by fp16 arithmetic or left as they lie.
#pragma once

#include "queries.h"

namespace onekv {
namespace {

// What modes of fp16 arithmetic share. Mode::narrow writes kBlock floats times a factor as fp16;
// Mode::turn_row<Gain> turns a row by turn_pairs.
template <class Mode>
struct Fp16Keys {
  static constexpr int kKeyBytes = 2;

  template <class W>
  static RowSpan open(const Problem&, const RowSpan& span, W&) {
    return span;
  }

  // A query is multiplied by what makes its largest element about Mode::kQueryTop.
  template <class W>
  static void stage_query(const Problem&, W& w, const float* halves, int m, char* to) {
    float& factor = w.mode.factor[m];
    if (factor == 0) {
      float top = largest_magnitude<typename Mode::V>(halves, 2 * w.half);
      factor = top > Mode::kQueryTop * 1e-30f ? Mode::kQueryTop / top : 1;
    }
    narrow_all(halves, 2 * w.half, factor, to);
  }

  static void narrow_all(const float* from, int count, float factor, char* to) {
    for (int i = 0; i < count; i += Mode::kBlock) Mode::narrow(from + i, factor, to + 2 * i);
  }

  // Cosines and sines for x, then for y where a gain makes them differ.
  static int64_t table_row_bytes(const Problem& p, int half) {
    return int64_t{half} * (p.args->key_gain ? 8 : 4);
  }
  static void fill_table_row(const Problem& p, const float* angles, int half, char* to) {
    if (!p.args->key_gain) return narrow_all(angles, 2 * half, Mode::kTableFactor, to);
    float terms[2 * kMaxHeadDim];
    for (int i = 0; i < half; ++i) {
      float x = i < p.head_dim / 2 ? first_gain(p, i) : 0;
      float y = i < p.head_dim / 2 ? second_gain(p, i) : 0;
      terms[i] = angles[i] * x, terms[half + i] = angles[half + i] * x;
      terms[2 * half + i] = angles[i] * y, terms[3 * half + i] = angles[half + i] * y;
    }
    narrow_all(terms, 4 * half, Mode::kTableFactor, to);
  }

  // Rows that are not turned are keys as they lie in the cache.
  template <class W>
  static Keys stage_keys(const Problem& p, const RowSpan& span, int first, int count,
                         const TileTable& table, W& w) {
    const uint8_t* rows = span.part[0] + first * span.stride;
    if (!p.args->cos && p.parts == 1 && count == w.block) {
      return {reinterpret_cast<const char*>(rows), span.stride};
    }
    for (int r = 0; r < count; ++r) {
      const uint8_t* x = rows + r * span.stride;
      const uint8_t* y = p.parts == 2 ? span.part[1] + (first + r) * span.stride : x + 2 * w.half;
      char* to = w.keys + int64_t{r} * w.row_bytes;
      if (p.args->cos) {
        p.args->key_gain ? Mode::template turn_row<true>(x, y, w.half, table.row(r), to)
                         : Mode::template turn_row<false>(x, y, w.half, table.row(r), to);
      } else {
        std::memcpy(to, x, 2 * w.half);
        std::memcpy(to + 2 * w.half, y, 2 * w.half);
      }
    }
    return {w.keys, w.row_bytes};
  }

  // Turns the pairs of one vector of fp16, which lie `at` bytes into the halves of a row.
  template <class Vector16, bool Gain>
  static void turn_pairs(const uint8_t* x, const uint8_t* y, const char* table, int half, int at,
                         char* to) {
    const char* second = table + (Gain ? 4 * half : 0);
    Vector16 low = load<Vector16>(x + at), high = load<Vector16>(y + at);
    Vector16 first_cos = load<Vector16>(table + at);
    Vector16 first_sin = load<Vector16>(table + 2 * half + at);
    Vector16 second_cos = load<Vector16>(second + at);
    Vector16 second_sin = load<Vector16>(second + 2 * half + at);
    store(to + at, low * first_cos - high * second_sin);
    store(to + 2 * half + at, high * second_cos + low * first_sin);
  }
};

}  // namespace
}  // namespace onekv
