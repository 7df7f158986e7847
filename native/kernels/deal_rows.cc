#include "kernels/deal_rows.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/dealing.h"
#include "kernels/row_math.h"

namespace millrace {
namespace dealing {

bool becomes_sparse(const Deal& deal, std::span<const TrainingRows> blocks) {
  if (std::any_of(deal.widths.begin(), deal.widths.end(), [](uint32_t width) { return width != 1; })) return true;
  return !blocks.empty() && blocks.front().shape.sparse;
}

uint64_t width_of(const Deal& deal) {
  uint64_t width = deal.intercept ? 1 : 0;
  for (uint32_t each : deal.widths) width += each;
  return width;
}

std::vector<uint64_t> first_features(const Deal& deal) {
  std::vector<uint64_t> firsts;
  uint64_t next = 0;
  for (uint32_t width : deal.widths) {
    firsts.push_back(next);
    next += width;
  }
  firsts.push_back(next);
  return firsts;
}

Status check(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks) {
  const auto invalid = [](const std::string& what) { return Status(Code::kInvalidArgument, what); };
  if (deal.partitions == 0 || partition >= deal.partitions) return invalid("there is no such partition");
  for (const TrainingRows& block : blocks) {
    if (block.shape.features != deal.widths.size()) {
      return invalid("a block has " + std::to_string(block.shape.features) + " features, not " +
                     std::to_string(deal.widths.size()));
    }
    if (block.shape.sparse != blocks.front().shape.sparse) return invalid("some blocks are dense and some sparse");
  }
  return Status();
}

Status check_out(const TrainingShape& shape, std::span<uint8_t> out) {
  auto bytes = training_block_bytes(shape);
  if (!bytes.ok()) return bytes.status();
  if (out.size() != *bytes) {
    return Status(Code::kInvalidArgument, "the block needs " + std::to_string(*bytes) + " bytes, not " +
                                              std::to_string(out.size()));
  }
  if (reinterpret_cast<uintptr_t>(out.data()) % alignof(uint64_t) != 0) {
    return Status(Code::kInvalidArgument, "a block of rows must be aligned to 8 bytes");
  }
  return Status();
}

}  // namespace dealing

namespace {

struct Place {
  uint64_t hash;
  uint64_t global_row;
  const TrainingRows* block;
  uint64_t row;
};

uint64_t hash_of(const Deal& deal, uint64_t number) { return mix64(mix64(deal.seed) ^ mix64(number)); }

uint64_t partition_of(const Deal& deal, uint64_t hash) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(hash) * deal.partitions) >> 64);
}

// Shuffled: in the order of their hashes, which has nothing to do with that of the files.
std::vector<Place> places_of(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks) {
  std::vector<Place> places;
  for (const TrainingRows& block : blocks) {
    for (uint64_t row = 0; row < block.shape.rows; ++row) {
      const uint64_t global_row = block.shape.first_row + row;
      const uint64_t hash = hash_of(deal, global_row);
      if (partition_of(deal, hash) == partition) places.push_back({hash, global_row, &block, row});
    }
  }
  std::sort(places.begin(), places.end(), [&](const Place& a, const Place& b) {
    if (deal.in_order) return a.global_row < b.global_row;
    return std::pair(a.hash, a.global_row) < std::pair(b.hash, b.global_row);
  });
  return places;
}

}  // namespace

uint64_t dealt_to(const Deal& deal, uint64_t number) { return partition_of(deal, hash_of(deal, number)); }

Result<TrainingShape> dealt_shape(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks) {
  if (Status failed = dealing::check(deal, partition, blocks); !failed.ok()) return failed;
  TrainingShape shape;
  shape.features = dealing::width_of(deal);
  shape.sparse = dealing::becomes_sparse(deal, blocks);
  const std::vector<uint64_t> firsts = dealing::first_features(deal);
  for (const TrainingRows& block : blocks) {
    for (uint64_t row = 0; row < block.shape.rows; ++row) {
      if (dealt_to(deal, block.shape.first_row + row) != partition) continue;
      ++shape.rows;
      if (!shape.sparse) continue;
      Status failed = dealing::visit_row(block, row, deal, firsts, [&](uint64_t, float) { ++shape.non_zeros; });
      if (!failed.ok()) return failed;
    }
  }
  return shape;
}

Status deal_rows(const Deal& deal, uint64_t partition, std::span<const TrainingRows> blocks, std::span<uint8_t> out) {
  auto shape = dealt_shape(deal, partition, blocks);
  if (!shape.ok()) return shape.status();
  if (Status failed = dealing::check_out(*shape, out); !failed.ok()) return failed;
  const TrainingRowsOut to = begin_training_block(*shape, out);
  const std::vector<uint64_t> firsts = dealing::first_features(deal);
  uint64_t filled = 0;
  uint64_t at = 0;
  for (const Place& place : places_of(deal, partition, blocks)) {
    to.labels[filled] = dealing::label_of(deal, place.block->labels[place.row]);
    double square = 0;
    const uint64_t begin = at;
    float* dense = to.values + filled * shape->features;
    if (!shape->sparse) std::fill_n(dense, shape->features, 0.0f);
    Status failed = dealing::visit_row(*place.block, place.row, deal, firsts, [&](uint64_t feature, float value) {
      square += static_cast<double>(value) * value;
      if (shape->sparse) {
        to.columns[at] = static_cast<uint32_t>(feature);
        to.values[at++] = value;
      } else {
        dense[feature] = value;
      }
    });
    if (!failed.ok()) return failed;
    const float factor = dealing::factor_of(deal, square);
    float* values = shape->sparse ? to.values + begin : dense;
    const uint64_t count = shape->sparse ? at - begin : shape->features;
    for (uint64_t i = 0; i < count; ++i) values[i] *= factor;
    if (shape->sparse) to.row_ends[filled] = at;
    ++filled;
  }
  return Status();
}

}  // namespace millrace
