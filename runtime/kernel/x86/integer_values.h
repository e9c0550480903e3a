// Sums of int8 rows by byte dot products: four positions per lane.
#pragma once

#include "../simd/layout.h"
#include "avx512.h"

namespace onekv {
namespace {

// Weights times scales as fractions of the largest: in two bytes, as one byte alone would lose
// many small weights beside a large one; or in one where the rows themselves are coarser.
template <bool Fine>
struct IntegerWeights {
  using Scratch = IntegerWeights;
  static constexpr float kSteps = Fine ? 65535 : 255;
  static constexpr int kStride = kSuperTile + kRowPadding;
  uint8_t* high;  // [padded][kStride]
  uint8_t* low;   // where fine
  float* step;  // [padded]: what one step is worth

  void take(const Problem&, int padded, Arena& arena) {
    high = arena.take<uint8_t>(int64_t{padded} * kStride);
    low = arena.take<uint8_t>(int64_t{padded} * kStride);
    step = arena.take<float>(padded);
  }

  // Weights beyond `count` up to the next vector become 0.
  __attribute__((noinline)) void fill(int m, float* weights, const float* scales, int count) {
    using F = Avx512::F;
    F most = {}, scaled[kSuperTile / 16];
    for (int t = 0, i = 0; t < count; t += 16, ++i) {
      __mmask16 real = static_cast<__mmask16>(count - t >= 16 ? 0xffff : (1 << (count - t)) - 1);
      scaled[i] = (F)_mm512_maskz_mul_ps(real, (__m512)load<F>(weights + t),
                                         (__m512)load<F>(scales + t));
      most = Avx512::max(most, scaled[i]);
    }
    float top = max_of<Avx512>(most), factor = top > 0 ? kSteps / top : 0;
    step[m] = top / kSteps;
    for (int t = 0, i = 0; t < count; t += 16, ++i) {
      __m512i level = _mm512_cvtps_epi32((__m512)(scaled[i] * factor));
      store(high + m * kStride + t, _mm512_cvtepi32_epi8(Fine ? _mm512_srli_epi32(level, 8) : level));
      if (Fine) store(low + m * kStride + t, _mm512_cvtepi32_epi8(level));
    }
  }
};

// Unpacking left dimensions 16 l + 4 j .. 16 l + 4 j + 3 in 128-bit lane l of vector j. Adds the
// vectors j and j + 1 of 64 dimensions.
static inline void add_quads(__m512i total, int j, float step, float alpha, float* out) {
  __m512 sums = _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(step));
  float lanes[16];
  store(lanes, sums);
  for (int lane = 0; lane < 4; ++lane) {
    float* to = out + 16 * lane + 4 * j;
    __m128 sum = _mm_loadu_ps(lanes + 4 * lane);
    _mm_storeu_ps(to, _mm_fmadd_ps(_mm_loadu_ps(to), _mm_set1_ps(alpha), sum));
  }
}

// Vectors [First, First + Vectors) of 64 dimensions of four rows: four positions in each lane.
template <int First, int Vectors>
static ONEKV_INLINE void interleave(const uint8_t* rows, int64_t stride, __m512i* quads) {
  __m512i a = load<__m512i>(rows), b = load<__m512i>(rows + stride);
  __m512i c = load<__m512i>(rows + 2 * stride), d = load<__m512i>(rows + 3 * stride);
#pragma GCC unroll 2
  for (int j = 0; j < Vectors; j += 2) {
    bool upper = First + j == 2;
    __m512i ab = upper ? _mm512_unpackhi_epi8(a, b) : _mm512_unpacklo_epi8(a, b);
    __m512i cd = upper ? _mm512_unpackhi_epi8(c, d) : _mm512_unpacklo_epi8(c, d);
    quads[j] = _mm512_unpacklo_epi16(ab, cd), quads[j + 1] = _mm512_unpackhi_epi16(ab, cd);
  }
}

// The weights of some positions: of the queries from m on, and of the positions from t on.
template <bool Fine>
struct WeightsAt {
  const uint8_t* high;
  const uint8_t* low;
  const float* step;

