// One attention node: hands its tensors to the kernel, which appends in place when the runtime
// gives one buffer to a cache's input and output.
#pragma once

#include "attend.h"
#include "host.h"

namespace onekv::onnx {

// Attend (one cached tensor, its rows in two halves) or AttendKV (keys and values). The inputs
// and what they mean are documented with the function that stands for these nodes in the file.
struct Operator {
  const char* name;
  size_t inputs;           // those that may be absent included
  size_t required_inputs;  // the first of them
  size_t first_past;       // index of the first of the two cache inputs
  int parts;               // records that a row lies in
};

extern const Operator kAttend;
extern const Operator kAttendKV;

class Node {
 public:
  // Fails on a head_dim that the graph declares and the kernel does not have.
  Node(const Operator& op, const OrtApi& api, const OrtKernelInfo* info);

  // Attends, or throws Failure.
  void compute(OrtKernelContext* context) const;

 private:
  struct Inputs;

  Inputs read(const OrtKernelContext* context) const;
  void check_shapes(const Inputs& in) const;
  onekv_format cache_format(const Tensor& past, int64_t head_dim) const;
  onekv_attend_args arguments(const Inputs& in) const;
  void bind_cache(OrtKernelContext* context, const Inputs& in, onekv_attend_args& args) const;
  void require(bool holds, const char* what) const;

  const Operator& op_;
  Host host_;
  float scale_;
  int64_t window_;
};

}  // namespace onekv::onnx
