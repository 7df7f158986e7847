// Rows of training data from columns of numbers, as a database has them.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/labels.h"
#include "kernels/training_rows.h"

namespace millrace {

// A column of floats, the label's of doubles. Neither part is aligned.
struct NumberColumn {
  const uint8_t* values = nullptr;
  const uint8_t* validity = nullptr;  // a bit a row, set: not null; null: no nulls
  // Of a categorical column: what its values 0, 1, … become. No codes and not categorical: they stay as they are.
  std::span<const float> codes;
  bool categorical = false;
};

// Rows `first` to `first + count` of the columns become the rows from `row` on of a dense block; nulls become NaN.
// `label` is null where there is none. CORRUPT where a value has no code, NOT_FOUND where a label has none.
Status write_rows_from_columns(const NumberColumn* label, const std::vector<NumberColumn>& features, uint64_t first,
                               uint64_t count, const LabelCodes& codes, const TrainingShape& shape, uint64_t row,
                               const TrainingRowsOut& out);

}  // namespace millrace
