#include "kernels/forest_finish.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

namespace millrace {
namespace {

// Fewer rows than this are sorted by bin without counting bins first.
constexpr uint32_t kInsertionRowsMax = 24;
// Rows are sorted as (bin, row) in 32 bits.
constexpr uint32_t kSortedRowsMax = 1 << 16;

// The rows of one node, gathered.
struct Gathered {
  uint32_t rows = 0;
  std::unique_ptr<uint8_t[]> columns;  // features x stride, column after column
  uint64_t capacity = 0;
  uint64_t stride = 0;
  std::vector<uint8_t> weights;
  std::vector<uint16_t> classes;
  std::vector<int64_t> values;
};

struct Subtree {
  std::vector<double> gains;
  std::vector<BinSet> left;
  std::vector<int64_t> sums;
  std::vector<uint32_t> features;
  std::vector<uint32_t> rights;
  std::vector<uint32_t> entry_ends;
  std::vector<uint32_t> entry_classes;
  std::vector<uint32_t> entry_rows;

  void clear() {
    gains.clear();
    left.clear();
    sums.clear();
    features.clear();
    rights.clear();
    entry_ends.clear();
    entry_classes.clear();
    entry_rows.clear();
  }
};

// Of few rows, each lies in a line of its own: the next column is asked for while this one is worked on.
constexpr uint32_t kPrefetchedRowsMax = 64;

class Grower {
 public:
  explicit Grower(const ForestOptions& options) : options_(options), draw_(options), finder_(options) {
    const uint64_t cells = uint64_t{options.bins} * std::max(1u, options.classes);
    if (options.regression()) value_cells_.resize(options.bins);
    else class_cells_.resize(cells);
    // A histogram costs its cells, sorting costs more a row.
    histogram_rows_ = static_cast<uint32_t>(std::clamp<uint64_t>(cells, kInsertionRowsMax, kSortedRowsMax));
  }

  void grow(const Gathered& gathered, uint64_t id, uint32_t depth, uint32_t round, Subtree& tree);

 private:
  struct Pending {
    uint64_t id;
    uint32_t begin;
    uint32_t end;
    uint32_t depth;
    uint32_t round;
    uint32_t parent;  // where this is its right child; else kNoFeature
  };

  void sum_up(const Pending& node);
  bool find_split(const Pending& node);
  void group(const uint8_t* column, uint32_t count);
  void group_by_histogram(uint32_t count);
  void group_sorted(uint32_t count);
  GroupEntry entry_of(uint32_t i) const {
    return options_.regression() ? GroupEntry{weights_[i], 0, values_[i] * weights_[i]}
                                 : GroupEntry{weights_[i], classes_[i], 0};
  }
  void add_leaf(Subtree& tree);
  uint32_t partition(const Pending& node, const uint8_t* column, const BinSet& left);

