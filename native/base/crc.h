// The CRCs that the outside world asks for; what Millrace itself stores has base/crc32c.h. Both continue from
// `seed`, as crc32c does: 0 starts.
#pragma once
#include <cstddef>
#include <cstdint>

namespace millrace {

// zlib's CRC-32.
uint32_t zlib_crc32(uint32_t seed, const void* data, size_t bytes);
// Of a followed by b, from those of both and the length of b.
uint32_t zlib_crc32_combine(uint32_t a, uint32_t b, uint64_t b_bytes);

// CRC-64/NVME.
uint64_t crc64nvme(uint64_t seed, const void* data, size_t bytes);
uint64_t crc64nvme_combine(uint64_t a, uint64_t b, uint64_t b_bytes);

}  // namespace millrace
