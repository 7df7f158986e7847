// Dividing records among partitions: the map side of a shuffle.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/record.h"
#include "kernels/scratch.h"
#include "kernels/splitters.h"

namespace millrace {

struct PartitionOutput {
  std::vector<uint64_t> offsets;    // bytes, R + 1 of them: partition r is dest[offsets[r], offsets[r + 1])
  std::vector<uint32_t> checksums;  // CRC32C of each partition's bytes
};

// Copies the records of `input` to the front of `dest`, partition after partition, in the input's order
// within each. The same input gives the same output.
//
// Fails with kInvalidArgument (bad layout, partial records, splitters for other keys, overlap), kOutOfRange
// (`dest` too small), kResourceExhausted (no working memory: 2 bytes a record and at most 32 MiB of buffers).
Result<PartitionOutput> partition_records(RecordLayout layout, std::span<const uint8_t> input,
                                          const Splitters& splitters, std::span<uint8_t> dest,
                                          Scratch& scratch);

}  // namespace millrace
