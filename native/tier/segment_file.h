// A segment of the `nvme` tier as a file that is complete: written once, read by whoever holds a descriptor.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"

namespace millrace {

// Opens past the page cache where the file system can.
int open_direct(const char* path, int flags);

// A finished file of segments, open for reading. NOT_FOUND; CORRUPT where it is not a file of whole blocks.
struct OpenedFile {
  int fd;
  uint64_t bytes;
};
Result<OpenedFile> open_segment_file(const std::string& path);

class SegmentFile {
 public:
  // Takes over `fd`, open for reading (with O_DIRECT where the file system has it). `path` is empty where this
  // process did not make the file: a client was handed the descriptor.
  SegmentFile(int fd, uint64_t bytes, std::string path = {});
  // Closes the descriptor and, where there is a path and nobody said `keep`, removes the file.
  ~SegmentFile();
  SegmentFile(const SegmentFile&) = delete;
  SegmentFile& operator=(const SegmentFile&) = delete;

  int fd() const { return fd_; }
  uint64_t bytes() const { return bytes_; }  // a multiple of 4096
  const std::string& path() const { return path_; }

  // The file stays when this ends: a later start of the node finds it again.
  void keep(bool keep = true) { kept_ = keep; }
  // Runs at the end. Set before the file is shared.
  void on_freed(std::function<void()> callback) { on_freed_ = std::move(callback); }

 private:
  int fd_;
  uint64_t bytes_;
  std::string path_;
  bool kept_ = false;
  std::function<void()> on_freed_;
};

}  // namespace millrace
