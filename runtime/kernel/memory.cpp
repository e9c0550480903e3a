#include "memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace onekv {
namespace {

constexpr int64_t kHeader = 64;  // in front of what is handed out: its size
constexpr int64_t kMostKept = 2 << 20;

std::atomic<char*> spare{nullptr};

int64_t size_of(const char* memory) {
  int64_t bytes;
  std::memcpy(&bytes, memory - kHeader, sizeof bytes);
  return bytes;
}

}  // namespace

void release_memory(char* memory) {
  if (memory) std::free(memory - kHeader);
}

char* take_memory(int64_t bytes) {
  char* kept = spare.exchange(nullptr, std::memory_order_acq_rel);
  if (kept && size_of(kept) >= bytes) return kept;
  release_memory(kept);
  void* block = nullptr;
  if (posix_memalign(&block, 64, static_cast<size_t>(kHeader + bytes))) return nullptr;
  std::memcpy(block, &bytes, sizeof bytes);
  return static_cast<char*>(block) + kHeader;
}

void keep_memory(char* memory) {
  if (size_of(memory) > kMostKept) return release_memory(memory);
  release_memory(spare.exchange(memory, std::memory_order_acq_rel));
}

}  // namespace onekv
