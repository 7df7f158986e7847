#include "tier/segment_file.h"

#include <unistd.h>

#include <utility>

namespace millrace {

SegmentFile::SegmentFile(int fd, uint64_t bytes, std::string path) : fd_(fd), bytes_(bytes), path_(std::move(path)) {}

SegmentFile::~SegmentFile() {
  if (!path_.empty() && !kept_) unlink(path_.c_str());
  close(fd_);
  if (on_freed_) on_freed_();
}

}  // namespace millrace
