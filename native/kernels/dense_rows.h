// The rows of a block one after another as dense rows, whatever they are.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/training_rows.h"

namespace millrace {

class DenseRows {
 public:
  explicit DenseRows(const TrainingRows& rows) : rows_(rows) {
    if (rows.shape.sparse) dense_.assign(rows.shape.features, 0.0f);
  }
  // Valid until the next call.
  const float* at(uint64_t row) {
    if (!rows_.shape.sparse) return rows_.values + row * rows_.shape.features;
    for (uint64_t i = begin_; i < end_; ++i) dense_[rows_.columns[i]] = 0;
    begin_ = rows_.row_begin(row);
    end_ = rows_.row_ends[row];
    for (uint64_t i = begin_; i < end_; ++i) dense_[rows_.columns[i]] = rows_.values[i];
    return dense_.data();
  }

 private:
  const TrainingRows& rows_;
  std::vector<float> dense_;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
};

}  // namespace millrace