  const ForestOptions& options_;
  FeatureDraw draw_;
  SplitFinder finder_;
  uint32_t histogram_rows_;
  const Gathered* gathered_ = nullptr;
  std::vector<uint32_t> order_;  // rows, those of a node beside each other
  std::vector<uint32_t> moved_;
  std::vector<Pending> stack_;
  // Of the node at hand.
  NodeSums sums_;
  bool pure_ = false;
  std::vector<uint8_t> weights_;
  std::vector<uint16_t> classes_;
  std::vector<int64_t> values_;
  std::vector<uint8_t> bins_;
  std::vector<uint32_t> sorted_;
  std::vector<uint32_t> class_cells_;
  struct ValueCell {
    uint32_t rows;
    int64_t sum;
  };
  std::vector<ValueCell> value_cells_;
  FeatureGroups groups_;
};

void Grower::grow(const Gathered& gathered, uint64_t id, uint32_t depth, uint32_t round, Subtree& tree) {
  tree.clear();
  gathered_ = &gathered;
  order_.resize(gathered.rows);
  for (uint32_t i = 0; i < gathered.rows; ++i) order_[i] = i;
  moved_.resize(gathered.rows);
  weights_.resize(gathered.rows);
  classes_.resize(gathered.classes.size());
  values_.resize(gathered.values.size());
  bins_.resize(gathered.rows);
  sorted_.resize(gathered.rows);
  stack_.assign(1, {id, 0, gathered.rows, depth, round, kNoFeature});
  while (!stack_.empty()) {
    const Pending node = stack_.back();
    stack_.pop_back();
    const uint32_t at = static_cast<uint32_t>(tree.features.size());
    if (node.parent != kNoFeature) tree.rights[node.parent] = at;
    tree.rights.push_back(0);
    sum_up(node);
    const bool ends = pure_ || node.depth >= options_.depth_max || sums_.rows < 2 * options_.leaf_min;
    if (ends || !find_split(node)) {
      tree.features.push_back(kNoFeature);
      add_leaf(tree);
      continue;
    }
    const NodeSplit& split = finder_.best();
    tree.features.push_back(split.feature);
    tree.gains.push_back(split.gain);
    tree.left.push_back(split.left);
    const uint32_t middle = partition(node, gathered.columns.get() + split.feature * gathered.stride, split.left);
    stack_.push_back({child_id(node.id, true), middle, node.end, node.depth + 1, 0, at});
    stack_.push_back({child_id(node.id, false), node.begin, middle, node.depth + 1, 0, kNoFeature});
  }
}

void Grower::sum_up(const Pending& node) {
  const uint32_t count = node.end - node.begin;
  sums_.rows = 0;
  sums_.sum = 0;
  sums_.class_rows.assign(options_.classes, 0);
  const uint32_t* order = order_.data() + node.begin;
  for (uint32_t i = 0; i < count; ++i) {
    weights_[i] = gathered_->weights[order[i]];
    sums_.rows += weights_[i];
  }
  if (options_.regression()) {
    pure_ = true;
    for (uint32_t i = 0; i < count; ++i) {
      values_[i] = gathered_->values[order[i]];
      sums_.sum += values_[i] * weights_[i];
      pure_ &= values_[i] == values_[0];
    }
  } else {
    for (uint32_t i = 0; i < count; ++i) {
      classes_[i] = gathered_->classes[order[i]];
      sums_.class_rows[classes_[i]] += weights_[i];
    }
    pure_ = count == 0 || sums_.one_class();
  }
}

bool Grower::find_split(const Pending& node) {
  const uint32_t count = node.end - node.begin;
  finder_.begin(sums_);
  for (uint32_t round = node.round;; ++round) {
    const std::span<const uint32_t> features = draw_.draw(node.id, round);
    if (features.empty()) return false;
    const uint32_t* order = order_.data() + node.begin;
    for (size_t j = 0; j < features.size(); ++j) {
      const uint32_t feature = features[j];
      const uint8_t* column = gathered_->columns.get() + feature * gathered_->stride;
      if (count <= kPrefetchedRowsMax && j + 1 < features.size()) {
        const uint8_t* next = gathered_->columns.get() + features[j + 1] * gathered_->stride;
        for (uint32_t i = 0; i < count; ++i) __builtin_prefetch(next + order[i]);
      }
      uint8_t differs = 0;
      const uint8_t first = column[order[0]];
      for (uint32_t i = 0; i < count; ++i) {
        bins_[i] = column[order[i]];
        differs |= bins_[i] ^ first;
      }
      if (differs == 0) continue;
      groups_.clear();
      if (count >= histogram_rows_) group_by_histogram(count);
      else group_sorted(count);
      finder_.consider(feature, groups_);
    }
    if (finder_.found()) return true;
    if (finder_.varied()) return false;
  }
}

void Grower::group_by_histogram(uint32_t count) {
  const uint32_t last = options_.bins - 1;
  if (options_.regression()) {
    std::fill(value_cells_.begin(), value_cells_.end(), ValueCell{0, 0});
    for (uint32_t i = 0; i < count; ++i) {
      ValueCell& cell = value_cells_[std::min<uint32_t>(bins_[i], last)];
      cell.rows += weights_[i];
      cell.sum += values_[i] * weights_[i];
    }
    for (uint32_t b = 0; b < options_.bins; ++b) {
      if (value_cells_[b].rows > 0) groups_.add(b, {value_cells_[b].rows, 0, value_cells_[b].sum});
    }
    return;
  }
  std::fill(class_cells_.begin(), class_cells_.end(), 0u);
  const uint32_t classes = options_.classes;
  for (uint32_t i = 0; i < count; ++i) {
    class_cells_[std::min<uint32_t>(bins_[i], last) * classes + classes_[i]] += weights_[i];
  }
  const uint32_t* cell = class_cells_.data();
  for (uint32_t b = 0; b < options_.bins; ++b) {
    for (uint32_t c = 0; c < classes; ++c, ++cell) {
      if (*cell > 0) groups_.add(b, {*cell, c, 0});
    }
  }
}

void Grower::group_sorted(uint32_t count) {
  const uint32_t last = options_.bins - 1;
  if (count <= kInsertionRowsMax) {
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t key = std::min<uint32_t>(bins_[i], last) << 16 | i;
      uint32_t at = i;
      for (; at > 0 && sorted_[at - 1] > key; --at) sorted_[at] = sorted_[at - 1];
      sorted_[at] = key;
    }
  } else {
    uint32_t begins[kForestBinsMax + 1] = {};
    for (uint32_t i = 0; i < count; ++i) ++begins[std::min<uint32_t>(bins_[i], last) + 1];
    for (uint32_t b = 0; b < options_.bins; ++b) begins[b + 1] += begins[b];
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t bin = std::min<uint32_t>(bins_[i], last);
      sorted_[begins[bin]++] = bin << 16 | i;
    }
  }
  for (uint32_t i = 0; i < count; ++i) groups_.add(sorted_[i] >> 16, entry_of(sorted_[i] & 0xffff));
}

void Grower::add_leaf(Subtree& tree) {
  if (options_.regression()) {
    tree.sums.push_back(sums_.sum);
    tree.entry_classes.push_back(0);
    tree.entry_rows.push_back(static_cast<uint32_t>(sums_.rows));
  } else {
    for (uint32_t c = 0; c < options_.classes; ++c) {
      if (sums_.class_rows[c] == 0) continue;
      tree.entry_classes.push_back(c);
      tree.entry_rows.push_back(static_cast<uint32_t>(sums_.class_rows[c]));
    }
  }
  tree.entry_ends.push_back(static_cast<uint32_t>(tree.entry_rows.size()));
}

