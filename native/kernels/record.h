// Records as the kernels see them: fixed size, key at the start, compared as unsigned bytes.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>

#include "base/status.h"

namespace millrace {

struct RecordLayout {
  uint32_t record_bytes = 100;
  uint32_t key_bytes = 10;
};

inline constexpr uint32_t kRecordBytesMax = 64 * 1024;
inline constexpr uint32_t kRecordKeyBytesMax = 255;
inline constexpr RecordLayout kGensortLayout{100, 10};

Status check_layout(RecordLayout layout);

// The number of records in `bytes`, which must be whole records; `what` names the input in the error.
Result<uint64_t> count_records(RecordLayout layout, uint64_t bytes, const char* what);

bool ranges_overlap(std::span<const uint8_t> a, std::span<const uint8_t> b);

// Up to eight bytes of a key as a number that orders as the bytes do; what lies past the key counts as zero.
inline uint64_t key_word(const uint8_t* key, uint32_t bytes) {
  if (bytes >= 8) {
    uint64_t word;
    std::memcpy(&word, key, 8);
    return __builtin_bswap64(word);
  }
  uint64_t word = 0;
  for (uint32_t i = 0; i < bytes; ++i) word |= static_cast<uint64_t>(key[i]) << (56 - 8 * i);
  return word;
}

// Up to two bytes in the same way.
inline uint32_t key_half(const uint8_t* key, uint32_t bytes) {
  if (bytes >= 2) return static_cast<uint32_t>(key[0]) << 8 | key[1];
  return bytes == 1 ? static_cast<uint32_t>(key[0]) << 8 : 0;
}

// The first ten bytes of a key, the length of the widespread benchmark key: all kernels order by these two
// numbers and look at the rest of longer keys only where they are equal.
inline constexpr uint32_t kPrefixBytes = 10;
inline uint64_t key_first(const uint8_t* key, RecordLayout layout) { return key_word(key, layout.key_bytes); }
inline uint32_t key_second(const uint8_t* key, RecordLayout layout) {
  return layout.key_bytes <= 8 ? 0 : key_half(key + 8, layout.key_bytes - 8);
}

// Copies a record of a size known at compile time, or of `bytes` where kBytes is 0.
template <uint32_t kBytes>
inline void copy_record(uint8_t* to, const uint8_t* from, uint32_t bytes) {
  if constexpr (kBytes != 0) {
    std::memcpy(to, from, kBytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

}  // namespace millrace
