// Whether bytes are text: DuckDB walks through text in the belief that it is UTF-8.
#pragma once
#include <cstdint>
#include <cstring>

namespace millrace::duckdb {

inline bool is_ascii(const uint8_t* bytes, uint64_t count) {
  uint64_t seen[4] = {};
  uint64_t at = 0;
  for (; at + 32 <= count; at += 32) {
    uint64_t words[4];
    std::memcpy(words, bytes + at, sizeof(words));
    for (int i = 0; i < 4; ++i) seen[i] |= words[i];
  }
  uint8_t rest = 0;
  for (; at < count; ++at) rest |= bytes[at];
  return ((seen[0] | seen[1] | seen[2] | seen[3]) & 0x8080808080808080) == 0 && rest < 0x80;
}

// No overlong forms, no surrogates, nothing beyond U+10FFFF.
inline bool is_utf8(const uint8_t* bytes, uint64_t count) {
  for (uint64_t at = 0; at < count;) {
    const uint8_t lead = bytes[at++];
    if (lead < 0x80) continue;
    uint32_t more = 0, value = 0, least = 0;
    if (lead >= 0xc2 && lead < 0xe0) {
      more = 1, value = lead & 0x1f, least = 0x80;
    } else if (lead >= 0xe0 && lead < 0xf0) {
      more = 2, value = lead & 0x0f, least = 0x800;
    } else if (lead >= 0xf0 && lead < 0xf5) {
      more = 3, value = lead & 0x07, least = 0x10000;
    } else {
      return false;
    }
    if (more > count - at) return false;
    for (; more > 0; --more) {
      const uint8_t next = bytes[at++];
      if ((next & 0xc0) != 0x80) return false;
      value = value << 6 | (next & 0x3f);
    }
    if (value < least || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return false;
  }
  return true;
}

}  // namespace millrace::duckdb
