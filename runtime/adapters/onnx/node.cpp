#include "node.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace onekv::onnx {

const Operator kAttend = {"Attend", 8, 5, 2, 2};
const Operator kAttendKV = {"AttendKV", 6, 6, 3, 1};

struct Node::Inputs {
  Tensor q, rows, values, past[2], pos, cos, sin, gain;
};

namespace {

int64_t element_bytes(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return 2;
    default: return 1;
  }
}

bool same_shape(const Tensor& a, const Tensor& b) {
  return a.rank == b.rank && std::equal(a.dims, a.dims + 4, b.dims);
}

onekv_tensor activations(const Tensor& t) {
  int64_t head = t.dims[3], token = t.dims[2] * head;
  return {t.data, t.dims[1] * token, token, head};
}

// The runtime's own threads: no second pool beside them.
void run_on_host(void* context, int tasks, void (*body)(void*, int), void* body_context) {
  struct Work {
    void (*body)(void*, int);
    void* context;
  } work = {body, body_context};
  auto& [api, call] = *static_cast<std::pair<const OrtApi*, const OrtKernelContext*>*>(context);
  auto task = [](void* data, size_t index) {
    auto& work = *static_cast<Work*>(data);
    work.body(work.context, static_cast<int>(index));
  };
  OrtStatus* refused =
      api->KernelContext_ParallelFor(call, task, static_cast<size_t>(tasks), 0, &work);
  if (!refused) return;
  api->ReleaseStatus(refused);
  for (int i = 0; i < tasks; ++i) body(body_context, i);
}

}  // namespace

Node::Node(const Operator& op, const OrtApi& api, const OrtKernelInfo* info)
    : op_(op),
      host_(api),
      scale_(host_.float_attribute(info, "scale")),
      window_(host_.int_attribute(info, "window")) {
  int64_t dim = host_.declared_last_dim(info, 0);
  require(dim % (8 * op.parts) == 0 && dim <= 512, onekv_status_text(ONEKV_BAD_HEAD_DIM));
}

void Node::compute(OrtKernelContext* context) const {
  Inputs in = read(context);
  check_shapes(in);
  onekv_attend_args args = arguments(in);
  bind_cache(context, in, args);
  args.out = activations(host_.output(context, 0, in.q));
  std::pair<const OrtApi*, const OrtKernelContext*> call{&host_.api(), context};
  args.parallel = run_on_host;
  args.parallel_context = &call;
  onekv_status status = onekv_attend(&args);
  if (status == ONEKV_OK) return;
  host_.fail("onekv " + std::string(op_.name) + ": " + onekv_status_text(status) + " (position " +
             std::to_string(args.position) + ", " + std::to_string(args.new_tokens) +
             " new tokens, a cache of " + std::to_string(args.length) + ")");
}

Node::Inputs Node::read(const OrtKernelContext* context) const {
  size_t next = 0, count = host_.input_count(context);
  auto input = [&] { return next < count ? host_.input(context, next++) : Tensor(); };
  Inputs in;
  in.q = input();
  in.rows = input();
  if (op_.parts == 1) in.values = input();
  in.past[0] = input();
  in.past[1] = input();
  in.pos = input();
  if (op_.parts == 2) {
    in.cos = input();
    in.sin = input();
    in.gain = input();
  }
  return in;
}

