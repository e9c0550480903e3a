// Compares every instruction set that this CPU has with plain C++ over drawn calls, and hands the
// kernel arguments that it must refuse. Prints one line per instruction set; fails on a difference.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "attend.h"

namespace {

std::mt19937 random_bits;

int pick(std::initializer_list<int> from) { return *(from.begin() + random_bits() % from.size()); }

std::vector<float> normals(size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random_bits);
  return values;
}

// One call with everything it points to. Buffers have their exact size: a sanitizer sees overruns.
struct Call {
  int batch, tokens, kv_heads, group, dim, position, window, parts, length;
  onekv_format format;
  bool rope, gain;
  std::vector<float> q, rows, cos, sin, key_gain;
  std::vector<std::vector<uint8_t>> cache;

  explicit Call(onekv_format format_in) : format(format_in) {
    batch = pick({1, 2});
    tokens = pick({1, 1, 2, 9});
    kv_heads = pick({1, 3});
    group = pick({1, 2, 4, 5, 8, 17});
    parts = pick({1, 2});
    dim = pick({16, 48, 64, 80, 128});
    position = pick({0, 3, 62, 255, 600});
    window = pick({0, 0, 40});
    length = window ? window + tokens - 1 + pick({0, 3}) : position + tokens + pick({0, 3});
    rope = pick({0, 1}) == 1;
    gain = pick({0, 0, 1}) == 1;
    q = normals(static_cast<size_t>(batch) * tokens * kv_heads * group * dim);
    rows = normals(static_cast<size_t>(batch) * tokens * kv_heads * dim);
    if (gain) key_gain = normals(dim);
    fill_tables();
    fill_cache();
  }

  void fill_tables() {
    for (int t = 0; rope && t < position + tokens; ++t) {
      for (int i = 0; i < dim / 2; ++i) {
        double angle = t * std::pow(10000.0, -2.0 * i / dim);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
  }

  int64_t record() const { return onekv_row_bytes(format, dim / parts); }

  void fill_cache() {
    for (int part = 0; part < parts; ++part) {
      size_t count = static_cast<size_t>(batch) * kv_heads * length;
      cache.emplace_back(count * record());
      for (size_t i = 0; i < count; ++i) {
        std::vector<float> row = normals(dim / parts);
        onekv_encode_row(format, dim / parts, row.data(), cache.back().data() + i * record());
      }
    }
  }

  onekv_attend_args arguments(std::vector<std::vector<uint8_t>>& to, std::vector<float>& out) {
    onekv_attend_args a;
    std::memset(&a, 0, sizeof a);
    int heads = kv_heads * group;
    out.assign(q.size(), 0);
    a.abi = ONEKV_ABI;
    a.size = sizeof a;
    a.batch = batch, a.new_tokens = tokens, a.heads = heads, a.kv_heads = kv_heads;
    a.head_dim = dim, a.length = length, a.position = position, a.window = window;
    a.scale = 1 / std::sqrt(static_cast<float>(dim));
    a.q = {q.data(), int64_t{tokens} * heads * dim, int64_t{heads} * dim, dim};
    a.out = {out.data(), a.q.batch_stride, a.q.token_stride, dim};
    a.new_rows = {rows.data(), int64_t{tokens} * kv_heads * dim, int64_t{kv_heads} * dim, dim};
    a.format = format;
    a.rows = {{to[0].data(), parts == 2 ? to[1].data() : nullptr},
              record() * length * kv_heads, record() * length, record()};
    if (rope) a.cos = cos.data(), a.sin = sin.data();
    a.table_length = position + tokens;
    a.table_stride = dim / 2;
    a.pairing = pick({0, 1}) ? ONEKV_INTERLEAVED : ONEKV_HALF_SPLIT;
    a.key_gain = gain ? key_gain.data() : nullptr;
    a.threads = pick({1, 2, 3});
    return a;
  }
};

double error_between(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a[i]} - b[i], 2);
    size += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(difference / size);
}

[[noreturn]] void fail(const char* what, const char* isa, double value) {
  std::printf("%s: %s (%g)\n", isa, what, value);
  std::exit(1);
}

// What arithmetic in 16 bits may lose beside fp32, by row format.
double tolerance(onekv_format format) {
  switch (format) {
    case ONEKV_FP32: return 4e-6;
    case ONEKV_FP16: return 2e-3;
    case ONEKV_BF16: return 8e-3;
    case ONEKV_INT8: return 6e-3;
    default: return 2e-2;
  }
}

// The largest error over `count` calls of each format.
double check_isa(int32_t isa, int count) {
  double worst = 0;
  for (int i = 0; i < 5 * count; ++i) {
    Call call(static_cast<onekv_format>(i % 5));
    auto plain_cache = call.cache, cache = call.cache;
    std::vector<float> plain, out;
    onekv_attend_args a = call.arguments(plain_cache, plain);
    onekv_attend_args b = a;
    b.rows.part[0] = cache[0].data();
    b.rows.part[1] = call.parts == 2 ? cache[1].data() : nullptr;
    out.assign(plain.size(), 0);
    b.out.data = out.data();
    b.isa = isa;
    onekv_status first = onekv_attend(&a), second = onekv_attend(&b);
    if (first != ONEKV_OK) fail(onekv_status_text(first), "plain", i);
    if (second != ONEKV_OK) fail(onekv_status_text(second), onekv_isa_name(isa), i);
    if (cache != plain_cache) fail("caches differ", onekv_isa_name(isa), i);
    double error = error_between(out, plain);
    if (!(error < tolerance(call.format))) fail("outputs differ", onekv_isa_name(isa), error);
    worst = error > worst ? error : worst;
  }
  return worst;
}

// Bytes of a valid call's structure replaced at random: refused, or harmless by what the call
// still points to. Fields that would make it point elsewhere are left alone.
void refuse_nonsense(int count) {
  Call call(ONEKV_INT8);
  std::vector<float> out;
  onekv_attend_args good = call.arguments(call.cache, out);
  const int64_t nonsense[] = {-1, 0, INT64_MAX, INT64_MIN, int64_t{1} << 40, 7};
  int64_t onekv_attend_args::*fields[] = {
      &onekv_attend_args::batch,    &onekv_attend_args::new_tokens, &onekv_attend_args::heads,
      &onekv_attend_args::head_dim, &onekv_attend_args::kv_heads,   &onekv_attend_args::position};
  for (int i = 0; i < count; ++i) {
    onekv_attend_args bad = good;
    bad.*fields[random_bits() % 6] = nonsense[random_bits() % 5];
    bad.length = nonsense[random_bits() % 5];
    auto before = call.cache;
    onekv_status status = onekv_attend(&bad);
    if (status == ONEKV_OK || before != call.cache) fail("nonsense was accepted", "any", status);
  }
}

}  // namespace

int main(int argc, char** argv) {
  int count = argc > 1 ? std::atoi(argv[1]) : 40;
  for (int32_t isa = 0; isa < onekv_isa_count(); ++isa) {
    if (!onekv_isa_supported(isa)) continue;
    std::printf("%s: largest relative error %.2g\n", onekv_isa_name(isa), check_isa(isa, count));
  }
  refuse_nonsense(count);
  return 0;
}
