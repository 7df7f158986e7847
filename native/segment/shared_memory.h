// Shared-memory files: what segments, indexes and rings lie in.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "segment/mapping.h"

namespace millrace {

// One shared-memory file, mapped in this process. Nobody who is handed the descriptor of a nameless one can grow or
// shrink it: a page that goes away is a SIGBUS for all who map it. Files with names lie on a tmpfs or hugetlbfs and
// can be found again by a later process. The kernel seals none of them: who is handed a writable descriptor of one
// could shrink it.
class SharedMemory {
 public:
  // For segments: all pages taken and touched, zeroed; in pages of 2 MiB if `huge`. SYSTEM where the kernel has
  // no such pages.
  static Result<std::shared_ptr<SharedMemory>> create_touched(const char* name, uint64_t bytes, bool huge);
  // For index files and session rings: sparse, takes memory as it is touched.
  static Result<std::shared_ptr<SharedMemory>> create_sparse(const char* name, uint64_t bytes);
  // The same as files at `path`, where none may be yet, for this user alone. `huge` says that it is a hugetlbfs.
  // RESOURCE_EXHAUSTED where the file system is full.
  static Result<std::shared_ptr<SharedMemory>> create_touched_file(const std::string& path, uint64_t bytes, bool huge);
  static Result<std::shared_ptr<SharedMemory>> create_sparse_file(const std::string& path, uint64_t bytes);
  // A file that an earlier process left. It is removed at the end like one that was made here.
  static Result<std::shared_ptr<SharedMemory>> open_file(const std::string& path, Mapping::Access access, bool huge);

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

  // Of one with a name; else empty. The file is removed at the end unless it is to be kept.
  const std::string& path() const { return path_; }
  // Replaces what lies at `path`, on the same file system. For who owns the memory alone.
  Status rename_to(const std::string& path);
  void keep(bool keep = true) { kept_ = keep; }
  // Takes the bytes of a sparse file before they are touched: on a full file system that would be a SIGBUS.
  Status take(uint64_t offset, uint64_t bytes);

  // Runs at the end, which may be long after that of its maker. Set before the memory is shared.
  void on_freed(std::function<void()> callback) { on_freed_ = std::move(callback); }

 private:
  SharedMemory() = default;
  Status open(const char* name, unsigned flags, uint64_t bytes);
  Status open_path(const std::string& path, int flags);
  Status resize(uint64_t bytes);
  Status map(bool populate, int seals);

  int fd_ = -1;
  std::string path_;
  bool kept_ = false;
  uint64_t file_bytes_ = 0;
  bool huge_ = false;
  std::shared_ptr<Mapping> mapping_;
  std::function<void()> on_freed_;
};

}  // namespace millrace
