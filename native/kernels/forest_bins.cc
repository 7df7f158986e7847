#include "kernels/forest_bins.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

#include "base/crc32c.h"
#include "kernels/dense_rows.h"

namespace millrace {
namespace {

constexpr uint64_t kSampleKey = 0x73616d706c652d31;

class Sample {
 public:
  Sample(uint64_t seed, double share)
      : key_(mix64(seed ^ kSampleKey)), all_(share >= 1), below_(all_ ? 0 : static_cast<uint64_t>(share * 0x1p64)) {}
  bool has(uint64_t row) const { return all_ || mix64(key_ + row) < below_; }

 private:
  uint64_t key_;
  bool all_;
  uint64_t below_;
};

Status wrong_label(const TrainingRows& rows, uint64_t row, const char* what) {
  return Status(Code::kInvalidArgument, "row " + std::to_string(rows.shape.first_row + row) + " has the label " +
                                            std::to_string(rows.labels[row]) + ", which is " + what);
}

// Edges of at most `bins` bins with about as many values each; values that are equal stay together.
void choose_edges(std::vector<float>& values, uint32_t bins, std::vector<double>& edges) {
  std::sort(values.begin(), values.end());
  std::vector<std::pair<float, uint64_t>> distinct;
  for (const float value : values) {
    if (distinct.empty() || distinct.back().first != value) distinct.emplace_back(value, 0);
    ++distinct.back().second;
  }
  const auto edge_after = [&](size_t i) {
    // Values are floats, so that the middle of two of them is exact enough to lie between.
    edges.push_back(static_cast<double>(distinct[i].first) +
                    (static_cast<double>(distinct[i + 1].first) - distinct[i].first) / 2);
  };
  uint64_t left = values.size();
  uint32_t bins_left = bins;
  uint64_t in_bin = 0;
  for (size_t i = 0; i + 1 < distinct.size() && bins_left > 1; ++i) {
    in_bin += distinct[i].second;
    const uint64_t distinct_left = distinct.size() - i - 1;
    // As many bins as distinct values: one each. Else the bin ends where it is nearest to its share.
    const uint64_t next = in_bin + distinct[i + 1].second;
    const bool full = in_bin * bins_left >= left ||
                      (next * bins_left > left && next * bins_left - left > left - in_bin * bins_left);
    if (!full && distinct_left >= bins_left) continue;
    edge_after(i);
    left -= in_bin;
    in_bin = 0;
    --bins_left;
  }
}

// The most frequent codes have a bin each, the others share the last.
void choose_code_bins(const std::vector<float>& values, uint32_t codes, uint32_t bins, std::vector<double>& table) {
  const size_t begin = table.size();
  table.resize(begin + codes);
  if (codes <= bins) {
    for (uint32_t code = 0; code < codes; ++code) table[begin + code] = code + 1;
    return;
  }
  std::vector<uint64_t> rows(codes);
  for (const float value : values) {
    if (value >= 0 && value < static_cast<float>(codes)) ++rows[static_cast<uint32_t>(value)];
  }
  std::vector<uint32_t> order(codes);
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return rows[a] != rows[b] ? rows[a] > rows[b] : a < b; });
  for (uint32_t i = 0; i < codes; ++i) table[begin + order[i]] = std::min(i + 1, bins);
}

// A few rows at a time, so that what is read and what is written both stay near.
constexpr uint64_t kRowsAtOnce = 64;

// The bins of a number's column: how many edges are below each value. All searches go step by step together, so that
// none waits for its own last step.
void bin_numbers(std::span<const double> edges, const float* values, uint64_t step, uint64_t count, uint8_t* bins) {
  double wanted[kRowsAtOnce];
  uint32_t at[kRowsAtOnce] = {};
  for (uint64_t r = 0; r < count; ++r) wanted[r] = values[r * step];
  const double* edge = edges.data();
  uint32_t left = static_cast<uint32_t>(edges.size());
  while (left > 1) {
    const uint32_t half = left / 2;
    for (uint64_t r = 0; r < count; ++r) at[r] += half * static_cast<uint32_t>(edge[at[r] + half - 1] < wanted[r]);
    left -= half;
  }
  for (uint64_t r = 0; r < count; ++r) {
    const uint32_t bin = 1 + at[r] + (left == 1 ? static_cast<uint32_t>(edge[at[r]] < wanted[r]) : 0);
    bins[r] = static_cast<uint8_t>(std::isfinite(wanted[r]) ? bin : 0);
  }
}

