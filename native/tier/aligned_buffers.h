// Buffers for direct I/O, of the whole process: what one read or writer gives back the next takes, because the
// first touch of a fresh page costs more than reading it from the device.
#pragma once
#include <cstdint>
#include <utility>

#include "base/status.h"

namespace millrace {

// Memory aligned to 4096 bytes (to 2 MiB where it is as large), in huge pages where the kernel gives them. Goes back
// to the pool at its end. What is in it is what the last user left.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(uint8_t* data, uint64_t capacity_bytes) : data_(data), capacity_bytes_(capacity_bytes) {}
  ~AlignedBuffer() { reset(); }
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_bytes_, other.capacity_bytes_);
    return *this;
  }

  uint8_t* data() const { return data_; }
  uint64_t capacity_bytes() const { return capacity_bytes_; }

 private:
  void reset();
  uint8_t* data_ = nullptr;
  uint64_t capacity_bytes_ = 0;
};

// At least `bytes` (> 0). RESOURCE_EXHAUSTED where the kernel has no memory.
Result<AlignedBuffer> take_aligned_buffer(uint64_t bytes);

// Bytes that the pool keeps for later: at most limits::kFileBufferBytesKept.
uint64_t pooled_buffer_bytes();

}  // namespace millrace
