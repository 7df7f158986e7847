// Bandwidth limits of the TCP door: one bucket a namespace, shared by all its TCP connections whichever I/O
// thread they belong to, with bytes in and bytes out counted together as they pass the socket (frame headers
// included). Shared memory has no limit. Knows no socket and no thread.
//
// The gRPC door keeps to the same limit with a bucket of its own (server/namespaces/pace.ts, equal burst and
// rule), so a namespace that is used through both doors at once may move up to twice its limit.
//
// A connection pays after it has moved bytes, and then rests until its own place in the queue of all that was
// paid for has come. So nobody reserves what it may not use, connections that share a bucket take turns, each
// is ahead of the limit by at most one move, and the long-run rate is exact. A new connection pays for its
// hello and so waits for the debts of those before it: to reconnect gains nothing.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "base/units.h"
#include "store/store.h"

namespace millrace {

using BandwidthClock = std::function<std::chrono::steady_clock::time_point()>;

// The bucket. Thread-safe, without a lock.
class Bandwidth {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // As the gRPC door does it; but a frame that is parsed whole fits in any burst.
  static constexpr uint64_t kBurstMs = 100;
  static constexpr uint64_t kBurstBytesMin = 64 * KiB;

  // `bytes_per_second` > 0.
  Bandwidth(uint64_t bytes_per_second, BandwidthClock clock);

  // Pays for `bytes` just moved; whoever moved them may go on at the time returned, which may be past.
  TimePoint spend(uint64_t bytes);
  TimePoint now() const { return clock_(); }

  // What may be moved at once after a long enough rest.
  uint64_t burst_bytes() const { return burst_bytes_; }
  // The most to move before paying: a part of the burst, so that turns are short.
  uint64_t move_bytes_max() const { return burst_bytes_ / 4; }

 private:
  int64_t cost_ns(uint64_t bytes) const;

  const uint64_t bytes_per_second_;
  const BandwidthClock clock_;
  const uint64_t burst_bytes_;
  const int64_t burst_ns_;
  // When everything paid for will have passed at the rate allowed: the bucket is full again. It is
  // empty when this is a burst ahead of now, and in debt while it is further.
  std::atomic<int64_t> full_at_ns_;
};

// The buckets of a server. A namespace keeps its bucket for life: who reconnects finds its debt again.
class BandwidthLimits {
 public:
  explicit BandwidthLimits(BandwidthClock clock) : clock_(std::move(clock)) {}

  // Null where the namespace has no limit. From any thread.
  std::shared_ptr<Bandwidth> of(const std::shared_ptr<Namespace>& ns);

 private:
  const BandwidthClock clock_;
  std::mutex mutex_;
  // By identity, which no later namespace can have while its entry is here.
  std::map<std::weak_ptr<Namespace>, std::shared_ptr<Bandwidth>, std::owner_less<>> buckets_;
};

}  // namespace millrace
