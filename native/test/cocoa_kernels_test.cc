#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/cpu.h"
#include "kernels/deal_features.h"
#include "kernels/deal_rows.h"
#include "kernels/dual_ascent.h"
#include "kernels/lasso_descent.h"
#include "kernels/linear_scores.h"

namespace millrace {
namespace {

struct Block {
  std::vector<uint64_t> memory;
  std::span<uint8_t> bytes;
  TrainingRows rows;
};

Block dense_block(uint64_t first_row, uint64_t features, const std::vector<double>& labels, const std::vector<float>& values) {
  const TrainingShape shape{first_row, labels.size(), features, 0, false};
  Block block;
  const uint64_t bytes = *training_block_bytes(shape);
  block.memory.resize(bytes / 8);
  block.bytes = {reinterpret_cast<uint8_t*>(block.memory.data()), bytes};
  const TrainingRowsOut out = begin_training_block(shape, block.bytes);
  std::copy(labels.begin(), labels.end(), out.labels);
  std::copy(values.begin(), values.end(), out.values);
  block.rows = *open_training_block(block.bytes);
  return block;
}

Block sparse_block(uint64_t first_row, uint64_t features, const std::vector<double>& labels,
                   const std::vector<std::vector<std::pair<uint32_t, float>>>& rows) {
  uint64_t non_zeros = 0;
  for (const auto& row : rows) non_zeros += row.size();
  const TrainingShape shape{first_row, labels.size(), features, non_zeros, true};
  Block block;
  const uint64_t bytes = *training_block_bytes(shape);
  block.memory.resize(bytes / 8);
  block.bytes = {reinterpret_cast<uint8_t*>(block.memory.data()), bytes};
  const TrainingRowsOut out = begin_training_block(shape, block.bytes);
  std::copy(labels.begin(), labels.end(), out.labels);
  uint64_t at = 0;
  for (size_t row = 0; row < rows.size(); ++row) {
    for (const auto& [column, value] : rows[row]) {
      out.columns[at] = column;
      out.values[at++] = value;
    }
    out.row_ends[row] = at;
  }
  block.rows = *open_training_block(block.bytes);
  return block;
}

struct Objectives {
  double primal;
  double dual;
};

// Rounds over `partitions`, as a driver does them. What P and D are after the last.
Objectives train(Loss loss, double lambda, const std::vector<TrainingRows>& partitions, uint64_t rows, int rounds, double sigma,
                 double gamma, std::vector<double>& w) {
  std::vector<std::vector<double>> alphas;
  for (const auto& partition : partitions) alphas.emplace_back(partition.shape.rows, 0.0);
  for (int round = 0;; ++round) {
    std::vector<std::vector<double>> deltas;
    double loss_sum = 0, dual_sum = 0;
    for (size_t k = 0; k < partitions.size(); ++k) {
      deltas.emplace_back(w.size());
      const DualAscent problem{loss, lambda, rows, sigma, gamma, 1, static_cast<uint64_t>(round) * 1000 + k};
      auto sums = dual_ascent(problem, partitions[k], w, alphas[k], deltas.back());
      EXPECT_TRUE(sums.ok()) << sums.status().message();
      loss_sum += sums->loss;
      dual_sum += sums->dual;
    }
    double square = 0;
    for (double x : w) square += x * x;
    const auto n = static_cast<double>(rows);
    if (round == rounds) return {loss_sum / n + lambda / 2 * square, dual_sum / n - lambda / 2 * square};
    for (const auto& delta : deltas) {
      for (size_t j = 0; j < w.size(); ++j) w[j] += delta[j];
    }
  }
}

class DualAscentTest : public testing::TestWithParam<Loss> {};

// Weak duality at every point, and no gap at the end, for one partition and several, added and averaged.
TEST_P(DualAscentTest, ClosesTheGap) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  constexpr uint64_t kRows = 300, kFeatures = 11;
  std::vector<double> labels;
  std::vector<float> values;
  for (uint64_t i = 0; i < kRows; ++i) {
    double sum = 0;
    for (uint64_t j = 0; j < kFeatures; ++j) {
      values.push_back(static_cast<float>(normal(random)));
      sum += values.back() * (j % 3 == 0 ? 1 : -0.5);
    }
    labels.push_back(sum + normal(random) > 0 ? 1 : -1);
  }
  const Block block = dense_block(0, kFeatures, labels, values);
  for (const uint64_t partitions : {1, 3}) {
    for (const bool adds : {true, false}) {
      Deal deal;
      deal.partitions = partitions;
      deal.widths.assign(kFeatures, 1);
      std::vector<std::vector<uint64_t>> memory;
      std::vector<TrainingRows> parts;
      for (uint64_t k = 0; k < partitions; ++k) {
        auto shape = dealt_shape(deal, k, {&block.rows, 1});
        ASSERT_TRUE(shape.ok());
        const uint64_t bytes = *training_block_bytes(*shape);
        memory.emplace_back(bytes / 8);
        std::span<uint8_t> out(reinterpret_cast<uint8_t*>(memory.back().data()), bytes);
        ASSERT_TRUE(deal_rows(deal, k, {&block.rows, 1}, out).ok());
        parts.push_back(*open_training_block(out));
      }
      const auto k = static_cast<double>(partitions);
      std::vector<double> w(kFeatures);
      const Objectives early = train(GetParam(), 0.01, parts, kRows, 2, adds ? k : 1, adds ? 1 : 1 / k, w);
      EXPECT_GE(early.primal, early.dual);
      std::fill(w.begin(), w.end(), 0);
      const Objectives late = train(GetParam(), 0.01, parts, kRows, 400, adds ? k : 1, adds ? 1 : 1 / k, w);
      EXPECT_GE(late.primal - late.dual, -1e-12);
      EXPECT_LT(late.primal - late.dual, 1e-6);
      EXPECT_LE(late.primal, early.primal + 1e-12);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, DualAscentTest, testing::Values(Loss::kHinge, Loss::kLogistic, Loss::kSquared));

// Ridge regression of one feature by hand: w = sum(x y) / (sum(x x) + n lambda).
TEST(DualAscent, SolvesRidgeRegressionOfOneFeature) {
  const Block block = dense_block(0, 1, {1, 3, -2}, {1, 2, -1});
  std::vector<double> w(1);
  train(Loss::kSquared, 0.5, {block.rows}, 3, 100, 1, 1, w);
  EXPECT_NEAR(w[0], (1 + 6 + 2) / (1 + 4 + 1 + 3 * 0.5), 1e-12);
}

TEST(DualAscent, IsTheSameForDenseAndSparseRowsAndEveryInstructionSet) {
  const Block dense = dense_block(0, 3, {1, -1, 1, -1}, {1, 0, 2, 0, -1, 0, 3, 0, 0.5f, 0, 0, -2});
  const Block sparse = sparse_block(0, 3, {1, -1, 1, -1}, {{{0, 1}, {2, 2}}, {{1, -1}}, {{0, 3}, {2, 0.5f}}, {{2, -2}}});
  std::vector<double> from_dense(3), from_sparse(3), portable(3);
  train(Loss::kLogistic, 0.1, {dense.rows}, 4, 20, 1, 1, from_dense);
  train(Loss::kLogistic, 0.1, {sparse.rows}, 4, 20, 1, 1, from_sparse);
  set_simd_level(SimdLevel::kPortable);
  train(Loss::kLogistic, 0.1, {dense.rows}, 4, 20, 1, 1, portable);
  set_simd_level(simd_level_detected());
  EXPECT_EQ(from_dense, portable);
  for (int j = 0; j < 3; ++j) EXPECT_NEAR(from_dense[j], from_sparse[j], 1e-12);
}

TEST(DualAscent, RefusesWhatIsNoProblem) {
  const Block block = dense_block(0, 1, {1, 2}, {1, 1});
  std::vector<double> w(1), alpha(2), delta(1);
  const DualAscent good{Loss::kSquared, 0.1, 2, 1, 1, 1, 0};
  EXPECT_TRUE(dual_ascent(good, block.rows, w, alpha, delta).ok());
  std::fill(alpha.begin(), alpha.end(), 0);
  DualAscent bad = good;
  bad.loss = Loss::kHinge;  // the label 2
  EXPECT_EQ(dual_ascent(bad, block.rows, w, alpha, delta).code(), Code::kInvalidArgument);
  bad = good;
  bad.lambda = 0;
  EXPECT_EQ(dual_ascent(bad, block.rows, w, alpha, delta).code(), Code::kInvalidArgument);
  bad = good;
  bad.rows = 1;
  EXPECT_EQ(dual_ascent(bad, block.rows, w, alpha, delta).code(), Code::kInvalidArgument);
  std::vector<double> short_alpha(1);
  EXPECT_EQ(dual_ascent(good, block.rows, w, short_alpha, delta).code(), Code::kInvalidArgument);
}

// The optimality conditions of the lasso, and the duality gap, over features dealt to 1 and to 3 partitions.
TEST(LassoDescent, FindsTheOptimum) {
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal;
  constexpr uint64_t kRows = 120, kFeatures = 20;
  std::vector<double> labels;
  std::vector<float> values;
  for (uint64_t i = 0; i < kRows; ++i) {
    for (uint64_t j = 0; j < kFeatures; ++j) values.push_back(static_cast<float>(normal(random)));
    const float* x = values.data() + i * kFeatures;
    labels.push_back(2 * x[3] - x[7] + 0.1 * normal(random));
  }
  const Block head = dense_block(0, kFeatures, {labels.begin(), labels.begin() + 50},
                                 {values.begin(), values.begin() + 50 * kFeatures});
  const Block tail = dense_block(50, kFeatures, {labels.begin() + 50, labels.end()},
                                 {values.begin() + 50 * kFeatures, values.end()});
  const std::vector<TrainingRows> blocks{tail.rows, head.rows};
  constexpr double kLambda = 0.1;
  for (const uint64_t partitions : {1, 3}) {
    Deal deal;
    deal.partitions = partitions;
    deal.widths.assign(kFeatures, 1);
    deal.unit_rows = false;
    std::vector<double> y(kRows);
    ASSERT_TRUE(deal_labels(deal, blocks, y).ok());
    EXPECT_EQ(y, labels);
    std::vector<std::vector<uint64_t>> memory;
    std::vector<TrainingRows> parts;
    std::vector<std::vector<double>> weights;
    for (uint64_t k = 0; k < partitions; ++k) {
      auto shape = dealt_features_shape(deal, k, blocks, kRows);
      ASSERT_TRUE(shape.ok());
      const uint64_t bytes = *training_block_bytes(*shape);
      memory.emplace_back(bytes / 8);
      std::span<uint8_t> out(reinterpret_cast<uint8_t*>(memory.back().data()), bytes);
      ASSERT_TRUE(deal_features(deal, k, blocks, kRows, out).ok());
      parts.push_back(*open_training_block(out));
      weights.emplace_back(shape->rows);
    }
    std::vector<double> residual(kRows);
    for (uint64_t i = 0; i < kRows; ++i) residual[i] = -y[i];
    for (uint64_t round = 0; round < 500; ++round) {
      std::vector<double> sum(kRows);
      for (uint64_t k = 0; k < partitions; ++k) {
        std::vector<double> delta(kRows);
        const LassoDescent problem{kLambda, static_cast<double>(partitions), 1, 1, round * 10 + k};
        ASSERT_TRUE(lasso_descent(problem, parts[k], residual, weights[k], delta).ok());
        for (uint64_t i = 0; i < kRows; ++i) sum[i] += delta[i];
      }
      for (uint64_t i = 0; i < kRows; ++i) residual[i] += sum[i];
    }
    for (uint64_t k = 0; k < partitions; ++k) {
      for (uint64_t p = 0; p < parts[k].shape.rows; ++p) {
        double slope = 0;
        for (uint64_t i = 0; i < kRows; ++i) slope += parts[k].values[p * kRows + i] * residual[i] / kRows;
        const double w = weights[k][p];
        if (w == 0) EXPECT_LE(std::abs(slope), kLambda + 1e-9);
        else EXPECT_NEAR(slope, w > 0 ? -kLambda : kLambda, 1e-9);
        const double feature = parts[k].labels[p];
        EXPECT_EQ(w != 0, feature == 3 || feature == 7) << feature;
      }
    }
  }
}

TEST(DealFeatures, IsTheSameForDenseAndSparseRows) {
  const Block dense = dense_block(0, 3, {1, 2}, {1, 0, 2, 0, 5, 0});
  const Block sparse = sparse_block(0, 3, {1, 2}, {{{0, 1}, {2, 2}}, {{1, 5}}});
  Deal deal;
  deal.widths = {1, 1, 1};
  std::vector<double> w{1, 10}, from_dense(3), from_sparse(3);
  for (const bool is_sparse : {false, true}) {
    const TrainingRows& rows = is_sparse ? sparse.rows : dense.rows;
    auto shape = dealt_features_shape(deal, 0, {&rows, 1}, 2);
    ASSERT_TRUE(shape.ok());
    EXPECT_EQ(shape->sparse, is_sparse);
    const uint64_t bytes = *training_block_bytes(*shape);
    std::vector<uint64_t> memory(bytes / 8);
    std::span<uint8_t> out(reinterpret_cast<uint8_t*>(memory.data()), bytes);
    ASSERT_TRUE(deal_features(deal, 0, {&rows, 1}, 2, out).ok());
    const TrainingRows columns = *open_training_block(out);
    EXPECT_EQ(std::vector<double>(columns.labels, columns.labels + 3), (std::vector<double>{0, 1, 2}));
    ASSERT_TRUE(linear_scores(columns, w, is_sparse ? from_sparse : from_dense).ok());
  }
  EXPECT_EQ(from_dense, from_sparse);
  EXPECT_NEAR(from_dense[1], 10, 1e-6);
  EXPECT_EQ(dealt_features_shape(deal, 0, {&dense.rows, 1}, 3).code(), Code::kInvalidArgument);
}

TEST(DealRows, GivesEveryRowToOnePartitionHoweverTheBlocksAreCut) {
  std::vector<double> labels;
  std::vector<float> values;
  for (int i = 0; i < 100; ++i) {
    labels.push_back(i);
    values.push_back(static_cast<float>(i));
  }
  const Block whole = dense_block(0, 1, labels, values);
  const Block head = dense_block(0, 1, {labels.begin(), labels.begin() + 37}, {values.begin(), values.begin() + 37});
  const Block tail = dense_block(37, 1, {labels.begin() + 37, labels.end()}, {values.begin() + 37, values.end()});
  const std::vector<TrainingRows> one{whole.rows};
  const std::vector<TrainingRows> two{tail.rows, head.rows};
  Deal deal;
  deal.partitions = 7;
  deal.seed = 3;
  deal.widths = {1};
  deal.unit_rows = false;
  std::vector<int> seen(100);
  for (uint64_t k = 0; k < deal.partitions; ++k) {
    auto shape = dealt_shape(deal, k, one);
    ASSERT_TRUE(shape.ok());
    const uint64_t bytes = *training_block_bytes(*shape);
    std::vector<uint64_t> a(bytes / 8), b(bytes / 8);
    ASSERT_TRUE(deal_rows(deal, k, one, {reinterpret_cast<uint8_t*>(a.data()), bytes}).ok());
    ASSERT_TRUE(deal_rows(deal, k, two, {reinterpret_cast<uint8_t*>(b.data()), bytes}).ok());
    const TrainingRows from_one = *open_training_block({reinterpret_cast<uint8_t*>(a.data()), bytes});
    const TrainingRows from_two = *open_training_block({reinterpret_cast<uint8_t*>(b.data()), bytes});
    for (uint64_t row = 0; row < from_one.shape.rows; ++row) {
      EXPECT_EQ(from_one.labels[row], from_two.labels[row]);
      EXPECT_EQ(from_one.values[row], from_one.labels[row]);
      ++seen[static_cast<size_t>(from_one.labels[row])];
    }
  }
  EXPECT_EQ(seen, std::vector<int>(100, 1));
}

TEST(DealRows, MakesFeaturesOfCategoriesAndScalesRows) {
  const float missing = std::numeric_limits<float>::quiet_NaN();
  const Block block = dense_block(0, 3, {4, 6}, {3, 2, 4, missing, 0, 0});
  Deal deal;
  deal.widths = {1, 3, 1};
  deal.positive = 6;
  deal.intercept = true;
  auto shape = dealt_shape(deal, 0, {&block.rows, 1});
  ASSERT_TRUE(shape.ok());
  EXPECT_TRUE(shape->sparse);
  EXPECT_EQ(shape->features, 6u);
  const uint64_t bytes = *training_block_bytes(*shape);
  std::vector<uint64_t> memory(bytes / 8);
  std::span<uint8_t> out(reinterpret_cast<uint8_t*>(memory.data()), bytes);
  ASSERT_TRUE(deal_rows(deal, 0, {&block.rows, 1}, out).ok());
  const TrainingRows rows = *open_training_block(out);
  for (uint64_t row = 0; row < 2; ++row) {
    const std::vector<uint32_t> columns(rows.columns + rows.row_begin(row), rows.columns + rows.row_ends[row]);
    if (rows.labels[row] == 1) {
      EXPECT_EQ(columns, (std::vector<uint32_t>{1, 5}));
      EXPECT_NEAR(rows.values[rows.row_begin(row)], std::sqrt(0.5), 1e-6);
    } else {
      EXPECT_EQ(rows.labels[row], -1);
      EXPECT_EQ(columns, (std::vector<uint32_t>{0, 3, 4, 5}));
      EXPECT_NEAR(rows.values[rows.row_begin(row)], 3 / std::sqrt(27.0), 1e-6);
    }
  }
  Block bad = dense_block(0, 3, {4}, {3, 3, 4});
  EXPECT_EQ(dealt_shape(deal, 0, {&bad.rows, 1}).code(), Code::kCorrupt);
}

TEST(TrainingRows, RefusesDamagedBlocks) {
  const Block block = sparse_block(0, 4, {1, 2}, {{{0, 1}, {3, 2}}, {{1, 5}}});
  const auto damaged = [&](size_t at, uint8_t value) {
    std::vector<uint64_t> copy = block.memory;
    reinterpret_cast<uint8_t*>(copy.data())[at] = value;
    return open_training_block({reinterpret_cast<uint8_t*>(copy.data()), block.bytes.size()}).code();
  };
  EXPECT_EQ(damaged(0, 0), Code::kCorrupt);             // magic
  EXPECT_EQ(damaged(16, 9), Code::kCorrupt);            // rows
  EXPECT_EQ(damaged(23, 0xff), Code::kCorrupt);         // rows beyond all limits
  EXPECT_EQ(damaged(40, 2), Code::kCorrupt);            // flags
  EXPECT_EQ(damaged(128, 3), Code::kCorrupt);           // row ends: the second row is empty, one value too few
  EXPECT_EQ(damaged(128 + 8, 2), Code::kCorrupt);       // row ends do not reach the last value
  EXPECT_EQ(damaged(192 + 4, 4), Code::kCorrupt);       // a column too high
  EXPECT_EQ(damaged(192 + 4, 0), Code::kCorrupt);       // columns twice
  EXPECT_EQ(open_training_block(block.bytes.first(block.bytes.size() - 64)).code(), Code::kCorrupt);
  EXPECT_EQ(open_training_block(block.bytes.first(10)).code(), Code::kCorrupt);
}

}  // namespace
}  // namespace millrace
