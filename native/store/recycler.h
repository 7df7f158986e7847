// Memory of freed segments, kept for its own namespace: touched pages are dear. Given up when the tier is short. Memory
// never moves from one namespace to another here.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tier/dram.h"

namespace millrace {

class Recycler {
 public:
  // `kept_bytes_max`: of a namespace.
  explicit Recycler(uint64_t kept_bytes_max) : kept_bytes_max_(kept_bytes_max) {}

  // Whether it was kept.
  bool put(uint64_t owner, std::shared_ptr<SharedMemory> memory) {
    std::lock_guard lock(mutex_);
    Kept& kept = kept_[owner];
    if (kept.bytes + memory->bytes() > kept_bytes_max_) return false;
    kept.bytes += memory->bytes();
    bytes_ += memory->bytes();
    kept.memory.push_back(std::move(memory));
    return true;
  }

  // Memory of exactly `bytes`, or of any larger size where `bytes_max` allows; null where there is none.
  std::shared_ptr<SharedMemory> take(uint64_t owner, uint64_t bytes, uint64_t bytes_max) {
    std::lock_guard lock(mutex_);
    auto found = kept_.find(owner);
    if (found == kept_.end()) return nullptr;
    auto& list = found->second.memory;
    for (auto it = list.begin(); it != list.end(); ++it) {
      if ((*it)->bytes() < bytes || (*it)->bytes() > bytes_max) continue;
      auto memory = std::move(*it);
      list.erase(it);
      found->second.bytes -= memory->bytes();
      bytes_ -= memory->bytes();
      return memory;
    }
    return nullptr;
  }

  void forget(uint64_t owner) {
    Kept gone;  // unmapped after the lock
    std::lock_guard lock(mutex_);
    auto found = kept_.find(owner);
    if (found == kept_.end()) return;
    gone = std::move(found->second);
    bytes_ -= gone.bytes;
    kept_.erase(found);
  }

  // What is kept in all.
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

  // Gives at least `bytes` back to the kernel where it has them. Whether it had anything.
  bool give_up(uint64_t bytes) {
    std::vector<std::shared_ptr<SharedMemory>> gone;  // unmapped after the lock
    std::lock_guard lock(mutex_);
    uint64_t freed = 0;
    for (auto& [owner, kept] : kept_) {
      while (freed < bytes && !kept.memory.empty()) {
        freed += kept.memory.back()->bytes();
        kept.bytes -= kept.memory.back()->bytes();
        gone.push_back(std::move(kept.memory.back()));
        kept.memory.pop_back();
      }
    }
    bytes_ -= freed;
    return freed > 0;
  }

 private:
  struct Kept {
    uint64_t bytes = 0;
    std::vector<std::shared_ptr<SharedMemory>> memory;
  };
  const uint64_t kept_bytes_max_;
  std::mutex mutex_;
  std::atomic<uint64_t> bytes_{0};
  std::map<uint64_t, Kept> kept_;
};

}  // namespace millrace
