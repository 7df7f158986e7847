#include "kernels/forest_votes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "kernels/dense_rows.h"
#include "kernels/forest_level.h"

namespace millrace {
namespace {

constexpr uint64_t kForestMagic = 0x3165746f76747366;  // "fstvote1"
constexpr uint64_t kPartsMax = uint64_t{1} << 31;
constexpr uint64_t kRowsAtOnce = 128;

struct Header {
  uint64_t magic;
  uint64_t trees;
  uint64_t nodes;
  uint64_t entries;
  uint64_t words;
  uint64_t features;
  uint64_t classes;
};

struct VoteForest {
  uint32_t trees;
  uint32_t features;
  uint32_t classes;
  const uint32_t* tree_starts;
  const VoteNode* nodes;
  const VoteEntry* entries;
  const uint32_t* words;
};

Status corrupt(const char* what) { return Status(Code::kCorrupt, std::string("a forest ") + what); }

Result<VoteForest> open_forest(std::span<const uint8_t> bytes) {
  if (bytes.size() < sizeof(Header)) return corrupt("is shorter than its header");
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(uint64_t) != 0) {
    return Status(Code::kInvalidArgument, "a forest must be aligned to 8 bytes");
  }
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != kForestMagic) return corrupt("does not begin as one");
  if (header.trees > kForestTreesMax || header.nodes > kPartsMax || header.entries > kPartsMax ||
      header.words > kPartsMax || header.features > kForestFeaturesMax || header.classes > kForestClassesMax) {
    return corrupt("is too large");
  }
  const uint64_t nodes_at = sizeof(Header) + (header.trees + 2) / 2 * 2 * sizeof(uint32_t);
  const uint64_t entries_at = nodes_at + header.nodes * sizeof(VoteNode);
  const uint64_t words_at = entries_at + header.entries * sizeof(VoteEntry);
  if (bytes.size() != words_at + header.words * sizeof(uint32_t)) {
    return corrupt("does not have the bytes of its shape");
  }
  const VoteForest forest{static_cast<uint32_t>(header.trees),
                          static_cast<uint32_t>(header.features),
                          static_cast<uint32_t>(header.classes),
                          reinterpret_cast<const uint32_t*>(bytes.data() + sizeof(Header)),
                          reinterpret_cast<const VoteNode*>(bytes.data() + nodes_at),
                          reinterpret_cast<const VoteEntry*>(bytes.data() + entries_at),
                          reinterpret_cast<const uint32_t*>(bytes.data() + words_at)};
  if (forest.tree_starts[0] != 0 || forest.tree_starts[forest.trees] != header.nodes) {
    return corrupt("has nodes of no tree");
  }
  for (uint32_t tree = 0; tree < forest.trees; ++tree) {
    const uint32_t begin = forest.tree_starts[tree], end = forest.tree_starts[tree + 1];
    if (end <= begin || end > header.nodes) return corrupt("has a tree without nodes");
    for (uint32_t i = 0; i < end - begin; ++i) {
      const VoteNode& node = forest.nodes[begin + i];
      if (node.feature == kNoFeature) {
        if (forest.classes > 0 && (node.right > node.set || node.set > header.entries)) {
          return corrupt("has a leaf of no entries");
        }
        continue;
      }
      // The left child is the next node, the right one comes after it: so every way ends.
      if (node.feature >= forest.features || node.right <= i + 1 || node.right >= end - begin) {
        return corrupt("has a node out of range");
      }
      if (node.set > 0 && (node.set > header.words || forest.words[node.set - 1] > header.words - node.set)) {
        return corrupt("has a set out of range");
      }
    }
  }
  for (uint64_t i = 0; i < header.entries; ++i) {
    if (forest.entries[i].label >= forest.classes) return corrupt("has a leaf of an unknown class");
  }
  return forest;
}

inline bool goes_left(const VoteForest& forest, const VoteNode& node, float value) {
  if (node.set == 0) return std::isfinite(value) ? value <= node.threshold : node.missing_left != 0;
  const uint32_t words = forest.words[node.set - 1];
  if (!(value >= 0) || !(value < static_cast<float>(words * 32))) return node.missing_left != 0;
  const uint32_t code = static_cast<uint32_t>(value);
  return (forest.words[node.set + code / 32] >> (code % 32)) & 1;
}

}  // namespace

