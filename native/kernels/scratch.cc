#include "kernels/scratch.h"

#include <sys/mman.h>

#include <algorithm>
#include <string>

namespace millrace {
namespace {

constexpr uint64_t kHugePageBytes = 2 * MiB;
constexpr uint64_t kPieceAlignment = 64;
constexpr uint64_t kScratchBytesMax = 1 * TiB;

}  // namespace

Scratch::~Scratch() {
  if (memory_ != nullptr) munmap(memory_, capacity_);
}

Status Scratch::reserve(uint64_t bytes, uint32_t pieces) {
  taken_ = 0;
  if (bytes > kScratchBytesMax) {
    return Status(Code::kResourceExhausted, std::to_string(bytes) + " bytes of working memory are too many");
  }
  const uint64_t needed = bytes + pieces * kPieceAlignment;
  if (needed <= capacity_) return Status();
  // A quarter more than asked, so that slowly growing inputs do not map anew every time.
  const uint64_t capacity = align_up(std::max(needed, capacity_ + capacity_ / 4), kHugePageBytes);
  // One huge page more than needed, to cut an aligned run out of it: only aligned runs get huge pages.
  void* mapped =
      mmap(nullptr, capacity + kHugePageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    return Status(Code::kResourceExhausted,
                  "the system gave no " + std::to_string(capacity) + " bytes of working memory");
  }
  auto* first = static_cast<uint8_t*>(mapped);
  const uint64_t head =
      align_up(reinterpret_cast<uintptr_t>(first), kHugePageBytes) - reinterpret_cast<uintptr_t>(first);
  if (head != 0) munmap(first, head);
  if (head != kHugePageBytes) munmap(first + head + capacity, kHugePageBytes - head);
  madvise(first + head, capacity, MADV_HUGEPAGE);
  if (memory_ != nullptr) munmap(memory_, capacity_);
  memory_ = first + head;
  capacity_ = capacity;
  return Status();
}

uint8_t* Scratch::take_bytes(uint64_t bytes) {
  const uint64_t rounded = align_up(bytes, kPieceAlignment);
  MILLRACE_ASSERT(rounded >= bytes && rounded <= capacity_ - taken_);
  uint8_t* piece = memory_ + taken_;
  taken_ += rounded;
  return piece;
}

}  // namespace millrace