uint8_t code_bin(std::span<const double> table, float value) {
  if (!(value >= 0) || !(value < static_cast<float>(table.size()))) return 0;
  return static_cast<uint8_t>(table[static_cast<uint32_t>(value)]);
}

}  // namespace

Result<LabelFacts> find_label_facts(uint64_t seed, double share, uint32_t classes,
                                    std::span<const TrainingRows> blocks) {
  if (classes > kForestClassesMax) return Status(Code::kInvalidArgument, "too many classes");
  const Sample sample(seed, share);
  LabelFacts facts;
  facts.class_rows.resize(classes);
  for (const TrainingRows& rows : blocks) {
    for (uint64_t row = 0; row < rows.shape.rows; ++row) {
      const double label = rows.labels[row];
      if (classes > 0) {
        if (!(label >= 0 && label < classes) || label != std::floor(label)) return wrong_label(rows, row, "no class");
        ++facts.class_rows[static_cast<uint32_t>(label)];
      } else {
        if (!std::isfinite(label)) return wrong_label(rows, row, "not finite");
        facts.min = facts.rows == 0 ? label : std::min(facts.min, label);
        facts.max = facts.rows == 0 ? label : std::max(facts.max, label);
      }
      ++facts.rows;
      facts.sampled += sample.has(rows.shape.first_row + row) ? 1 : 0;
    }
  }
  return facts;
}

Result<SampleParts> sample_features(uint64_t seed, double share, std::span<const TrainingRows> blocks,
                                    std::span<const uint32_t> cuts, std::span<uint8_t> out) {
  const Sample sample(seed, share);
  uint64_t count = 0;
  const uint64_t features = cuts.empty() ? 0 : cuts.back();
  for (const TrainingRows& rows : blocks) {
    if (rows.shape.features != features) return Status(Code::kInvalidArgument, "blocks of other features");
    for (uint64_t row = 0; row < rows.shape.rows; ++row) count += sample.has(rows.shape.first_row + row) ? 1 : 0;
  }
  if (cuts.size() < 2 || cuts[0] != 0 || !std::is_sorted(cuts.begin(), cuts.end())) {
    return Status(Code::kInvalidArgument, "cuts must ascend from 0");
  }
  if (out.size() != count * features * sizeof(float)) {
    return Status(Code::kOutOfRange, "the sample has " + std::to_string(count) + " rows, and room for others");
  }
  uint64_t i = 0;
  for (const TrainingRows& rows : blocks) {
    DenseRows dense(rows);
    for (uint64_t row = 0; row < rows.shape.rows; ++row) {
      if (!sample.has(rows.shape.first_row + row)) continue;
      const float* values = dense.at(row);
      for (uint64_t f = 0; f < features; ++f) {
        std::memcpy(out.data() + (f * count + i) * sizeof(float), values + f, sizeof(float));
      }
      ++i;
    }
  }
  SampleParts parts;
  for (const uint32_t cut : cuts) parts.offsets.push_back(cut * count * sizeof(float));
  for (size_t p = 0; p + 1 < cuts.size(); ++p) {
    parts.checksums.push_back(crc32c(0, out.data() + parts.offsets[p], parts.offsets[p + 1] - parts.offsets[p]));
  }
  return parts;
}

Result<BinTables> choose_bins(uint32_t bins, std::span<const uint32_t> categories,
                              std::span<const std::span<const uint8_t>> samples) {
  if (bins < 2 || bins > kForestBinsMax) return Status(Code::kInvalidArgument, "bins out of range");
  const uint64_t features = categories.size();
  for (const auto sample : samples) {
    if (features == 0 || sample.size() % (features * sizeof(float)) != 0) {
      return Status(Code::kCorrupt, "a sample does not have as many values of each feature");
    }
  }
  BinTables tables;
  std::vector<float> values;
  for (uint64_t f = 0; f < features; ++f) {
    values.clear();
    for (const auto sample : samples) {
      const uint64_t count = sample.size() / sizeof(float) / features;
      const uint64_t begin = values.size();
      values.resize(begin + count);
      if (count == 0) continue;
      std::memcpy(values.data() + begin, sample.data() + f * count * sizeof(float), count * sizeof(float));
    }
    std::erase_if(values, [](float value) { return !std::isfinite(value); });
    if (categories[f] > 0) {
      choose_code_bins(values, categories[f], bins - 1, tables.values);
    } else {
      choose_edges(values, bins - 1, tables.values);
    }
    tables.kinds.push_back(categories[f] > 0 ? 1 : 0);
    tables.ends.push_back(static_cast<uint32_t>(tables.values.size()));
  }
  return tables;
}

