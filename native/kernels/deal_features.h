// Deals features out to partitions, for models whose weights are divided among function workers (the lasso). What a
// partition gets is a block whose rows are features: a row's label is the feature's number, its values are those of all
// training rows, which are the block's features.
#pragma once
#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/deal_rows.h"
#include "kernels/training_rows.h"

namespace millrace {

// Shape of the block that `deal_features` writes. The blocks hold the rows 0 to `rows` - 1, each once, in any order:
// INVALID_ARGUMENT otherwise. Of `deal`, everything but `in_order` counts.
Result<TrainingShape> dealt_features_shape(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks,
                                           uint64_t rows);
Status deal_features(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks, uint64_t rows,
                     std::span<uint8_t> out);

// The labels of all rows, as `deal_rows` would have them.
Status deal_labels(const Deal& deal, std::span<const TrainingRows> blocks, std::span<double> labels);

}  // namespace millrace
