// Registers the operators when the library is loaded, or when the program that holds it starts.
#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstring>

#include "operators.h"

namespace onekv::executorch_ops {
namespace {

using executorch::runtime::Kernel;

constexpr char kAttend[] = "onekv::attend.out";
constexpr char kAttendKv[] = "onekv::attend_kv.out";
constexpr char kRotate[] = "onekv::rotate.out";

bool is_known() {
  for (const Kernel& kernel : executorch::runtime::get_registered_kernels()) {
    if (std::strcmp(kernel.name_, kAttend) == 0) return true;
  }
  return false;
}

// ExecuTorch aborts the process on a name that it knows already: a second copy steps back.
bool register_once() {
  executorch::runtime::runtime_init();
  if (is_known()) {
    ET_LOG(Error, "onekv's operators are registered already, by another copy of this library");
    return false;
  }
  const Kernel kernels[] = {
      executorch::extension::make_boxed_kernel(kAttend, EXECUTORCH_FN(attend_out, kAttend)),
      executorch::extension::make_boxed_kernel(kAttendKv, EXECUTORCH_FN(attend_kv_out, kAttendKv)),
      executorch::extension::make_boxed_kernel(kRotate, EXECUTORCH_FN(rotate_out, kRotate)),
  };
  return executorch::runtime::register_kernels({kernels, 3}) == executorch::runtime::Error::Ok;
}

const bool registered = register_once();

}  // namespace
}  // namespace onekv::executorch_ops

// 1 when the operators of this process are this library's, 0 when another copy was first.
extern "C" __attribute__((visibility("default"))) int onekv_executorch_registered() {
  return onekv::executorch_ops::registered ? 1 : 0;
}
