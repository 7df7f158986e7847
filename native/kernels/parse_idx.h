// IDX, the format of MNIST and its kin: a small header, then numbers, big-endian, the last index moving fastest.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/labels.h"
#include "kernels/training_rows.h"

namespace millrace {

inline constexpr uint32_t kIdxDimensionsMax = 8;
inline constexpr uint64_t kIdxHeaderBytesMax = 4 + 4 * kIdxDimensionsMax;

struct IdxHeader {
  uint32_t value_bytes = 0;  // of whole numbers
  bool is_signed = false;
  std::vector<uint32_t> dimensions;  // the first counts the items
  uint64_t header_bytes = 0;

  uint64_t items() const { return dimensions[0]; }
  uint64_t values_per_item = 0;  // within kTrainingFeaturesMax
};

// The header of a file that begins with `bytes`. CORRUPT where it is none, UNSUPPORTED for numbers with fractions.
Result<IdxHeader> parse_idx_header(std::span<const uint8_t> bytes);

// Adds the labels in `values`, which are of a header with one value an item. CORRUPT where a part of one is left over.
Status survey_idx_labels(const IdxHeader& header, std::span<const uint8_t> values, LabelSurvey& survey);

// Makes the block of as many rows as `shape` says from the values of as many items. No labels where `label_header` is
// null: they become NaN.
Status write_idx_block(const TrainingShape& shape, const IdxHeader& header, std::span<const uint8_t> values,
                       const IdxHeader* label_header, std::span<const uint8_t> labels, const LabelCodes& codes,
                       std::span<uint8_t> block);

}  // namespace millrace
