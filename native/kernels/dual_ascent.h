// The local solver of CoCoA+: stochastic dual coordinate ascent over the rows of one partition.
//
// Sources: Shalev-Shwartz and Zhang, "Stochastic Dual Coordinate Ascent Methods for Regularized Loss Minimization"
// (2013); Ma, Smith, Jaggi, Jordan, Richtarik and Takac, "Adding vs. Averaging in Distributed Primal-Dual Optimization"
// (2015).
//
// Primal: P(w) = 1/n sum loss(x_i w; y_i) + lambda/2 |w|^2. Dual variables alpha_i belong to rows, and
// w = 1/(lambda n) sum alpha_i x_i.
#pragma once
#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/training_rows.h"

namespace millrace {

enum class Loss : uint8_t {
  kHinge,     // max(0, 1 - y z), y = -1 or 1
  kLogistic,  // log(1 + exp(-y z)), y = -1 or 1
  kSquared,   // (z - y)^2 / 2
};

// Of one row with label `y` and score `z`.
double loss_of(Loss loss, double y, double z);

struct DualAscent {
  Loss loss = Loss::kHinge;
  double lambda = 0;       // above 0
  uint64_t rows = 0;       // n: of all partitions together
  double sigma = 1;        // sigma': how much the others may move along, K where updates are added
  double gamma = 1;        // what is taken of the update: 1 where they are added, 1/K where they are averaged
  uint32_t passes = 1;     // over the partition's rows, each in an order of its own
  uint64_t seed = 0;       // of those orders
};

// What a partition contributes to the objectives of (w, alpha) as they came in, before any division by n.
struct DualAscentSums {
  double loss = 0;
  double dual = 0;     // sum of -loss*(-alpha_i)
  uint64_t right = 0;  // rows that w puts on the right side (classification)
};

// Improves `alpha` (one a row), and writes the change of w that belongs to it, gamma already in it, to `delta`. `w` and
// `delta` have one number a feature. The result depends on the arguments alone, not on the machine's instructions.
Result<DualAscentSums> dual_ascent(const DualAscent& problem, const TrainingRows& rows, std::span<const double> w,
                                   std::span<double> alpha, std::span<double> delta);

}  // namespace millrace
