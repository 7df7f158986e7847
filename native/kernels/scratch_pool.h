// Scratch for callers that come on whatever thread: borrowed for a call, given back after it. What lies idle
// is bounded, so one huge sort does not keep its memory for good.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/units.h"
#include "kernels/scratch.h"

namespace millrace {

class ScratchPool {
 public:
  explicit ScratchPool(uint64_t idle_bytes_max = 256 * MiB) : idle_bytes_max_(idle_bytes_max) {}

  class Lease {
   public:
    Lease(ScratchPool& pool, std::unique_ptr<Scratch> scratch) : pool_(&pool), scratch_(std::move(scratch)) {}
    Lease(Lease&&) = default;
    ~Lease() {
      if (scratch_) pool_->give_back(std::move(scratch_));
    }
    Scratch& operator*() { return *scratch_; }

   private:
    ScratchPool* pool_;
    std::unique_ptr<Scratch> scratch_;
  };

  // The largest idle one, or a new one.
  Lease borrow() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_.empty()) return Lease(*this, std::make_unique<Scratch>());
    size_t largest = 0;
    for (size_t i = 1; i < idle_.size(); ++i) {
      if (idle_[i]->capacity_bytes() > idle_[largest]->capacity_bytes()) largest = i;
    }
    std::unique_ptr<Scratch> scratch = std::move(idle_[largest]);
    idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(largest));
    idle_bytes_ -= scratch->capacity_bytes();
    return Lease(*this, std::move(scratch));
  }

 private:
  void give_back(std::unique_ptr<Scratch> scratch) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_bytes_ + scratch->capacity_bytes() > idle_bytes_max_) return;
    idle_bytes_ += scratch->capacity_bytes();
    idle_.push_back(std::move(scratch));
  }

  const uint64_t idle_bytes_max_;
  std::mutex mutex_;
  uint64_t idle_bytes_ = 0;
  std::vector<std::unique_ptr<Scratch>> idle_;
};

}  // namespace millrace
