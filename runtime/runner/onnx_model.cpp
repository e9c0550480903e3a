// An .onnx of export/targets/onnx/trace.py in ONNX Runtime, its caches bound on both ends.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numeric>
#include <utility>

#include "anonymous.h"
#include "failure.h"
#include "files.h"
#include "model.h"

namespace onekv::runner {
namespace {

const OrtApi* ort = nullptr;

constexpr char kPast[] = "past_key_values", kPresent[] = "present";

Kind kind_of(OrtErrorCode code, const std::string& words, Kind otherwise) {
  const auto says = [&](const char* part) { return words.find(part) != std::string::npos; };
  if (says("IR version") || says("opset") || says("ONNX Runtime only *guarantees*"))
    return Kind::kVersionMismatch;
  if (code == ORT_NOT_IMPLEMENTED || says("not a registered function/op") ||
      says("No Op registered") || says("No opset import for domain"))
    return Kind::kMissingOperator;
  if (says("Failed to allocate") || says("bad_alloc")) return Kind::kOutOfMemory;
  return otherwise;
}

// Whether a graph has products with integer weights, a hundred times slower without prepacking.
bool multiplies_integers(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string graph((std::istreambuf_iterator<char>(file)), {});
  return graph.find("MatMulNBits") != std::string::npos;
}

// `otherwise` is what a failure means that the runtime does not name better.
void check(OrtStatus* status, Kind otherwise = Kind::kRuntime) {
  if (status == nullptr) return;
  const std::string words = ort->GetErrorMessage(status);
  const OrtErrorCode code = ort->GetErrorCode(status);
  ort->ReleaseStatus(status);
  throw Failure(kind_of(code, words, otherwise), "ONNX Runtime: " + words);
}

template <class T>
using Release = void(ORT_API_CALL*)(T*);

// Owns an object of the C interface.
template <class T>
class Owned {
 public:
  explicit Owned(Release<T> release) : release_(release) {}
  Owned(Owned&& other) noexcept
      : release_(other.release_), object_(std::exchange(other.object_, nullptr)) {}
  ~Owned() { reset(); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;

  T** out() {
    reset();
    return &object_;
  }
  operator T*() const { return object_; }
  void reset() {
    if (object_ != nullptr) release_(std::exchange(object_, nullptr));
  }

 private:
  Release<T> release_;
  T* object_ = nullptr;
};

size_t bytes_of(ONNXTensorElementDataType type, const std::string& name) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return 2;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return 1;
    default: throw Failure(Kind::kCorruptFile, name + " has an element type that no cache has");
  }
}

struct Described {
  std::string name;
  std::vector<int64_t> shape;  // -1: free
  ONNXTensorElementDataType type;
};

struct Cache {
  std::string name;
  AnonymousMemory memory;
  Owned<OrtValue> value;
};

class OnnxModel : public Model {
 public:
  explicit OnnxModel(const Options& options)
      : env_(ort->ReleaseEnv),
        session_(ort->ReleaseSession),
        cpu_(ort->ReleaseMemoryInfo),
        binding_(ort->ReleaseIoBinding),
        logits_(ort->ReleaseValue) {
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "onekv-runner", env_.out()));
    check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, cpu_.out()));
    create_session(options);
    check(ort->CreateIoBinding(session_, binding_.out()));
    read_logits();
    bind_inputs(options);
  }

  int64_t context() const override { return context_; }
  int64_t largest_step() const override { return context_; }
  int64_t vocabulary() const override { return vocabulary_; }
  int64_t cache_bytes() const override {
    return std::accumulate(
        caches_.begin(), caches_.end(), int64_t{0},
        [](int64_t sum, const Cache& c) { return sum + static_cast<int64_t>(c.memory.size()); });
  }
  // Neither the graph nor its runtime knows them: --eos.
  std::vector<int64_t> eos() const override { return {}; }

  const float* step(const int64_t* tokens, int64_t count, int64_t position) override {
    std::vector<int64_t> positions(count);
    std::iota(positions.begin(), positions.end(), position);
    const Owned<OrtValue> ids = integers("input_ids", const_cast<int64_t*>(tokens), count);
    const Owned<OrtValue> places = integers("position_ids", positions.data(), count);
    // Each time: a tensor that is bound keeps the shape that it got first.
    release_logits();
    check(ort->RunWithBinding(session_, nullptr, binding_));
    return last_row(count);
  }

  void release_logits() override {
    logits_.reset();
    check(ort->BindOutputToDevice(binding_, "logits", cpu_));
  }

 private:
  void create_session(const Options& options) {
    Owned<OrtSessionOptions> settings(ort->ReleaseSessionOptions);
    check(ort->CreateSessionOptions(settings.out()));
    check(ort->SetIntraOpNumThreads(settings, static_cast<int>(options.threads)));
    if (!options.prepack && !multiplies_integers(options.model))
      check(ort->AddSessionConfigEntry(settings, "session.disable_prepacking", "1"));
    // An arena never gives back what the largest prefill took. A pattern takes one block for a
    // call of a known shape, and more than is in use at any moment.
    if (!options.arena) {
      check(ort->DisableCpuMemArena(settings));
      check(ort->DisableMemPattern(settings));
    }
    for (const std::string& library : options.operators)
      check(ort->RegisterCustomOpsLibrary_V2(settings, library.c_str()), Kind::kMissingLibrary);
    check(ort->CreateSession(env_, options.model.c_str(), settings, session_.out()),
          Kind::kCorruptFile);
  }

  std::string taken(char* name, OrtAllocator* allocator) {
    const std::string copy = name;
    check(ort->AllocatorFree(allocator, name));
    return copy;
  }

  Described described(const std::string& name, const OrtTypeInfo* info) {
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;
    check(ort->CastTypeInfoToTensorInfo(info, &tensor));
    if (tensor == nullptr) throw Failure(Kind::kCorruptFile, name + " is no tensor");
    Described result{name, {}, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED};
    size_t rank = 0;
    check(ort->GetDimensionsCount(tensor, &rank));
    result.shape.resize(rank);
    check(ort->GetDimensions(tensor, result.shape.data(), rank));
    check(ort->GetTensorElementType(tensor, &result.type));
    return result;
  }

  std::vector<Described> inputs() {
    OrtAllocator* allocator = nullptr;
    check(ort->GetAllocatorWithDefaultOptions(&allocator));
    size_t count = 0;
    check(ort->SessionGetInputCount(session_, &count));
    std::vector<Described> all;
    for (size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      check(ort->SessionGetInputName(session_, i, allocator, &name));
      Owned<OrtTypeInfo> info(ort->ReleaseTypeInfo);
      check(ort->SessionGetInputTypeInfo(session_, i, info.out()));
      all.push_back(described(taken(name, allocator), info));
    }
    return all;
  }

  void read_logits() {
    OrtAllocator* allocator = nullptr;
    check(ort->GetAllocatorWithDefaultOptions(&allocator));
    size_t count = 0;
    check(ort->SessionGetOutputCount(session_, &count));
    for (size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      check(ort->SessionGetOutputName(session_, i, allocator, &name));
      if (taken(name, allocator) != "logits") continue;
      Owned<OrtTypeInfo> info(ort->ReleaseTypeInfo);
      check(ort->SessionGetOutputTypeInfo(session_, i, info.out()));
      const Described logits = described("logits", info);
      if (logits.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT && logits.shape.size() == 3)
        vocabulary_ = logits.shape[2];
    }
    if (vocabulary_ < 1)
      throw Failure(Kind::kCorruptFile,
                    "the graph has no output logits [1, S, vocabulary] of floats");
  }

  void bind_inputs(const Options& options) {
    context_ = options.context;
    const std::vector<Described> all = inputs();
    for (const Described& input : all) {
      if (input.name == "input_ids" || input.name == "position_ids") continue;
      if (input.name.rfind(kPast, 0) != 0 || input.shape.size() != 4)
        throw Failure(Kind::kCorruptFile, "the graph has an unknown input " + input.name);
      const int64_t length = input.shape[2];
      if (length > 0 && context_ > length)
        throw Failure(Kind::kContextFull, "--context " + std::to_string(context_) + ": " +
                                              input.name + " holds " + std::to_string(length));
      if (length > 0) context_ = length;
    }
    if (context_ < 1)
      throw Failure(Kind::kUsage, "the graph leaves the context free: give --context");
    for (const Described& input : all)
      if (input.name.rfind(kPast, 0) == 0) bind_cache(input);
  }

  void bind_cache(const Described& input) {
    const int64_t shape[] = {1, input.shape[1], context_, input.shape[3]};
    if (shape[1] < 1 || shape[3] < 1)
      throw Failure(Kind::kCorruptFile, input.name + " has no fixed heads and width");
    const size_t bytes = bytes_of(input.type, input.name) * shape[1] * shape[2] * shape[3];
    caches_.push_back(
        {input.name, AnonymousMemory(bytes, "the cache"), Owned<OrtValue>(ort->ReleaseValue)});
    Cache& cache = caches_.back();
    check(ort->CreateTensorWithDataAsOrtValue(cpu_, cache.memory.data(), bytes, shape, 4,
                                              input.type, cache.value.out()));
    // One buffer on both ends, so that rows are appended and nothing is copied.
    check(ort->BindInput(binding_, input.name.c_str(), cache.value));
    const std::string output = kPresent + input.name.substr(sizeof kPast - 1);
    check(ort->BindOutput(binding_, output.c_str(), cache.value), Kind::kCorruptFile);
  }

  Owned<OrtValue> integers(const char* name, int64_t* data, int64_t count) {
    Owned<OrtValue> value(ort->ReleaseValue);
    const int64_t shape[] = {1, count};
    check(ort->CreateTensorWithDataAsOrtValue(cpu_, data, count * sizeof(int64_t), shape, 2,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, value.out()));
    check(ort->BindInput(binding_, name, value));
    return value;
  }

  // The logits are what was bound last.
  const float* last_row(int64_t count) {
    OrtAllocator* allocator = nullptr;
    check(ort->GetAllocatorWithDefaultOptions(&allocator));
    OrtValue** values = nullptr;
    size_t size = 0;
    check(ort->GetBoundOutputValues(binding_, allocator, &values, &size));
    for (size_t i = 0; i + 1 < size; ++i) ort->ReleaseValue(values[i]);
    if (size > 0) *logits_.out() = values[size - 1];
    check(ort->AllocatorFree(allocator, values));
    void* data = nullptr;
    check(ort->GetTensorMutableData(logits_, &data));
    return static_cast<const float*>(data) + (count - 1) * vocabulary_;
  }

  Owned<OrtEnv> env_;
  Owned<OrtSession> session_;
  Owned<OrtMemoryInfo> cpu_;
  std::vector<Cache> caches_;  // outlive the binding
  Owned<OrtIoBinding> binding_;
  Owned<OrtValue> logits_;
  int64_t context_ = 0, vocabulary_ = 0;
};

}  // namespace

