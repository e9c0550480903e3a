// What ONNX Runtime's C interface gives to a kernel; its errors become exceptions in here.
#pragma once

#include <onnxruntime_c_api.h>

#include <string>

namespace onekv::onnx {

// The oldest ONNX Runtime that has what is used here: 1.18, for in-place outputs. Its table of
// functions is what every newer runtime hands out too.
constexpr uint32_t kApiVersion = 18;

// An error on its way to the runtime, which takes it over.
struct Failure {
  OrtStatus* status;
};

// A tensor as it lies in memory: dense, at most four axes.
struct Tensor {
  void* data = nullptr;  // NULL for an optional input that is absent
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  int64_t rank = 0;
  int64_t dims[4] = {1, 1, 1, 1};

  int64_t count() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
};

// One call's inputs and outputs.
class Host {
 public:
  explicit Host(const OrtApi& api) : api_(api) {}

  void check(OrtStatus* status) const {
    if (status) throw Failure{status};
  }
  [[noreturn]] void fail(const std::string& message) const {
    throw Failure{api_.CreateStatus(ORT_INVALID_ARGUMENT, message.c_str())};
  }

  size_t input_count(const OrtKernelContext* context) const;
  Tensor input(const OrtKernelContext* context, size_t index) const;
  // The data of an output of the shape and type of `like`.
  Tensor output(OrtKernelContext* context, size_t index, const Tensor& like) const;

  float float_attribute(const OrtKernelInfo* info, const char* name) const;
  int64_t int_attribute(const OrtKernelInfo* info, const char* name) const;
  // The last extent of an input as the graph declares it; 0 when it does not.
  int64_t declared_last_dim(const OrtKernelInfo* info, size_t index) const;

  const OrtApi& api() const { return api_; }

 private:
  const OrtApi& api_;
};

}  // namespace onekv::onnx
