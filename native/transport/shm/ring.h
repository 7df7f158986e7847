// The seal ring: how a same-host client tells the daemon, without a system call, which entries to seal.
//
// One file of shared memory a session, mapped read-write by exactly two processes: the client, the only
// producer, and the session's I/O thread in the daemon, the only consumer.
//
//   0        64        128               192              4096
//   +--------+---------+-----------------+----------------+------------------------------+
//   | head   | acked   | server_sleeping | client_waiting | SealSlot x kSealRingSlots     |
//   +--------+---------+-----------------+----------------+------------------------------+
//
// The client writes slot head % slots and then stores head + 1 (release). The daemon seals slots [acked, head)
// in order and then stores acked (release); a slot may be written again once it is acked. Either side that
// goes to sleep says so in its flag, with a full fence before it looks at the counters a last time; the other
// side looks at the flag after a full fence behind its own store, and wakes the sleeper by eventfd.
//
// The daemon trusts none of it: it keeps its own counter, takes each slot once by copy, and the store checks
// what the slot points to.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace millrace {

struct SealSlot {
  uint32_t segment;     //  0
  uint32_t entry_unit;  //  4  entry offset / kEntryAlignment
  uint32_t flags;       //  8  none yet: must be zero
  uint32_t reserved;    // 12
};
static_assert(sizeof(SealSlot) == 16);

struct SealRing {
  alignas(64) std::atomic<uint64_t> head;             //    0  records pushed, by the client
  alignas(64) std::atomic<uint64_t> acked;            //   64  records sealed, by the daemon
  alignas(64) std::atomic<uint32_t> server_sleeping;  //  128
  alignas(64) std::atomic<uint32_t> client_waiting;   //  192
  alignas(4096) SealSlot slots[limits::kSealRingSlots];  // 4096
};
static_assert(offsetof(SealRing, head) == 0);
static_assert(offsetof(SealRing, acked) == 64);
static_assert(offsetof(SealRing, server_sleeping) == 128);
static_assert(offsetof(SealRing, client_waiting) == 192);
static_assert(offsetof(SealRing, slots) == 4096);
static_assert((limits::kSealRingSlots & (limits::kSealRingSlots - 1)) == 0);
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

inline constexpr uint64_t kSealRingBytes = sizeof(SealRing);
inline constexpr uint64_t kSealRingMask = limits::kSealRingSlots - 1;

}  // namespace millrace
