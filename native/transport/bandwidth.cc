#include "transport/bandwidth.h"

#include <algorithm>
#include <cmath>

#include "base/assert.h"

namespace millrace {

namespace {

int64_t to_ns(Bandwidth::TimePoint time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

// No debt is longer than 50 years, so that sums of a few cannot overflow.
constexpr int64_t kDebtNsMax = int64_t{50} * 365 * 86400 * 1000 * 1000 * 1000;

}  // namespace

Bandwidth::Bandwidth(uint64_t bytes_per_second, BandwidthClock clock)
    : bytes_per_second_(bytes_per_second),
      clock_(std::move(clock)),
      burst_bytes_(std::max(bytes_per_second / 1000 * kBurstMs, kBurstBytesMin)),
      burst_ns_(cost_ns(burst_bytes_)),
      full_at_ns_(to_ns(clock_())) {
  MILLRACE_ASSERT(bytes_per_second > 0);
}

// Rounded up, so that many small moves are not free.
int64_t Bandwidth::cost_ns(uint64_t bytes) const {
  const double ns = std::ceil(static_cast<double>(bytes) * 1e9 / static_cast<double>(bytes_per_second_));
  return ns < static_cast<double>(kDebtNsMax) ? static_cast<int64_t>(ns) : kDebtNsMax;
}

Bandwidth::TimePoint Bandwidth::spend(uint64_t bytes) {
  const int64_t now = to_ns(clock_());
  const int64_t cost = cost_ns(bytes);
  int64_t full_at = full_at_ns_.load(std::memory_order_relaxed);
  int64_t next;
  do {
    next = std::min(std::max(full_at, now) + cost, now + kDebtNsMax);
  } while (!full_at_ns_.compare_exchange_weak(full_at, next, std::memory_order_relaxed));
  const std::chrono::nanoseconds may_go_on(next - burst_ns_);
  return TimePoint(std::chrono::duration_cast<TimePoint::duration>(may_go_on));
}

std::shared_ptr<Bandwidth> BandwidthLimits::of(const std::shared_ptr<Namespace>& ns) {
  const uint64_t bytes_per_second = ns->options().bandwidth_bytes_per_second;
  if (bytes_per_second == 0) return nullptr;
  std::lock_guard lock(mutex_);
  auto& bucket = buckets_[ns];
  if (bucket == nullptr) {
    bucket = std::make_shared<Bandwidth>(bytes_per_second, clock_);
    std::erase_if(buckets_, [](const auto& entry) { return entry.first.expired(); });
  }
  return bucket;
}

}  // namespace millrace
