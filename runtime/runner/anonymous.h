// Memory for caches and arenas that costs what was written to it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onekv::runner {

// Zeroed pages that are taken from the system when they are first written. Without huge pages,
// with which a few rows would cost megabytes.
class AnonymousMemory {
 public:
  // Throws Failure(kOutOfMemory) that names `what`.
  AnonymousMemory(size_t bytes, const char* what);
  ~AnonymousMemory();
  AnonymousMemory(AnonymousMemory&& other) noexcept;
  AnonymousMemory(const AnonymousMemory&) = delete;
  AnonymousMemory& operator=(const AnonymousMemory&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace onekv::runner
