// ExecuTorch tensors to the kernel's arguments. Only ExecuTorch's headers and the kernel's.
#include "attend.h"

#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include "operators.h"

namespace onekv::executorch_ops {
namespace {

using executorch::aten::ScalarType;
using executorch::runtime::Error;

// The thread pool that the other kernels and XNNPACK use: a second one would fight it for cores.
void run_parallel(void*, int tasks, void (*body)(void*, int), void* context) {
  executorch::extension::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(context, static_cast<int>(task));
  });
}

Tensor& refuse(KernelRuntimeContext& context, const char* name, const char* why, Tensor& out) {
  ET_LOG(Error, "onekv::%s: %s", name, why);
  context.fail(Error::InvalidArgument);
  return out;
}

bool find_activations(ScalarType type, onekv_format* format) {
  switch (type) {
    case ScalarType::Float: *format = ONEKV_FP32; return true;
    case ScalarType::Half: *format = ONEKV_FP16; return true;
    case ScalarType::BFloat16: *format = ONEKV_BF16; return true;
    default: return false;
  }
}

// A cache's type and its last extent determine its row format (runtime/rows.py).
bool find_row_format(const Tensor& cache, int64_t dim, onekv_format* format) {
  if (find_activations(cache.scalar_type(), format)) return cache.size(3) == dim;
  if (cache.scalar_type() != ScalarType::Byte) return false;
  for (onekv_format quantised : {ONEKV_INT8, ONEKV_INT4}) {
    *format = quantised;
    if (cache.size(3) == onekv_row_bytes(quantised, dim)) return true;
  }
  return false;
}

onekv_tensor activations(const Tensor& tensor) {
  auto strides = tensor.strides();
  return {const_cast<void*>(tensor.const_data_ptr()), strides[0], strides[1], strides[2]};
}

onekv_rows rows(Tensor& cache) {
  auto strides = cache.strides();
  int64_t size = cache.element_size();
  return {{cache.mutable_data_ptr(), nullptr}, strides[0] * size, strides[1] * size,
          strides[2] * size};
}

bool is_four_dimensional(const Tensor& tensor) {
  return tensor.dim() == 4 &&
         executorch::runtime::is_contiguous_dim_order(tensor.dim_order().data(), 4);
}

bool is_position(const Tensor& pos) {
  return pos.numel() == 1 && pos.scalar_type() == ScalarType::Long;
}

bool is_like(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes();
}

// Everything that both operators share; what is wrong, or nullptr.
const char* fill(onekv_attend_args* args, const Tensor& q, const Tensor& new_rows, Tensor& cache,
                 const Tensor& pos, double scale, int64_t window) {
  if (!is_four_dimensional(q) || !is_four_dimensional(new_rows) || !is_four_dimensional(cache)) {
    return "queries, rows and cache have four dimensions in their usual order";
  }
  if (!is_position(pos)) return "pos is one int64";
  int64_t dim = q.size(3);
  if (!find_activations(q.scalar_type(), &args->activations) ||
      new_rows.scalar_type() != q.scalar_type()) {
    return "queries and rows have one type: float, half or bfloat16";
  }
  if (!find_row_format(cache, dim, &args->format)) return "the cache holds no known row format";
  if (new_rows.size(0) != q.size(0) || new_rows.size(1) != q.size(1) ||
      new_rows.size(3) != dim || cache.size(0) != q.size(0) ||
      cache.size(1) != new_rows.size(2)) {
    return "queries, rows and cache do not belong together";
  }
  args->abi = ONEKV_ABI;
  args->size = sizeof(onekv_attend_args);
  args->batch = q.size(0);
  args->new_tokens = q.size(1);
  args->heads = q.size(2);
  args->kv_heads = new_rows.size(2);
  args->head_dim = dim;
  args->length = cache.size(2);
  args->position = pos.const_data_ptr<int64_t>()[0];
  args->window = window;
  args->scale = static_cast<float>(scale);
  args->q = activations(q);
  args->new_rows = activations(new_rows);
  args->rows = rows(cache);
  args->parallel = run_parallel;
  args->isa = -1;
  return nullptr;
}

const char* fill_tables(onekv_attend_args* args, const std::optional<Tensor>& cos,
                        const std::optional<Tensor>& sin) {
  if (!cos && !sin) return nullptr;
  if (!cos || !sin || !is_like(*cos, *sin) || cos->dim() != 2 ||
      cos->scalar_type() != ScalarType::Float || cos->size(1) != args->head_dim / 2) {
    return "cos and sin are two float tensors of head_dim / 2 columns, or absent";
  }
  args->cos = cos->const_data_ptr<float>();
  args->sin = sin->const_data_ptr<float>();
  args->table_length = cos->size(0);
  args->table_stride = cos->size(1);
  return nullptr;
}

const char* fill_gain(onekv_attend_args* args, const std::optional<Tensor>& gain) {
  if (!gain) return nullptr;
  if (gain->scalar_type() != ScalarType::Float || gain->numel() != args->head_dim) {
    return "key_gain is a float tensor of head_dim elements";
  }
  args->key_gain = gain->const_data_ptr<float>();
  return nullptr;
}

Tensor& run(KernelRuntimeContext& context, const char* name, onekv_attend_args* args,
            const Tensor& q, Tensor& out) {
  if (out.scalar_type() != q.scalar_type() ||
      executorch::runtime::resize_tensor(out, q.sizes()) != Error::Ok) {
    return refuse(context, name, "out cannot take the queries' type and shape", out);
  }
  args->out = activations(out);
  onekv_status status = onekv_attend(args);
  return status == ONEKV_OK ? out : refuse(context, name, onekv_status_text(status), out);
}

}  // namespace

Tensor& attend_out(KernelRuntimeContext& context, const Tensor& q, const Tensor& c, Tensor& cache,
                   const Tensor& pos, const std::optional<Tensor>& cos,
                   const std::optional<Tensor>& sin, const std::optional<Tensor>& key_gain,
                   double scale, int64_t window, Tensor& out) {
  onekv_attend_args args = {};
  const char* wrong = fill(&args, q, c, cache, pos, scale, window);
  if (!wrong) wrong = fill_tables(&args, cos, sin);
  if (!wrong) wrong = fill_gain(&args, key_gain);
  return wrong ? refuse(context, "attend", wrong, out) : run(context, "attend", &args, q, out);
}

Tensor& attend_kv_out(KernelRuntimeContext& context, const Tensor& q, const Tensor& k,
                      const Tensor& v, Tensor& keys, Tensor& values, const Tensor& pos,
                      double scale, int64_t window, Tensor& out) {
  onekv_attend_args args = {};
  const char* wrong = fill(&args, q, k, keys, pos, scale, window);
  if (!wrong && !(is_like(k, v) && is_four_dimensional(v) && is_like(keys, values) &&
                  is_four_dimensional(values))) {
    wrong = "keys and values do not have the same type and shape";
  }
  if (wrong) return refuse(context, "attend_kv", wrong, out);
  args.new_values = activations(v);
  args.values = rows(values);
  return run(context, "attend_kv", &args, q, out);
}

}  // namespace onekv::executorch_ops
