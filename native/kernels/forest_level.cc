#include "kernels/forest_level.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "base/crc32c.h"

namespace millrace {
namespace {

constexpr uint64_t kLevelMagic = 0x316c766c74737266;  // "frstlvl1"
constexpr uint64_t kNodesMax = uint64_t{1} << 31;

struct Header {
  uint64_t magic;
  uint64_t trees;
  uint64_t nodes;
  uint64_t slots;
};

// Before the cells of regression: the least and the greatest label.
struct LabelRange {
  int64_t min;
  int64_t max;
};
struct ValueCell {
  int64_t rows;
  int64_t sum;
};

Status corrupt(const char* what) { return Status(Code::kCorrupt, std::string("a level of a forest ") + what); }

uint64_t feature_cells(const ForestOptions& options) {
  return uint64_t{options.bins} * (options.regression() ? 1 : options.classes);
}

}  // namespace

Result<ForestLevel> open_level(const ForestOptions& options, std::span<const uint8_t> object) {
  if (object.size() < sizeof(Header)) return corrupt("is shorter than its header");
  if (reinterpret_cast<uintptr_t>(object.data()) % alignof(uint64_t) != 0) {
    return Status(Code::kInvalidArgument, "a level of a forest must be aligned to 8 bytes");
  }
  Header header;
  std::memcpy(&header, object.data(), sizeof(header));
  if (header.magic != kLevelMagic) return corrupt("does not begin as one");
  if (header.trees > kForestTreesMax || header.nodes > kNodesMax || header.slots > header.nodes) {
    return corrupt("is too large");
  }
  const uint64_t nodes_at = sizeof(Header) + (header.trees + 2) / 2 * 2 * sizeof(uint32_t);
  const uint64_t slots_at = nodes_at + header.nodes * sizeof(LevelNode);
  if (object.size() != slots_at + header.slots * sizeof(LevelSlot)) {
    return corrupt("does not have the bytes of its shape");
  }
  ForestLevel level;
  level.trees = static_cast<uint32_t>(header.trees);
  level.tree_starts = reinterpret_cast<const uint32_t*>(object.data() + sizeof(Header));
  level.nodes = reinterpret_cast<const LevelNode*>(object.data() + nodes_at);
  level.slots = {reinterpret_cast<const LevelSlot*>(object.data() + slots_at), header.slots};
  if (level.tree_starts[0] != 0 || level.tree_starts[level.trees] != header.nodes) {
    return corrupt("has nodes of no tree");
  }
  for (uint32_t s = 0; s < level.slots.size(); ++s) {
    const LevelSlot& slot = level.slots[s];
    if (slot.tree >= level.trees || slot.depth > options.depth_max || slot.round > options.features) {
      return corrupt("has a slot out of range");
    }
    if (s > 0 && slot.tree < level.slots[s - 1].tree) return corrupt("has slots out of order");
  }
  for (uint32_t tree = 0; tree < level.trees; ++tree) {
    const uint32_t begin = level.tree_starts[tree], end = level.tree_starts[tree + 1];
    if (end <= begin) return corrupt("has a tree without nodes");
    const LevelNode* nodes = level.nodes + begin;
    for (uint32_t i = 0; i < end - begin; ++i) {
      if (nodes[i].feature == kNoFeature) {
        if (nodes[i].next == kNoSlot) continue;
        if (nodes[i].next >= level.slots.size() || level.slots[nodes[i].next].tree != tree) {
          return corrupt("has a node of no slot");
        }
      } else if (nodes[i].feature >= options.features || nodes[i].next <= i || nodes[i].next >= end - begin - 1) {
        return corrupt("has a node out of range");
      }
    }
  }
  return level;
}

void find_slot_rows(const ForestOptions& options, const ForestLevel& level, const BinnedRows& rows, SlotRange slots,
                    SlotRows& found) {
  const uint32_t tree = level.slots[slots.first].tree;
  const LevelNode* nodes = level.nodes + level.tree_starts[tree];
  const Bag bag(options, tree);
  // First every drawn row with its slot, then sorted by slot; within a slot rows stay in their order.
  struct Drawn {
    uint32_t row;
    uint32_t slot;
    uint8_t weight;
  };
  thread_local std::vector<Drawn> drawn;
  drawn.clear();
  found.begins.assign(slots.count + 1, 0);
  for (uint64_t row = 0; row < rows.rows; ++row) {
    const uint32_t weight = bag.weight(rows.first_row + row);
    if (weight == 0) continue;
    const LevelNode* node = nodes;
    while (node->feature != kNoFeature) {
      const uint32_t bin = rows.column(node->feature)[row];
      node = nodes + node->next + (node->left.has(bin) ? 0 : 1);
    }
    const uint32_t slot = node->next - slots.first;  // wraps around for slots before the range
    if (slot >= slots.count) continue;
    drawn.push_back({static_cast<uint32_t>(row), slot, static_cast<uint8_t>(weight)});
    ++found.begins[slot + 1];
  }
  for (uint32_t s = 0; s < slots.count; ++s) found.begins[s + 1] += found.begins[s];
  found.rows.resize(drawn.size());
  found.weights.resize(drawn.size());
  thread_local std::vector<uint32_t> at;
  at.assign(found.begins.begin(), found.begins.end() - 1);
  for (const Drawn& each : drawn) {
    const uint32_t to = at[each.slot]++;
    found.rows[to] = each.row;
    found.weights[to] = each.weight;
  }
}

uint64_t slot_histogram_bytes(const ForestOptions& options) {
  const uint64_t cells = options.features_per_node * feature_cells(options);
  if (options.regression()) return sizeof(LabelRange) + cells * sizeof(ValueCell);
  return (cells * sizeof(uint32_t) + 7) / 8 * 8;
}

Result<HistogramParts> level_histograms(const ForestOptions& options, std::span<const uint8_t> level_object,
                                        std::span<const std::span<const uint8_t>> blocks,
                                        std::span<const uint32_t> cuts, std::span<uint8_t> out) {
  if (Status failed = check_forest_options(options); !failed.ok()) return failed;
  auto opened = open_level(options, level_object);
  if (!opened.ok()) return opened.status();
  const ForestLevel& level = *opened;
  const uint64_t slot_bytes = slot_histogram_bytes(options);
  if (cuts.size() < 2 || cuts[0] != 0 || cuts.back() != level.slots.size() ||
      !std::is_sorted(cuts.begin(), cuts.end())) {
    return Status(Code::kInvalidArgument, "cuts must ascend from 0 to the number of slots");
  }
  if (out.size() != level.slots.size() * slot_bytes) {
    return Status(Code::kOutOfRange, "the room for histograms has another size");
  }
  if (reinterpret_cast<uintptr_t>(out.data()) % alignof(uint64_t) != 0) {
    return Status(Code::kInvalidArgument, "the room for histograms must be aligned to 8 bytes");
  }
  std::memset(out.data(), 0, out.size());
  if (options.regression()) {
    for (uint64_t s = 0; s < level.slots.size(); ++s) {
      const LabelRange nothing{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
      std::memcpy(out.data() + s * slot_bytes, &nothing, sizeof(nothing));
    }
  }
  FeatureDraw features(options);
  SlotRows found;
  std::vector<uint16_t> classes;
  std::vector<int64_t> values;
  for (const auto bytes : blocks) {
    auto block = open_binned_block(options, bytes);
    if (!block.ok()) return block.status();
    const BinnedRows& rows = *block;
    for_each_tree(level, {0, static_cast<uint32_t>(level.slots.size())}, [&](uint32_t, SlotRange slots) {
      find_slot_rows(options, level, rows, slots, found);
      for (uint32_t s = 0; s < slots.count; ++s) {
        const uint32_t begin = found.begins[s], count = found.begins[s + 1] - begin;
        if (count == 0) continue;
        const uint32_t* row = found.rows.data() + begin;
        const uint8_t* weight = found.weights.data() + begin;
        const LevelSlot& slot = level.slots[slots.first + s];
        uint8_t* histogram = out.data() + (slots.first + s) * slot_bytes;
        const std::span<const uint32_t> drawn = features.draw(slot_id(options, slot), slot.round);
        if (options.regression()) {
          LabelRange* range = reinterpret_cast<LabelRange*>(histogram);
          values.resize(count);
          for (uint32_t i = 0; i < count; ++i) {
            values[i] = rows.value_labels[row[i]];
            range->min = std::min(range->min, values[i]);
            range->max = std::max(range->max, values[i]);
          }
          ValueCell* cells = reinterpret_cast<ValueCell*>(histogram + sizeof(LabelRange));
          for (const uint32_t feature : drawn) {
            const uint8_t* column = rows.column(feature);
            for (uint32_t i = 0; i < count; ++i) {
              ValueCell& cell = cells[std::min<uint32_t>(column[row[i]], options.bins - 1)];
              cell.rows += weight[i];
              cell.sum += values[i] * weight[i];
            }
            cells += options.bins;
          }
        } else {
          classes.resize(count);
          for (uint32_t i = 0; i < count; ++i) classes[i] = rows.class_labels[row[i]];
          uint32_t* cells = reinterpret_cast<uint32_t*>(histogram);
          for (const uint32_t feature : drawn) {
            const uint8_t* column = rows.column(feature);
            for (uint32_t i = 0; i < count; ++i) {
              cells[std::min<uint32_t>(column[row[i]], options.bins - 1) * options.classes + classes[i]] += weight[i];
            }
            cells += feature_cells(options);
          }
        }
      }
    });
  }
  HistogramParts parts;
  for (const uint32_t cut : cuts) parts.offsets.push_back(cut * slot_bytes);
  for (size_t p = 0; p + 1 < cuts.size(); ++p) {
    parts.checksums.push_back(crc32c(0, out.data() + parts.offsets[p], parts.offsets[p + 1] - parts.offsets[p]));
  }
  return parts;
}

namespace {

// The first feature of a round has all rows of the node.
NodeSums sums_of(const ForestOptions& options, const FeatureGroups& groups, const BinSet* only) {
  NodeSums sums;
  sums.class_rows.resize(options.classes);
  uint32_t entry = 0;
  for (size_t g = 0; g < groups.bins.size(); ++g) {
    for (; entry < groups.ends[g]; ++entry) {
      const GroupEntry& e = groups.entries[entry];
      if (only != nullptr && !only->has(groups.bins[g])) continue;
      sums.rows += e.rows;
      sums.sum += e.sum;
      if (!options.regression()) sums.class_rows[e.label] += e.rows;
    }
  }
  return sums;
}

}  // namespace

Result<std::vector<SlotSplit>> level_splits(const ForestOptions& options, std::span<const uint8_t> level_object,
                                            SlotRange slots, std::span<const std::span<const uint8_t>> histograms,
                                            std::span<const uint32_t> checksums) {
  if (Status failed = check_forest_options(options); !failed.ok()) return failed;
  auto opened = open_level(options, level_object);
  if (!opened.ok()) return opened.status();
  const ForestLevel& level = *opened;
  if (slots.first > level.slots.size() || slots.count > level.slots.size() - slots.first) {
    return Status(Code::kInvalidArgument, "there are fewer slots");
  }
  const uint64_t slot_bytes = slot_histogram_bytes(options);
  if (checksums.size() != histograms.size()) return Status(Code::kInvalidArgument, "as many checksums as histograms");
  for (size_t i = 0; i < histograms.size(); ++i) {
    if (histograms[i].size() != slots.count * slot_bytes) return corrupt("has histograms of another size");
    if (reinterpret_cast<uintptr_t>(histograms[i].data()) % alignof(uint64_t) != 0) {
      return Status(Code::kInvalidArgument, "histograms must be aligned to 8 bytes");
    }
    if (crc32c(0, histograms[i].data(), histograms[i].size()) != checksums[i]) {
      return Status(Code::kChecksumMismatch, "histograms do not have their checksum");
    }
  }
  FeatureDraw draw(options);
  SplitFinder finder(options);
  FeatureGroups groups, best_groups;
  std::vector<uint32_t> class_cells(feature_cells(options));
  std::vector<ValueCell> value_cells(options.bins);
  std::vector<SlotSplit> splits(slots.count);
  for (uint32_t s = 0; s < slots.count; ++s) {
    const LevelSlot& slot = level.slots[slots.first + s];
    SlotSplit& result = splits[s];
    const std::span<const uint32_t> features = draw.draw(slot_id(options, slot), slot.round);
    LabelRange range{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
    if (options.regression()) {
      for (const auto histogram : histograms) {
        LabelRange part;
        std::memcpy(&part, histogram.data() + s * slot_bytes, sizeof(part));
        range.min = std::min(range.min, part.min);
        range.max = std::max(range.max, part.max);
      }
    }
    for (size_t j = 0; j < features.size(); ++j) {
      groups.clear();
      if (options.regression()) {
        value_cells.assign(options.bins, {0, 0});
        for (const auto histogram : histograms) {
          const uint8_t* of_slot = histogram.data() + s * slot_bytes + sizeof(LabelRange);
          const ValueCell* cells = reinterpret_cast<const ValueCell*>(of_slot) + j * options.bins;
          for (uint32_t b = 0; b < options.bins; ++b) {
            value_cells[b].rows += cells[b].rows;
            value_cells[b].sum += cells[b].sum;
          }
        }
        for (uint32_t b = 0; b < options.bins; ++b) {
          const ValueCell& cell = value_cells[b];
          if (cell.rows > 0) groups.add(b, {static_cast<uint32_t>(cell.rows), 0, cell.sum});
        }
      } else {
        std::fill(class_cells.begin(), class_cells.end(), 0u);
        for (const auto histogram : histograms) {
          const uint32_t* cells =
              reinterpret_cast<const uint32_t*>(histogram.data() + s * slot_bytes) + j * class_cells.size();
          for (size_t i = 0; i < class_cells.size(); ++i) class_cells[i] += cells[i];
        }
        const uint32_t* cell = class_cells.data();
        for (uint32_t b = 0; b < options.bins; ++b) {
          for (uint32_t c = 0; c < options.classes; ++c, ++cell) {
            if (*cell > 0) groups.add(b, {*cell, c, 0});
          }
        }
      }
      if (j == 0) {
        result.all = sums_of(options, groups, nullptr);
        finder.begin(result.all);
      }
      finder.consider(features[j], groups);
      if (finder.found() && finder.best().feature == features[j]) std::swap(groups, best_groups);
    }
    const bool pure = options.regression() ? range.min >= range.max : result.all.one_class();
    const bool ends = pure || result.all.rows == 0 || slot.depth >= options.depth_max ||
                      result.all.rows < 2 * options.leaf_min;
    if (ends) continue;
    if (finder.found()) {
      result.state = SlotState::kSplit;
      result.split = finder.best();
      result.left = sums_of(options, best_groups, &result.split.left);
      result.left_id = child_id(slot_id(options, slot), false);
      result.right_id = child_id(slot_id(options, slot), true);
    } else if (!finder.varied() && uint64_t{slot.round + 1} * options.features_per_node < options.features) {
      result.state = SlotState::kAgain;
    }
  }
  return splits;
}

}  // namespace millrace
