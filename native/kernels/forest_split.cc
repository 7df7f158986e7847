#include "kernels/forest_split.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace millrace {
namespace {

constexpr uint64_t kEntropyTerms = 1 << 16;

double entropy_of(double rows) { return rows > 0 ? rows * std::log2(rows) : 0; }

}  // namespace

bool NodeSums::one_class() const {
  return std::count_if(class_rows.begin(), class_rows.end(), [](uint64_t count) { return count > 0; }) == 1;
}

SplitFinder::SplitFinder(const ForestOptions& options)
    : options_(options), counts_squares_(!options.regression() && !options.entropy && options.class_weights.empty()) {
  if (options.entropy && options.class_weights.empty()) {
    entropy_terms_.resize(kEntropyTerms);
    for (uint64_t i = 0; i < kEntropyTerms; ++i) entropy_terms_[i] = entropy_of(static_cast<double>(i));
  }
}

double SplitFinder::entropy_term(double rows) const {
  // The table has what entropy_of says.
  const uint64_t whole = static_cast<uint64_t>(rows);
  if (whole < entropy_terms_.size()) return entropy_terms_[whole];
  return entropy_of(rows);
}

void SplitFinder::begin(const NodeSums& node) {
  node_ = node;
  varied_ = found_ = false;
  best_score_ = 0;
  main_class_ = 0;
  for (uint32_t c = 1; c < options_.classes; ++c) {
    if (node.class_rows[c] > node.class_rows[main_class_]) main_class_ = c;
  }
  if (options_.regression()) {
    const double sum = static_cast<double>(node.sum);
    node_score_ = node.rows == 0 ? 0 : sum * sum / static_cast<double>(node.rows);
  } else {
    node_score_ = score_of(node.class_rows);
  }
}

// Of one side: the larger, the purer.
double SplitFinder::score_of(const std::vector<uint64_t>& class_rows) const {
  const bool weighted = !options_.class_weights.empty();
  double total = 0, sum = 0;
  for (uint32_t c = 0; c < options_.classes; ++c) {
    const double rows = static_cast<double>(class_rows[c]) * (weighted ? options_.class_weights[c] : 1.0);
    total += rows;
    sum += options_.entropy ? entropy_term(rows) : rows * rows;
  }
  if (total == 0) return 0;
  return options_.entropy ? sum - entropy_term(total) : sum / total;
}

double SplitFinder::score() const {
  if (options_.regression()) {
    const double left = static_cast<double>(left_sum_), right = static_cast<double>(right_sum_);
    return left * left / static_cast<double>(left_rows_) + right * right / static_cast<double>(right_rows_);
  }
  if (counts_squares_) {
    return static_cast<double>(left_squares_) / static_cast<double>(left_rows_) +
           static_cast<double>(right_squares_) / static_cast<double>(right_rows_);
  }
  return score_of(left_) + score_of(right_);
}

void SplitFinder::clear_left() {
  left_rows_ = 0;
  right_rows_ = node_.rows;
  left_sum_ = 0;
  right_sum_ = node_.sum;
  left_.assign(options_.classes, 0);
  right_ = node_.class_rows;
  left_squares_ = right_squares_ = 0;
  for (const uint64_t rows : node_.class_rows) right_squares_ += rows * rows;
}

inline void SplitFinder::move_left(const FeatureGroups& groups, uint32_t group) {
  const uint32_t begin = group == 0 ? 0 : groups.ends[group - 1];
  if (options_.regression()) {
    for (uint32_t i = begin; i < groups.ends[group]; ++i) {
      const GroupEntry& entry = groups.entries[i];
      left_rows_ += entry.rows;
      right_rows_ -= entry.rows;
      left_sum_ += entry.sum;
      right_sum_ -= entry.sum;
    }
    return;
  }
  for (uint32_t i = begin; i < groups.ends[group]; ++i) {
    const GroupEntry& entry = groups.entries[i];
    const uint64_t rows = entry.rows;
    uint64_t& left = left_[entry.label];
    uint64_t& right = right_[entry.label];
    left_squares_ += rows * (2 * left + rows);
    right_squares_ -= rows * (2 * right - rows);
    left += rows;
    right -= rows;
    left_rows_ += rows;
    right_rows_ -= rows;
  }
}

