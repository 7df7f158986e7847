// Rows of training data as they lie in the store: the blocks of workloads/ml/dataset.ts.
//
// A block is little-endian, each part aligned to 64 bytes from its start:
//   u64 magic, first row, rows, features, non-zeros (0 where dense), flags (1: sparse)
//   f64 labels[rows]
//   dense:  f32 values[rows * features], row after row; NaN is a missing value
//   sparse: u64 row_ends[rows], u32 columns[non-zeros] ascending within a row, f32 values[non-zeros]
#pragma once
#include <cstdint>
#include <span>

#include "base/status.h"

namespace millrace {

inline constexpr uint64_t kTrainingBlockMagic = 0x316b636f6c626c6d;  // "mlblock1"
inline constexpr uint64_t kTrainingRowsMax = uint64_t{1} << 40;
inline constexpr uint64_t kTrainingFeaturesMax = uint64_t{1} << 32;

struct TrainingShape {
  uint64_t first_row = 0;
  uint64_t rows = 0;
  uint64_t features = 0;
  uint64_t non_zeros = 0;  // of sparse rows
  bool sparse = false;
};

// A block in place.
struct TrainingRows {
  TrainingShape shape;
  const double* labels = nullptr;
  const float* values = nullptr;
  const uint64_t* row_ends = nullptr;  // sparse only, as `columns`
  const uint32_t* columns = nullptr;

  uint64_t row_begin(uint64_t row) const { return row == 0 ? 0 : row_ends[row - 1]; }
};

// The same, to be filled.
struct TrainingRowsOut {
  double* labels;
  float* values;
  uint64_t* row_ends;
  uint32_t* columns;
};

// Bytes of a block of this shape. OUT_OF_RANGE beyond the limits above.
Result<uint64_t> training_block_bytes(const TrainingShape& shape);

// Writes the header of a block of exactly `training_block_bytes` and says where its parts are to go.
TrainingRowsOut begin_training_block(const TrainingShape& shape, std::span<uint8_t> block);

// Checks all of a block but its values: sizes, row ends, columns. CORRUPT where it is none. `block` is aligned to 8 bytes.
Result<TrainingRows> open_training_block(std::span<const uint8_t> block);

}  // namespace millrace
