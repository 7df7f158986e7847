#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <vector>

#include "base/crc32c.h"
#include "kernels/forest_bins.h"
#include "kernels/forest_finish.h"
#include "kernels/forest_level.h"
#include "kernels/forest_split.h"
#include "kernels/forest_votes.h"
#include "kernels_support.h"

namespace millrace {
namespace {

using test::SeededTest;
constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();

// Aligned bytes.
struct Memory {
  std::vector<uint64_t> words;
  uint64_t bytes = 0;

  explicit Memory(uint64_t size) : words((size + 7) / 8), bytes(size) {}
  std::span<uint8_t> span() { return {reinterpret_cast<uint8_t*>(words.data()), bytes}; }
  std::span<const uint8_t> view() const { return {reinterpret_cast<const uint8_t*>(words.data()), bytes}; }
};

struct Rows {
  Memory memory;
  TrainingRows rows;
};

Rows rows_of(uint64_t first_row, uint32_t features, const std::vector<double>& labels,
             const std::vector<float>& values) {
  const TrainingShape shape{first_row, labels.size(), features, 0, false};
  Rows made{Memory(*training_block_bytes(shape)), {}};
  const TrainingRowsOut out = begin_training_block(shape, made.memory.span());
  std::copy(labels.begin(), labels.end(), out.labels);
  std::copy(values.begin(), values.end(), out.values);
  made.rows = *open_training_block(made.memory.view());
  return made;
}

ForestOptions options_of(uint32_t features, uint32_t classes, uint32_t bins = 16) {
  ForestOptions options;
  options.seed = 7;
  options.features = features;
  options.bins = bins;
  options.classes = classes;
  options.features_per_node = features;
  options.bagging = false;
  options.categorical.assign(features, 0);
  return options;
}

Memory binned(const ForestOptions& options, const BinTables& tables, FixedPoint fixed, const TrainingRows& rows) {
  Memory memory(binned_block_bytes(rows.shape.rows, options.features, options.classes));
  const Status status = bin_rows(options, tables, fixed, rows, memory.span());
  EXPECT_TRUE(status.ok()) << status.message();
  return memory;
}

BinTables tables_of(uint32_t bins, const std::vector<std::vector<float>>& columns,
                    std::vector<uint32_t> categories = {}) {
  std::vector<float> all;
  for (const auto& column : columns) all.insert(all.end(), column.begin(), column.end());
  categories.resize(columns.size());
  const std::vector<std::span<const uint8_t>> samples{
      {reinterpret_cast<const uint8_t*>(all.data()), all.size() * sizeof(float)}};
  auto tables = choose_bins(bins, categories, samples);
  EXPECT_TRUE(tables.ok()) << tables.status().message();
  EXPECT_TRUE(check_bin_tables(bins, *tables).ok());
  return *tables;
}

// A level whose trees are roots alone, all of them slots.
Memory roots(uint32_t trees) {
  Memory memory(32 + (trees + 2) / 2 * 8 + trees * (sizeof(LevelNode) + sizeof(LevelSlot)));
  uint64_t* header = memory.words.data();
  header[0] = 0x316c766c74737266;
  header[1] = header[2] = header[3] = trees;
  uint32_t* starts = reinterpret_cast<uint32_t*>(header + 4);
  for (uint32_t tree = 0; tree <= trees; ++tree) starts[tree] = tree;
  LevelNode* nodes = reinterpret_cast<LevelNode*>(header + 4 + (trees + 2) / 2);
  LevelSlot* slots = reinterpret_cast<LevelSlot*>(nodes + trees);
  for (uint32_t tree = 0; tree < trees; ++tree) {
    nodes[tree] = {kNoFeature, tree, {}};
    slots[tree] = {0, tree, 0, 0, 0};
  }
  return memory;
}

FeatureGroups groups_of(const std::vector<std::tuple<uint32_t, uint32_t, uint32_t, int64_t>>& entries) {
  FeatureGroups groups;
  for (const auto& [bin, rows, label, sum] : entries) groups.add(bin, {rows, label, sum});
  return groups;
}

NodeSums sums_of(const ForestOptions& options, const FeatureGroups& groups) {
  NodeSums sums;
  sums.class_rows.resize(options.classes);
  for (const GroupEntry& entry : groups.entries) {
    sums.rows += entry.rows;
    sums.sum += entry.sum;
    if (!options.regression()) sums.class_rows[entry.label] += entry.rows;
  }
  return sums;
}

TEST(ForestDraw, ShowsEveryFeatureOnceAndAlwaysTheSame) {
  ForestOptions options = options_of(10, 2);
  options.features_per_node = 4;
  FeatureDraw draw(options), other(options);
  for (uint64_t node = 1; node < 50; ++node) {
    std::set<uint32_t> seen;
    for (uint32_t round = 0; round < 3; ++round) {
      const auto shown = draw.draw(node, round);
      EXPECT_EQ(shown.size(), round < 2 ? 4u : 2u);
      seen.insert(shown.begin(), shown.end());
    }
    EXPECT_EQ(seen.size(), 10u);
    EXPECT_TRUE(draw.draw(node, 3).empty());
    // Whatever was drawn before changes nothing.
    const auto alone = other.draw(node, 1);
    const std::vector<uint32_t> expected(alone.begin(), alone.end());
    const auto again = draw.draw(node, 1);
    EXPECT_EQ(std::vector<uint32_t>(again.begin(), again.end()), expected);
  }
}

TEST(ForestBag, DrawsRowsAsPoissonDoes) {
  ForestOptions options = options_of(1, 2);
  options.bagging = true;
  const Bag bag(options, 3), other(options, 4);
  constexpr uint64_t kRows = 200'000;
  std::vector<uint64_t> counts(kForestWeightMax + 1);
  uint64_t same = 0;
  for (uint64_t row = 0; row < kRows; ++row) {
    ++counts[bag.weight(row)];
    same += bag.weight(row) == other.weight(row) ? 1 : 0;
  }
  EXPECT_NEAR(counts[0] / double{kRows}, 0.36788, 0.005);
  EXPECT_NEAR(counts[1] / double{kRows}, 0.36788, 0.005);
  EXPECT_NEAR(counts[2] / double{kRows}, 0.18394, 0.005);
  EXPECT_NEAR(same / double{kRows}, 0.3085, 0.005);  // as two that know nothing of each other
  options.bagging = false;
  EXPECT_EQ(Bag(options, 3).weight(17), 1u);
}

TEST(ForestBins, FewValuesHaveABinEachWithTheEdgeInTheMiddle) {
  const BinTables tables = tables_of(8, {{5, 1, 3, 1, kMissing, 5}, {2, 2, 2, 2, 2, 2}});
  EXPECT_EQ(std::vector(tables.table(0).begin(), tables.table(0).end()), (std::vector<double>{2, 4}));
  EXPECT_TRUE(tables.table(1).empty());
}

TEST(ForestBins, ManyValuesShareBinsEvenly) {
  std::vector<float> column;
  for (int i = 0; i < 1000; ++i) column.push_back(static_cast<float>(i));
  const BinTables tables = tables_of(11, {column});
  ASSERT_EQ(tables.table(0).size(), 9u);
  for (size_t i = 0; i < 9; ++i) EXPECT_NEAR(tables.table(0)[i], 100.0 * static_cast<double>(i + 1), 1.5);
}

TEST(ForestBins, AValueThatIsMostOfAllTakesNoOthersWithIt) {
  std::vector<float> column(900, 0.0f);
  for (int i = 1; i <= 100; ++i) column.push_back(static_cast<float>(i));
  const BinTables tables = tables_of(6, {column});
  EXPECT_EQ(tables.table(0).size(), 4u);
  EXPECT_EQ(tables.table(0)[0], 0.5);
}

TEST(ForestBins, FrequentCategoriesHaveABinEachOthersShareOne) {
  // Codes 4, 2, 0 by frequency, then 1, 3, 5.
  const BinTables tables = tables_of(5, {{4, 4, 4, 2, 2, 0, 0, 1}}, {6});
  EXPECT_EQ(std::vector(tables.table(0).begin(), tables.table(0).end()), (std::vector<double>{2, 4, 3, 4, 1, 4}) )
      << "of equals the lower code comes first";
}

TEST(ForestBins, RowsBecomeBins) {
  ForestOptions options = options_of(2, 3, 8);
  options.categorical = {0, 1};
  BinTables tables;
  tables.values = {1.5, 4, 1, 2, 3};
  tables.ends = {2, 5};
  tables.kinds = options.categorical;
  const float infinity = std::numeric_limits<float>::infinity();
  const Rows rows = rows_of(100, 2, {0, 1, 2, 0, 1}, {1.5f, 0, 1.6f, 2, 4.5f, 3, kMissing, -1, infinity, kMissing});
  const Memory memory = binned(options, tables, {}, rows.rows);
  const BinnedRows opened = *open_binned_block(options, memory.view());
  EXPECT_EQ(opened.first_row, 100u);
  EXPECT_EQ(std::vector<int>(opened.column(0), opened.column(0) + 5), (std::vector<int>{1, 2, 3, 0, 0}));
  EXPECT_EQ(std::vector<int>(opened.column(1), opened.column(1) + 5), (std::vector<int>{1, 3, 0, 0, 0}));
  EXPECT_EQ(std::vector<int>(opened.class_labels, opened.class_labels + 5), (std::vector<int>{0, 1, 2, 0, 1}));
}

TEST(ForestBins, LabelsAreChecked) {
  const Rows rows = rows_of(10, 1, {0, 1, 2}, {0, 0, 0});
  EXPECT_TRUE(find_label_facts(1, 1, 3, std::span(&rows.rows, 1)).ok());
  const auto few = find_label_facts(1, 1, 2, std::span(&rows.rows, 1));
  ASSERT_FALSE(few.ok());
  EXPECT_NE(few.status().message().find("row 12"), std::string::npos);
  const Rows none = rows_of(0, 1, {std::nan("")}, {0});
  EXPECT_EQ(find_label_facts(1, 1, 0, std::span(&none.rows, 1)).code(), Code::kInvalidArgument);
}

TEST(ForestBins, ASampleDoesNotDependOnTheBlocks) {
  std::vector<float> values(3000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7919 % 1009);
  const std::vector<double> labels(1500);
  const Rows whole = rows_of(0, 2, labels, values);
  const Rows first = rows_of(0, 2, std::vector<double>(600), {values.begin(), values.begin() + 1200});
  const Rows second = rows_of(600, 2, std::vector<double>(900), {values.begin() + 1200, values.end()});
  const auto bins = [](std::vector<TrainingRows> blocks) {
    const std::vector<uint32_t> cuts{0, 2};
    const LabelFacts facts = *find_label_facts(5, 0.3, 1, blocks);
    Memory out(facts.sampled * 2 * sizeof(float));
    EXPECT_TRUE(sample_features(5, 0.3, blocks, cuts, out.span()).ok());
    const std::vector<std::span<const uint8_t>> samples{out.view()};
    return choose_bins(20, std::vector<uint32_t>{0, 0}, samples)->values;
  };
  EXPECT_EQ(bins({whole.rows}), bins({second.rows, first.rows}));
}

TEST(ForestSplit, GiniByHand) {
  const ForestOptions options = options_of(2, 2);
  // Left 4:1, right 1:4 at the best place.
  const FeatureGroups groups =
      groups_of({{1, 2, 0, 0}, {3, 2, 0, 0}, {3, 1, 1, 0}, {6, 1, 0, 0}, {6, 2, 1, 0}, {9, 2, 1, 0}});
  SplitFinder finder(options);
  finder.begin(sums_of(options, groups));
  finder.consider(1, groups);
  ASSERT_TRUE(finder.found());
  EXPECT_EQ(finder.best().feature, 1u);
  // Before (25 + 25) / 10, after (16 + 1) / 5 twice.
  EXPECT_DOUBLE_EQ(finder.best().gain, 2 * 17.0 / 5 - 5);
  // The middle of the gap between bins 3 and 6; missing values, of which there are none, with the larger side.
  for (uint32_t bin = 0; bin < 10; ++bin) EXPECT_EQ(finder.best().left.has(bin), bin <= 4) << bin;
}

TEST(ForestSplit, EntropyAndClassWeightsByHand) {
  ForestOptions options = options_of(1, 2);
  options.entropy = true;
  const FeatureGroups groups = groups_of({{1, 3, 0, 0}, {2, 1, 1, 0}});
  SplitFinder entropy(options);
  entropy.begin(sums_of(options, groups));
  entropy.consider(0, groups);
  EXPECT_NEAR(entropy.best().gain, 4 * std::log2(4.0) - 3 * std::log2(3.0), 1e-12);
  options.entropy = false;
  options.class_weights = {1, 3};
  SplitFinder weighted(options);
  weighted.begin(sums_of(options, groups));
  weighted.consider(0, groups);
  EXPECT_NEAR(weighted.best().gain, 6 - (9.0 + 9.0) / 6, 1e-12);
}

TEST(ForestSplit, RegressionByHand) {
  const ForestOptions options = options_of(1, 0);
  const FeatureGroups groups = groups_of({{1, 2, 0, 2}, {2, 1, 0, 1}, {5, 3, 0, 30}});
  SplitFinder finder(options);
  finder.begin(sums_of(options, groups));
  finder.consider(0, groups);
  ASSERT_TRUE(finder.found());
  EXPECT_DOUBLE_EQ(finder.best().gain, 9.0 / 3 + 900.0 / 3 - 33.0 * 33 / 6);
  EXPECT_TRUE(finder.best().left.has(3));
  EXPECT_FALSE(finder.best().left.has(4));
}

TEST(ForestSplit, MissingValuesGoToTheBetterSide) {
  const ForestOptions options = options_of(1, 2);
  for (const uint32_t label : {0u, 1u}) {
    const FeatureGroups groups = groups_of({{0, 4, label, 0}, {1, 5, 0, 0}, {2, 5, 1, 0}});
    SplitFinder finder(options);
    finder.begin(sums_of(options, groups));
    finder.consider(0, groups);
    EXPECT_EQ(finder.best().left.has(0), label == 0);
    EXPECT_TRUE(finder.best().left.has(1));
    EXPECT_FALSE(finder.best().left.has(2));
  }
  // Only what is missing tells rows apart.
  const FeatureGroups groups = groups_of({{0, 4, 1, 0}, {3, 5, 0, 0}});
  SplitFinder finder(options);
  finder.begin(sums_of(options, groups));
  finder.consider(0, groups);
  ASSERT_TRUE(finder.found());
  EXPECT_FALSE(finder.best().left.has(0));
  for (uint32_t bin = 1; bin < kForestBinsMax; ++bin) EXPECT_TRUE(finder.best().left.has(bin));
}

TEST(ForestSplit, CategoriesAreOrderedByTheirShare) {
  ForestOptions options = options_of(1, 2);
  options.categorical = {1};
  // Class 0 alone in bins 2 and 7, class 1 alone in 1 and 9: no order of the bins themselves parts them.
  const FeatureGroups groups = groups_of({{1, 3, 1, 0}, {2, 4, 0, 0}, {7, 2, 0, 0}, {9, 1, 1, 0}});
  SplitFinder finder(options);
  finder.begin(sums_of(options, groups));
  finder.consider(0, groups);
  ASSERT_TRUE(finder.found());
  EXPECT_NEAR(finder.best().gain, 10 - (36.0 + 16.0) / 10, 1e-12);
  const BinSet& left = finder.best().left;
  EXPECT_EQ(left.has(1), left.has(9));
  EXPECT_EQ(left.has(2), left.has(7));
  EXPECT_NE(left.has(1), left.has(2));
  EXPECT_EQ(left.has(0), left.has(2)) << "what the node has not seen goes to its larger side";
  EXPECT_EQ(left.has(200), left.has(2));
}

TEST(ForestSplit, LeavesKeepTheirLeastRows) {
  ForestOptions options = options_of(1, 2);
  options.leaf_min = 4;
  const FeatureGroups groups = groups_of({{1, 3, 0, 0}, {2, 2, 1, 0}, {3, 5, 1, 0}});
  SplitFinder finder(options);
  finder.begin(sums_of(options, groups));
  finder.consider(0, groups);
  ASSERT_TRUE(finder.found());
  EXPECT_TRUE(finder.best().left.has(2));
  options.leaf_min = 6;
  SplitFinder none(options);
  none.begin(sums_of(options, groups));
  none.consider(0, groups);
  EXPECT_FALSE(none.found());
  EXPECT_TRUE(none.varied());
}

TEST(ForestSplit, SumsAtTheirLimitsDoNotOverflow) {
  ForestOptions options = options_of(1, 0);
  options.categorical = {1};
  const uint32_t rows = 1u << 31;
  const int64_t most = (int64_t{1} << 61) - 1;
  const FeatureGroups groups = groups_of({{1, rows, 0, most}, {2, rows, 0, -most}, {3, 1, 0, 0}});
  SplitFinder finder(options);
  finder.begin(sums_of(options, groups));
  finder.consider(0, groups);
  ASSERT_TRUE(finder.found());
  EXPECT_TRUE(std::isfinite(finder.best().gain));
  EXPECT_NE(finder.best().left.has(1), finder.best().left.has(2));
  const ForestOptions classes = options_of(1, 2);
  const FeatureGroups counts = groups_of({{1, rows - 1, 0, 0}, {2, rows - 1, 1, 0}});
  SplitFinder gini(classes);
  gini.begin(sums_of(classes, counts));
  gini.consider(0, counts);
  EXPECT_DOUBLE_EQ(gini.best().gain, static_cast<double>(rows - 1));
}

// Trees and rows at random, of every kind.
class ForestRandom : public SeededTest {
 protected:
  struct Case {
    ForestOptions options;
    BinTables tables;
    std::vector<Rows> blocks;
    std::vector<Memory> binned_blocks;
    std::vector<std::span<const uint8_t>> spans;
  };

