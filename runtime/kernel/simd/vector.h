// Vectors of the compiler (GCC and clang) and what is done with them on every instruction set.
// What follows the instruction set lies in namespaces without a name: files built for different
// ones must not share code.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

namespace onekv {
namespace {

template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};

template <class T, int N>
using Vector = typename VectorOf<T, N>::type;

template <class T>
static inline T load(const void* from) {
  T vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class T>
static inline void store(void* to, T vector) {
  std::memcpy(to, &vector, sizeof vector);
}

// Lanes l with bit Step clear: a[l] + a[l + Step]; the others: b[l - Step] + b[l].
template <int Step, class T, std::size_t... L>
static inline __attribute__((always_inline)) T add_neighbours(T a, T b, std::index_sequence<L...>) {
  constexpr int n = sizeof...(L);
  T first = __builtin_shufflevector(a, b, (L & Step ? n + L - Step : L)...);
  T second = __builtin_shufflevector(a, b, (L & Step ? n + L : L + Step)...);
  return first + second;
}

// Of every four lanes: a0 + a1, a2 + a3, b0 + b1, b2 + b3, which most processors shuffle at once.
template <class T, std::size_t... L>
static inline __attribute__((always_inline)) T add_in_fours(T a, T b, std::index_sequence<L...>) {
  constexpr int n = sizeof...(L);
  // As floats even when they are integers: only floats have the instruction.
  using F = Vector<float, n>;
  F even = __builtin_shufflevector((F)a, (F)b, (L / 4 * 4 + L % 2 * 2 + (L % 4 / 2) * n)...);
  F odd = __builtin_shufflevector((F)a, (F)b, (L / 4 * 4 + L % 2 * 2 + 1 + (L % 4 / 2) * n)...);
  return (T)even + (T)odd;
}

// Lane l of the result is lane l + Step of x.
template <int Step, class T, std::size_t... L>
static inline __attribute__((always_inline)) T turn_lanes(T x, std::index_sequence<L...>) {
  return __builtin_shufflevector(x, x, ((L + Step) % sizeof...(L))...);
}

// `sums` holds Parts vectors; lane h * Parts + r of the result is the sum over p of lane
// h * Parts + p of sums[r].
template <int Parts, class V, class T>
static inline T reduce(const T* sums) {
  if constexpr (Parts == 1) {
    return sums[0];
  } else if constexpr (Parts == 4) {
    return add_in_fours(add_in_fours(sums[0], sums[1], std::make_index_sequence<V::kLanes>()),
                        add_in_fours(sums[2], sums[3], std::make_index_sequence<V::kLanes>()),
                        std::make_index_sequence<V::kLanes>());
  } else {
    T low = reduce<Parts / 2, V>(sums);
    T high = reduce<Parts / 2, V>(sums + Parts / 2);
    return add_neighbours<Parts / 2>(low, high, std::make_index_sequence<V::kLanes>());
  }
}

// 2^x to 2e-7, for x <= 0; below -126 it gives 2^-126.
template <class V>
static inline typename V::F exp2_of(typename V::F x) {
  using F = typename V::F;
  using I = typename V::I;
  x = V::max(x, F{} - 126.0f);
  F shifted = x + 12582912.0f;  // 1.5 * 2^23: the integer part lands in the low bits
  F fraction = x - (shifted - 12582912.0f);
  F y = fraction * 1.535336188e-4f + 1.339887440e-3f;
  y = y * fraction + 9.618437357e-3f;
  y = y * fraction + 5.550332471e-2f;
  y = y * fraction + 2.402264791e-1f;
  y = y * fraction + 6.931472028e-1f;
  y = y * fraction + 1.0f;
  return (F)((I)y + ((I)shifted << 23));
}

// All lanes combined, by halves: one after the other they would wait for each other.
template <class V, int Lanes = V::kLanes, class T, class Combine>
static inline float fold(T x, const Combine& combine) {
  if constexpr (Lanes == 1) {
    return x[0];
  } else {
    T other = turn_lanes<Lanes / 2>(x, std::make_index_sequence<V::kLanes>());
    return fold<V, Lanes / 2>(combine(x, other), combine);
  }
}

template <class V>
static inline float sum_of(typename V::F x) {
  return fold<V>(x, [](typename V::F a, typename V::F b) { return a + b; });
}

template <class V>
static inline float max_of(typename V::F x) {
  return fold<V>(x, [](typename V::F a, typename V::F b) { return V::max(a, b); });
}

// Of a whole number of vectors.
template <class V>
static inline float largest_magnitude(const float* from, int count) {
  typename V::F most = {};
  for (int i = 0; i < count; i += V::kLanes) {
    auto x = load<typename V::F>(from + i);
    most = V::max(most, V::max(x, -x));
  }
  return max_of<V>(most);
}

static inline int round_up(int count, int step) { return (count + step - 1) / step * step; }

}  // namespace
}  // namespace onekv
