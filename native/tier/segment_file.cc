#include "tier/segment_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "tier/file_queue.h"

namespace millrace {

int open_direct(const char* path, int flags) {
  const int fd = ::open(path, flags | O_DIRECT | O_CLOEXEC, 0600);
  if (fd >= 0 || errno != EINVAL) return fd;
  return ::open(path, (flags & ~O_EXCL) | O_CLOEXEC, 0600);
}

Result<OpenedFile> open_segment_file(const std::string& path) {
  const int fd = open_direct(path.c_str(), O_RDONLY);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return Status(Code::kNotFound, "there is no " + path);
  if (fd < 0) return Status::from_errno(("open " + path).c_str(), errno);
  struct stat found {};
  if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode) || found.st_size % kFileBlockBytes != 0) {
    close(fd);
    return Status(Code::kCorrupt, path + " is not a file of whole blocks");
  }
  return OpenedFile{fd, static_cast<uint64_t>(found.st_size)};
}

SegmentFile::SegmentFile(int fd, uint64_t bytes, std::string path) : fd_(fd), bytes_(bytes), path_(std::move(path)) {}

SegmentFile::~SegmentFile() {
  if (!path_.empty() && !kept_) unlink(path_.c_str());
  close(fd_);
  if (on_freed_) on_freed_();
}

}  // namespace millrace
