// A .pte in ExecuTorch: forward(tokens int64 [1, S], input_pos int64 [1]) -> logits float.
#include <dlfcn.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/core/hierarchical_allocator.h>

#include <algorithm>

#include "anonymous.h"
#include "executorch_log.h"
#include "failure.h"
#include "files.h"
#include "model.h"

// The wheel has no header for its thread pool; these two are its library's functions.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace onekv::runner {
namespace {

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::HierarchicalAllocator;
using executorch::runtime::Program;
using executorch::runtime::Span;

// Of export/targets/executorch/metadata.py.
constexpr char kVersionMethod[] = "onekv_executorch_version";

Kind kind_of(Error error) {
  switch (error) {
    case Error::OperatorMissing: return Kind::kMissingOperator;
    case Error::NotFound:
    case Error::DelegateInvalidCompatibility: return Kind::kVersionMismatch;
    case Error::InvalidProgram:
    case Error::InvalidExternalData:
    case Error::AccessFailed: return Kind::kCorruptFile;
    case Error::MemoryAllocationFailed:
    case Error::OutOfResources:
    case Error::DelegateMemoryAllocationFailed: return Kind::kOutOfMemory;
    default: return Kind::kRuntime;
  }
}

void check(Error error, const std::string& what) {
  if (error == Error::Ok) return;
  const std::string words = last_errors();
  const Kind kind = kind_of(error);
  std::string hint;
  if (kind == Kind::kMissingOperator)
    hint = words.find("llama::") == std::string::npos
               ? "; --operators loads a library that has it"
               : "; the wheel has llama:: kernels only for processes with torch: run this file with "
                 "`onekv run`, or export it with --ops onekv";
  if (kind == Kind::kVersionMismatch)
    hint = "; this is ExecuTorch " ONEKV_RUNTIME_VERSION ", export with the same version";
  throw Failure(kind, what + ": " + executorch::runtime::to_string(error) +
                          (words.empty() ? "" : " (" + words + ")") + hint);
}

template <class Result>
auto& value(Result& result, const std::string& what) {
  check(result.error(), what);
  return result.get();
}

// The memory that the program plans for its tensors, each arena in pages of its own.
class Arenas {
 public:
  explicit Arenas(const std::vector<int64_t>& sizes) {
    memory_.reserve(sizes.size());
    for (const int64_t size : sizes) {
      memory_.emplace_back(static_cast<size_t>(size), "planned memory");
      spans_.emplace_back(memory_.back().data(), memory_.back().size());
    }
    allocator_ =
        std::make_unique<HierarchicalAllocator>(Span<Span<uint8_t>>(spans_.data(), spans_.size()));
  }

  HierarchicalAllocator* allocator() { return allocator_.get(); }

 private:
  std::vector<AnonymousMemory> memory_;
  std::vector<Span<uint8_t>> spans_;
  std::unique_ptr<HierarchicalAllocator> allocator_;
};

class ExecuTorchModel : public Model {
 public:
  explicit ExecuTorchModel(const Options& options)
      : file_(options.model), module_(options.model, Module::LoadMode::Mmap) {
    const Error error = module_.load(Program::Verification::InternalConsistency);
    // Whatever the runtime calls it: nothing was asked of the file but to be one.
    if (error != Error::Ok)
      throw Failure(Kind::kCorruptFile, file_ + " is no program: " + last_errors());
    auto names = module_.method_names();
    names_ = value(names, file_);
    if (names_.count("forward") == 0)
      throw Failure(Kind::kCorruptFile, file_ + " has no method forward");
    read_metadata();
    load_forward();
    // Later, the backend's own threads would have taken what they need.
    if (options.threads > 0)
      executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(
          options.threads);
  }

  int64_t context() const override { return context_; }
  int64_t largest_step() const override { return largest_step_; }
  int64_t vocabulary() const override { return vocabulary_; }
  int64_t cache_bytes() const override { return cache_bytes_; }
  std::vector<int64_t> eos() const override { return eos_; }

  const float* step(const int64_t* tokens, int64_t count, int64_t position) override {
    if (!dynamic_ && count != largest_step_)
      throw Failure(Kind::kUsage, file_ + " takes exactly " + std::to_string(largest_step_) +
                                      " tokens at a time");
    auto ids =
        from_blob(const_cast<int64_t*>(tokens), {1, static_cast<int>(count)}, ScalarType::Long);
    auto place = from_blob(&position, {1}, ScalarType::Long);
    auto outputs = module_.execute("forward", {EValue(ids), EValue(place)});
    const std::vector<EValue>& values =
        value(outputs, file_ + " at position " + std::to_string(position));
    if (values.size() != 1 || !values[0].isTensor())
      throw Failure(Kind::kCorruptFile, file_ + " gives something else than one tensor of logits");
    const auto logits = values[0].toTensor();
    if (logits.scalar_type() != ScalarType::Float || logits.dim() < 2 ||
        logits.size(logits.dim() - 1) != vocabulary_ || logits.numel() < vocabulary_)
      throw Failure(Kind::kCorruptFile, file_ + " gives logits of another type or shape");
    return logits.const_data_ptr<float>() + logits.numel() - vocabulary_;
  }

