#include "duckdb/arena.h"

#include <sys/mman.h>

#include <mutex>
#include <new>

namespace millrace::duckdb {
namespace {

constexpr uint64_t kSlabBytes = 2 * MiB;  // a huge page, where the system gives one
constexpr uint64_t kPieceAlignment = 64;

uint8_t* map(uint64_t bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint8_t*>(mapped);
}

// Aligned to its size: only then it can be a huge page.
uint8_t* map_slab() {
  uint8_t* first = map(2 * kSlabBytes);
  const uint64_t head = align_up(reinterpret_cast<uintptr_t>(first), kSlabBytes) - reinterpret_cast<uintptr_t>(first);
  if (head != 0) munmap(first, head);
  if (head != kSlabBytes) munmap(first + head + kSlabBytes, kSlabBytes - head);
  madvise(first + head, kSlabBytes, MADV_HUGEPAGE);
  return first + head;
}

struct Idle {
  std::mutex mutex;
  std::vector<uint8_t*> slabs;
};

Idle& idle() {
  static auto* const instance = new Idle;  // outlives every thread
  return *instance;
}

uint8_t* take_slab() {
  {
    const std::lock_guard<std::mutex> lock(idle().mutex);
    if (!idle().slabs.empty()) {
      uint8_t* slab = idle().slabs.back();
      idle().slabs.pop_back();
      return slab;
    }
  }
  return map_slab();
}

// So that what is mapped then is not lost for want of room to note it.
template <class T>
void make_room(std::vector<T>& list) {
  if (list.size() == list.capacity()) list.reserve(2 * list.size() + 8);
}

}  // namespace

Arena::~Arena() {
  for (const Large& large : large_) munmap(large.memory, large.bytes);
  size_t kept = 0;
  {
    const std::lock_guard<std::mutex> lock(idle().mutex);
    for (; kept < slabs_.size() && idle().slabs.size() < kArenaIdleBytesMax / kSlabBytes; ++kept) {
      idle().slabs.push_back(slabs_[kept]);
    }
  }
  for (size_t i = kept; i < slabs_.size(); ++i) munmap(slabs_[i], kSlabBytes);
}

uint8_t* Arena::take(uint64_t bytes) {
  const uint64_t rounded = align_up(bytes, kPieceAlignment);
  if (rounded < bytes) throw std::bad_alloc();
  if (rounded > kSlabBytes) {
    make_room(large_);
    uint8_t* memory = map(rounded);
    large_.push_back({memory, rounded});
    return memory;
  }
  if (rounded > left_) {
    make_room(slabs_);
    slabs_.push_back(take_slab());
    left_ = kSlabBytes;
  }
  uint8_t* piece = slabs_.back() + (kSlabBytes - left_);
  left_ -= rounded;
  return piece;
}

}  // namespace millrace::duckdb