void SplitFinder::consider(uint32_t feature, const FeatureGroups& groups) {
  const size_t count = groups.bins.size();
  if (count < 2) return;
  varied_ = true;
  if (options_.categorical[feature]) {
    order_by_share(groups);
    sweep(feature, groups, order_, false);
    return;
  }
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), 0u);
  if (groups.bins[0] != 0) return sweep(feature, groups, order_, false);
  // Missing values go to one side, then to the other.
  std::rotate(order_.begin(), order_.begin() + 1, order_.end());
  sweep(feature, groups, order_, false);
  if (count == 2) return;
  std::rotate(order_.begin(), order_.end() - 1, order_.end());
  sweep(feature, groups, order_, true);
}

// By the mean of the labels, or by the share of the node's most frequent class; of equals the lower bin comes first.
void SplitFinder::order_by_share(const FeatureGroups& groups) {
  shares_.assign(groups.bins.size(), {0, 0});
  uint32_t entry = 0;
  for (size_t g = 0; g < shares_.size(); ++g) {
    for (; entry < groups.ends[g]; ++entry) {
      const GroupEntry& e = groups.entries[entry];
      shares_[g].rows += e.rows;
      if (options_.regression()) shares_[g].part += e.sum;
      else if (e.label == main_class_) shares_[g].part += e.rows;
    }
  }
  order_.resize(shares_.size());
  std::iota(order_.begin(), order_.end(), 0u);
  std::stable_sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) {
    return static_cast<__int128>(shares_[a].part) * static_cast<__int128>(shares_[b].rows) <
           static_cast<__int128>(shares_[b].part) * static_cast<__int128>(shares_[a].rows);
  });
}

void SplitFinder::sweep(uint32_t feature, const FeatureGroups& groups, std::span<const uint32_t> order,
                        bool missing_left) {
  clear_left();
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    move_left(groups, order[i]);
    if (missing_left && i == 0) continue;  // missing values alone: the other sweep has seen that
    if (left_rows_ < options_.leaf_min) continue;
    if (right_rows_ < options_.leaf_min) break;
    const double found = score();
    if (found_ && !(found > best_score_)) continue;
    found_ = true;
    best_score_ = found;
    best_.feature = feature;
    best_.gain = std::max(0.0, found - node_score_);
    best_.left = left_bins(feature, groups, order, i + 1, missing_left);
  }
}

// Bins without rows in this node go to the larger side; of numbers only where there is no order to follow.
BinSet SplitFinder::left_bins(uint32_t feature, const FeatureGroups& groups, std::span<const uint32_t> order,
                              size_t count, bool missing_left) const {
  BinSet set;
  const bool larger_left = left_rows_ >= right_rows_;
  if (options_.categorical[feature]) {
    for (size_t i = 0; i < order.size(); ++i) {
      if ((i < count) != larger_left) set.add(groups.bins[order[i]]);
    }
    if (larger_left) {
      for (uint64_t& word : set.words) word = ~word;
    }
    return set;
  }
  const bool has_missing = groups.bins[0] == 0;
  const uint32_t last = groups.bins[order[count - 1]];
  uint32_t end = kForestBinsMax - 1;  // all that is not missing, where only missing values are right
  const uint32_t next = groups.bins[order[count]];
  if (next != 0) end = last + (next - last - 1) / 2;  // the middle of the gap between both sides
  // Bins 1 to `end`.
  for (uint32_t word = 0; word < 4; ++word) {
    if (end >= 64 * word + 63) set.words[word] |= ~uint64_t{0};
    else if (end >= 64 * word) set.words[word] |= (uint64_t{2} << (end - 64 * word)) - 1;
  }
  if (!(has_missing ? missing_left : larger_left)) set.words[0] &= ~uint64_t{1};
  return set;
}

}  // namespace millrace
