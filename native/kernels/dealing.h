// What dealing rows and dealing features have in common. Within kernels/ only.
#pragma once
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/deal_rows.h"
#include "kernels/training_rows.h"

namespace millrace::dealing {

bool becomes_sparse(const Deal& deal, std::span<const TrainingRows> blocks);

// New features.
uint64_t width_of(const Deal& deal);

// The first of the new features of each old one, and behind them the intercept.
std::vector<uint64_t> first_features(const Deal& deal);

// INVALID_ARGUMENT where there is no such partition or a block does not match.
Status check(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks);

// INVALID_ARGUMENT where `out` is no place for a block of this shape.
Status check_out(const TrainingShape& shape, std::span<uint8_t> out);

inline double label_of(const Deal& deal, double label) {
  if (!deal.positive) return label;
  return label == *deal.positive ? 1 : -1;
}

inline float factor_of(const Deal& deal, double square) {
  return deal.unit_rows && square > 0 ? static_cast<float>(1 / std::sqrt(square)) : 1.0f;
}

// Calls `each(feature, value)` for what a row has: no zeros, nothing that is missing. CORRUPT for a category that is not
// below its width.
template <typename Each>
Status visit_row(const TrainingRows& block, uint64_t row, const Deal& deal, const std::vector<uint64_t>& firsts,
                 Each each) {
  const auto one = [&](uint64_t feature, float value) {
    if (value != value) return Status();
    const uint32_t width = deal.widths[feature];
    if (width == 1) {
      if (value != 0) each(firsts[feature], value);
      return Status();
    }
    if (!(value >= 0 && value < static_cast<float>(width))) {
      return Status(Code::kCorrupt, "feature " + std::to_string(feature) + " has a category that does not exist");
    }
    each(firsts[feature] + static_cast<uint64_t>(value), 1.0f);
    return Status();
  };
  if (block.shape.sparse) {
    for (uint64_t i = block.row_begin(row); i < block.row_ends[row]; ++i) {
      if (Status failed = one(block.columns[i], block.values[i]); !failed.ok()) return failed;
    }
  } else {
    const float* values = block.values + row * block.shape.features;
    for (uint64_t feature = 0; feature < block.shape.features; ++feature) {
      if (Status failed = one(feature, values[feature]); !failed.ok()) return failed;
    }
  }
  if (deal.intercept) each(firsts.back(), 1.0f);
  return Status();
}

}  // namespace millrace::dealing
