#include "executorch_log.h"

#include <executorch/runtime/platform/platform.h>
#include <unistd.h>

#include <mutex>

#include "json.h"

namespace onekv::runner {
namespace {

constexpr size_t kLongest = 300;

std::mutex mutex;
std::string errors;

void keep(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t,
          const char* message, size_t length) {
  if (level != kError && level != kFatal) return;
  std::lock_guard<std::mutex> lock(mutex);
  // One for each instruction that lacks the same operator: once is enough.
  const std::string text(message, length);
  if (errors.size() >= kLongest || errors.find(text) != std::string::npos) return;
  if (!errors.empty()) errors += "; ";
  errors += text;
}

void end_process() { _exit(fail(Kind::kRuntime, "ExecuTorch gave up: " + last_errors())); }

}  // namespace

void listen_to_runtime() {
  executorch::runtime::PalImpl table = executorch::runtime::PalImpl::create(keep, __FILE__);
  table.abort = end_process;
  executorch::runtime::register_pal(table);
}

std::string last_errors() {
  std::lock_guard<std::mutex> lock(mutex);
  std::string taken;
  taken.swap(errors);
  if (taken.size() > kLongest) taken.resize(kLongest);
  return taken;
}

}  // namespace onekv::runner
