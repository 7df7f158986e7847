#include "kernels/deal_features.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/dealing.h"

namespace millrace {
namespace {

constexpr uint64_t kElsewhere = std::numeric_limits<uint64_t>::max();

// For each new feature its place within the partition, or kElsewhere.
std::vector<uint64_t> places_of_features(const Deal& deal, uint64_t partition, uint64_t& count) {
  std::vector<uint64_t> places(dealing::width_of(deal), kElsewhere);
  count = 0;
  for (uint64_t feature = 0; feature < places.size(); ++feature) {
    if (dealt_to(deal, feature) == partition) places[feature] = count++;
  }
  return places;
}

Status check_rows(std::span<const TrainingRows> blocks, uint64_t rows) {
  std::vector<std::pair<uint64_t, uint64_t>> stretches;
  for (const TrainingRows& block : blocks) stretches.emplace_back(block.shape.first_row, block.shape.rows);
  std::sort(stretches.begin(), stretches.end());
  uint64_t next = 0;
  for (const auto& [first, count] : stretches) {
    if (first != next) return Status(Code::kInvalidArgument, "the blocks do not hold each row once");
    next += count;
  }
  if (next != rows) return Status(Code::kInvalidArgument, "the blocks do not hold all rows");
  return Status();
}

}  // namespace

Result<TrainingShape> dealt_features_shape(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks,
                                           uint64_t rows) {
  if (Status failed = dealing::check(deal, partition, blocks); !failed.ok()) return failed;
  if (Status failed = check_rows(blocks, rows); !failed.ok()) return failed;
  TrainingShape shape;
  shape.features = rows;
  shape.sparse = dealing::becomes_sparse(deal, blocks);
  const std::vector<uint64_t> places = places_of_features(deal, partition, shape.rows);
  if (!shape.sparse) return shape;
  const std::vector<uint64_t> firsts = dealing::first_features(deal);
  for (const TrainingRows& block : blocks) {
    for (uint64_t row = 0; row < block.shape.rows; ++row) {
      Status failed = dealing::visit_row(block, row, deal, firsts, [&](uint64_t feature, float) {
        shape.non_zeros += places[feature] != kElsewhere;
      });
      if (!failed.ok()) return failed;
    }
  }
  return shape;
}

Status deal_features(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks, uint64_t rows,
                     std::span<uint8_t> out) {
  auto shape = dealt_features_shape(deal, partition, blocks, rows);
  if (!shape.ok()) return shape.status();
  if (Status failed = dealing::check_out(*shape, out); !failed.ok()) return failed;
  const TrainingRowsOut to = begin_training_block(*shape, out);
  uint64_t count = 0;
  const std::vector<uint64_t> places = places_of_features(deal, partition, count);
  for (uint64_t feature = 0; feature < places.size(); ++feature) {
    if (places[feature] != kElsewhere) to.labels[places[feature]] = static_cast<double>(feature);
  }
  const std::vector<uint64_t> firsts = dealing::first_features(deal);
  std::vector<const TrainingRows*> in_order;
  for (const TrainingRows& block : blocks) in_order.push_back(&block);
  std::sort(in_order.begin(), in_order.end(),
            [](const TrainingRows* a, const TrainingRows* b) { return a->shape.first_row < b->shape.first_row; });
  std::vector<uint64_t> next(shape->rows);  // sparse: where the next value of each feature goes
  if (shape->sparse) {
    for (const TrainingRows* block : in_order) {
      for (uint64_t row = 0; row < block->shape.rows; ++row) {
        Status failed = dealing::visit_row(*block, row, deal, firsts, [&](uint64_t feature, float) {
          if (places[feature] != kElsewhere) ++next[places[feature]];
        });
        if (!failed.ok()) return failed;
      }
    }
    uint64_t end = 0;
    for (uint64_t i = 0; i < shape->rows; ++i) {
      const uint64_t values = next[i];
      next[i] = end;
      end += values;
      to.row_ends[i] = end;
    }
  } else {
    std::fill_n(to.values, shape->rows * shape->features, 0.0f);
  }
  for (const TrainingRows* block : in_order) {
    for (uint64_t row = 0; row < block->shape.rows; ++row) {
      double square = 0;
      Status failed = dealing::visit_row(*block, row, deal, firsts, [&](uint64_t, float value) {
        square += static_cast<double>(value) * value;
      });
      if (!failed.ok()) return failed;
      const float factor = dealing::factor_of(deal, square);
      const uint64_t global_row = block->shape.first_row + row;
      failed = dealing::visit_row(*block, row, deal, firsts, [&](uint64_t feature, float value) {
        const uint64_t place = places[feature];
        if (place == kElsewhere) return;
        if (shape->sparse) {
          to.columns[next[place]] = static_cast<uint32_t>(global_row);
          to.values[next[place]++] = value * factor;
        } else {
          to.values[place * shape->features + global_row] = value * factor;
        }
      });
      if (!failed.ok()) return failed;
    }
  }
  return Status();
}

Status deal_labels(const Deal& deal, std::span<const TrainingRows> blocks, std::span<double> labels) {
  if (Status failed = check_rows(blocks, labels.size()); !failed.ok()) return failed;
  for (const TrainingRows& block : blocks) {
    for (uint64_t row = 0; row < block.shape.rows; ++row) {
      labels[block.shape.first_row + row] = dealing::label_of(deal, block.labels[row]);
    }
  }
  return Status();
}

}  // namespace millrace
