#include "tier/aligned_buffers.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/units.h"

namespace millrace {

namespace {

constexpr uint64_t kPooledBytesMin = 64 * KiB;
constexpr uint64_t kPooledBytesMax = 64 * MiB;
constexpr uint64_t kHugePageBytes = 2 * MiB;
constexpr uint64_t kPageBytes = 4096;
constexpr size_t kSizes = std::countr_zero(kPooledBytesMax) - std::countr_zero(kPooledBytesMin) + 1;

struct Pool {
  std::mutex mutex;
  std::array<std::vector<uint8_t*>, kSizes> buffers;  // by size: powers of two
  uint64_t kept_bytes = 0;
};

// Never destroyed: buffers may come back while the process ends.
Pool& pool() {
  static Pool* const instance = new Pool();
  return *instance;
}

size_t size_class(uint64_t capacity_bytes) {
  return static_cast<size_t>(std::countr_zero(capacity_bytes) - std::countr_zero(kPooledBytesMin));
}

uint8_t* map_fresh(uint64_t bytes) {
  const uint64_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : kPageBytes;
  const uint64_t spare = alignment - kPageBytes;
  void* mapped = mmap(nullptr, bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<uint8_t*>(mapped);
  const uint64_t head = align_up(reinterpret_cast<uintptr_t>(begin), alignment) - reinterpret_cast<uintptr_t>(begin);
  if (head > 0) munmap(begin, head);
  if (spare > head) munmap(begin + head + bytes, spare - head);
  if (alignment == kHugePageBytes) madvise(begin + head, bytes, MADV_HUGEPAGE);
  return begin + head;
}

}  // namespace

Result<AlignedBuffer> take_aligned_buffer(uint64_t bytes) {
  MILLRACE_ASSERT(bytes > 0);
  uint64_t capacity = 0;
  if (bytes <= kPooledBytesMax) {
    capacity = std::max(std::bit_ceil(bytes), kPooledBytesMin);
    Pool& pooled = pool();
    std::lock_guard lock(pooled.mutex);
    auto& buffers = pooled.buffers[size_class(capacity)];
    if (!buffers.empty()) {
      uint8_t* const data = buffers.back();
      buffers.pop_back();
      pooled.kept_bytes -= capacity;
      return AlignedBuffer(data, capacity);
    }
  } else if (bytes <= UINT64_MAX / 2) {
    capacity = align_up(bytes, kPageBytes);
  }
  uint8_t* const data = capacity > 0 ? map_fresh(capacity) : nullptr;
  if (data == nullptr) {
    return Status(Code::kResourceExhausted,
                  "no memory for a file buffer of " + std::to_string(bytes) + " bytes: " + std::strerror(ENOMEM));
  }
  return AlignedBuffer(data, capacity);
}

void AlignedBuffer::reset() {
  if (data_ == nullptr) return;
  uint8_t* const data = std::exchange(data_, nullptr);
  if (capacity_bytes_ > kPooledBytesMax) {
    munmap(data, capacity_bytes_);
    return;
  }
  std::vector<std::pair<uint8_t*, uint64_t>> dropped;
  {
    Pool& pooled = pool();
    std::lock_guard lock(pooled.mutex);
    const size_t own = size_class(capacity_bytes_);
    // What was in use just now is likelier to be wanted again than another size.
    for (size_t other = kSizes; other-- > 0 && pooled.kept_bytes + capacity_bytes_ > limits::kFileBufferBytesKept;) {
      auto& buffers = pooled.buffers[other];
      while (other != own && !buffers.empty() && pooled.kept_bytes + capacity_bytes_ > limits::kFileBufferBytesKept) {
        dropped.emplace_back(buffers.back(), kPooledBytesMin << other);
        buffers.pop_back();
        pooled.kept_bytes -= kPooledBytesMin << other;
      }
    }
    if (pooled.kept_bytes + capacity_bytes_ <= limits::kFileBufferBytesKept) {
      pooled.buffers[own].push_back(data);
      pooled.kept_bytes += capacity_bytes_;
    } else {
      dropped.emplace_back(data, capacity_bytes_);
    }
  }
  for (const auto& [memory, bytes] : dropped) munmap(memory, bytes);
}

uint64_t pooled_buffer_bytes() {
  Pool& pooled = pool();
  std::lock_guard lock(pooled.mutex);
  return pooled.kept_bytes;
}

}  // namespace millrace
