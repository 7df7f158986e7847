// Sorting records that lie scattered over several extents into one output.
#pragma once
#include <cstdint>
#include <optional>
#include <span>

#include "base/status.h"
#include "kernels/record.h"
#include "kernels/scratch.h"

namespace millrace {

// A stretch of whole records, with the CRC32C that it must have where that is known.
struct RecordExtent {
  std::span<const uint8_t> bytes;
  std::optional<uint32_t> crc32c;
};

// Sorts all records of `extents` by key into the front of `out` and returns the bytes written. Records with
// equal keys come out in an unspecified order. Checksums are verified in the pass that reads the keys.
//
// Fails with kInvalidArgument (bad layout, partial records, `out` overlapping an extent), kOutOfRange (`out`
// too small), kChecksumMismatch (naming the extent), kResourceExhausted (no working memory: 32 bytes a
// record).
Result<uint64_t> sort_records(RecordLayout layout, std::span<const RecordExtent> extents,
                              std::span<uint8_t> out, Scratch& scratch);

}  // namespace millrace
