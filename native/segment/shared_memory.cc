#include "segment/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

namespace millrace {

namespace {

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

}  // namespace

SharedMemory::~SharedMemory() {
  if (fd_ >= 0) close(fd_);
  mapping_.reset();
  if (on_freed_) on_freed_();
}

Status SharedMemory::open(const char* name, unsigned flags, uint64_t bytes) {
  fd_ = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
  if (fd_ < 0) return Status::from_errno("memfd_create", errno);
  if (ftruncate(fd_, static_cast<off_t>(bytes)) != 0) return Status::from_errno("ftruncate", errno);
  file_bytes_ = bytes;
  return Status();
}

Status SharedMemory::map(bool populate, int seals) {
  fcntl(fd_, F_ADD_SEALS, seals);
  fchmod(fd_, 0444);  // a read-only descriptor cannot be reopened for writing by another user
  auto mapping = Mapping::map(fd_, file_bytes_, Mapping::Access::kWrite, populate);
  if (!mapping.ok()) return mapping.status();
  mapping_ = *mapping;
  return Status();
}

Result<std::shared_ptr<SharedMemory>> SharedMemory::create_touched(const char* name, uint64_t bytes, bool huge) {
  std::shared_ptr<SharedMemory> memory(new SharedMemory);
  memory->huge_ = huge;
  Status failed = memory->open(name, huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0, bytes);
  if (!failed.ok()) return failed;
  // Takes the pages now: without it a shortage of huge pages would be a SIGBUS at first touch.
  if (fallocate(memory->fd_, 0, 0, static_cast<off_t>(bytes)) != 0) return Status::from_errno("fallocate", errno);
  // Nor may a client that was granted a segment add a seal of its own: with F_SEAL_FUTURE_WRITE nobody after it
  // could be granted this memory.
  failed = memory->map(true, kSizeSeals | F_SEAL_SEAL);
  if (!failed.ok()) return failed;
  return memory;
}

Result<std::shared_ptr<SharedMemory>> SharedMemory::create_sparse(const char* name, uint64_t bytes) {
  std::shared_ptr<SharedMemory> memory(new SharedMemory);
  Status failed = memory->open(name, 0, bytes);
  if (failed.ok()) failed = memory->map(false, kSizeSeals);
  if (!failed.ok()) return failed;
  return memory;
}

Result<int> SharedMemory::read_only_fd() const {
  const std::string path = "/proc/self/fd/" + std::to_string(fd_);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Status::from_errno("open a segment read-only", errno);
  return fd;
}

}  // namespace millrace
