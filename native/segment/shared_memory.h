// Shared-memory files: what segments, indexes and rings lie in.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "base/status.h"
#include "segment/mapping.h"

namespace millrace {

// One shared-memory file, mapped read-write in this process. Nobody who is handed its descriptor can grow or
// shrink it: a page that goes away is a SIGBUS for all who map it.
class SharedMemory {
 public:
  // For segments: all pages taken and touched, zeroed; in pages of 2 MiB if `huge`. SYSTEM where the kernel has
  // no such pages.
  static Result<std::shared_ptr<SharedMemory>> create_touched(const char* name, uint64_t bytes, bool huge);
  // For index files and session rings: sparse, takes memory as it is touched.
  static Result<std::shared_ptr<SharedMemory>> create_sparse(const char* name, uint64_t bytes);

  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  uint8_t* data() { return mapping_->data(); }
  const uint8_t* data() const { return mapping_->data(); }
  uint64_t bytes() const { return mapping_->bytes(); }
  bool huge() const { return huge_; }
  const std::shared_ptr<Mapping>& mapping() const { return mapping_; }
  int fd() const { return fd_; }     // read-write
  Result<int> read_only_fd() const;  // a new descriptor; the caller closes it

  // Runs at the end, which may be long after that of its maker. Set before the memory is shared.
  void on_freed(std::function<void()> callback) { on_freed_ = std::move(callback); }

 private:
  SharedMemory() = default;
  Status open(const char* name, unsigned flags, uint64_t bytes);
  Status map(bool populate, int seals);

  int fd_ = -1;
  uint64_t file_bytes_ = 0;
  bool huge_ = false;
  std::shared_ptr<Mapping> mapping_;
  std::function<void()> on_freed_;
};

}  // namespace millrace
