#include "tier/file_queue.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "tier/file_faults.h"
#include "tier/file_reader.h"

namespace millrace {

namespace {

constexpr uint32_t kThreadsMax = 8;
// Interrupted or refused so often in a row, an operation has failed.
constexpr uint32_t kStallsMax = 64;

int64_t with_faults(const FileOperation& operation, int64_t result) {
  FileFaults& faults = file_faults();
  const int error = (operation.write ? faults.write_error : faults.read_error).load(std::memory_order_relaxed);
  if (error != 0) {
    if (!operation.write) return -error;
    uint64_t before = faults.writes_before.load(std::memory_order_relaxed);
    do {
      if (before == 0) return -error;
    } while (!faults.writes_before.compare_exchange_weak(before, before - 1, std::memory_order_relaxed));
  }
  const uint64_t most = faults.short_bytes.load(std::memory_order_relaxed);
  if (most == 0 || result <= 0) return result;
  // As a device would: in whole blocks.
  return std::min(result, static_cast<int64_t>(std::max(most & ~(kFileBlockBytes - 1), kFileBlockBytes)));
}

class ThreadQueue final : public FileQueue {
 public:
  explicit ThreadQueue(uint32_t depth) {
    for (uint32_t i = 0; i < std::min(depth, kThreadsMax); ++i) threads_.emplace_back([this] { run(); });
  }
  ~ThreadQueue() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void submit(FileOperation* operation) override {
    {
      std::lock_guard lock(mutex_);
      submitted_.push_back(operation);
    }
    work_.notify_one();
  }
  void start() override {}
  void collect(std::vector<FileOperation*>* ended, bool wait) override {
    std::unique_lock lock(mutex_);
    if (wait) progress_.wait(lock, [this] { return !ended_.empty() || woken_; });
    woken_ = false;
    ended->insert(ended->end(), ended_.begin(), ended_.end());
    ended_.clear();
  }
  void wake() override {
    {
      std::lock_guard lock(mutex_);
      woken_ = true;
    }
    progress_.notify_one();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      work_.wait(lock, [this] { return !submitted_.empty() || stopping_; });
      if (submitted_.empty()) return;
      FileOperation* const operation = submitted_.front();
      submitted_.pop_front();
      lock.unlock();
      run_file_operation(operation);
      lock.lock();
      ended_.push_back(operation);
      progress_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable progress_;
  std::deque<FileOperation*> submitted_;
  std::vector<FileOperation*> ended_;
  bool woken_ = false;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

FileFaults& file_faults() {
  static FileFaults faults;
  return faults;
}

bool settle(FileOperation* operation, int64_t result) {
  result = with_faults(*operation, result);
  uint64_t moved = 0;
  if (result < 0) {
    // io_uring cancels what waits to begin when the thread that submitted it ends.
    if (result != -EINTR && result != -EAGAIN && result != -ECANCELED) {
      operation->error = static_cast<int>(-result);
      return true;
    }
  } else if (static_cast<uint64_t>(result) == operation->bytes - operation->done) {
    operation->done = operation->bytes;
    return true;
  } else {
    // The next attempt must begin on a block again.
    moved = static_cast<uint64_t>(result) & ~(kFileBlockBytes - 1);
    if (moved == 0 && !operation->write) {
      operation->done += static_cast<uint64_t>(result);
      return true;
    }
  }
  operation->done += moved;
  operation->stalls = moved > 0 ? 0 : operation->stalls + 1;
  if (operation->stalls < kStallsMax) return false;
  operation->error = result < 0 ? static_cast<int>(-result) : EIO;
  return true;
}

void run_file_operation(FileOperation* operation) {
  for (;;) {
    uint8_t* const data = operation->data + operation->done;
    const uint64_t bytes = operation->bytes - operation->done;
    const auto offset = static_cast<off_t>(operation->offset + operation->done);
    const ssize_t moved =
        operation->write ? pwrite(operation->fd, data, bytes, offset) : pread(operation->fd, data, bytes, offset);
    if (settle(operation, moved < 0 ? -errno : moved)) return;
  }
}

Result<std::unique_ptr<FileQueue>> FileQueue::make(FileBackend backend, uint32_t depth,
                                                   [[maybe_unused]] bool wakeable) {
  MILLRACE_ASSERT(depth > 0);
  if (backend == FileBackend::kThreads) return std::unique_ptr<FileQueue>(std::make_unique<ThreadQueue>(depth));
#ifdef MILLRACE_LIBURING
  return make_uring_queue(depth, wakeable);
#else
  return Status(Code::kUnsupported, "built without liburing");
#endif
}

}  // namespace millrace
