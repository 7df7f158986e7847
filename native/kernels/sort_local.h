// The sort benchmark's baseline: the same kernels as a serverless sort uses, in one process, on threads, with
// plain memory between the stages and no store.
#pragma once
#include <cstdint>

#include "base/status.h"
#include "kernels/check.h"

namespace millrace {

struct SortLocalOptions {
  uint64_t records = 0;
  uint32_t threads = 1;
  uint32_t partitions = 1;
  uint32_t splits = 0;  // map tasks; 0 chooses about 32 MB each, and no fewer than threads
  bool skewed = false;
};

struct SortLocalReport {
  // Wall-clock seconds of the stages, which follow each other: making the records, partitioning them, sorting
  // the partitions. `total_seconds` is their sum. Touching the memory for the first time, sampling the
  // splitters (a part of the map stage's time) and checking the result are apart: `setup_seconds`,
  // `check_seconds`.
  double setup_seconds = 0;
  double input_seconds = 0;
  double map_seconds = 0;
  double reduce_seconds = 0;
  double check_seconds = 0;
  double total_seconds = 0;
  uint32_t splits = 0;
  double partition_max_over_mean = 1;  // of the partitions' sizes
  RecordsChecksum input_checksum;
  RecordsSummary output;
  bool valid = false;  // count and checksum match the input's and nothing is out of order
};

Result<SortLocalReport> sort_local(const SortLocalOptions& options);

}  // namespace millrace