  WeightsAt(const IntegerWeights<Fine>& w, int m, int t)
      : high(w.high + m * w.kStride + t), low(w.low + m * w.kStride + t), step(w.step + m) {}
};

// Adds up those dimensions of `count` rows, a multiple of four, for Queries queries. A function of
// its own, whose loops over sums are unrolled: else GCC copies all sums at every turn.
template <int Queries, int First, int Vectors, bool Fine>
static __attribute__((noinline)) void add_integer_block(const uint8_t* rows, int64_t stride, int count,
                                                        WeightsAt<Fine> w, const float* alpha,
                                                        float* out, int out_stride, Lines ahead) {
  constexpr int weight_stride = IntegerWeights<Fine>::kStride;
  __m512i high[Queries][Vectors], low[Queries][Vectors];
#pragma GCC unroll 4
  for (int q = 0; q < Queries; ++q) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) high[q][j] = low[q][j] = _mm512_setzero_si512();
  }
  for (int t = 0; t < count; t += 4, rows += 4 * stride) {
    ahead.ask();
    __m512i quads[Vectors];
    interleave<First, Vectors>(rows, stride, quads);
#pragma GCC unroll 4
    for (int q = 0; q < Queries; ++q) {
      __m512i upper = _mm512_set1_epi32(load<int32_t>(w.high + q * weight_stride + t));
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) high[q][j] = _mm512_dpbusd_epi32(high[q][j], upper, quads[j]);
      if (!Fine) continue;
      __m512i lower = _mm512_set1_epi32(load<int32_t>(w.low + q * weight_stride + t));
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) low[q][j] = _mm512_dpbusd_epi32(low[q][j], lower, quads[j]);
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < Queries; ++q) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      __m512i total = Fine ? _mm512_add_epi32(_mm512_slli_epi32(high[q][j], 8), low[q][j]) : high[q][j];
      add_quads(total, First + j, w.step[q], alpha ? alpha[q] : 1, out + int64_t{q} * out_stride);
    }
  }
}

// Calls body(block, m) for every query m and every block of vectors: as many at once as registers
// hold sums.
template <bool Fine, class Body>
static inline void for_each_block(int queries, const Body& body) {
  int m = 0;
  for (; m + 4 <= queries; m += 4) {
    if constexpr (Fine) {
      body(add_integer_block<4, 0, 2, Fine>, m);
      body(add_integer_block<4, 2, 2, Fine>, m);
    } else {
      body(add_integer_block<4, 0, 4, Fine>, m);
    }
  }
  for (; m + 2 <= queries; m += 2) body(add_integer_block<2, 0, 4, Fine>, m);
  if (m < queries) body(add_integer_block<1, 0, 4, Fine>, m);
}

// Adds up `count` rows, a multiple of four, whose weights are those from position t on. Without alpha
// the old sums stay as they are.
template <bool Fine>
static inline void add_fours(const uint8_t* rows, int64_t stride, int count, int dims,
                             const IntegerWeights<Fine>& w, int t, const float* alpha, int queries,
                             float* out, int out_stride, Ahead& ahead) {
  int64_t calls = int64_t{queries / 4 * (Fine ? 2 : 1) + (queries % 4 + 1) / 2} * (dims / 64);
  int64_t share = ahead.bytes / calls;
  for (int d = 0; d < dims; d += 64) {
    for_each_block<Fine>(queries, [&](auto block, int m) {
      block(rows + d, stride, count, WeightsAt<Fine>(w, m, t), alpha ? alpha + m : nullptr,
            out + int64_t{m} * out_stride + d, out_stride, ahead.take(share, count / 4));
    });
  }
}

template <bool Fine>
static inline void add_integer_rows(const uint8_t* rows, int64_t stride, int count, int dims,
                                    const IntegerWeights<Fine>& w, const float* alpha, int queries,
                                    float* out, int out_stride, Ahead& ahead) {
  int whole = count / 4 * 4;
  add_fours(rows, stride, whole, dims, w, 0, alpha, queries, out, out_stride, ahead);
  if (whole == count) return;
  // The last rows and zeros behind them.
  uint8_t last[4 * kMaxHeadDim] = {};
  for (int r = whole; r < count; ++r) std::memcpy(last + (r - whole) * dims, rows + r * stride, dims);
  add_fours<Fine>(last, dims, 4, dims, w, whole, nullptr, queries, out, out_stride, ahead);
}

}  // namespace
}  // namespace onekv