// What the kernel cannot see: it takes pointers and strides. The rest it checks itself.
void Node::check_shapes(const Inputs& in) const {
  const Tensor& past = in.past[0];
  require(in.q.rank == 4 && in.rows.rank == 4, "queries and new rows have four axes");
  require(in.q.dims[0] == in.rows.dims[0] && in.q.dims[1] == in.rows.dims[1] &&
              in.q.dims[3] == in.rows.dims[3] && in.q.type == in.rows.type,
          "queries and new rows differ in batch, tokens, head_dim or type");
  require(op_.parts == 2 || (same_shape(in.rows, in.values) && in.rows.type == in.values.type),
          "keys and values differ in shape or type");
  require(past.rank == 4 && past.dims[0] == in.q.dims[0] && past.dims[1] == in.rows.dims[2],
          "the cache has another batch or other kv heads than the new rows");
  require(same_shape(past, in.past[1]) && past.type == in.past[1].type,
          "the two cache tensors differ in shape or type");
  require(in.pos.data && in.pos.count() == 1, "pos is one number");
  require(!in.cos.data == !in.sin.data, "cos and sin are given together or not at all");
  require(!in.cos.data || (in.cos.rank == 2 && same_shape(in.cos, in.sin) &&
                           in.cos.dims[1] == in.q.dims[3] / 2),
          "the rotary tables are not two equal ones of head_dim / 2 angles");
  require(!in.gain.data || in.gain.count() == in.q.dims[3], "key_gain is not one row");
}

// The type of a cache tensor and its last extent determine the format, as in runtime/rows.py.
onekv_format Node::cache_format(const Tensor& past, int64_t head_dim) const {
  constexpr struct {
    onekv_format format;
    ONNXTensorElementDataType type;
  } known[] = {
      {ONEKV_FP32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {ONEKV_FP16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
      {ONEKV_INT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
      {ONEKV_INT4, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
  };
  for (const auto& [format, type] : known) {
    int64_t bytes = onekv_row_bytes(format, head_dim / op_.parts);
    if (past.type == type && past.dims[3] * element_bytes(type) == bytes) return format;
  }
  host_.fail("onekv " + std::string(op_.name) + ": no row format has " +
             std::to_string(past.dims[3]) + " per row and tensor at head_dim " +
             std::to_string(head_dim));
}

onekv_attend_args Node::arguments(const Inputs& in) const {
  onekv_attend_args args = {};
  args.abi = ONEKV_ABI;
  args.size = sizeof args;
  args.batch = in.q.dims[0];
  args.new_tokens = in.q.dims[1];
  args.heads = in.q.dims[2];
  args.kv_heads = in.rows.dims[2];
  args.head_dim = in.q.dims[3];
  args.length = in.past[0].dims[2];
  args.position = *static_cast<const int64_t*>(in.pos.data);
  args.window = window_;
  args.scale = scale_;
  args.activations =
      in.q.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 ? ONEKV_FP16 : ONEKV_FP32;
  args.format = cache_format(in.past[0], args.head_dim);
  args.q = activations(in.q);
  args.new_rows = activations(in.rows);
  if (in.values.data) args.new_values = activations(in.values);
  args.cos = static_cast<const float*>(in.cos.data);
  args.sin = static_cast<const float*>(in.sin.data);
  args.table_length = in.cos.dims[0];
  args.table_stride = in.cos.dims[1];
  args.key_gain = static_cast<const float*>(in.gain.data);
  args.isa = -1;
  return args;
}

void Node::bind_cache(OrtKernelContext* context, const Inputs& in, onekv_attend_args& args) const {
  const Tensor& past = in.past[0];
  int64_t row = past.dims[3] * element_bytes(past.type), head = past.dims[2] * row;
  Tensor present[2];
  for (int i = 0; i < 2; ++i) {
    present[i] = host_.output(context, static_cast<size_t>(i) + 1, in.past[i]);
  }
  require(present[0].data != present[1].data && present[0].data != in.past[1].data &&
              present[1].data != in.past[0].data,
          "the two cache tensors share a buffer");
  for (int i = 0; i < 2; ++i) {
    if (present[i].data == in.past[i].data) continue;
    std::memcpy(present[i].data, in.past[i].data,
                static_cast<size_t>(past.dims[0] * past.dims[1] * head));
  }
  args.rows = {{present[0].data, nullptr}, past.dims[1] * head, head, row};
  if (op_.parts == 2) {
    args.rows.part[1] = present[1].data;
  } else {
    args.values = args.rows;
    args.values.part[0] = present[1].data;
  }
}

void Node::require(bool holds, const char* what) const {
  if (!holds) host_.fail("onekv " + std::string(op_.name) + ": " + what);
}

}  // namespace onekv::onnx
