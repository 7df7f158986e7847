// What is sorted in place of a record: the first ten bytes of its key and where it lies.
#pragma once
#include <cstdint>

namespace millrace {

struct SortEntry {
  uint64_t first;  // key bytes 0 to 7, as a number
  uint64_t rest;   // key bytes 8 and 9 in the upper 16 bits, below them the record's distance from `base`

  uint32_t second() const { return static_cast<uint32_t>(rest >> 48); }
  uint64_t distance() const { return rest & kDistanceMask; }

  static constexpr uint64_t kDistanceMask = (uint64_t{1} << 48) - 1;
};
static_assert(sizeof(SortEntry) == 16);

// Sorts entries[0, count) by key; spare[0, count) is working memory. The ten bytes held in the entries begin
// at byte `depth` of the key at `base + distance`; keys have `key_bytes` bytes. Time grows with the number of
// distinguishing key bytes, never with the square of `count`, whatever the keys.
void sort_entries(SortEntry* entries, SortEntry* spare, uint32_t count, const uint8_t* base,
                  uint32_t key_bytes);

}  // namespace millrace
