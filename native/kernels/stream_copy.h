// Moving whole cache lines past the cache: for output that is written once, line by line, and read by
// somebody else later.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace millrace {

// Below this much output the reader may still find it in the cache, and ordinary stores are better.
inline constexpr uint64_t kStreamOutputBytesMin = 4 * MiB;

// `to` and `from` aligned to 64 bytes, `bytes` a multiple of 64. stream_fence() (base/crc32c.h) afterwards.
void stream_copy(uint8_t* to, const uint8_t* from, size_t bytes);

}  // namespace millrace
