// A fuzz target over the arguments of a call: whatever the bytes say, the kernel computes or refuses,
// and touches only what it was given. Buffers have the size that an accepted call needs; a call that
// would need more than kMostBytes is checked but not made.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "attend.h"

namespace {

constexpr int64_t kMostBytes = 1 << 20;

struct Bytes {
  const uint8_t* at;
  size_t left;

  uint8_t next() { return left ? --left, *at++ : 0; }
  // Mostly a small multiple of `step`, sometimes absurd.
  int64_t number(int64_t most, int64_t step = 1) {
    uint8_t kind = next();
    if (kind < 250) return kind % (most + 1) * step;
    const int64_t absurd[] = {-1, 0, INT64_MAX, INT64_MIN, int64_t{1} << 40, 1 << 16};
    return absurd[kind - 250];
  }
};

onekv_attend_args drawn(Bytes& bytes) {
  onekv_attend_args a;
  std::memset(&a, 0, sizeof a);
  a.abi = ONEKV_ABI;
  a.size = sizeof a;
  a.batch = bytes.number(3), a.new_tokens = bytes.number(9), a.kv_heads = bytes.number(4);
  a.heads = a.kv_heads > 0 && a.kv_heads < 100 ? a.kv_heads * (1 + bytes.next() % 17) : bytes.number(9);
  a.head_dim = bytes.number(20, 8), a.length = bytes.number(200, 4);
  a.position = bytes.number(200, 3), a.window = bytes.number(40);
  a.scale = 0.1f;
  // As far as the enumerations' own bits reach: beyond, reading one is undefined.
  a.activations = static_cast<onekv_format>(bytes.next() % 8);
  a.format = static_cast<onekv_format>(bytes.next() % 8);
  a.pairing = static_cast<onekv_pairing>(bytes.next() % 2);
  a.threads = static_cast<int32_t>(bytes.number(3));
  a.isa = static_cast<int32_t>(bytes.number(7)) - 1;
  return a;
}

// Memory of exactly `count` bytes that holds small numbers in every format.
std::vector<uint8_t> memory(int64_t count, onekv_format format) {
  std::vector<uint8_t> data(static_cast<size_t>(count));
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = format <= ONEKV_BF16 ? (i % 2 ? 0x3c : 0) : static_cast<uint8_t>(i % 60);
  }
  return data;
}

struct Call {
  onekv_attend_args args;
  std::vector<uint8_t> q, rows, values, out, cache[4];
  std::vector<float> cos, sin, gain;

  Call(const onekv_attend_args& a, int parts, bool two_tensors, Bytes& bytes) : args(a) {
    int64_t element = onekv_row_bytes(a.activations, 1);
    set(args.q, q, a.heads, element), set(args.out, out, a.heads, element);
    set(args.new_rows, rows, a.kv_heads, element);
    if (two_tensors) set(args.new_values, values, a.kv_heads, element);
    set_rows(args.rows, cache, parts);
    if (two_tensors) set_rows(args.values, cache + 2, parts);
    if (bytes.next() % 2) {
      cos.assign(static_cast<size_t>((a.position + a.new_tokens) * a.head_dim / 2), 1.0f);
      sin.assign(cos.size(), 0.0f);
      args.cos = cos.data(), args.sin = sin.data();
      args.table_length = a.position + a.new_tokens, args.table_stride = a.head_dim / 2;
    }
    if (bytes.next() % 4 == 0) gain.assign(static_cast<size_t>(a.head_dim), 1.5f);
    args.key_gain = gain.empty() ? nullptr : gain.data();
  }

  void set(onekv_tensor& tensor, std::vector<uint8_t>& data, int64_t heads, int64_t element) {
    int64_t token = heads * args.head_dim;
    data = memory(args.batch * args.new_tokens * token * element, args.activations);
    tensor = {data.data(), args.new_tokens * token, token, args.head_dim};
  }

  void set_rows(onekv_rows& to, std::vector<uint8_t>* data, int parts) {
    int64_t record = onekv_row_bytes(args.format, args.head_dim / parts);
    for (int part = 0; part < parts; ++part) {
      data[part] = memory(args.batch * args.kv_heads * args.length * record, args.format);
      to.part[part] = data[part].data();
    }
    to.row_stride = record, to.head_stride = record * args.length;
    to.batch_stride = to.head_stride * args.kv_heads;
  }

  // Replaces one field by what the kernel can see to be wrong: a stride or a table that claims
  // memory which is not there is the caller's word.
  void spoil(Bytes& bytes) {
    int64_t nonsense = bytes.number(9);
    switch (bytes.next() % 16) {
      case 0: args.abi = static_cast<uint32_t>(nonsense); break;
      case 1: args.size = static_cast<uint32_t>(nonsense); break;
      case 2: args.q.data = nullptr; break;
      case 3: args.q.head_stride = nonsense % 2 ? INT64_MAX : -1; break;
      case 4: args.rows.row_stride = nonsense % 2 ? INT64_MAX - 3 : -4; break;
      case 5: args.table_length = nonsense % 2 ? 0 : INT64_MIN; break;
      case 6: args.scale = nonsense % 2 ? INFINITY : NAN; break;
      case 7: args.sin = nullptr; break;
      case 8: args.out.data = nullptr; break;
      case 9: args.rows.part[0] = nullptr; break;
      case 10: args.values.part[0] = args.rows.part[0]; break;
      default: break;
    }
  }
};

bool fits(const onekv_attend_args& a, int parts) {
  auto small = [](int64_t x, int64_t most) { return x >= 0 && x <= most; };
  if (!small(a.batch, 3) || !small(a.new_tokens, 9) || !small(a.kv_heads, 100) ||
      !small(a.heads, 1700) || !small(a.head_dim, 160) || !small(a.length, 800) ||
      !small(a.position, 600) || a.head_dim % (8 * parts)) {
    return false;
  }
  return a.batch * a.kv_heads * a.length * 4 * a.head_dim <= kMostBytes &&
         a.batch * a.new_tokens * a.heads * 4 * a.head_dim <= kMostBytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes{data, size};
  onekv_attend_args args = drawn(bytes);
  int parts = 1 + bytes.next() % 2;
  bool two_tensors = bytes.next() % 4 == 0;
  if (!fits(args, parts)) {
    // Without a single buffer there is nothing that it may touch.
    if (onekv_attend(&args) == ONEKV_OK) std::abort();
    return 0;
  }
  Call call(args, parts, two_tensors, bytes);
  call.spoil(bytes);
  auto before = call.cache[0];
  onekv_status status = onekv_attend(&call.args);
  if (status != ONEKV_OK && before != call.cache[0]) std::abort();
  if (!*onekv_status_text(status)) std::abort();
  return 0;
}
