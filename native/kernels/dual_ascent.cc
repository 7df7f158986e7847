#include "kernels/dual_ascent.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "kernels/row_math.h"

namespace millrace {
namespace {

constexpr int kNewtonStepsMax = 50;
constexpr double kNewtonEnough = 1e-12;

// log(1 + exp(x)) without overflow.
double log1p_exp(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

double entropy(double b) {
  const double c = 1 - b;
  return (b > 0 ? -b * std::log(b) : 0) + (c > 0 ? -c * std::log(c) : 0);
}

// The b in (0, 1) at which log((1 - b) / b) = margin + q (b - before): Newton's method in t = log(b / (1 - b)), where
// the function is increasing with a slope of at least 1.
double logistic_step(double margin, double q, double before) {
  double t = std::clamp(-margin, -30.0, 30.0);
  double low = -745, high = 745;
  for (int i = 0; i < kNewtonStepsMax; ++i) {
    const double b = 1 / (1 + std::exp(-t));
    const double value = t + margin + q * (b - before);
    if (std::abs(value) < kNewtonEnough) break;
    (value > 0 ? high : low) = t;
    double next = t - value / (1 + q * b * (1 - b));
    if (!(next > low && next < high)) next = (low + high) / 2;
    if (next == t) break;
    t = next;
  }
  return 1 / (1 + std::exp(-t));
}

double dual_of(Loss loss, double y, double alpha) {
  switch (loss) {
    case Loss::kHinge:
      return alpha * y;
    case Loss::kLogistic:
      return entropy(alpha * y);
    case Loss::kSquared:
      return alpha * y - alpha * alpha / 2;
  }
  return 0;
}

// The new alpha of a row whose label is `y` and which now gets `z`; q is the curvature of the quadratic part.
double step(Loss loss, double y, double z, double alpha, double q) {
  switch (loss) {
    case Loss::kHinge: {
      const double before = alpha * y;
      // A row of zeros can only be told from its label, and is always at fault.
      const double b = q > 0 ? before + (1 - y * z) / q : 1;
      return std::clamp(b, 0.0, 1.0) * y;
    }
    case Loss::kLogistic:
      return logistic_step(y * z, q, alpha * y) * y;
    case Loss::kSquared:
      return alpha + (y - z - alpha) / (1 + q);
  }
  return alpha;
}

Status check(const DualAscent& problem, const TrainingRows& rows, std::span<const double> w, std::span<double> alpha,
             std::span<double> delta) {
  const auto invalid = [](const char* what) { return Status(Code::kInvalidArgument, what); };
  if (!(problem.lambda > 0) || !std::isfinite(problem.lambda)) return invalid("lambda must be above 0");
  if (!(problem.sigma > 0) || !std::isfinite(problem.sigma)) return invalid("sigma must be above 0");
  if (!(problem.gamma > 0 && problem.gamma <= 1)) return invalid("gamma must be above 0 and at most 1");
  if (problem.rows < rows.shape.rows) return invalid("a partition has more rows than all together");
  if (w.size() != rows.shape.features || delta.size() != w.size()) return invalid("w and delta need one number a feature");
  if (alpha.size() != rows.shape.rows) return invalid("alpha needs one number a row");
  if (problem.loss == Loss::kSquared) return Status();
  for (uint64_t row = 0; row < rows.shape.rows; ++row) {
    if (rows.labels[row] != 1 && rows.labels[row] != -1) return invalid("labels must be -1 or 1");
    const double b = alpha[row] * rows.labels[row];
    if (!(b >= 0 && b <= 1)) return invalid("alpha is outside of its bounds");
  }
  return Status();
}

}  // namespace

double loss_of(Loss loss, double y, double z) {
  switch (loss) {
    case Loss::kHinge:
      return std::max(0.0, 1 - y * z);
    case Loss::kLogistic:
      return log1p_exp(-y * z);
    case Loss::kSquared:
      return (z - y) * (z - y) / 2;
  }
  return 0;
}

Result<DualAscentSums> dual_ascent(const DualAscent& problem, const TrainingRows& rows, std::span<const double> w,
                                   std::span<double> alpha, std::span<double> delta) {
  if (Status failed = check(problem, rows, w, alpha, delta); !failed.ok()) return failed;
  const RowMath& math = row_math(rows.shape.sparse);
  const uint64_t count = rows.shape.rows;
  DualAscentSums sums;
  std::vector<double> squares(count);
  for (uint64_t row = 0; row < count; ++row) {
    const double z = math.dot(rows, row, w.data());
    squares[row] = math.square(rows, row);
    sums.loss += loss_of(problem.loss, rows.labels[row], z);
    sums.dual += dual_of(problem.loss, rows.labels[row], alpha[row]);
    sums.right += rows.labels[row] * z > 0;
  }
  std::vector<double> now(alpha.begin(), alpha.end());
  std::vector<double> v(w.begin(), w.end());
  const double scale = 1 / (problem.lambda * static_cast<double>(problem.rows));
  RowOrder order(count, problem.seed);
  for (uint32_t pass = 0; pass < problem.passes; ++pass) {
    order.shuffle();
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t row = order[i];
      if (i + 1 < count) math.prefetch(rows, order[i + 1]);
      const double z = math.dot(rows, row, v.data());
      const double next = step(problem.loss, rows.labels[row], z, now[row], problem.sigma * squares[row] * scale);
      const double change = next - now[row];
      if (change == 0) continue;
      now[row] = next;
      math.add(rows, row, problem.sigma * scale * change, v.data());
    }
  }
  for (uint64_t row = 0; row < count; ++row) alpha[row] += problem.gamma * (now[row] - alpha[row]);
  if (problem.gamma == 1) std::copy(now.begin(), now.end(), alpha.begin());
  for (size_t j = 0; j < w.size(); ++j) delta[j] = problem.gamma * (v[j] - w[j]) / problem.sigma;
  return sums;
}

}  // namespace millrace
