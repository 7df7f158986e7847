// Memory for payloads that a client receives: touched pages are dear, so buffers are used again.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/units.h"

namespace millrace {

class PayloadPool;

// Owns its bytes; gives them back to its pool (or the kernel) at the end.
class PayloadBuffer {
 public:
  PayloadBuffer() = default;
  PayloadBuffer(PayloadBuffer&& other) noexcept { *this = std::move(other); }
  PayloadBuffer& operator=(PayloadBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    std::swap(pool_, other.pool_);
    return *this;
  }
  inline ~PayloadBuffer();

  uint8_t* data() { return data_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  friend class PayloadPool;
  uint8_t* data_ = nullptr;
  uint64_t capacity_ = 0;
  std::shared_ptr<PayloadPool> pool_;
};

class PayloadPool : public std::enable_shared_from_this<PayloadPool> {
 public:
  static constexpr uint64_t kKeptBytesMax = 128 * MiB;

  ~PayloadPool() {
    for (auto& [data, capacity] : kept_) munmap(data, capacity);
  }

  // Empty where there is no memory.
  PayloadBuffer take(uint64_t bytes) {
    constexpr uint64_t kHugePageBytes = 2 * MiB;
    const uint64_t capacity = align_up(bytes, bytes >= kHugePageBytes ? kHugePageBytes : 64 * KiB);
    PayloadBuffer buffer;
    {
      std::lock_guard lock(mutex_);
      for (auto it = kept_.begin(); it != kept_.end(); ++it) {
        if (it->second < bytes || it->second > 2 * capacity) continue;
        buffer.data_ = it->first;
        buffer.capacity_ = it->second;
        buffer.pool_ = shared_from_this();
        kept_bytes_ -= it->second;
        kept_.erase(it);
        return buffer;
      }
    }
    void* at = mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return buffer;
    if (capacity >= kHugePageBytes) madvise(at, capacity, MADV_HUGEPAGE);
    buffer.data_ = static_cast<uint8_t*>(at);
    buffer.capacity_ = capacity;
    buffer.pool_ = shared_from_this();
    return buffer;
  }

 private:
  friend class PayloadBuffer;
  void put(uint8_t* data, uint64_t capacity) {
    {
      std::lock_guard lock(mutex_);
      if (kept_bytes_ + capacity <= kKeptBytesMax) {
        kept_.emplace_back(data, capacity);
        kept_bytes_ += capacity;
        return;
      }
    }
    munmap(data, capacity);
  }

  std::mutex mutex_;
  std::vector<std::pair<uint8_t*, uint64_t>> kept_;
  uint64_t kept_bytes_ = 0;
};

inline PayloadBuffer::~PayloadBuffer() {
  if (data_ != nullptr) pool_->put(data_, capacity_);
}

}  // namespace millrace
