// The local solver of CoCoA for the lasso: coordinate descent over the features of one partition.
//
// Sources: Smith, Forte, Ma, Takac, Jordan and Jaggi, "CoCoA: A General Framework for Communication-Efficient
// Distributed Optimization" (2018), section 3.2; Friedman, Hastie, Hoefling and Tibshirani, "Pathwise coordinate
// optimization" (2007).
//
// P(w) = 1/(2n) |A w - y|^2 + lambda |w|_1, the columns of A divided among partitions.
#pragma once
#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/training_rows.h"

namespace millrace {

struct LassoDescent {
  double lambda = 0;    // above 0
  double sigma = 1;     // as in DualAscent
  double gamma = 1;
  uint32_t passes = 1;
  uint64_t seed = 0;
};

// Of the weights as they came in.
struct LassoSums {
  double absolute = 0;  // sum of |w_j|
  double steepest = 0;  // the largest |a_j residual| / n
  uint64_t used = 0;    // weights that are not 0
};

// `columns` is a block as deal_features makes it. `residual` is A w - y, one number a training row. Improves `weights`, one
// a feature of the partition, and writes the change of A w that belongs to it, gamma already in it, to `delta`.
Result<LassoSums> lasso_descent(const LassoDescent& problem, const TrainingRows& columns, std::span<const double> residual,
                                std::span<double> weights, std::span<double> delta);

}  // namespace millrace
