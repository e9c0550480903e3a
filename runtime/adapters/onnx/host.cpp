#include "host.h"

#include <memory>

namespace onekv::onnx {

size_t Host::input_count(const OrtKernelContext* context) const {
  size_t count = 0;
  check(api_.KernelContext_GetInputCount(context, &count));
  return count;
}

Tensor Host::input(const OrtKernelContext* context, size_t index) const {
  const OrtValue* value = nullptr;
  check(api_.KernelContext_GetInput(context, index, &value));
  Tensor tensor;
  if (!value) return tensor;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api_.GetTensorTypeAndShape(value, &info));
  std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo*)> held(
      info, api_.ReleaseTensorTypeAndShapeInfo);
  size_t rank = 0;
  check(api_.GetTensorElementType(info, &tensor.type));
  check(api_.GetDimensionsCount(info, &rank));
  if (rank > 4) fail("onekv: input " + std::to_string(index) + " has more than four axes");
  check(api_.GetDimensions(info, tensor.dims, rank));
  tensor.rank = static_cast<int64_t>(rank);
  // This interface version has no constant form; nothing is written through an input's pointer.
  check(api_.GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.data));
  return tensor;
}

Tensor Host::output(OrtKernelContext* context, size_t index, const Tensor& like) const {
  OrtValue* value = nullptr;
  check(api_.KernelContext_GetOutput(context, index, like.dims, static_cast<size_t>(like.rank),
                                     &value));
  Tensor tensor = like;
  check(api_.GetTensorMutableData(value, &tensor.data));
  return tensor;
}

float Host::float_attribute(const OrtKernelInfo* info, const char* name) const {
  float value = 0;
  check(api_.KernelInfoGetAttribute_float(info, name, &value));
  return value;
}

int64_t Host::int_attribute(const OrtKernelInfo* info, const char* name) const {
  int64_t value = 0;
  check(api_.KernelInfoGetAttribute_int64(info, name, &value));
  return value;
}

int64_t Host::declared_last_dim(const OrtKernelInfo* info, size_t index) const {
  OrtTypeInfo* type = nullptr;
  check(api_.KernelInfo_GetInputTypeInfo(info, index, &type));
  std::unique_ptr<OrtTypeInfo, void (*)(OrtTypeInfo*)> held(type, api_.ReleaseTypeInfo);
  const OrtTensorTypeAndShapeInfo* shape = nullptr;
  check(api_.CastTypeInfoToTensorInfo(type, &shape));
  size_t rank = 0;
  if (shape) check(api_.GetDimensionsCount(shape, &rank));
  if (rank != 4) return 0;
  int64_t dims[4];
  check(api_.GetDimensions(shape, dims, rank));
  return dims[3] > 0 ? dims[3] : 0;
}

}  // namespace onekv::onnx
