// Merging sorted runs of records into one.
#pragma once
#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/record.h"
#include "kernels/scratch.h"

namespace millrace {

// Beyond this many runs one pass loses more time in cache misses than a second pass costs.
inline constexpr uint32_t kMergeFanInMax = 64;

// Merges `runs`, each sorted by key, into the front of `out` and returns the bytes written. Records with
// equal keys come out in the order of their runs. More than kMergeFanInMax runs are merged in two passes (and
// more than its square in three), which needs working memory of the size of the input.
//
// Fails with kInvalidArgument (bad layout, partial records, a run out of order, overlap), kOutOfRange (`out`
// too small), kResourceExhausted (no working memory).
Result<uint64_t> merge_records(RecordLayout layout, std::span<const std::span<const uint8_t>> runs,
                               std::span<uint8_t> out, Scratch& scratch);

}  // namespace millrace