  Case make(bool regression, uint64_t rows, uint64_t blocks) {
    const uint32_t classes = regression ? 0 : 2 + static_cast<uint32_t>(below(4));
    Case made{options_of(4 + static_cast<uint32_t>(below(4)), classes), {}, {}, {}, {}};
    ForestOptions& options = made.options;
    options.seed = below(1 << 20);
    options.bagging = below(2) == 0;
    options.features_per_node = 1 + static_cast<uint32_t>(below(options.features));
    options.leaf_min = 1 + below(3);
    options.entropy = !regression && below(2) == 0;
    if (!regression && below(2) == 0) options.class_weights.assign(options.classes, 0.5);
    std::vector<uint32_t> categories;
    for (uint32_t f = 0; f < options.features; ++f) {
      options.categorical[f] = below(3) == 0 ? 1 : 0;
      categories.push_back(options.categorical[f] ? 25 : 0);
    }
    std::vector<float> values;
    std::vector<double> labels;
    for (uint64_t row = 0; row < rows; ++row) {
      double label = 0;
      for (uint32_t f = 0; f < options.features; ++f) {
        const uint64_t value = options.categorical[f] ? below(25) : below(f + 2) * below(9);
        label += static_cast<double>(value) * (f % 2 == 0 ? 1 : -0.5);
        values.push_back(below(10) == 0 ? kMissing : static_cast<float>(value));
      }
      labels.push_back(regression ? label + static_cast<double>(below(5))
                                  : std::fabs(std::fmod(std::floor(label), options.classes)));
    }
    std::vector<float> columns;
    for (uint32_t f = 0; f < options.features; ++f) {
      for (uint64_t row = 0; row < rows; ++row) columns.push_back(values[row * options.features + f]);
    }
    const std::vector<std::span<const uint8_t>> samples{
        {reinterpret_cast<const uint8_t*>(columns.data()), columns.size() * sizeof(float)}};
    made.tables = *choose_bins(options.bins, categories, samples);
    for (uint64_t block = 0; block < blocks; ++block) {
      const uint64_t from = rows * block / blocks, to = rows * (block + 1) / blocks;
      made.blocks.push_back(rows_of(from, options.features,
                                    {labels.begin() + static_cast<int64_t>(from),
                                     labels.begin() + static_cast<int64_t>(to)},
                                    {values.begin() + static_cast<int64_t>(from * options.features),
                                     values.begin() + static_cast<int64_t>(to * options.features)}));
      made.binned_blocks.push_back(binned(options, made.tables, {0, 1024}, made.blocks.back().rows));
    }
    for (const Memory& memory : made.binned_blocks) made.spans.push_back(memory.view());
    return made;
  }
};

// Of a subtree, as forest_finish.h lays it out.
struct FoundRoot {
  bool split = false;
  uint32_t feature = 0;
  double gain = 0;
  BinSet left;
};
FoundRoot root_of(const uint8_t* bytes, uint64_t* size) {
  uint64_t header[4];
  std::memcpy(header, bytes, sizeof(header));
  const uint64_t nodes = header[0], splits = header[1], entries = header[2];
  FoundRoot root;
  root.split = splits > 0;
  const uint8_t* at = bytes + sizeof(header);
  if (root.split) {
    std::memcpy(&root.gain, at, sizeof(double));
    std::memcpy(&root.left, at + splits * sizeof(double), sizeof(BinSet));
  }
  const uint64_t leaves = nodes - splits;
  at += splits * (sizeof(double) + sizeof(BinSet));
  *size = nodes * 8 + leaves * 4 + entries * 8;
  std::memcpy(&root.feature, at, sizeof(uint32_t));
  *size += static_cast<uint64_t>(at - bytes);
  return root;
}

TEST_F(ForestRandom, HistogramsInAnyCutGiveTheSplitThatRowsGive) {
  constexpr uint32_t kTrees = 3;
  for (int round = 0; round < 30; ++round) {
    Case made = make(false, 50 + below(800), 1 + below(5));
    const Memory level = roots(kTrees);
    // The blocks by two map calls, the slots by two owners.
    const uint64_t half = below(made.spans.size() + 1);
    const std::vector<uint32_t> cuts{0, 1, kTrees};
    const uint64_t slot_bytes = slot_histogram_bytes(made.options);
    std::vector<Memory> outputs;
    std::vector<HistogramParts> parts;
    for (const auto blocks : {std::span(made.spans).first(half), std::span(made.spans).subspan(half)}) {
      outputs.emplace_back(kTrees * slot_bytes);
      auto found = level_histograms(made.options, level.view(), blocks, cuts, outputs.back().span());
      ASSERT_TRUE(found.ok()) << found.status().message();
      parts.push_back(*found);
    }
    std::vector<SlotSplit> splits;
    for (uint32_t owner = 0; owner < 2; ++owner) {
      std::vector<std::span<const uint8_t>> histograms;
      std::vector<uint32_t> checksums;
      for (size_t map = 0; map < 2; ++map) {
        const uint64_t from = parts[map].offsets[owner];
        histograms.push_back(outputs[map].view().subspan(from, parts[map].offsets[owner + 1] - from));
        checksums.push_back(parts[map].checksums[owner]);
      }
      const SlotRange owned{cuts[owner], cuts[owner + 1] - cuts[owner]};
      auto found = level_splits(made.options, level.view(), owned, histograms, checksums);
      ASSERT_TRUE(found.ok()) << found.status().message();
      splits.insert(splits.end(), found->begin(), found->end());
      checksums[0] ^= 1;
      EXPECT_EQ(level_splits(made.options, level.view(), owned, histograms, checksums).code(),
                Code::kChecksumMismatch);
    }
    std::vector<uint8_t> trees;
    ASSERT_TRUE(finish_slots(made.options, level.view(), {0, kTrees}, made.spans, trees).ok());
    const uint8_t* at = trees.data();
    for (uint32_t tree = 0; tree < kTrees; ++tree) {
      uint64_t size = 0;
      const FoundRoot root = root_of(at, &size);
      at += (size + 7) / 8 * 8;
      if (splits[tree].state == SlotState::kAgain) continue;
      EXPECT_EQ(root.split, splits[tree].state == SlotState::kSplit);
      if (!root.split) continue;
      EXPECT_EQ(root.feature, splits[tree].split.feature);
      EXPECT_EQ(root.gain, splits[tree].split.gain);
      EXPECT_EQ(root.left, splits[tree].split.left);
    }
    EXPECT_EQ(at, trees.data() + trees.size());
  }
}

TEST_F(ForestRandom, NoOtherThresholdIsBetter) {
  for (int round = 0; round < 20; ++round) {
    Case made = make(true, 30 + below(200), 1);
    std::fill(made.options.categorical.begin(), made.options.categorical.end(), uint8_t{0});
    const ForestOptions& options = made.options;
    const BinnedRows rows = *open_binned_block(options, made.spans[0]);
    const Bag bag(options, 0);
    SplitFinder finder(options);
    double best = -1;
    bool any = false;
    for (uint32_t f = 0; f < options.features; ++f) {
      std::vector<std::pair<int64_t, int64_t>> bins(options.bins);  // rows, sum
      NodeSums all;
      for (uint64_t row = 0; row < rows.rows; ++row) {
        const int64_t weight = bag.weight(row);
        bins[rows.column(f)[row]].first += weight;
        bins[rows.column(f)[row]].second += weight * rows.value_labels[row];
        all.rows += static_cast<uint64_t>(weight);
        all.sum += weight * rows.value_labels[row];
      }
      if (f == 0) finder.begin(all);
      FeatureGroups groups;
      for (uint32_t b = 0; b < options.bins; ++b) {
        if (bins[b].first > 0) groups.add(b, {static_cast<uint32_t>(bins[b].first), 0, bins[b].second});
      }
      finder.consider(f, groups);
      for (uint32_t threshold = 0; threshold < options.bins; ++threshold) {
        for (const bool missing_left : {false, true}) {
          int64_t left = 0, left_sum = 0;
          for (uint32_t b = 0; b < options.bins; ++b) {
            if (b == 0 ? !missing_left : b > threshold) continue;
            left += bins[b].first;
            left_sum += bins[b].second;
          }
          const int64_t right = static_cast<int64_t>(all.rows) - left;
          if (left < static_cast<int64_t>(options.leaf_min) || right < static_cast<int64_t>(options.leaf_min)) continue;
          if (left == 0 || right == 0) continue;
          any = true;
          const double n = static_cast<double>(all.sum);
          const double l = static_cast<double>(left_sum), r = static_cast<double>(all.sum - left_sum);
          best = std::max(best, l * l / static_cast<double>(left) + r * r / static_cast<double>(right) -
                                    n * n / static_cast<double>(all.rows));
        }
      }
    }
    EXPECT_EQ(finder.found(), any);
    if (!any) continue;
    EXPECT_NEAR(finder.best().gain, std::max(0.0, best), 1e-9 * std::fabs(best) + 1e-6);
  }
}

TEST_F(ForestRandom, DamagedObjectsAreTold) {
  Case made = make(false, 100, 1);
  const Memory level = roots(2);
  ASSERT_TRUE(open_level(made.options, level.view()).ok());
  EXPECT_EQ(open_level(made.options, level.view().first(level.bytes - 8)).code(), Code::kCorrupt);
  EXPECT_EQ(open_binned_block(made.options, made.spans[0].first(made.spans[0].size() - 64)).code(), Code::kCorrupt);
  for (int round = 0; round < 2000; ++round) {
    // Whatever a word becomes, reading it is safe; and trees that are opened lead somewhere.
    Memory damaged = roots(2);
    damaged.words[below(damaged.words.size())] ^= uint64_t{1} << below(64);
    std::vector<uint8_t> trees;
    if (open_level(made.options, damaged.view()).ok()) {
      (void)finish_slots(made.options, damaged.view(), {0, 2}, made.spans, trees);
    }
  }
}

// One tree: feature 0 <= 2.5, missing left; right of it feature 1 in {0, 33}, missing right.
Memory small_forest() {
  constexpr uint64_t kNodes = 5, kEntries = 4, kWords = 3;
  Memory memory(56 + 8 + kNodes * sizeof(VoteNode) + kEntries * sizeof(VoteEntry) + kWords * 4);
  const uint64_t header[7] = {0x3165746f76747366, 1, kNodes, kEntries, kWords, 2, 2};
  std::memcpy(memory.span().data(), header, sizeof(header));
  uint32_t* starts = reinterpret_cast<uint32_t*>(memory.span().data() + 56);
  starts[1] = kNodes;
  VoteNode* nodes = reinterpret_cast<VoteNode*>(memory.span().data() + 64);
  nodes[0] = {2.5, 0, 2, 0, 1};
  nodes[1] = {0, kNoFeature, 0, 1, 0};
  nodes[2] = {0, 1, 4, 1, 0};
  nodes[3] = {0, kNoFeature, 1, 3, 0};
  nodes[4] = {0, kNoFeature, 3, 4, 0};
  VoteEntry* entries = reinterpret_cast<VoteEntry*>(nodes + kNodes);
  entries[0] = {1, 0, 0};
  entries[1] = {0.25, 0, 0};
  entries[2] = {0.75, 1, 0};
  entries[3] = {1, 0, 0};
  uint32_t* words = reinterpret_cast<uint32_t*>(entries + kEntries);
  words[0] = 2;
  words[1] = 1;
  words[2] = 2;
  return memory;
}

TEST(ForestVotes, FollowThresholdsSetsAndMissingValues) {
  const Memory forest = small_forest();
  const Rows rows = rows_of(0, 2, {0, 0, 1, 1, 0, 1}, {2.5f, 0, kMissing, 33, 3, 33, 3, 0, 3, kMissing, 3, 70});
  std::vector<double> predictions(6);
  auto tally = forest_votes(forest.view(), rows.rows, {}, predictions);
  ASSERT_TRUE(tally.ok()) << tally.status().message();
  EXPECT_EQ(predictions, (std::vector<double>{0, 0, 1, 1, 0, 0}));
  EXPECT_EQ(tally->rows[0], 6u);
  EXPECT_EQ(tally->right[0], 5u);
  EXPECT_EQ(tally->confusion, (std::vector<uint64_t>{3, 0, 1, 2}));
}

TEST(ForestVotes, RowsWithoutLabelsAreNotCountedAndDrawnRowsNotVotedOn) {
  const Memory forest = small_forest();
  const Rows rows = rows_of(0, 2, {std::nan(""), 0, 0}, {0, 0, 0, 0, 0, 0});
  EXPECT_EQ(forest_votes(forest.view(), rows.rows, {}, {})->rows[0], 2u);
  ForestOptions options = options_of(2, 2);
  options.bagging = false;  // every row is drawn
  std::vector<double> predictions(3);
  EXPECT_EQ(forest_votes(forest.view(), rows.rows, {&options, 0}, predictions)->rows[0], 0u);
  EXPECT_TRUE(std::isnan(predictions[1]));
}

TEST(ForestVotes, DamagedForestsAreTold) {
  const Rows rows = rows_of(0, 2, {0}, {3, 5});
  const auto code_with = [&](void (*damage)(VoteNode*)) {
    Memory forest = small_forest();
    damage(reinterpret_cast<VoteNode*>(forest.span().data() + 64));
    return forest_votes(forest.view(), rows.rows, {}, {}).code();
  };
  EXPECT_EQ(code_with([](VoteNode*) {}), Code::kOk);
  EXPECT_EQ(code_with([](VoteNode* nodes) { nodes[2].right = 1; }), Code::kCorrupt) << "a cycle";
  EXPECT_EQ(code_with([](VoteNode* nodes) { nodes[2].right = 5; }), Code::kCorrupt);
  EXPECT_EQ(code_with([](VoteNode* nodes) { nodes[4].feature = 0; }), Code::kCorrupt);
  EXPECT_EQ(code_with([](VoteNode* nodes) { nodes[0].feature = 2; }), Code::kCorrupt);
  EXPECT_EQ(code_with([](VoteNode* nodes) { nodes[2].set = 3; }), Code::kCorrupt);
  EXPECT_EQ(code_with([](VoteNode* nodes) { nodes[3].set = 5; }), Code::kCorrupt);
  const Memory forest = small_forest();
  for (uint64_t bytes = 0; bytes < forest.bytes; bytes += 4) {
    EXPECT_FALSE(forest_votes(forest.view().first(bytes), rows.rows, {}, {}).ok());
  }
  const Rows wide = rows_of(0, 3, {0}, {1, 2, 3});
  EXPECT_EQ(forest_votes(forest.view(), wide.rows, {}, {}).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace millrace
