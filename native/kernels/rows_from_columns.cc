#include "kernels/rows_from_columns.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/assert.h"

namespace millrace {
namespace {

// Rows that are turned at a time: what of a column and of the rows is at hand stays in the cache.
constexpr uint64_t kRowsAtOnce = 512;

bool valid(const NumberColumn& column, uint64_t row) {
  return column.validity == nullptr || (column.validity[row / 8] >> (row % 8) & 1) != 0;
}

template <class T>
T value_at(const NumberColumn& column, uint64_t row) {
  T value;
  std::memcpy(&value, column.values + row * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

Status write_rows_from_columns(const NumberColumn* label, const std::vector<NumberColumn>& features, uint64_t first,
                               uint64_t count, const LabelCodes& codes, const TrainingShape& shape, uint64_t row,
                               const TrainingRowsOut& out) {
  MILLRACE_ASSERT(!shape.sparse && features.size() == shape.features && row <= shape.rows && count <= shape.rows - row);
  constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();
  for (uint64_t begin = 0; begin < count; begin += kRowsAtOnce) {
    const uint64_t end = std::min(count, begin + kRowsAtOnce);
    for (size_t feature = 0; feature < features.size(); ++feature) {
      const NumberColumn& column = features[feature];
      float* to = out.values + (row + begin) * shape.features + feature;
      for (uint64_t i = begin; i < end; ++i, to += shape.features) {
        if (!valid(column, first + i)) {
          *to = kMissing;
          continue;
        }
        const float value = value_at<float>(column, first + i);
        if (!column.categorical) {
          *to = value;
          continue;
        }
        if (!(value >= 0 && value < static_cast<float>(column.codes.size())) || value != std::floor(value)) {
          return Status(Code::kCorrupt, "a column of categories holds a value that is none");
        }
        *to = column.codes[static_cast<size_t>(value)];
      }
    }
    for (uint64_t i = begin; i < end; ++i) {
      double& to = out.labels[row + i];
      if (label == nullptr || !valid(*label, first + i)) {
        to = std::numeric_limits<double>::quiet_NaN();
        continue;
      }
      auto code = codes.code_of(value_at<double>(*label, first + i));
      if (!code.ok()) return code.status();
      to = *code;
    }
  }
  return Status();
}

}  // namespace millrace
