// Writable mappings of retired segments, kept for a moment: the daemon recycles a segment's memory within its
// namespace, and a mapping that is there already spares the next grant a fault a page. The file tells that it is
// the same memory. What is kept is confirmed as unmapped, so memory that the daemon gives back to the kernel
// meanwhile lives that moment longer; hence the bounds.
#pragma once
#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

#include "base/units.h"
#include "segment/mapping.h"

namespace millrace {

// Which file a mapping is of.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;  // 0: not known
  bool operator==(const FileIdentity&) const = default;

  static FileIdentity of(int fd) {
    struct stat info {};
    if (fstat(fd, &info) != 0) return {};
    return {info.st_dev, info.st_ino};
  }
};

// Thread-safe.
class MappingCache {
 public:
  static constexpr uint64_t kKeptBytesMax = 256 * MiB;
  static constexpr auto kKeptFor = std::chrono::seconds(2);
  using Clock = std::chrono::steady_clock;

  void put(FileIdentity file, std::shared_ptr<Mapping> mapping) {
    std::deque<Kept> gone;  // unmapped after the lock
    std::lock_guard lock(mutex_);
    if (file.inode == 0 || mapping->bytes() > kKeptBytesMax) return;
    kept_bytes_ += mapping->bytes();
    kept_.push_back({file, std::move(mapping), Clock::now() + kKeptFor});
    while (kept_bytes_ > kKeptBytesMax) gone.push_back(pop_oldest());
  }

  // Null where it is not kept.
  std::shared_ptr<Mapping> take(FileIdentity file, uint64_t bytes) {
    std::lock_guard lock(mutex_);
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
      if (it->file != file || it->mapping->bytes() != bytes) continue;
      auto mapping = std::move(it->mapping);
      kept_bytes_ -= bytes;
      kept_.erase(it);
      return mapping;
    }
    return nullptr;
  }

  void drop_old(Clock::time_point now) {
    std::deque<Kept> gone;
    std::lock_guard lock(mutex_);
    while (!kept_.empty() && kept_.front().until <= now) gone.push_back(pop_oldest());
  }

 private:
  struct Kept {
    FileIdentity file;
    std::shared_ptr<Mapping> mapping;
    Clock::time_point until;
  };
  Kept pop_oldest() {
    Kept oldest = std::move(kept_.front());
    kept_.pop_front();
    kept_bytes_ -= oldest.mapping->bytes();
    return oldest;
  }

  std::mutex mutex_;
  std::deque<Kept> kept_;
  uint64_t kept_bytes_ = 0;
};

}  // namespace millrace
