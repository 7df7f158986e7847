// What a forest says of rows. It is given with real thresholds, so that nothing but the model is needed: little-endian,
//   u64 magic, trees, nodes, entries, words, features, classes (0: regression)
//   u32 tree_starts[trees + 1] (in nodes), padded to 8 bytes
//   VoteNode nodes[]: those of a tree one after another, in preorder
//   VoteEntry entries[]: the leaves' shares of classes
//   u32 words[]: sets of categories, each its number of words and then those
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/forest.h"
#include "kernels/training_rows.h"

namespace millrace {

struct VoteNode {
  double threshold;       // up to it values go left; of a leaf of regression, what it predicts
  uint32_t feature;       // kNoFeature for leaves
  uint32_t right;         // from the tree's first node on; of a leaf, its first entry
  uint32_t set;           // of a categorical split, 1 + where its set begins; else 0. Of a leaf, the end of its entries
  uint32_t missing_left;  // 1 or 0
};
static_assert(sizeof(VoteNode) == 24);

struct VoteEntry {
  double share;
  uint32_t label;
  uint32_t unused;
};
static_assert(sizeof(VoteEntry) == 16);

// How the rows that have a label fared after each tree.
struct VoteTally {
  std::vector<uint64_t> rows;   // of each number of trees: rows with any vote
  std::vector<uint64_t> right;  // classification
  std::vector<double> squares;  // regression: sums of squared errors
  // Classification, of all trees: rows of class i that were taken for j at [i * classes + j].
  std::vector<uint64_t> confusion;
  double label_sum = 0;             // regression: of label - around, and squared, of rows with any vote
  double label_squares = 0;
};

struct VoteOptions {
  const ForestOptions* out_of_bag = nullptr;  // trees vote on rows alone that they did not draw
  double around = 0;
};

// `predictions`: room for one number a row, a class or a value, NaN where no tree votes; or empty.
Result<VoteTally> forest_votes(std::span<const uint8_t> forest, const TrainingRows& rows, const VoteOptions& options,
                               std::span<double> predictions);

}  // namespace millrace
