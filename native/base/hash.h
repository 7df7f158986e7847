// A 64-bit hash of short keys by folded 64x64->128 multiplication, after wyhash (Wang Yi, public domain).
// Not for untrusted cross-tenant tables: every namespace has its own index, so collisions hurt their maker.
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

namespace millrace {

namespace hash_detail {
inline constexpr uint64_t kA = 0xa0761d6478bd642full;
inline constexpr uint64_t kB = 0xe7037ed1a0b428dbull;
inline uint64_t fold(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}
inline uint64_t read64(const char* p) { uint64_t v; std::memcpy(&v, p, 8); return v; }
inline uint64_t read32(const char* p) { uint32_t v; std::memcpy(&v, p, 4); return v; }
}  // namespace hash_detail

inline uint64_t hash_key(std::string_view key) {
  using namespace hash_detail;
  const char* p = key.data();
  size_t left = key.size();
  uint64_t state = kA ^ key.size();
  while (left > 16) {
    state = fold(read64(p) ^ kB, read64(p + 8) ^ state);
    p += 16;
    left -= 16;
  }
  uint64_t a = 0, b = 0;
  if (left >= 8) {
    a = read64(p);
    b = read64(p + left - 8);
  } else if (left >= 4) {
    a = read32(p);
    b = read32(p + left - 4);
  } else if (left > 0) {
    a = static_cast<uint64_t>(static_cast<uint8_t>(p[0])) << 16 | static_cast<uint64_t>(static_cast<uint8_t>(p[left / 2])) << 8 |
        static_cast<uint8_t>(p[left - 1]);
  }
  return fold(kA ^ key.size(), fold(a ^ kB, b ^ state));
}

}  // namespace millrace
