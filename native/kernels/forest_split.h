// The best split of a node of a tree, from integer sums alone, so that it does not matter who finds it or how the rows
// were divided before.
//
// A feature is given as groups: its bins that have rows, ascending, each with the sums of these rows. The split with
// the least impurity wins; of equal ones the first, in the order of features and bins.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/forest.h"

namespace millrace {

// Sums of a node: rows of each class, as often as they were drawn; of regression their number and the sum of labels.
struct NodeSums {
  std::vector<uint64_t> class_rows;
  uint64_t rows = 0;
  int64_t sum = 0;

  // Nothing can be told apart. Of regression only the labels themselves can say so.
  bool one_class() const;
};

// What shares a bin, or a part of it: rows of one class, or rows with the sum of their labels.
struct GroupEntry {
  uint32_t rows = 0;
  uint32_t label = 0;  // classification
  int64_t sum = 0;     // regression
};

struct FeatureGroups {
  std::vector<uint32_t> bins;       // ascending
  std::vector<uint32_t> ends;       // in `entries`, one a bin
  std::vector<GroupEntry> entries;  // each with rows

  void clear() {
    bins.clear();
    ends.clear();
    entries.clear();
  }
  // To the bin of the last entry, or to a new one, which must be above.
  void add(uint32_t bin, const GroupEntry& entry) {
    if (bins.empty() || bins.back() != bin) {
      bins.push_back(bin);
      ends.push_back(0);
    }
    entries.push_back(entry);
    ends.back() = static_cast<uint32_t>(entries.size());
  }
};

struct NodeSplit {
  uint32_t feature = 0;
  BinSet left;
  double gain = 0;  // impurity times rows, before less after
};

class SplitFinder {
 public:
  explicit SplitFinder(const ForestOptions& options);
  void begin(const NodeSums& node);
  void consider(uint32_t feature, const FeatureGroups& groups);
  // Whether any feature had rows in more than one bin.
  bool varied() const { return varied_; }
  bool found() const { return found_; }
  const NodeSplit& best() const { return best_; }

 private:
  void sweep(uint32_t feature, const FeatureGroups& groups, std::span<const uint32_t> order, bool missing_left);
  void clear_left();
  void move_left(const FeatureGroups& groups, uint32_t group);
  double score() const;
  double score_of(const std::vector<uint64_t>& class_rows) const;
  double entropy_term(double rows) const;
  BinSet left_bins(uint32_t feature, const FeatureGroups& groups, std::span<const uint32_t> order, size_t count,
                   bool missing_left) const;
  void order_by_share(const FeatureGroups& groups);

  const ForestOptions& options_;
  const bool counts_squares_;  // Gini of whole rows: sums of squares are kept up to date as integers
  std::vector<double> entropy_terms_;
  NodeSums node_;
  double node_score_ = 0;
  bool varied_ = false;
  bool found_ = false;
  double best_score_ = 0;
  NodeSplit best_;
  uint32_t main_class_ = 0;
  // Of the sweep.
  std::vector<uint64_t> left_, right_;
  uint64_t left_rows_ = 0, right_rows_ = 0;
  uint64_t left_squares_ = 0, right_squares_ = 0;
  int64_t left_sum_ = 0, right_sum_ = 0;
  std::vector<uint32_t> order_;
  struct Share {
    uint64_t rows;
    int64_t part;
  };
  std::vector<Share> shares_;
};

}  // namespace millrace
