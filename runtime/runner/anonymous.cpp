#include "anonymous.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "failure.h"

namespace onekv::runner {

AnonymousMemory::AnonymousMemory(size_t bytes, const char* what) : size_(bytes) {
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    throw Failure(Kind::kOutOfMemory,
                  std::to_string(bytes) + " bytes for " + what + ": " + std::strerror(errno));
  data_ = static_cast<uint8_t*>(memory);
  madvise(memory, bytes, MADV_NOHUGEPAGE);
}

AnonymousMemory::AnonymousMemory(AnonymousMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AnonymousMemory::~AnonymousMemory() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace onekv::runner
