#include "segment/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

namespace millrace {

namespace {

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

}  // namespace

SharedMemory::~SharedMemory() {
  if (!path_.empty() && !kept_) unlink(path_.c_str());
  if (fd_ >= 0) close(fd_);
  mapping_.reset();
  if (on_freed_) on_freed_();
}

Status SharedMemory::open(const char* name, unsigned flags, uint64_t bytes) {
  fd_ = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
  if (fd_ < 0) return Status::from_errno("memfd_create", errno);
  return resize(bytes);
}

// The path is ours only once the file is: what cannot be opened is not removed either.
Status SharedMemory::open_path(const std::string& path, int flags) {
  fd_ = ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) return Status::from_errno(path.c_str(), errno);
  path_ = path;
  return Status();
}

Status SharedMemory::resize(uint64_t bytes) {
  if (ftruncate(fd_, static_cast<off_t>(bytes)) != 0) return Status::from_errno("ftruncate", errno);
  file_bytes_ = bytes;
  return Status();
}

Status SharedMemory::map(bool populate, int seals) {
  if (path_.empty()) {
    fcntl(fd_, F_ADD_SEALS, seals);
    fchmod(fd_, 0444);  // a read-only descriptor cannot be reopened for writing by another user
  }
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

Result<std::shared_ptr<SharedMemory>> SharedMemory::create_touched_file(const std::string& path, uint64_t bytes, bool huge) {
  std::shared_ptr<SharedMemory> memory(new SharedMemory);
  memory->huge_ = huge;
  Status failed = memory->open_path(path, O_RDWR | O_CREAT | O_EXCL);
  if (failed.ok()) failed = memory->resize(bytes);
  if (failed.ok()) failed = memory->take(0, bytes);
  if (failed.ok()) failed = memory->map(true, 0);
  if (!failed.ok()) return failed;
  return memory;
}

Result<std::shared_ptr<SharedMemory>> SharedMemory::create_sparse_file(const std::string& path, uint64_t bytes) {
  std::shared_ptr<SharedMemory> memory(new SharedMemory);
  Status failed = memory->open_path(path, O_RDWR | O_CREAT | O_EXCL);
  if (failed.ok()) failed = memory->resize(bytes);
  if (failed.ok()) failed = memory->map(false, 0);
  if (!failed.ok()) return failed;
  return memory;
}

Result<std::shared_ptr<SharedMemory>> SharedMemory::open_file(const std::string& path, Mapping::Access access, bool huge) {
  std::shared_ptr<SharedMemory> memory(new SharedMemory);
  memory->huge_ = huge;
  // Kept until all has worked: a failure to map is no reason to remove what may hold objects.
  memory->kept_ = true;
  if (Status failed = memory->open_path(path, access == Mapping::Access::kWrite ? O_RDWR : O_RDONLY); !failed.ok()) return failed;
  struct stat file{};
  if (fstat(memory->fd_, &file) != 0) return Status::from_errno(path.c_str(), errno);
  if (!S_ISREG(file.st_mode) || file.st_size <= 0) return Status(Code::kCorrupt, path + " is empty or no file");
  memory->file_bytes_ = static_cast<uint64_t>(file.st_size);
  // Pages of 4 KiB come in as they are touched, many at a time; those of 2 MiB cost next to nothing now.
  auto mapping = Mapping::map(memory->fd_, memory->file_bytes_, access, huge);
  if (!mapping.ok()) return mapping.status();
  memory->mapping_ = *mapping;
  memory->kept_ = false;
  return memory;
}

Status SharedMemory::rename_to(const std::string& path) {
  if (rename(path_.c_str(), path.c_str()) != 0) return Status::from_errno(("rename to " + path).c_str(), errno);
  path_ = path;
  return Status();
}

Status SharedMemory::take(uint64_t offset, uint64_t bytes) {
  while (fallocate(fd_, 0, static_cast<off_t>(offset), static_cast<off_t>(bytes)) != 0) {
    if (errno == EINTR) continue;
    if (errno != ENOSPC && errno != ENOMEM) return Status::from_errno("fallocate", errno);
    return Status(Code::kResourceExhausted, "the file system is full under " + path_.substr(0, path_.rfind('/')));
  }
  return Status();
}

Result<int> SharedMemory::read_only_fd() const {
  const std::string path = "/proc/self/fd/" + std::to_string(fd_);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Status::from_errno("open a segment read-only", errno);
  return fd;
}

}  // namespace millrace
