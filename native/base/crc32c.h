// CRC32C (Castagnoli), the checksum of everything that Millrace stores: entry headers, payloads, partitions.
#pragma once
#include <cstddef>
#include <cstdint>

namespace millrace {

// The CRC32C of `bytes` bytes, continuing from `seed`: 0 starts, and the result of one call is the seed of
// the next, so crc32c(crc32c(0, a), b) is the checksum of a followed by b.
uint32_t crc32c(uint32_t seed, const void* data, size_t bytes);

// Copies and checksums in one pass over memory. The ranges must not overlap. Copies too large to stay in the
// cache bypass it.
uint32_t copy_crc32c(void* to, const void* from, size_t bytes, uint32_t seed);

// The same, always past the cache, for writers that gather lines and never read them back (`to` and `from`
// must be 64-byte aligned and `bytes` a multiple of 64). Call stream_fence() before another thread may read.
uint32_t stream_copy_crc32c(void* to, const void* from, size_t bytes, uint32_t seed);
void stream_fence();

// The CRC32C of a followed by b, from the checksums of both and the length of b.
uint32_t crc32c_combine(uint32_t a, uint32_t b, uint64_t b_bytes);

}  // namespace millrace
