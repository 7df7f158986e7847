// Small nodes of a forest to their end: the rows of each are gathered from all blocks, and its subtree is grown in
// memory by the same rules as levels are, so that it does not matter where the levels stop.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/forest.h"
#include "kernels/forest_level.h"

namespace millrace {

// Distinct rows of a node that can be finished.
inline constexpr uint32_t kFinishRowsMax = 1 << 20;

// Appends the subtrees of some slots to `out`, one after another, each aligned to 8 bytes, little-endian:
//   u64 nodes, splits, entries, unused
//   f64 gains[splits]
//   u64 left[splits][4]: which bins go left
//   i64 sums[leaves] of the labels: regression only
//   u32 features[nodes]: kNoFeature for leaves
//   u32 rights[nodes]: the right child, from the subtree's root on; the left one follows its parent; 0 for leaves
//   u32 entry_ends[leaves], u32 classes[entries], u32 rows[entries]: of each leaf. Regression has one entry each
// Nodes are in preorder; splits and leaves are counted in that order. RESOURCE_EXHAUSTED where memory runs out.
Status finish_slots(const ForestOptions& options, std::span<const uint8_t> level, SlotRange slots,
                    std::span<const std::span<const uint8_t>> blocks, std::vector<uint8_t>& out);

}  // namespace millrace
