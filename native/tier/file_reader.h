// Reads of segment files, many at once, on a thread of its own: io_uring where the kernel has it, else a pool of
// threads with pread. The daemon reads with it for remote clients, a same-host client for itself.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/status.h"
#include "base/units.h"
#include "tier/segment_file.h"

namespace millrace {

enum class FileBackend { kUring, kThreads };
// The better one that works here, found out by trying.
FileBackend file_backend();

// Bytes of a file, in memory that came from a pool and goes back to it with the last keeper.
struct FileBytes {
  std::shared_ptr<void> keeper;
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
};

class FileReader {
 public:
  struct Options {
    uint32_t queue_depth = 16;       // reads in flight
    uint64_t piece_bytes = 1 * MiB;  // what one read asks for at most
    std::optional<FileBackend> backend;
  };
  explicit FileReader(Options options);
  FileReader() : FileReader(Options()) {}
  // Waits for the reads under way; those that have not begun fail with CLOSED. On the reader's own thread (the last
  // owner went with a `done`) it does not wait.
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  FileBackend backend() const;

  // `done` runs on the reader's thread and must not block. Any offset and length; what is not on blocks of
  // 4096 bytes is read with the blocks around it. OUT_OF_RANGE past the end of the file; CORRUPT where the file is
  // shorter than it was; SYSTEM with the kernel's word for everything else, which names the file's path;
  // RESOURCE_EXHAUSTED where there is no memory for the bytes.
  using Done = std::function<void(Result<FileBytes>)>;
  void read(std::shared_ptr<SegmentFile> file, uint64_t offset, uint64_t bytes, Done done);
  // The same for who can wait, but not on the reader's thread.
  Result<FileBytes> read_now(std::shared_ptr<SegmentFile> file, uint64_t offset, uint64_t bytes);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace millrace