Status check_bin_tables(uint32_t bins, const BinTables& tables) {
  const auto wrong = [](uint64_t feature) {
    return Status(Code::kInvalidArgument, "the bins of feature " + std::to_string(feature) + " are none");
  };
  if (tables.kinds.size() != tables.ends.size()) return wrong(0);
  uint32_t begin = 0;
  for (uint32_t f = 0; f < tables.ends.size(); ++f) {
    if (tables.ends[f] < begin || tables.ends[f] > tables.values.size()) return wrong(f);
    begin = tables.ends[f];
    const std::span<const double> table = tables.table(f);
    if (tables.kinds[f] > 1 || (tables.kinds[f] == 0 && table.size() + 2 > bins)) return wrong(f);
    for (size_t i = 0; i < table.size(); ++i) {
      if (!std::isfinite(table[i])) return wrong(f);
      if (tables.kinds[f] == 0 && i > 0 && table[i] <= table[i - 1]) return wrong(f);
      const bool is_bin = table[i] >= 1 && table[i] < bins && table[i] == std::floor(table[i]);
      if (tables.kinds[f] == 1 && !is_bin) return wrong(f);
    }
  }
  return Status();
}

Status bin_rows(const ForestOptions& options, const BinTables& tables, FixedPoint fixed, const TrainingRows& rows,
                std::span<uint8_t> out) {
  if (rows.shape.features != options.features || tables.ends.size() != options.features) {
    return Status(Code::kInvalidArgument, "rows, bins and options have different features");
  }
  if (rows.shape.rows > kForestRowsMax || rows.shape.first_row > kForestRowsMax) {
    return Status(Code::kOutOfRange, "more rows than a forest can be grown from");
  }
  if (Status failed = check_bin_tables(options.bins, tables); !failed.ok()) return failed;
  if (out.size() != binned_block_bytes(rows.shape.rows, options.features, options.classes)) {
    return Status(Code::kOutOfRange, "the room for binned rows has another size");
  }
  const BinnedRowsOut to =
      begin_binned_block(rows.shape.first_row, rows.shape.rows, options.features, options.classes, out);
  for (uint64_t row = 0; row < rows.shape.rows; ++row) {
    const double label = rows.labels[row];
    if (options.regression()) {
      const double scaled = std::nearbyint((label - fixed.center) * fixed.scale);
      if (!(std::fabs(scaled) < 0x1p62)) return wrong_label(rows, row, "beyond the range of the labels");
      to.value_labels[row] = static_cast<int64_t>(scaled);
    } else {
      if (!(label >= 0 && label < options.classes) || label != std::floor(label)) {
        return wrong_label(rows, row, "no class");
      }
      to.class_labels[row] = static_cast<uint16_t>(label);
    }
  }
  DenseRows dense(rows);
  std::vector<float> sparse_rows;
  if (rows.shape.sparse) sparse_rows.resize(kRowsAtOnce * options.features);
  for (uint64_t row = 0; row < rows.shape.rows; row += kRowsAtOnce) {
    const uint64_t count = std::min(kRowsAtOnce, rows.shape.rows - row);
    const float* values = rows.values + row * options.features;
    if (rows.shape.sparse) {
      for (uint64_t r = 0; r < count; ++r) {
        std::memcpy(sparse_rows.data() + r * options.features, dense.at(row + r), options.features * sizeof(float));
      }
      values = sparse_rows.data();
    }
    for (uint32_t f = 0; f < options.features; ++f) {
      const std::span<const double> table = tables.table(f);
      uint8_t* to_column = to.columns + f * to.stride + row;
      if (tables.kinds[f] == 0) {
        bin_numbers(table, values + f, options.features, count, to_column);
      } else {
        for (uint64_t r = 0; r < count; ++r) to_column[r] = code_bin(table, values[r * options.features + f]);
      }
    }
  }
  for (uint32_t f = 0; f < options.features; ++f) {
    std::memset(to.columns + f * to.stride + rows.shape.rows, 0, to.stride - rows.shape.rows);
  }
  return Status();
}

}  // namespace millrace
