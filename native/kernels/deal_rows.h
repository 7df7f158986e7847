// Deals rows out to partitions by their global numbers, so that how the files were sorted or cut does not matter, and
// makes of them what linear models train on.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/training_rows.h"

namespace millrace {

struct Deal {
  uint64_t partitions = 1;
  uint64_t seed = 0;
  // One a feature: 1 for a number; for a category the number of its values, each of which becomes a feature of its own,
  // 1 where the row has it.
  std::vector<uint32_t> widths;
  bool unit_rows = true;   // rows are scaled to length 1
  bool intercept = false;  // one more feature, always 1 (before the scaling)
  bool in_order = false;   // by their numbers and not shuffled: for predicting
  // Labels: 1 where they equal this one, else -1. Absent: as they are.
  std::optional<double> positive;
};

// The partition of a row, by its global number; of a feature, by its number, where features are dealt.
uint64_t dealt_to(const Deal& deal, uint64_t number);

// Shape of the block that `deal_rows` writes for `partition`. INVALID_ARGUMENT where blocks and widths do not match.
Result<TrainingShape> dealt_shape(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks);

// Writes the block of `partition` to `out`, of exactly the bytes of its shape: its rows, in an order that depends on their
// numbers and the seed alone. CORRUPT for a category that is not below its width.
Status deal_rows(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks, std::span<uint8_t> out);

}  // namespace millrace
