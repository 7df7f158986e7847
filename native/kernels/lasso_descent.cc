#include "kernels/lasso_descent.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/row_math.h"

namespace millrace {
namespace {

double towards_zero(double value, double by) {
  if (value > by) return value - by;
  if (value < -by) return value + by;
  return 0;
}

}  // namespace

Result<LassoSums> lasso_descent(const LassoDescent& problem, const TrainingRows& columns, std::span<const double> residual,
                                std::span<double> weights, std::span<double> delta) {
  const auto invalid = [](const char* what) { return Status(Code::kInvalidArgument, what); };
  if (!(problem.lambda > 0) || !std::isfinite(problem.lambda)) return invalid("lambda must be above 0");
  if (!(problem.sigma > 0) || !std::isfinite(problem.sigma)) return invalid("sigma must be above 0");
  if (!(problem.gamma > 0 && problem.gamma <= 1)) return invalid("gamma must be above 0 and at most 1");
  if (residual.size() != columns.shape.features || delta.size() != residual.size()) {
    return invalid("residual and delta need one number a training row");
  }
  if (weights.size() != columns.shape.rows) return invalid("weights need one number a feature");
  const RowMath& math = row_math(columns.shape.sparse);
  const auto n = static_cast<double>(residual.size());
  const uint64_t count = columns.shape.rows;
  LassoSums sums;
  std::vector<double> curvatures(count);
  for (uint64_t j = 0; j < count; ++j) {
    curvatures[j] = problem.sigma * math.square(columns, j) / n;
    sums.absolute += std::abs(weights[j]);
    sums.used += weights[j] != 0;
    sums.steepest = std::max(sums.steepest, std::abs(math.dot(columns, j, residual.data())) / n);
  }
  std::vector<double> now(weights.begin(), weights.end());
  std::vector<double> r(residual.begin(), residual.end());  // residual + sigma A_k (now - weights)
  RowOrder order(count, problem.seed);
  for (uint32_t pass = 0; pass < problem.passes; ++pass) {
    order.shuffle();
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t j = order[i];
      if (curvatures[j] == 0) continue;  // a feature that no row has
      const double gradient = math.dot(columns, j, r.data()) / n;
      const double next = towards_zero(now[j] - gradient / curvatures[j], problem.lambda / curvatures[j]);
      const double change = next - now[j];
      if (change == 0) continue;
      now[j] = next;
      math.add(columns, j, problem.sigma * change, r.data());
    }
  }
  for (uint64_t j = 0; j < count; ++j) {
    weights[j] = problem.gamma == 1 ? now[j] : weights[j] + problem.gamma * (now[j] - weights[j]);
  }
  for (size_t i = 0; i < residual.size(); ++i) delta[i] = problem.gamma * (r[i] - residual[i]) / problem.sigma;
  return sums;
}

}  // namespace millrace
