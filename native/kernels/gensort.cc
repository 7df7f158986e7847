#include "kernels/gensort.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace millrace {
namespace {

__extension__ typedef unsigned __int128 Uint128;

constexpr Uint128 make128(uint64_t high, uint64_t low) { return static_cast<Uint128>(high) << 64 | low; }
constexpr Uint128 kMultiplier = make128(0x2360ed051fc65da4, 0x4385df649fccf645);
constexpr Uint128 kIncrement = make128(0x4a696d4772617952, 0x4950202020202001);

// Every record takes ten consecutive states of the generator, ten bytes of each, XORed with these constants.
constexpr uint32_t kStatesPerRecord = 10;
constexpr uint32_t kBytesPerState = 10;
constexpr std::array<uint8_t, kGensortRecordBytes> kMask = {
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,  //
    0xf0, 0xe8, 0xe4, 0xe2, 0xe1, 0xd8, 0xd4, 0xd2, 0xd1, 0xcc,  //
    0xca, 0xc9, 0xc6, 0xc5, 0xc3, 0xb8, 0xb4, 0xb2, 0xb1, 0xac,  //
    0xaa, 0xa9, 0xa6, 0xa5, 0xa3, 0x9c, 0x9a, 0x99, 0x96, 0x95,  //
    0x93, 0x8e, 0x8d, 0x8b, 0x87, 0x78, 0x74, 0x72, 0x71, 0x6c,  //
    0x6a, 0x69, 0x66, 0x65, 0x63, 0x5c, 0x5a, 0x59, 0x56, 0x55,  //
    0x53, 0x4e, 0x4d, 0x4b, 0x47, 0x3c, 0x3a, 0x39, 0x36, 0x35,  //
    0x33, 0x2e, 0x2d, 0x2b, 0x27, 0x1e, 0x1d, 0x1b, 0x17, 0x0f,  //
    0xc8, 0xc4, 0xc2, 0xc1, 0x98, 0x94, 0x92, 0x91, 0x8c, 0xe0,  //
    0x17, 0x0f, 0x33, 0x2e, 0x2d, 0x2b, 0x27, 0x1e, 0x1d, 0x1b};

// The state after `steps` steps from 0: a step is x -> a x + c, two of them are another such map, so squaring
// jumps ahead.
Uint128 state_after(Uint128 steps) {
  Uint128 state = 0;
  Uint128 multiplier = kMultiplier, increment = kIncrement;
  for (; steps != 0; steps >>= 1) {
    if (steps & 1) state = multiplier * state + increment;
    increment = multiplier * increment + increment;
    multiplier = multiplier * multiplier;
  }
  return state;
}

inline void store_state(uint8_t* to, Uint128 state) {
  const uint64_t high = __builtin_bswap64(static_cast<uint64_t>(state >> 64));
  const uint16_t low = __builtin_bswap16(static_cast<uint16_t>(state >> 48));
  std::memcpy(to, &high, 8);
  std::memcpy(to + 8, &low, 2);
}

inline uint64_t mix(uint64_t value) {  // the finalizer of splitmix64
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

inline void skew_key(uint64_t record, uint8_t* key) {
  constexpr uint64_t kHotBelow = UINT32_MAX / 100 * 22;
  const uint64_t hash = mix(record);
  if ((hash >> 32) < kHotBelow) {
    key[0] = 'M', key[1] = 'R';
    return;
  }
  const uint64_t v = hash & 0xffffffff;
  const uint64_t prefix = (v * v) >> 48;
  key[0] = static_cast<uint8_t>(prefix >> 8), key[1] = static_cast<uint8_t>(prefix);
}

}  // namespace

void generate_records(uint64_t first_record, uint64_t count, uint8_t* out, Skew skew) {
  // The states of consecutive records overlap in all but one, and so do their bytes when the states are laid
  // out next to each other: record i is 100 bytes of that stream, ten further than record i - 1.
  constexpr uint64_t kBlockRecords = 256;
  constexpr uint32_t kCarriedBytes = (kStatesPerRecord - 1) * kBytesPerState;
  uint8_t stream[kCarriedBytes + kBlockRecords * kBytesPerState];
  if (count == 0) return;
  Uint128 state = state_after(static_cast<Uint128>(first_record) + 1);
  for (uint32_t i = 0; i < kStatesPerRecord - 1; ++i) {
    store_state(stream + i * kBytesPerState, state);
    state = kMultiplier * state + kIncrement;
  }
  while (count > 0) {
    const uint64_t block = std::min(count, kBlockRecords);
    for (uint64_t i = 0; i < block; ++i) {
      store_state(stream + kCarriedBytes + i * kBytesPerState, state);
      state = kMultiplier * state + kIncrement;
    }
    for (uint64_t i = 0; i < block; ++i, out += kGensortRecordBytes) {
      const uint8_t* __restrict from = stream + i * kBytesPerState;
      uint8_t* __restrict to = out;
      for (uint32_t byte = 0; byte < kGensortRecordBytes; ++byte) to[byte] = from[byte] ^ kMask[byte];
    }
    if (skew == Skew::kSkewed) {
      uint8_t* record = out - block * kGensortRecordBytes;
      for (uint64_t i = 0; i < block; ++i) skew_key(first_record + i, record + i * kGensortRecordBytes);
    }
    std::memmove(stream, stream + block * kBytesPerState, kCarriedBytes);
    first_record += block;
    count -= block;
  }
}

}  // namespace millrace
