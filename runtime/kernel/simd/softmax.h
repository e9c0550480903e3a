// Online softmax over the scores of a super-tile, in base 2.
#pragma once

#include <cmath>

#include "layout.h"

namespace onekv {
namespace {

constexpr float kHidden = -1e30f;

// Hides what the query must not see, and what lies beyond the last row.
static inline void hide(float* scores, int from, int to, int padded) {
  for (int t = 0; t < from; ++t) scores[t] = kHidden;
  for (int t = to; t < padded; ++t) scores[t] = kHidden;
}

// Weights of one query: scores [0, padded) become exp2(score - max), 0 where hidden. Returns what
// the sums so far must be multiplied by.
template <class V>
static float softmax_row(float* scores, int padded, float* max, float* sum) {
  using F = typename V::F;
  constexpr int n = V::kLanes;
  F most = load<F>(scores);
  for (int t = n; t < padded; t += n) most = V::max(most, load<F>(scores + t));
  float top = max_of<V>(most);
  if (top <= kHidden) {
    for (int t = 0; t < padded; ++t) scores[t] = 0;
    return 1;
  }
  top = top > *max ? top : *max;
  float alpha = *max == -INFINITY ? 0 : std::exp2(*max - top);
  F total = {};
  for (int t = 0; t < padded; t += n) {
    F score = load<F>(scores + t);
    F weight = exp2_of<V>(score - top);
    weight = (F)((typename V::I)weight & (score > kHidden));
    total += weight;
    store(scores + t, weight);
  }
  *sum = *sum * alpha + sum_of<V>(total);
  *max = top;
  return alpha;
}

template <class Mode>
static void softmax_span(const Problem& p, const Piece& piece, int64_t position, int count,
                         Workspace<Mode>& w, const Partial& result) {
  using V = typename Mode::V;
  int padded = round_up(count, V::kLanes);
  for (int m = 0; m < w.queries; ++m) {
    float* scores = w.scores + m * w.kScoreStride;
    Mode::scale_scores(p, w, m, padded);
    int64_t query = p.args->position + piece.first_token + m / p.group;
    int64_t from = first_visible(p, query) - position, to = query + 1 - position;
    from = from < 0 ? 0 : from > count ? count : from;
    to = to > count ? count : to < from ? from : to;
    hide(scores, static_cast<int>(from), static_cast<int>(to), padded);
    w.alpha[m] = softmax_row<V>(scores, padded, result.max + m, result.sum + m);
  }
}

}  // namespace
}  // namespace onekv