// Rows keep their order on both sides. Returns where the right ones begin.
uint32_t Grower::partition(const Pending& node, const uint8_t* column, const BinSet& left) {
  uint32_t* order = order_.data() + node.begin;
  const uint32_t count = node.end - node.begin;
  uint32_t lefts = 0, rights = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t row = order[i];
    const bool goes_left = left.has(column[row]);
    order[lefts] = row;
    moved_[rights] = row;
    lefts += goes_left ? 1 : 0;
    rights += goes_left ? 0 : 1;
  }
  std::copy_n(moved_.data(), rights, order + lefts);
  return node.begin + lefts;
}

template <class T>
void append(std::vector<uint8_t>& out, const std::vector<T>& values) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(values.data());
  out.insert(out.end(), bytes, bytes + values.size() * sizeof(T));
}

void append_subtree(const Subtree& tree, std::vector<uint8_t>& out) {
  append(out, std::vector<uint64_t>{tree.features.size(), tree.gains.size(), tree.entry_rows.size(), 0});
  append(out, tree.gains);
  append(out, tree.left);
  append(out, tree.sums);
  append(out, tree.features);
  append(out, tree.rights);
  append(out, tree.entry_ends);
  append(out, tree.entry_classes);
  append(out, tree.entry_rows);
  out.resize((out.size() + 7) / 8 * 8);
}

// Room for the columns of so many rows.
Status make_room(const ForestOptions& options, uint64_t rows, Gathered& gathered) {
  gathered.rows = static_cast<uint32_t>(rows);
  gathered.stride = (rows + 15) / 16 * 16;
  const uint64_t bytes = gathered.stride * options.features;
  if (bytes <= gathered.capacity) return Status();
  gathered.columns.reset(new (std::nothrow) uint8_t[bytes]);
  gathered.capacity = gathered.columns ? bytes : 0;
  if (!gathered.columns) {
    return Status(Code::kResourceExhausted, "no memory for " + std::to_string(bytes) + " bytes of binned rows");
  }
  return Status();
}

}  // namespace

Status finish_slots(const ForestOptions& options, std::span<const uint8_t> level_object, SlotRange slots,
                    std::span<const std::span<const uint8_t>> blocks, std::vector<uint8_t>& out) {
  if (Status failed = check_forest_options(options); !failed.ok()) return failed;
  auto opened = open_level(options, level_object);
  if (!opened.ok()) return opened.status();
  const ForestLevel& level = *opened;
  if (slots.first > level.slots.size() || slots.count > level.slots.size() - slots.first) {
    return Status(Code::kInvalidArgument, "there are fewer slots");
  }
  std::vector<BinnedRows> rows;
  for (const auto bytes : blocks) {
    auto block = open_binned_block(options, bytes);
    if (!block.ok()) return block.status();
    rows.push_back(*block);
  }
  Grower grower(options);
  Gathered gathered;
  Subtree tree;
  std::vector<SlotRows> found(rows.size());
  Status status;
  for_each_tree(level, slots, [&](uint32_t, SlotRange range) {
    if (!status.ok()) return;
    for (size_t b = 0; b < rows.size(); ++b) find_slot_rows(options, level, rows[b], range, found[b]);
    for (uint32_t s = 0; s < range.count; ++s) {
      uint64_t count = 0;
      for (const SlotRows& part : found) count += part.begins[s + 1] - part.begins[s];
      if (count > kFinishRowsMax) {
        status = Status(Code::kInvalidArgument, std::to_string(count) + " rows of a node are too many to be finished");
        return;
      }
      status = make_room(options, count, gathered);
      if (!status.ok()) return;
      gathered.weights.clear();
      gathered.classes.clear();
      gathered.values.clear();
      uint64_t at = 0;
      for (size_t b = 0; b < rows.size(); ++b) {
        const uint32_t* from = found[b].rows.data() + found[b].begins[s];
        const uint32_t here = found[b].begins[s + 1] - found[b].begins[s];
        if (here == 0) continue;
        const uint8_t* weights = found[b].weights.data() + found[b].begins[s];
        gathered.weights.insert(gathered.weights.end(), weights, weights + here);
        for (uint32_t i = 0; i < here; ++i) {
          if (options.regression()) gathered.values.push_back(rows[b].value_labels[from[i]]);
          else gathered.classes.push_back(rows[b].class_labels[from[i]]);
        }
        for (uint32_t f = 0; f < options.features; ++f) {
          const uint8_t* column = rows[b].column(f);
          uint8_t* to = gathered.columns.get() + f * gathered.stride + at;
          for (uint32_t i = 0; i < here; ++i) to[i] = column[from[i]];
        }
        at += here;
      }
      const LevelSlot& slot = level.slots[range.first + s];
      grower.grow(gathered, slot_id(options, slot), slot.depth, slot.round, tree);
      append_subtree(tree, out);
    }
  });
  return status;
}

}  // namespace millrace
