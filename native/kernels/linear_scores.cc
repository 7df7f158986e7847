#include "kernels/linear_scores.h"

#include "kernels/row_math.h"

namespace millrace {

Status linear_scores(const TrainingRows& rows, std::span<const double> w, std::span<double> scores) {
  if (w.size() != rows.shape.features) return Status(Code::kInvalidArgument, "w needs one number a feature");
  if (scores.size() != rows.shape.rows) return Status(Code::kInvalidArgument, "scores need one number a row");
  const RowMath& math = row_math(rows.shape.sparse);
  for (uint64_t row = 0; row < rows.shape.rows; ++row) scores[row] = math.dot(rows, row, w.data());
  return Status();
}

Result<LinearMetrics> linear_metrics(Loss loss, const TrainingRows& rows, std::span<const double> w) {
  if (w.size() != rows.shape.features) return Status(Code::kInvalidArgument, "w needs one number a feature");
  const RowMath& math = row_math(rows.shape.sparse);
  LinearMetrics metrics;
  for (uint64_t row = 0; row < rows.shape.rows; ++row) {
    const double score = math.dot(rows, row, w.data());
    const double label = rows.labels[row];
    metrics.loss += loss_of(loss, label, score);
    metrics.right += label * score > 0;
    metrics.squared_error += (score - label) * (score - label);
  }
  return metrics;
}

Result<double> dot_product(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size()) return Status(Code::kInvalidArgument, "vectors of different sizes have no product");
  double lanes[8] = {};
  size_t i = 0;
  for (; i + 8 <= a.size(); i += 8) {
    for (size_t l = 0; l < 8; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  for (size_t l = 0; i + l < a.size(); ++l) lanes[l] += a[i + l] * b[i + l];
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace millrace