 private:
  std::vector<int64_t> metadata(const std::string& method) {
    std::vector<int64_t> numbers;
    if (names_.count(method) == 0) return numbers;
    auto outputs = module_.execute(method, std::vector<EValue>{});
    for (const EValue& entry : value(outputs, file_ + ": " + method)) {
      if (entry.isInt()) numbers.push_back(entry.toInt());
      else if (entry.isBool()) numbers.push_back(entry.toBool());
    }
    module_.unload_method(method);
    return numbers;
  }

  int64_t one(const std::string& method, int64_t otherwise) {
    const std::vector<int64_t> numbers = metadata(method);
    return numbers.size() == 1 ? numbers[0] : otherwise;
  }

  // The version that onekv exported with; empty for files of others.
  std::string made_with() {
    if (names_.count(kVersionMethod) == 0) return "";
    auto outputs = module_.execute(kVersionMethod, std::vector<EValue>{});
    const std::vector<EValue>& values = value(outputs, file_ + ": " + kVersionMethod);
    if (values.size() != 1 || !values[0].isString()) return "";
    return std::string(values[0].toString());
  }

  void read_metadata() {
    if (one("use_kv_cache", 1) == 0)
      throw Failure(Kind::kUsage, file_ + " keeps no cache (use_kv_cache is false)");
    largest_step_ = one("get_max_seq_len", 0);
    context_ = one("get_max_context_len", largest_step_);
    dynamic_ = one("enable_dynamic_shape", 1) != 0;
    eos_ = metadata("get_eos_ids");
    if (context_ < 1 || largest_step_ < 1)
      throw Failure(Kind::kCorruptFile, file_ + " does not tell its context (get_max_seq_len)");
  }

  void load_forward() {
    auto result = module_.method_meta("forward");
    const auto& meta = value(result, file_);
    if (meta.num_inputs() != 2 || meta.num_outputs() != 1)
      throw Failure(Kind::kCorruptFile, file_ + " is not forward(tokens, input_pos) -> logits");
    auto tokens = meta.input_tensor_meta(0);
    auto logits = meta.output_tensor_meta(0);
    const auto shape = value(tokens, file_).sizes();
    const auto last = value(logits, file_).sizes();
    if (shape.size() != 2 || shape[1] < 1 || last.size() < 2 || last[last.size() - 1] < 1)
      throw Failure(Kind::kCorruptFile, file_ + " is not forward(tokens, input_pos) -> logits");
    // The shape is what memory was planned for, whatever the metadata say.
    largest_step_ = std::min<int64_t>(largest_step_, shape[1]);
    vocabulary_ = last[last.size() - 1];
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
      auto size = meta.memory_planned_buffer_size(i);
      sizes.push_back(value(size, file_));
    }
    // With shared mutable buffers the second arena holds the mutable tensors and nothing else.
    cache_bytes_ = sizes.size() == 2 ? sizes[1] : -1;
    arenas_ = std::make_unique<Arenas>(sizes);
    const Error error = module_.load_forward(arenas_->allocator());
    const std::string version = error == Error::Ok ? "" : made_with();
    if (!version.empty() && version != ONEKV_RUNTIME_VERSION)
      throw Failure(Kind::kVersionMismatch, file_ + " is for ExecuTorch " + version +
                                                ", this is " ONEKV_RUNTIME_VERSION
                                                "; export again, or install that version");
    check(error, file_ + " cannot be loaded");
  }

  const std::string file_;
  std::unique_ptr<Arenas> arenas_;  // outlive the module, which points into it
  Module module_;
  std::unordered_set<std::string> names_;
  int64_t context_ = 0, largest_step_ = 0, vocabulary_ = 0, cache_bytes_ = -1;
  bool dynamic_ = true;
  std::vector<int64_t> eos_;
};

void load_operators(const std::string& library) {
  // Never closed: the runtime keeps pointers to what a library registers.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) throw Failure(Kind::kMissingLibrary, dlerror());
  // Ours tells whether its operators are in; another copy's may have been first.
  const auto registered = reinterpret_cast<int (*)()>(dlsym(handle, "onekv_executorch_registered"));
  if (registered != nullptr && registered() == 0)
    throw Failure(Kind::kMissingLibrary,
                  library + " was not used: another copy of it is in this process");
}

}  // namespace

RuntimeName open_runtime(const Options& options) {
  listen_to_runtime();
  if (!options.expect_version.empty() && options.expect_version != ONEKV_RUNTIME_VERSION)
    throw Failure(Kind::kVersionMismatch, "the file is for ExecuTorch " + options.expect_version +
                                              ", this is " ONEKV_RUNTIME_VERSION);
  for (const std::string& library : options.operators) load_operators(library);
  return {"executorch", ONEKV_RUNTIME_VERSION};
}

std::unique_ptr<Model> load_model(const Options& options) {
  check_file(options.model);
  return std::make_unique<ExecuTorchModel>(options);
}

}  // namespace onekv::runner