Result<VoteTally> forest_votes(std::span<const uint8_t> bytes, const TrainingRows& rows, const VoteOptions& options,
                               std::span<double> predictions) {
  auto opened = open_forest(bytes);
  if (!opened.ok()) return opened.status();
  const VoteForest& forest = *opened;
  if (rows.shape.features != forest.features) {
    return Status(Code::kInvalidArgument, "the rows have " + std::to_string(rows.shape.features) +
                                              " features, the forest knows " + std::to_string(forest.features));
  }
  if (!predictions.empty() && predictions.size() != rows.shape.rows) {
    return Status(Code::kInvalidArgument, "predictions need room for one number a row");
  }
  const bool regression = forest.classes == 0;
  VoteTally tally;
  tally.rows.resize(forest.trees);
  tally.right.resize(forest.trees);
  tally.squares.resize(forest.trees);
  tally.confusion.resize(uint64_t{forest.classes} * forest.classes);
  const uint32_t width = regression ? 1 : forest.classes;
  std::vector<double> votes(kRowsAtOnce * width);
  std::vector<uint32_t> voters(kRowsAtOnce);
  std::vector<float> sparse_values;
  if (rows.shape.sparse) sparse_values.resize(kRowsAtOnce * forest.features);
  DenseRows dense(rows);
  const auto most = [&](uint64_t r) {
    const double* of = votes.data() + r * width;
    return static_cast<uint32_t>(std::max_element(of, of + width) - of);
  };
  for (uint64_t first = 0; first < rows.shape.rows; first += kRowsAtOnce) {
    const uint64_t count = std::min(kRowsAtOnce, rows.shape.rows - first);
    const float* values = rows.values + first * forest.features;
    if (rows.shape.sparse) {
      for (uint64_t r = 0; r < count; ++r) {
        std::memcpy(sparse_values.data() + r * forest.features, dense.at(first + r), forest.features * sizeof(float));
      }
      values = sparse_values.data();
    }
    std::fill(votes.begin(), votes.end(), 0.0);
    std::fill(voters.begin(), voters.end(), 0u);
    for (uint32_t tree = 0; tree < forest.trees; ++tree) {
      const VoteNode* nodes = forest.nodes + forest.tree_starts[tree];
      for (uint64_t r = 0; r < count; ++r) {
        const double label = rows.labels[first + r];
        bool votes_here = true;
        if (options.out_of_bag != nullptr) {
          votes_here = Bag(*options.out_of_bag, tree).weight(rows.shape.first_row + first + r) == 0;
        }
        if (votes_here) {
          const float* row = values + r * forest.features;
          const VoteNode* node = nodes;
          while (node->feature != kNoFeature) {
            node = goes_left(forest, *node, row[node->feature]) ? node + 1 : nodes + node->right;
          }
          ++voters[r];
          if (regression) {
            votes[r] += node->threshold;
          } else {
            for (uint32_t e = node->right; e < node->set; ++e) {
              votes[r * width + forest.entries[e].label] += forest.entries[e].share;
            }
          }
        }
        if (voters[r] == 0 || !std::isfinite(label)) continue;
        ++tally.rows[tree];
        if (regression) {
          const double error = votes[r] / voters[r] - label;
          tally.squares[tree] += error * error;
        } else {
          tally.right[tree] += most(r) == label ? 1 : 0;
        }
      }
    }
    for (uint64_t r = 0; r < count; ++r) {
      const double label = rows.labels[first + r];
      const bool any = voters[r] > 0;
      if (!predictions.empty()) {
        const double predicted = regression ? votes[r] / voters[r] : most(r);
        predictions[first + r] = any ? predicted : std::numeric_limits<double>::quiet_NaN();
      }
      if (!any || !std::isfinite(label)) continue;
      if (regression) {
        tally.label_sum += label - options.around;
        tally.label_squares += (label - options.around) * (label - options.around);
      } else if (label >= 0 && label < forest.classes) {
        ++tally.confusion[static_cast<uint32_t>(label) * forest.classes + most(r)];
      }
    }
  }
  return tally;
}

}  // namespace millrace
