// The index of a namespace: key -> entry, in shared memory. One writer (the daemon), any number of readers in
// other processes that map it read-only and never write a byte.
//
// An extendible hash table (Fagin et al., 1979). A slot is one 64-bit word, so a reader needs no lock: it
// loads the word, goes to the entry that the word points to, and compares the whole key there. Entries never
// change or move while anyone may see them, so a hit is right as it is. Only a miss must be validated: a table
// may have been split under the reader. The generation works as a sequence lock for that.
//
//   file:  | IndexHeader (4096) | directory: 2^depth x u32 | table | table | ... |     all parts on 4096
//   table: 512 buckets of 8 words (one cache line each); a key may sit in its home bucket or those after it
//   word:  | entry offset / 16 (24 bits) | segment number (24) | tag (16) |        0: empty   1: removed
//
//   hash:  | directory: top `depth` bits | ... | bucket: bits 16..24 | tag: bits 0..15 |
#pragma once
#include <atomic>
#include <cstdint>
#include <string_view>

#include "base/hash.h"
#include "base/limits.h"
#include "segment/layout.h"

namespace millrace {

inline constexpr uint64_t kIndexMagic = 0x3158444e494c4c4dull;
inline constexpr uint32_t kIndexVersion = 1;
inline constexpr uint64_t kTableSlots = 4096;
inline constexpr uint64_t kBucketSlots = 8;
inline constexpr uint64_t kTableBuckets = kTableSlots / kBucketSlots;
inline constexpr uint64_t kTableBytes = kTableSlots * 8;
inline constexpr uint64_t kIndexHeaderBytes = 4096;
inline constexpr uint32_t kDepthMax = 20;
inline constexpr uint64_t kSlotEmpty = 0;
inline constexpr uint64_t kSlotRemoved = 1;

struct IndexHeader {
  uint64_t magic;                          //   0
  uint32_t version;                        //   8
  uint32_t reserved;                       //  12
  alignas(64) std::atomic<uint64_t> generation;  //  64  odd while tables move
  std::atomic<uint64_t> directory;         //  72  file offset << 8 | depth
  std::atomic<uint32_t> closed;            //  80  1: the namespace is gone
  alignas(64) std::atomic<uint64_t> objects;  // 128
  // Of the namespace, for who finds the file after its writer has died.
  std::atomic<uint64_t> last_sequence;     // 136  the highest that was ever given out
  std::atomic<uint64_t> sealed_total;      // 144
  std::atomic<uint32_t> next_segment;      // 152  numbers below were given out
};
static_assert(offsetof(IndexHeader, generation) == 64);
static_assert(offsetof(IndexHeader, directory) == 72);
static_assert(offsetof(IndexHeader, closed) == 80);
static_assert(offsetof(IndexHeader, objects) == 128);
static_assert(offsetof(IndexHeader, last_sequence) == 136);
static_assert(offsetof(IndexHeader, sealed_total) == 144);
static_assert(offsetof(IndexHeader, next_segment) == 152);
static_assert(sizeof(std::atomic<uint64_t>) == 8 && std::atomic<uint64_t>::is_always_lock_free);

// What a slot word points to.
struct SlotRef {
  uint32_t segment;
  uint64_t entry_offset;
};
constexpr uint64_t pack_slot(SlotRef ref, uint64_t hash) {
  return (ref.entry_offset / limits::kEntryAlignment) << 40 | static_cast<uint64_t>(ref.segment) << 16 | (hash & 0xffff);
}
constexpr SlotRef unpack_slot(uint64_t word) {
  return {static_cast<uint32_t>(word >> 16 & 0xffffff), (word >> 40) * limits::kEntryAlignment};
}
static_assert(limits::kSegmentBytesMax / limits::kEntryAlignment <= 1 << 24);
static_assert(limits::kSegmentsPerNamespace < 1 << 24);

constexpr uint64_t bucket_of(uint64_t hash) { return hash >> 16 & (kTableBuckets - 1); }
constexpr uint64_t directory_index(uint64_t hash, uint32_t depth) { return depth == 0 ? 0 : hash >> (64 - depth); }

// A reader over a mapping of the index file (the whole reserved range, kIndexBytesMax).
class IndexView {
 public:
  IndexView() = default;
  explicit IndexView(const uint8_t* base) : base_(base) {}

  const IndexHeader& header() const { return *reinterpret_cast<const IndexHeader*>(base_); }
  bool closed() const { return header().closed.load(std::memory_order_acquire) != 0; }
  uint64_t objects() const { return header().objects.load(std::memory_order_relaxed); }

  // Asks for the cache line where a search for this hash begins. For the writer's thread alone: nothing moves.
  void prefetch(uint64_t hash) const {
    const uint64_t directory = header().directory.load(std::memory_order_relaxed);
    const auto* page = reinterpret_cast<const std::atomic<uint32_t>*>(
        base_ + (directory >> 8) + directory_index(hash, static_cast<uint32_t>(directory & 0xff)) * 4);
    __builtin_prefetch(base_ + uint64_t{page->load(std::memory_order_relaxed)} * 4096 + bucket_of(hash) * kBucketSlots * 8, 1);
  }

  // Calls `matches(SlotRef)` for every slot whose tag fits the hash until it returns true; it must compare
  // the key in the entry. Returns whether one matched. Restarts by itself when a table was moved meanwhile.
  template <class Matches>
  bool find(uint64_t hash, Matches&& matches) const;

 private:
  const uint8_t* base_ = nullptr;
};

template <class Matches>
bool IndexView::find(uint64_t hash, Matches&& matches) const {
  const IndexHeader& head = header();
  for (;;) {
    const uint64_t generation = head.generation.load(std::memory_order_acquire);
    const uint64_t directory = head.directory.load(std::memory_order_acquire);
    const auto depth = static_cast<uint32_t>(directory & 0xff);
    const uint64_t slot_offset = (directory >> 8) + directory_index(hash, depth) * 4;
    // Bounds hold for whatever a moving writer shows us; the mapping covers kIndexBytesMax.
    if (slot_offset + 4 <= limits::kIndexBytesMax && depth <= kDepthMax) {
      const auto* page = reinterpret_cast<const std::atomic<uint32_t>*>(base_ + slot_offset);
      const uint64_t table_offset = static_cast<uint64_t>(page->load(std::memory_order_acquire)) * 4096;
      if (table_offset + kTableBytes <= limits::kIndexBytesMax) {
        const auto* slots = reinterpret_cast<const std::atomic<uint64_t>*>(base_ + table_offset);
        const uint64_t home = bucket_of(hash);
        for (uint64_t step = 0; step < kTableBuckets; ++step) {
          const std::atomic<uint64_t>* bucket = slots + ((home + step) & (kTableBuckets - 1)) * kBucketSlots;
          bool ends = false;
          for (uint64_t i = 0; i < kBucketSlots; ++i) {
            const uint64_t word = bucket[i].load(std::memory_order_acquire);
            if (word == kSlotEmpty) {
              ends = true;
              break;
            }
            if (word != kSlotRemoved && (word & 0xffff) == (hash & 0xffff) && matches(unpack_slot(word))) return true;
          }
          if (ends) break;
        }
      }
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((generation & 1) == 0 && head.generation.load(std::memory_order_relaxed) == generation) return false;
    __builtin_ia32_pause();
  }
}

}  // namespace millrace
