// What all kernels of random forests agree on: options, bagging, the features of a node, and binned rows.
//
// A forest must not depend on which function worker does what, so nothing here is random: whatever looks so is a hash
// of the seed with a tree, a row's global number or a node. All sums are of integers, so their order does not matter.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/row_math.h"

namespace millrace {

inline constexpr uint32_t kForestTreesMax = 100'000;
inline constexpr uint64_t kForestRowsMax = uint64_t{1} << 28;  // so that weights of all rows fit into 32 bits
inline constexpr uint32_t kForestFeaturesMax = 1 << 20;
inline constexpr uint32_t kForestClassesMax = 1024;
inline constexpr uint32_t kForestBinsMax = 256;  // that of missing values included
inline constexpr uint32_t kForestDepthMax = 64;
inline constexpr uint32_t kForestWeightMax = 12;

struct ForestOptions {
  uint64_t seed = 0;
  uint32_t features = 0;
  uint32_t bins = 0;     // of a feature at most, that of missing values (0) included
  uint32_t classes = 0;  // 0: regression
  uint32_t features_per_node = 1;
  uint32_t depth_max = kForestDepthMax;
  uint64_t leaf_min = 1;  // rows, each as often as it was drawn
  bool entropy = false;
  bool bagging = true;
  std::vector<double> class_weights;  // none: 1 each
  std::vector<uint8_t> categorical;   // one a feature: 1 where its bins have no order

  bool regression() const { return classes == 0; }
};

// INVALID_ARGUMENT where an option is out of its range.
Status check_forest_options(const ForestOptions& options);

// How often a tree draws each row, as if by Poisson's distribution of mean 1.
class Bag {
 public:
  Bag(const ForestOptions& options, uint32_t tree)
      : key_(mix64(mix64(options.seed ^ kBagKey) + tree)), bagging_(options.bagging) {}
  uint32_t weight(uint64_t row) const;

 private:
  static constexpr uint64_t kBagKey = 0x6261672d6f662d31;
  uint64_t key_;
  bool bagging_;
};

// A node's name: it follows from the tree and the way there.
inline uint64_t root_id(const ForestOptions& options, uint32_t tree) {
  return mix64(mix64(options.seed ^ 0x726f6f742d6f662d) + tree);
}
inline uint64_t child_id(uint64_t parent, bool right) { return mix64(parent + (right ? 2 : 1)); }

// The features that a node looks at: a permutation of them, of which each round shows the next few.
class FeatureDraw {
 public:
  explicit FeatureDraw(const ForestOptions& options);
  // Empty when all were shown. Valid until the next call.
  std::span<const uint32_t> draw(uint64_t node, uint32_t round);

 private:
  uint32_t per_round_;
  std::vector<uint32_t> order_;
  std::vector<uint32_t> swaps_;
};

// Which bins go to the left child.
struct BinSet {
  uint64_t words[4] = {};

  bool has(uint32_t bin) const { return (words[bin >> 6] >> (bin & 63)) & 1; }
  void add(uint32_t bin) { words[bin >> 6] |= uint64_t{1} << (bin & 63); }
  bool operator==(const BinSet&) const = default;
};

// Rows as bins: one object, little-endian, each part aligned to 64 bytes.
//   u64 magic, first row, rows, features, classes
//   labels: u16[rows] class numbers, or i64[rows] fixed-point numbers for regression
//   u8 columns[features][rows rounded up to 64]
struct BinnedRows {
  uint64_t first_row = 0;
  uint64_t rows = 0;
  uint32_t features = 0;
  uint32_t classes = 0;
  const uint16_t* class_labels = nullptr;
  const int64_t* value_labels = nullptr;
  const uint8_t* columns = nullptr;
  uint64_t stride = 0;

  const uint8_t* column(uint32_t feature) const { return columns + feature * stride; }
};
struct BinnedRowsOut {
  uint16_t* class_labels;
  int64_t* value_labels;
  uint8_t* columns;
  uint64_t stride;
};

uint64_t binned_block_bytes(uint64_t rows, uint32_t features, uint32_t classes);
BinnedRowsOut begin_binned_block(uint64_t first_row, uint64_t rows, uint32_t features, uint32_t classes,
                                 std::span<uint8_t> block);
// CORRUPT where it is none, or of other options; labels and bins are checked against their ranges.
Result<BinnedRows> open_binned_block(const ForestOptions& options, std::span<const uint8_t> block);

}  // namespace millrace
