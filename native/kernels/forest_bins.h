// From the values of rows to bins: which values share a bin, and rows written as bins.
//
// A feature's table says what its bins are. Of a number: the edges between them, ascending; a value belongs to bin
// 1 + (edges below it). Of a category: the bin of each code. Bin 0 holds what is missing: NaN, infinities, codes that
// the table does not have.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/forest.h"
#include "kernels/training_rows.h"

namespace millrace {

// What the labels of some rows are, and how many rows the sample takes.
struct LabelFacts {
  uint64_t rows = 0;
  uint64_t sampled = 0;
  std::vector<uint64_t> class_rows;  // of classification
  double min = 0;                    // of regression, where there are rows
  double max = 0;
};

// `share` of all rows is sampled, by a hash of their numbers. INVALID_ARGUMENT for labels that are no class or not
// finite, naming the row.
Result<LabelFacts> find_label_facts(uint64_t seed, double share, uint32_t classes,
                                    std::span<const TrainingRows> blocks);

struct SampleParts {
  std::vector<uint64_t> offsets;  // bytes, one more than parts
  std::vector<uint32_t> checksums;
};

// Fills `out` with the sampled values: f32, feature after feature. Part p are the features from cuts[p] to cuts[p + 1].
Result<SampleParts> sample_features(uint64_t seed, double share, std::span<const TrainingRows> blocks,
                                    std::span<const uint32_t> cuts, std::span<uint8_t> out);

// Tables of some neighbouring features.
struct BinTables {
  std::vector<uint32_t> ends;    // in `values`, one a feature
  std::vector<double> values;    // edges, or bins of codes
  std::vector<uint8_t> kinds;    // 1: categorical

  std::span<const double> table(uint32_t feature) const {
    const uint32_t begin = feature == 0 ? 0 : ends[feature - 1];
    return {values.data() + begin, ends[feature] - begin};
  }
};

// Chooses the tables of `categories.size()` features from samples of them: each a whole number of values a feature,
// feature after feature. `categories`: how many codes a feature has, 0 for numbers. At most `bins` bins each, that of
// missing values included.
Result<BinTables> choose_bins(uint32_t bins, std::span<const uint32_t> categories,
                              std::span<const std::span<const uint8_t>> samples);

// INVALID_ARGUMENT where tables could not have come from choose_bins.
Status check_bin_tables(uint32_t bins, const BinTables& tables);

// Labels of regression as integers: round((label - center) * scale).
struct FixedPoint {
  double center = 0;
  double scale = 1;
};

// Writes the rows of a block into `out`, of binned_block_bytes.
Status bin_rows(const ForestOptions& options, const BinTables& tables, FixedPoint fixed, const TrainingRows& rows,
                std::span<uint8_t> out);

}  // namespace millrace
