// What int8 rows, and int4 rows opened into int8 ones, share on all instruction sets whose scores
// are sums of integers: keys count in 1/64 of a stored step, queries in steps of their own.
#pragma once

#include <cmath>

#include "int4_rows.h"
#include "piece.h"

namespace onekv {
namespace {

// Values has a Scratch of its own; Opener opens one int4 row.
template <class V, onekv_format Format, class Values, class Opener>
struct IntegerRows {
  static constexpr bool kUnpacks = Format == ONEKV_INT4;
  static constexpr int kKeyBytes = 2;
  static constexpr float kKeySteps = 64;
  // cos 1 in the table: a row is shifted left by 8 and the product right by 15.
  static constexpr float kOne = 32768 * kKeySteps / 256;

  struct Scratch {
    float* factor;   // [padded]: what a query is multiplied by
    float* inverse;  // [padded]: what its integer scores are multiplied by
    typename Values::Scratch values;
    Int4Rows<Opener> unpacked;
    void start(int padded) { std::memset(factor, 0, sizeof(float) * padded); }
    void take(const Problem& p, int padded, Arena& arena) {
      if (kUnpacks) unpacked.take(p, arena);
      factor = arena.take<float>(padded);
      inverse = arena.take<float>(padded);
      values.take(p, padded, arena);
    }
  };

  static bool takes_rows(const Problem& p) {
    const onekv_attend_args& a = *p.args;
    bool groups = !kUnpacks || p.part_dim % (2 * kInt4Group) == 0;
    return a.format == Format && pairs_in_halves(p) && !(a.cos && a.key_gain) && groups;
  }

  template <class W>
  static RowSpan open(const Problem& p, const RowSpan& span, W& w) {
    if constexpr (kUnpacks) return w.mode.unpacked.open(p, span, w.ahead);
    return span;
  }

  // What makes a query integers up to `most`, so large that no sum over any row leaves 31 bits.
  // Turning leaves its size, which is taken once.
  template <class W>
  static float query_factor(W& w, const float* halves, int m, float most) {
    float& factor = w.mode.factor[m];
    if (factor == 0) {
      typename V::F squares = {};
      for (int i = 0; i < 2 * w.half; i += V::kLanes) {
        auto some = load<typename V::F>(halves + i);
        squares += some * some;
      }
      float size = std::sqrt(sum_of<V>(squares));
      float room = 2.1e9f / (kKeySteps * 127 * std::sqrt(2.0f * w.half));
      factor = size > 0 ? (room < most ? room : most) / size : 1;
      w.mode.inverse[m] = 1 / (factor * kKeySteps);
    }
    return factor;
  }

  // The larger of the scales of two parts goes to *scale. Returns what brings the first part's
  // elements to it, or, negative, the second's.
  static float join_scales(float second, float* scale) {
    float first = *scale;
    if (second > first) return *scale = second, first / second;
    return first > 0 ? -second / first : 1;
  }

  // The factor of join_scales for a 16-bit product that drops 15 bits.
  static int16_t shrink_steps(float ratio) {
    return static_cast<int16_t>(32767 * std::fabs(ratio));
  }

  template <class W>
  static void scale_scores(const Problem&, W& w, int m, int count) {
    using F = typename V::F;
    float* scores = w.scores + m * w.kScoreStride;
    for (int t = 0; t < count; t += V::kLanes) {
      store(scores + t, load<F>(scores + t) * load<F>(w.scales + t) * w.mode.inverse[m]);
    }
  }
};

}  // namespace
}  // namespace onekv
