// One level of all trees of a forest: the histograms of its large nodes, and the splits that follow from them.
//
// The driver says what trees there are so far in a level object, little-endian:
//   u64 magic, trees, nodes, slots
//   u32 tree_starts[trees + 1] (in nodes), padded to 8 bytes
//   LevelNode nodes[]: those of a tree one after another, its root first; children lie side by side after their parent
//   LevelSlot slots[]: the nodes that are to be worked on, in the order of their trees
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/forest.h"
#include "kernels/forest_split.h"

namespace millrace {

inline constexpr uint32_t kNoFeature = 0xffffffff;
inline constexpr uint32_t kNoSlot = 0xffffffff;

struct LevelNode {
  uint32_t feature;  // kNoFeature: the way ends here
  uint32_t next;     // the left child, from the tree's first node on; or the slot, or kNoSlot
  BinSet left;
};
static_assert(sizeof(LevelNode) == 40);

struct LevelSlot {
  uint64_t id;  // as the split of the parent said; of a root 0
  uint32_t tree;
  uint32_t depth;
  uint32_t round;  // of features
  uint32_t unused;
};
static_assert(sizeof(LevelSlot) == 24);

inline uint64_t slot_id(const ForestOptions& options, const LevelSlot& slot) {
  return slot.depth == 0 ? root_id(options, slot.tree) : slot.id;
}

struct ForestLevel {
  uint32_t trees = 0;
  const uint32_t* tree_starts = nullptr;
  const LevelNode* nodes = nullptr;
  std::span<const LevelSlot> slots;
};

// CORRUPT where it is none.
Result<ForestLevel> open_level(const ForestOptions& options, std::span<const uint8_t> object);

// Some slots of a level.
struct SlotRange {
  uint32_t first;
  uint32_t count;
};

// The rows of a block that a tree has drawn, by the slot that they are in.
struct SlotRows {
  std::vector<uint32_t> begins;  // one a slot, and the end
  std::vector<uint32_t> rows;
  std::vector<uint8_t> weights;
};
// `slots` must be of one tree.
void find_slot_rows(const ForestOptions& options, const ForestLevel& level, const BinnedRows& rows, SlotRange slots,
                    SlotRows& found);

// Calls work(tree, slots of the range that belong to it) for each tree that has any.
template <class Work>
void for_each_tree(const ForestLevel& level, SlotRange range, Work work) {
  for (uint32_t first = range.first; first < range.first + range.count;) {
    const uint32_t tree = level.slots[first].tree;
    uint32_t end = first + 1;
    while (end < range.first + range.count && level.slots[end].tree == tree) ++end;
    work(tree, SlotRange{first, end - first});
    first = end;
  }
}

// Bytes of a slot's histogram.
uint64_t slot_histogram_bytes(const ForestOptions& options);

struct HistogramParts {
  std::vector<uint64_t> offsets;  // bytes, one more than parts
  std::vector<uint32_t> checksums;
};
// Fills `out` with the histograms of all slots, one after another. Part p are the slots from cuts[p] to cuts[p + 1].
Result<HistogramParts> level_histograms(const ForestOptions& options, std::span<const uint8_t> level,
                                        std::span<const std::span<const uint8_t>> blocks,
                                        std::span<const uint32_t> cuts, std::span<uint8_t> out);

enum class SlotState : uint32_t {
  kLeaf = 0,
  kSplit = 1,
  kAgain = 2,  // no feature of this round told any rows apart
};

struct SlotSplit {
  SlotState state = SlotState::kLeaf;
  NodeSplit split;
  NodeSums all;
  NodeSums left;
  uint64_t left_id = 0;  // of the children
  uint64_t right_id = 0;
};

// What becomes of some slots, from the histograms that all blocks have given of them. CHECKSUM_MISMATCH where one does
// not have its checksum.
Result<std::vector<SlotSplit>> level_splits(const ForestOptions& options, std::span<const uint8_t> level,
                                            SlotRange slots,
                                            std::span<const std::span<const uint8_t>> histograms,
                                            std::span<const uint32_t> checksums);

}  // namespace millrace