RuntimeName open_runtime(const Options& options) {
  const std::string path = options.runtime.empty() ? "libonnxruntime.so" : options.runtime;
  // Never closed: its threads may still run.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) throw Failure(Kind::kMissingLibrary, dlerror());
  const auto base_of =
      reinterpret_cast<const OrtApiBase*(ORT_API_CALL*)()>(dlsym(library, "OrtGetApiBase"));
  if (base_of == nullptr)
    throw Failure(Kind::kMissingLibrary, path + " is not ONNX Runtime: it has no OrtGetApiBase");
  const std::string version = base_of()->GetVersionString();
  if (!options.expect_version.empty() && options.expect_version != version)
    throw Failure(Kind::kVersionMismatch,
                  "ONNX Runtime " + options.expect_version + " is asked for, this is " + version);
  // Version 1.N has the interfaces up to N; what is used here is far older than both.
  const int minor =
      std::atoi(version.c_str() + std::min(version.find('.'), version.size() - 1) + 1);
  ort = base_of()->GetApi(std::min<uint32_t>(ORT_API_VERSION, minor));
  if (ort == nullptr)
    throw Failure(Kind::kVersionMismatch,
                  "ONNX Runtime " + version + " has no interface that is known here");
  return {"onnxruntime", version};
}

std::unique_ptr<Model> load_model(const Options& options) {
  check_file(options.model);
  return std::make_unique<OnnxModel>(options);
}

}  // namespace onekv::runner
