// What a linear model says of rows.
#pragma once
#include <span>

#include "base/status.h"
#include "kernels/dual_ascent.h"
#include "kernels/training_rows.h"

namespace millrace {

// How well a linear model does on rows whose labels are as the loss wants them.
struct LinearMetrics {
  double loss = 0;           // summed over the rows
  uint64_t right = 0;        // rows whose score has the sign of their label
  double squared_error = 0;  // sum of (score - label)^2
};
Result<LinearMetrics> linear_metrics(Loss loss, const TrainingRows& rows, std::span<const double> w);

// INVALID_ARGUMENT where the sizes differ. Added in eight lanes, so that the sum is the same on every machine.
Result<double> dot_product(std::span<const double> a, std::span<const double> b);

// scores[i] = x_i w. One number a feature in `w`, one a row in `scores`.
Status linear_scores(const TrainingRows& rows, std::span<const double> w, std::span<double> scores);

}  // namespace millrace
