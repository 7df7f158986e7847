// Reads and writes of files under way, driven by one thread: io_uring, or threads that call pread and pwrite. Private
// to this folder.
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace millrace {

enum class FileBackend;

// What direct I/O asks of offsets, lengths and addresses.
inline constexpr uint64_t kFileBlockBytes = 4096;

// One read or write, carried on until all of it is done, it fails, or the file ends. The owner keeps it where it is
// until it comes back.
struct FileOperation {
  int fd = -1;
  bool write = false;
  uint8_t* data = nullptr;
  uint64_t offset = 0;
  uint64_t bytes = 0;

  uint64_t done = 0;    // bytes moved; fewer than `bytes` without an error: the file ends there
  int error = 0;        // errno
  uint32_t stalls = 0;  // results in a row that moved nothing
};

class FileQueue {
 public:
  // UNSUPPORTED where this machine does not have the backend. With `wakeable` another thread may call wake().
  static Result<std::unique_ptr<FileQueue>> make(FileBackend backend, uint32_t depth, bool wakeable);
  // Nothing may be under way.
  virtual ~FileQueue() = default;

  // Takes on one more; no more than `depth` at a time. It may begin only with the next start() or collect().
  virtual void submit(FileOperation* operation) = 0;
  virtual void start() = 0;
  // Appends those that have ended. With `wait` there is at least one, unless wake() was called.
  virtual void collect(std::vector<FileOperation*>* ended, bool wait) = 0;
  // Makes the collect() that waits, or the next one, return. From any thread.
  virtual void wake() = 0;
};

// Runs one on the calling thread.
void run_file_operation(FileOperation* operation);

// Takes what the kernel said of an attempt at the rest of the operation: bytes moved or minus errno. True where the
// operation has ended. Every result of every backend passes here.
bool settle(FileOperation* operation, int64_t result);

#ifdef MILLRACE_LIBURING
Result<std::unique_ptr<FileQueue>> make_uring_queue(uint32_t depth, bool wakeable);
#endif

}  // namespace millrace
