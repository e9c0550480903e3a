// The library's one entry: registers domain "onekv" with the ONNX Runtime that loads it.
#include <climits>
#include <exception>
#include <map>
#include <mutex>

#include "node.h"

namespace onekv::onnx {
namespace {

constexpr ONNXTensorElementDataType kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr ONNXTensorElementDataType kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
constexpr ONNXTensorElementDataType kBytes = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
constexpr ONNXTensorElementDataType kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

// Runs what may fail and gives its error to the runtime; no exception leaves the library.
template <typename Body>
OrtStatus* guarded(const OrtApi& api, Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
  }
}

// What ONNX Runtime keeps of a call's kernel.
struct Kernel {
  const OrtApi& api;
  Node node;
};

// An operator for one pair of types: those of its activations and of its cache.
struct CustomOp : OrtCustomOp {
  CustomOp(const Operator& op, ONNXTensorElementDataType activations,
           ONNXTensorElementDataType cache);

  ONNXTensorElementDataType input_type(size_t index) const {
    if (index < op.first_past) return activations;
    if (index < op.first_past + 2) return cache;
    return index == op.first_past + 2 ? kInt64 : kFloat;
  }

  const Operator& op;
  ONNXTensorElementDataType activations, cache;
};

const CustomOp& self(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }

OrtStatus* create_kernel(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                         void** kernel) {
  return guarded(*api, [&] { *kernel = new Kernel{*api, Node(self(op).op, *api, info)}; });
}

OrtStatus* compute(void* data, OrtKernelContext* context) {
  auto& kernel = *static_cast<Kernel*>(data);
  return guarded(kernel.api, [&] { kernel.node.compute(context); });
}

// Output i + 1, a cache, may take the buffer of the cache input: only its new rows are written.
template <int kFirstPast>
size_t may_inplace(int** inputs, int** outputs) {
  static int from[] = {kFirstPast, kFirstPast + 1}, to[] = {1, 2};
  *inputs = from;
  *outputs = to;
  return 2;
}

CustomOp::CustomOp(const Operator& o, ONNXTensorElementDataType a, ONNXTensorElementDataType c)
    : OrtCustomOp{}, op(o), activations(a), cache(c) {
  version = kApiVersion;
  GetName = [](const OrtCustomOp* op) { return self(op).op.name; };
  GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).op.inputs; };
  GetInputType = [](const OrtCustomOp* op, size_t index) { return self(op).input_type(index); };
  GetInputCharacteristic = [](const OrtCustomOp* op, size_t index) {
    return index < self(op).op.required_inputs ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{3}; };
  GetOutputType = [](const OrtCustomOp* op, size_t index) {
    return index == 0 ? self(op).activations : self(op).cache;
  };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
  CreateKernelV2 = create_kernel;
  KernelComputeV2 = compute;
  KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  GetMayInplace = op.first_past == 2 ? may_inplace<2> : may_inplace<3>;
  ReleaseMayInplace = [](int*, int*) {};
}

// Every pair of types: the runtime picks by the types of a node's inputs.
const CustomOp (&operators())[12] {
  static const CustomOp all[] = {
      {kAttend, kFloat, kFloat},   {kAttend, kFloat, kHalf},   {kAttend, kFloat, kBytes},
      {kAttend, kHalf, kFloat},    {kAttend, kHalf, kHalf},    {kAttend, kHalf, kBytes},
      {kAttendKV, kFloat, kFloat}, {kAttendKV, kFloat, kHalf}, {kAttendKV, kFloat, kBytes},
      {kAttendKV, kHalf, kFloat},  {kAttendKV, kHalf, kHalf},  {kAttendKV, kHalf, kBytes},
  };
  return all;
}

// One domain per ONNX Runtime in the process. It must outlive every session that it is given
// to, whose end nobody tells: neither it nor the list is ever released.
OrtCustomOpDomain* domain(const OrtApi& api) {
  static std::mutex mutex;
  static auto& domains = *new std::map<const OrtApi*, OrtCustomOpDomain*>;
  std::lock_guard<std::mutex> lock(mutex);
  OrtCustomOpDomain*& found = domains[&api];
  if (!found) {
    Host host(api);
    OrtCustomOpDomain* created = nullptr;
    host.check(api.CreateCustomOpDomain("onekv", &created));
    for (const CustomOp& op : operators()) host.check(api.CustomOpDomain_Add(created, &op));
    found = created;
  }
  return found;
}

}  // namespace
}  // namespace onekv::onnx

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace onekv::onnx;
  const OrtApi* api = base->GetApi(kApiVersion);
  if (!api) {
    const OrtApi* old = base->GetApi(1);
    return old->CreateStatus(ORT_FAIL, "onekv: this ONNX Runtime is older than 1.18");
  }
  return guarded(*api, [&] {
    Host(*api).check(api->AddCustomOpDomain(options, domain(*api)));
  });
}
